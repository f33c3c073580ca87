"""Graph reasoning: each modality becomes a small graph of scales that exchanges messages with the other's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from einops import rearrange, reduce, repeat
from timm.layers import ConvNormAct
from torch import Tensor, nn

from fusionblocks._support.checks import check_alike, check_features, check_positive
from fusionblocks.blocks.conv_gru import ConvGRUCell
from fusionblocks.blocks.reaching import in_a_row, side_by_side

# Shapes: B batch, C channels, H W picture, n nodes of a graph, m = n - 1 neighbours of a node


class GraphFeatures(NamedTuple):
    """What :class:`GraphReasoning` returns.

    Args:
        fused: Features of both modalities, ``(B, C, H, W)``.
        infrared: Features of the infrared graph, ``(B, C, H, W)``.
        visible: Features of the visible graph, ``(B, C, H, W)``.
    """

    fused: Tensor
    infrared: Tensor
    visible: Tensor


class ModalityGraph(nn.Module):
    """One modality's graph: nodes are its features at several dilations, edges carry gated messages.

    Args:
        channels: Width ``C`` of the feature map and of each node.
        dilations: Dilation of each node's convolution, two or more.
        iterations: Rounds of message passing.

    Raises:
        ValueError: If there are fewer than two dilations.

    Reference:
        "A Semantic-Aware and Multi-Guided Network for Infrared-Visible Image Fusion", 2025 (published classes ``PPM``
        and ``GraphModel``).

    Example:
        >>> import torch
        >>> from fusionblocks.blocks.graph_reasoning import ModalityGraph
        >>> graph = ModalityGraph(8, dilations=(1, 2)).eval()
        >>> graph(torch.rand(1, 8, 9, 7)).shape
        torch.Size([1, 8, 9, 7])
    """

    def __init__(self, channels: int, *, dilations: Sequence[int] = (4, 8, 16), iterations: int = 2) -> None:
        super().__init__()
        check_positive(channels=channels, iterations=iterations)
        if len(dilations) < 2:
            raise ValueError(f"dilations must name two nodes or more, got {tuple(dilations)}")
        for dilation in dilations:
            check_positive(dilations=dilation)
        neighbours = len(dilations) - 1
        self.channels = channels
        self.iterations = iterations
        self.node_convs = nn.ModuleList(
            ConvNormAct(channels, channels, 3, padding=dilation, dilation=dilation, act_layer=nn.ReLU)
            for dilation in dilations
        )
        self.message_weight = nn.Conv2d(neighbours * channels, neighbours, 1, groups=neighbours, bias=False)
        self.update = ConvGRUCell(channels)
        self.gamma = nn.Parameter(torch.zeros(1))
        self.readout = ConvNormAct(len(dilations) * channels, channels, 3, act_layer=nn.ReLU)

    def reach_of_nodes(self) -> int | None:
        """Return the rows of the nodes around a row that are seen by what comes behind them."""
        return in_a_row(*(self.message_weight, self.update) * self.iterations, self.readout)

    def nodes(self, x: Tensor) -> list[Tensor]:
        """Return the nodes, each ``(B, C, H, W)``, of a feature map ``(B, C, H, W)``."""
        check_features("x", x, self.channels)
        return [conv(x) for conv in self.node_convs]

    def reason(self, nodes: Sequence[Tensor]) -> Tensor:
        """Pass messages among the nodes and read the graph out to ``(B, C, H, W)``."""
        for _ in range(self.iterations):
            nodes = [self._updated(nodes, index) for index in range(len(nodes))]
        return self.readout(torch.cat([*nodes], dim=1))

    def reach(self) -> int | None:
        """Return the rows around a row that are seen, see :func:`fusionblocks.blocks.reach`."""
        return in_a_row(side_by_side(*self.node_convs), self.reach_of_nodes())

    def forward(self, x: Tensor) -> Tensor:
        """Reason over one modality alone, ``(B, C, H, W)`` to ``(B, C, H, W)``."""
        return self.reason(self.nodes(x))

    def _updated(self, nodes: Sequence[Tensor], index: int) -> Tensor:
        node = nodes[index]
        neighbours = torch.stack([other for i, other in enumerate(nodes) if i != index], dim=1)  # (B, m, C, H, W)
        edges = rearrange(node.unsqueeze(1) - neighbours, "b m c h w -> b (m c) h w")
        weights = torch.sigmoid(self.message_weight(edges))  # (B, m, H, W)
        # the published code repeats the m weights interleaved over the m * C channels, not blockwise
        weights = repeat(weights, "b m h w -> b (c m) h w", c=self.channels)
        weights = rearrange(weights, "b (m c) h w -> b m c h w", c=self.channels)
        message = reduce(neighbours * weights, "b m c h w -> b c h w", "sum")
        return node + self.gamma * self.update(message, node)


class GraphReasoning(nn.Module):
    """Graph reasoning (GR): modality graphs meet node by node, reason by themselves, and are fused.

    Args:
        channels: Width ``C`` of both feature maps.
        dilations: Dilation of each node's convolution, two or more.
        iterations: Rounds of message passing inside each modality's graph.
        exchanges: Times that the nodes of both modalities attend to each other, with shared weights.

    Raises:
        ValueError: If there are fewer than two dilations.

    Reference:
        "A Semantic-Aware and Multi-Guided Network for Infrared-Visible Image Fusion", 2025 (published classes
        ``CGR_backbone``, ``CGR`` and ``GraphReasoning``).

    Example:
        >>> import torch
        >>> from fusionblocks import GraphReasoning
        >>> infrared, visible = torch.rand(2, 1, 8, 9, 7)
        >>> features = GraphReasoning(8, dilations=(1, 2)).eval()(infrared, visible)
        >>> features.fused.shape
        torch.Size([1, 8, 9, 7])
    """

    stands_alone = "returns the fused features beside those of both modalities"

    def __init__(
        self, channels: int, *, dilations: Sequence[int] = (4, 8, 16), iterations: int = 2, exchanges: int = 2
    ) -> None:
        super().__init__()
        check_positive(channels=channels, exchanges=exchanges)
        self.channels = channels
        self.exchanges = exchanges
        self.infrared = ModalityGraph(channels, dilations=dilations, iterations=iterations)
        self.visible = ModalityGraph(channels, dilations=dilations, iterations=iterations)
        self.attend_infrared = nn.Conv2d(channels, 1, 1, bias=False)
        self.attend_visible = nn.Conv2d(channels, 1, 1, bias=False)
        self.fuse = nn.Conv2d(2 * channels, channels, 1)

    def reach_of_nodes(self) -> int | None:
        """Return the rows of both graphs' nodes around a row that are seen by what comes behind them."""
        exchange = side_by_side(self.attend_infrared, self.attend_visible)
        graphs = side_by_side(self.infrared.reach_of_nodes(), self.visible.reach_of_nodes())
        return in_a_row(*[exchange] * self.exchanges, graphs, self.fuse)

    def reach(self) -> int | None:
        """Return the rows around a row that are seen, see :func:`fusionblocks.blocks.reach`."""
        return in_a_row(side_by_side(*self.infrared.node_convs, *self.visible.node_convs), self.reach_of_nodes())

    def forward(self, infrared: Tensor, visible: Tensor) -> GraphFeatures:
        """Reason over both modalities.

        Args:
            infrared: Feature map ``(B, C, H, W)``.
            visible: Feature map ``(B, C, H, W)``.

        Returns:
            The fused features and those of each modality, each ``(B, C, H, W)``.
        """
        check_alike(self.channels, infrared=infrared, visible=visible)
        pairs = list(zip(self.infrared.nodes(infrared), self.visible.nodes(visible), strict=True))
        for _ in range(self.exchanges):
            pairs = [self._exchange(*pair) for pair in pairs]
        infrared = self.infrared.reason([pair[0] for pair in pairs])
        visible = self.visible.reason([pair[1] for pair in pairs])
        return GraphFeatures(self.fuse(torch.cat([infrared, visible], dim=1)), infrared, visible)

    def _exchange(self, infrared: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Let a node pair take from each other where position attention over their difference says so."""
        to_visible = infrared * torch.sigmoid(self.attend_infrared(infrared - visible))
        to_infrared = visible * torch.sigmoid(self.attend_visible(visible - infrared))
        return infrared + to_infrared, visible + to_visible
