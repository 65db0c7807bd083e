"""Coupled channels: the trace finds the groups that a reader would, and refuses what it cannot follow."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from course_lib.nets import build
from course_lib.pruning import CouplingError, coupled, mask_channels, remove_channels, trace_coupling

IMAGE = torch.zeros(1, 1, 28, 28)


def alternate(coupling):
    """Keep every second channel of each group."""
    return {name: torch.arange(len(group)) % 2 == 0 for name, group in coupling.groups.items()}


def assert_cut_equals_mask(network: nn.Module, sample: Tensor) -> nn.Module:
    network.eval()
    coupling = trace_coupling(network, sample)
    keep = alternate(coupling)
    cut = remove_channels(network, coupling, keep)
    with torch.no_grad():
        torch.testing.assert_close(cut(sample), mask_channels(network, coupling, keep)(sample), rtol=1e-4, atol=1e-5)
    return cut


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_coupled_labels_are_equal_exactly_where_a_path_of_ties_leads(case):
    count, pairs = case
    reach = torch.eye(count, dtype=torch.float64)
    for first, second in pairs:
        reach[first, second] = reach[second, first] = 1
    together = torch.linalg.matrix_power(reach, count) > 0
    labels = torch.tensor(coupled(count, pairs))
    assert torch.equal(labels[:, None] == labels[None], together)
    assert labels.tolist() == [int(row.nonzero()[0]) for row in together]
    assert coupled(count, pairs[::-1]) == labels.tolist()


def test_coupled_refuses_items_that_are_not_there():
    with pytest.raises(ValueError, match=r"pairs must name items from 0 to 2, got \(1, 3\)"):
        coupled(3, [(1, 3)])


def test_resnet_20_has_one_group_for_each_stage_and_one_inside_of_each_block():
    groups = trace_coupling(build("resnet-20"), IMAGE).groups
    assert len(groups) == 3 + 9
    stream = groups["stage2.0.conv2"]
    assert set(stream.makers) == {"stage2.0.conv2", "stage2.0.shortcut.0", "stage2.1.conv2", "stage2.2.conv2"}
    assert set(stream.norms) == {"stage2.0.bn2", "stage2.0.shortcut.1", "stage2.1.bn2", "stage2.2.bn2"}
    assert set(stream.readers) == {"stage2.1.conv1", "stage2.2.conv1", "stage3.0.conv1", "stage3.0.shortcut.0"}
    assert stream.gates == stream.norms and len(stream) == 32
    inside = groups["stage3.1.conv1"]
    assert (inside.makers, inside.readers) == (("stage3.1.conv1",), ("stage3.1.conv2",))


def test_chains_have_one_group_for_each_hidden_layer_and_none_for_the_logits():
    assert list(trace_coupling(build("lenet-300-100"), IMAGE).groups) == ["fc1", "fc2"]
    assert list(trace_coupling(build("lenet-5"), IMAGE).groups) == ["conv1", "conv2", "fc1"]


def test_tracing_leaves_the_network_as_it_is():
    network = build("resnet-8").train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trace_coupling(network, torch.randn(2, 1, 28, 28))
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_groups_hold_the_same_layers_as_those_of_torch_pruning():
    torch_pruning = pytest.importorskip("torch_pruning")
    for name in ("resnet-20", "lenet-5"):
        network = build(name).eval()
        coupling = trace_coupling(network, IMAGE)
        names = {layer: name for name, layer in network.named_modules()}
        graph = torch_pruning.DependencyGraph().build_dependency(network, example_inputs=IMAGE)
        for group in coupling.groups.values():
            layer = network.get_submodule(group.name)
            prune = (
                torch_pruning.prune_conv_out_channels
                if isinstance(layer, nn.Conv2d)
                else torch_pruning.prune_linear_out_channels
            )
            steps = graph.get_pruning_group(layer, prune, [0])
            theirs = {names[step.target.module] for step, _ in steps if step.target.module in names}
            assert theirs == {*group.makers, *group.norms, *group.readers}


def test_cutting_the_same_channels_with_torch_pruning_leaves_the_same_network():
    torch_pruning = pytest.importorskip("torch_pruning")
    torch.manual_seed(0)
    network, images = build("resnet-8").eval(), torch.randn(2, 1, 28, 28)
    coupling = trace_coupling(network, images)
    ours = remove_channels(network, coupling, alternate(coupling))
    graph = torch_pruning.DependencyGraph().build_dependency(network, example_inputs=images)
    for name, group in coupling.groups.items():
        odd = list(range(1, len(group), 2))
        graph.get_pruning_group(network.get_submodule(name), torch_pruning.prune_conv_out_channels, odd).prune()
    theirs, mine = dict(network.named_parameters()), dict(ours.named_parameters())
    assert {name: p.shape for name, p in mine.items()} == {name: p.shape for name, p in theirs.items()}
    with torch.no_grad():
        torch.testing.assert_close(ours(images), network(images))


class Plain(nn.Module):
    """`forward` over `layers`."""

    def __init__(self, forward, *layers):
        super().__init__()
        self.layers, self.run = nn.ModuleList(layers), forward

    def forward(self, images):
        return self.run(self, images)


def test_concatenated_channels_keep_their_own_groups_and_a_reused_layer_ties_its_output_to_its_input():
    def forward(self, images):
        joined = torch.cat([F.relu(self.layers[0](images)), self.layers[1](images)], dim=1)
        mixed = self.layers[4](self.layers[4](F.max_pool2d(self.layers[3](self.layers[2](joined)), 2)))
        return self.layers[5](F.avg_pool2d(mixed * mixed, 2).flatten(1))

    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(10, 10, 3, padding=1, groups=10)]
    network = Plain(forward, *layers, nn.BatchNorm2d(10), nn.Conv2d(10, 10, 1), nn.Linear(10 * 4, 3)).eval()
    images = torch.randn(2, 3, 8, 8)
    coupling = trace_coupling(network, images)
    assert {name: len(group) for name, group in coupling.groups.items()} == {"layers.0": 4, "layers.1": 6}
    assert "layers.4" in coupling.groups["layers.0"].makers
    cut = assert_cut_equals_mask(network, images)
    assert cut.layers[2].groups == cut.layers[2].weight.shape[0] == 5


@pytest.mark.parametrize("name", ["lenet-300-100", "lenet-5", "resnet-8", "resnet-20"])
def test_a_cut_network_computes_what_the_masked_one_does(name):
    torch.manual_seed(1)
    network = build(name)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.bias)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.normal_(layer.running_mean)
    cut = assert_cut_equals_mask(network, torch.randn(3, 1, 28, 28))
    assert sum(p.numel() for p in cut.parameters()) < 0.6 * sum(p.numel() for p in network.parameters())


ONE = nn.Conv2d(3, 1, 1)


def in_turn(self, images):
    return self.layers[1](self.layers[0](images))


@pytest.mark.parametrize(
    ("what", "forward", "layers"),
    [
        ("sigmoid", lambda self, x: self.layers[0](x).sigmoid(), [nn.Conv2d(3, 4, 1)]),
        ("LayerNorm", in_turn, [nn.Conv2d(3, 4, 1), nn.LayerNorm([4, 8, 8])]),
        ("without scale and shift", in_turn, [nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False)]),
        ("groups=2", in_turn, [nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, groups=2)]),
        ("broadcasting 1 against 4", lambda self, x: self.layers[0](x) + self.layers[1](x), [nn.Conv2d(3, 4, 1), ONE]),
        ("adding a constant", lambda self, x: self.layers[0](x) + 1, [nn.Conv2d(3, 4, 1)]),
        ("concatenation along axis 2", lambda self, x: torch.cat([self.layers[0](x)] * 2, dim=2), [nn.Conv2d(3, 4, 1)]),
        ("a mean over images or channels", lambda self, x: self.layers[0](x).mean(1), [nn.Conv2d(3, 8, 1)]),
        ("linear layer on an input of 4 axes", in_turn, [nn.Conv2d(3, 4, 1), nn.Linear(8, 2)]),
        ("reshaping", lambda self, x: self.layers[0](x).view(-1, 8, 8), [nn.Conv2d(3, 4, 1)]),
        ("permute", lambda self, x: self.layers[0](x).permute(0, 2, 3, 1), [nn.Conv2d(3, 4, 1)]),
    ],
)  # fmt: skip
def test_what_cannot_be_followed_is_named_with_a_cure(what, forward, layers):
    with pytest.raises(CouplingError, match=f"(?s){what}.*Cure"):
        trace_coupling(Plain(forward, *layers), torch.zeros(1, 3, 8, 8))


def test_a_path_that_depends_on_the_data_is_refused():
    network = Plain(lambda self, x: self.layers[0](x) if x.sum() > 0 else x, nn.Conv2d(3, 3, 1))
    with pytest.raises(CouplingError, match="depend on the data"):
        trace_coupling(network, torch.zeros(1, 3, 8, 8))
