from __future__ import annotations

import pytest
import torch

from fusionblocks.blocks import GraphReasoning
from fusionblocks.blocks.graph_reasoning import GraphFeatures, ModalityGraph
from fusionblocks.models.smfnet import checkpoint as smfnet
from tests.helpers.block_tester import BlockTester


class TestGraphReasoning(BlockTester):
    golden = "smf_graph_reasoning"
    layout = smfnet
    golden_options = {"channels": 64}
    variants = [
        {"channels": 16},
        {"channels": 6, "dilations": (1, 2), "iterations": 1, "exchanges": 1},
        {"channels": 5, "dilations": (1, 2, 3, 4), "iterations": 3},
    ]

    def build(self, **options):
        return GraphReasoning(**options)

    def inputs(self, options, batch, height, width):
        shape = (batch, options["channels"], height, width)
        return {"infrared": torch.randn(shape), "visible": torch.randn(shape)}

    def split(self, result):
        assert isinstance(result, GraphFeatures)
        return result._asdict()


class TestModalityGraph(BlockTester):
    variants = [{"channels": 8}, {"channels": 5, "dilations": (1, 3), "iterations": 1}]

    def build(self, **options):
        return ModalityGraph(**options)

    def inputs(self, options, batch, height, width):
        return {"x": torch.randn(batch, options["channels"], height, width)}


def test_message_weights_alternate_over_the_channels():
    """Channel k of the m * C neighbour channels is weighted by message weight k modulo m."""
    torch.manual_seed(0)
    channels = 5
    graph = ModalityGraph(channels, dilations=(1, 2, 3), iterations=1).eval()
    torch.nn.init.constant_(graph.gamma, 0.7)
    nodes = list(torch.randn(3, 2, channels, 4, 6))
    for index, node in enumerate(nodes):
        neighbours = torch.cat([other for i, other in enumerate(nodes) if i != index], dim=1)
        weights = graph.message_weight(torch.cat([node, node], dim=1) - neighbours)
        message = torch.zeros_like(node)
        for k in range(2 * channels):
            message[:, k % channels] += neighbours[:, k] * torch.sigmoid(weights[:, k % 2])
        expected = node + 0.7 * graph.update(message, node)
        torch.testing.assert_close(graph._updated(nodes, index), expected, rtol=1e-4, atol=1e-5)


def test_a_fresh_graph_passes_its_nodes_on():
    """The residual gain gamma starts at zero."""
    torch.manual_seed(0)
    graph = ModalityGraph(4, dilations=(1, 2)).eval()
    x = torch.randn(1, 4, 7, 8)
    torch.testing.assert_close(graph(x), graph.readout(torch.cat(graph.nodes(x), dim=1)))


def test_modalities_swap_with_their_weights():
    torch.manual_seed(0)
    block, mirrored = (GraphReasoning(4, dilations=(1, 2)).eval() for _ in range(2))
    swap = {"infrared": "visible", "visible": "infrared", "attend_infrared": "attend_visible"}
    swap |= {"attend_visible": "attend_infrared", "fuse": "fuse"}
    state = {}
    for key, value in block.state_dict().items():
        head, _, tail = key.partition(".")
        state[f"{swap[head]}.{tail}"] = value
    mirrored.load_state_dict(state)
    infrared, visible = torch.randn(2, 1, 4, 7, 8)
    one, other = block(infrared, visible), mirrored(infrared=visible, visible=infrared)
    torch.testing.assert_close(one.infrared, other.visible, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(one.visible, other.infrared, rtol=1e-5, atol=1e-6)


def test_wrong_arguments_are_refused_by_name():
    for wrong in ((), (4,), (0, 4)):
        with pytest.raises(ValueError, match="dilations"):
            GraphReasoning(8, dilations=wrong)
    with pytest.raises(ValueError, match="iterations"):
        GraphReasoning(8, iterations=0)
    with pytest.raises(ValueError, match="exchanges"):
        GraphReasoning(8, exchanges=0)
    with pytest.raises(ValueError, match="infrared and visible"):
        GraphReasoning(8)(torch.rand(1, 8, 4, 5), torch.rand(1, 8, 4, 4))
