"""Graph reasoning in one sweep: all that lies between the nodes' convolutions and the fused features."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from fusionblocks.blocks._checks import check_alike
from fusionblocks.blocks.graph_reasoning import GraphFeatures, GraphReasoning, ModalityGraph
from fusionblocks.optimization.recast import fast
from fusionblocks.optimization.strips import in_strips

# Shapes: B batch, C channels, H W picture, n nodes of a graph, m = n - 1 neighbours of a node


@fast(ModalityGraph)
class FastModalityGraph(ModalityGraph):
    """Messages without the copies of neighbours, differences and weights for every edge."""

    def reason(self, nodes: list[Tensor]) -> Tensor:
        """Pass messages among the nodes and read the graph out to ``(B, C, H, W)``."""
        neighbours = len(nodes) - 1
        if self.channels % neighbours or self.update.candidate.kernel_size != (1, 1):
            return super().reason(nodes)
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


@fast(GraphReasoning)
class FastGraphReasoning(GraphReasoning):
    """Exchange, messages, readout and fusion see one pixel, and one row around it in the readout alone."""

    def forward(self, infrared: Tensor, visible: Tensor) -> GraphFeatures:
        """Reason over both modalities, each ``(B, C, H, W)``."""
        return self.features([infrared, visible])

    def features(self, maps: list[Tensor]) -> GraphFeatures:
        """Return all features, and take the infrared and the visible map out of the list."""
        nodes = self._nodes(maps)
        return in_strips(self._reason, *nodes, halo=1, factor=2, onto=nodes[: len(GraphFeatures._fields)])

    def fused(self, maps: list[Tensor]) -> Tensor:
        """Return the fused features alone, and take the infrared and the visible map out of the list."""
        nodes = self._nodes(maps)
        return in_strips(lambda *nodes: self._reason(*nodes).fused, *nodes, halo=1, factor=2, onto=nodes[:1])

    def _nodes(self, maps: list[Tensor]) -> list[Tensor]:
        """Return the infrared graph's nodes and the visible one's; each map is freed as soon as it has served."""
        check_alike(self.channels, infrared=maps[0], visible=maps[1])
        nodes = self.visible.nodes(maps.pop())
        return [*self.infrared.nodes(maps.pop()), *nodes]

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
