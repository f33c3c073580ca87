"""Graph reasoning in one sweep: all that lies between the nodes' convolutions and the fused features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from timm.layers import ConvNormAct
from torch import Tensor, nn
from torch.nn import functional as F

from fusionblocks._support.checks import check_alike
from fusionblocks._support.modules import is_a
from fusionblocks.blocks.conv_gru import ConvGRUCell
from fusionblocks.blocks.graph_reasoning import GraphFeatures, GraphReasoning, ModalityGraph
from fusionblocks.optimization.rewriting import Rewrite, is_convolution, is_pointwise, rewrites
from fusionblocks.optimization.strips import in_strips

# Shapes: B batch, C channels, H W picture, n nodes of a graph, m = n - 1 neighbours of a node


@rewrites(ModalityGraph)
class FastModalityGraph(Rewrite, ModalityGraph):
    """Messages without the copies of neighbours, differences and weights for every edge."""

    @classmethod
    def fits(cls, module: Any) -> bool:
        """Messages and updates see single pixels, by plain 1x1 convolutions of the graph's width."""
        neighbours, weigh, update = len(module.node_convs) - 1, module.message_weight, module.update
        return (
            module.channels % neighbours == 0
            and is_convolution(weigh, kernel=1)
            and (weigh.bias, weigh.groups, weigh.out_channels) == (None, neighbours, neighbours)
            and is_a(update, ConvGRUCell)
            and (update.in_channels, update.hidden_channels) == (module.channels, module.channels)
            and is_pointwise(update.gates)
            and is_pointwise(update.candidate)
            and update.gates.bias is not None
            and update.candidate.bias is not None
        )

    def reason(self, nodes: Sequence[Tensor]) -> Tensor:
        """Pass messages among the nodes and read the graph out to ``(B, C, H, W)``."""
        pixels = [rearrange(node, "b c h w -> b h w c") for node in nodes]
        for _ in range(self.iterations):
            pixels = self._updated_pixels(pixels)
        return self.readout(rearrange(torch.cat(pixels, dim=-1), "b h w c -> b c h w"))

    def _updated_pixels(self, nodes: list[Tensor]) -> list[Tensor]:
        """Return all nodes, each ``(B, H, W, C)``, after one round of messages."""
        # the gate of an edge sees the difference of its ends: it is the difference of what it sees of each
        weight = rearrange(self.message_weight.weight, "m c 1 1 -> m c")
        seen = [F.linear(node, weight) for node in nodes]  # (B, H, W, m)
        updated = []
        # the published weights alternate over the channels, from each neighbour's first on: all neighbours' messages
        # have the same weights, so it is their sum that is weighed
        neighbours = len(weight)
        alternate = torch.eye(neighbours, dtype=weight.dtype, device=weight.device)
        alternate = alternate.repeat(self.channels // neighbours, 1)
        for index, node in enumerate(nodes):
            others = [i for i in range(len(nodes)) if i != index]
            logits = [(seen[index] - seen[other])[..., slot] for slot, other in enumerate(others)]
            gates = torch.sigmoid(torch.stack(logits, dim=-1))
            message = F.linear(gates, alternate).mul_(sum(nodes[other] for other in others))
            updated.append(self._next_state(message, node).mul_(self.gamma).add_(node))
        return updated

    def _next_state(self, message: Tensor, node: Tensor) -> Tensor:
        """The gated recurrent unit's 1x1 convolutions as products with pixels ``(B, H, W, C)``, written in place."""
        gates, candidate = self.update.gates, self.update.candidate
        for_reset, for_update = gates.weight.flatten(1).chunk(2)
        reset_bias, update_bias = gates.bias.chunk(2)
        reset = _of_both(for_reset, reset_bias, message, node).sigmoid_()
        # tanh(x) = 2 sigmoid(2x) - 1, and the sigmoid is the faster of the two
        state = _of_both(2 * candidate.weight.flatten(1), 2 * candidate.bias, message, reset.mul_(node))
        state = state.sigmoid_().mul_(2).sub_(1).sub_(node)
        del reset
        update = _of_both(for_update, update_bias, message, node).sigmoid_()
        return state.mul_(update).add_(node)


def _of_both(weight: Tensor, bias: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Apply a 1x1 convolution to both maps' channels, pixels ``(B, H, W, C)``, without a copy that holds both."""
    for_first, for_second = weight.split([first.shape[-1], second.shape[-1]], dim=1)
    result = F.linear(first, for_first, bias)
    result.flatten(0, 2).addmm_(second.flatten(0, 2), for_second.mT)
    return result


@rewrites(GraphReasoning)
class FastGraphReasoning(Rewrite, GraphReasoning):
    """Exchange, messages, readout and fusion see one pixel, and one row around it in the readout alone."""

    halo: int | None

    @classmethod
    def fits(cls, module: Any) -> bool:
        """The nodes are convolutions of a map, and the exchange sees single pixels."""
        graphs = (module.infrared, module.visible)
        return (
            all(is_a(graph, ModalityGraph) for graph in graphs)
            and all(
                is_a(conv, ConvNormAct) and is_a(conv.conv, nn.Conv2d) for graph in graphs for conv in graph.node_convs
            )
            and all(
                is_pointwise(conv) and (conv.bias, conv.out_channels) == (None, 1)
                for conv in (module.attend_infrared, module.attend_visible)
            )
        )

    def prepare(self) -> None:
        """Find what all behind the nodes sees."""
        self.halo = self.reach_of_nodes()

    def forward(self, infrared: Tensor, visible: Tensor) -> GraphFeatures:
        """Reason over both modalities, each ``(B, C, H, W)``."""
        return self.take([infrared, visible])

    def take(self, maps: list[Tensor]) -> GraphFeatures:
        """Reason over the infrared and the visible map of a list; each is taken out as soon as its nodes exist."""
        check_alike(self.channels, infrared=maps[0], visible=maps[1])
        nodes = self.visible.nodes(maps.pop())
        nodes = [*self.infrared.nodes(maps.pop()), *nodes]
        return in_strips(self._reason, *nodes, halo=self.halo, factor=2, onto=nodes[: len(GraphFeatures._fields)])

    def _reason(self, *nodes: Tensor) -> GraphFeatures:
        """Return the features of the infrared graph's nodes, followed by the visible one's."""
        count = len(nodes) // 2
        pairs = list(zip(nodes[:count], nodes[count:], strict=True))
        for _ in range(self.exchanges):
            pairs = [self._exchange(*pair) for pair in pairs]
        infrared = self.infrared.reason([pair[0] for pair in pairs])
        visible = self.visible.reason([pair[1] for pair in pairs])
        return GraphFeatures(self.fuse(torch.cat([infrared, visible], dim=1)), infrared, visible)

    def _exchange(self, infrared: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Let a node pair take from each other; what both see of a difference is the difference of what they see."""
        weight = torch.cat([self.attend_infrared.weight, self.attend_visible.weight])
        difference = F.conv2d(infrared, weight).sub_(F.conv2d(visible, weight))
        difference[:, 1:].neg_()
        to_visible, to_infrared = difference.sigmoid_().chunk(2, dim=1)
        return torch.addcmul(infrared, visible, to_infrared), torch.addcmul(visible, infrared, to_visible)
