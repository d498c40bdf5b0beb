"""Occlusion equals one whole forward pass per square, for every size, stride, fill and kind of network."""

from __future__ import annotations

import gc
from itertools import product

import numpy as np
import pytest
import torch
import torchvision
from captum.attr import Occlusion
from torch import nn
from torch.nn import functional as F

import zflib
from zflib.experiments import occluders, occlusion, partial_forward
from zflib.experiments.occlusion import occlude
from zflib.experiments.partial_forward import Layer, PartialForward
from zflib.models import Conv, Geometry, ZFNet
from zflib.record import hooks, record

TINY = Geometry(32, 28, (
    Conv(6, 5, stride=2, padding=1, pool=True, norm=True), Conv(8, 3, padding=1, pool=True, norm=True),
    Conv(8, 3, padding=1), Conv(7, 3, padding=2),
), hidden=(9,))  # fmt: skip


@pytest.fixture(autouse=True)
def parts(monkeypatch):
    """Small networks too are computed in part, else the equalities below would be those of a slow loop with itself."""
    monkeypatch.setattr(occlusion, "SAVED", 0)


class Branches(nn.Module):
    """A stem, then a shortcut: after the stem two modules read the same map."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True),
                                  nn.MaxPool2d(3, 2, 1))  # fmt: skip
        self.conv, self.head = nn.Conv2d(6, 6, 3, padding=1), nn.Linear(6, 5)

    def forward(self, x):
        x = self.stem(x)
        x = torch.relu(x + self.conv(x))
        return self.head(x.mean(dim=(2, 3)))


class Inception(nn.Module):
    """Branches that reach differently far, one with a stride, joined by a concatenation, then a shortcut."""

    def __init__(self):
        super().__init__()
        self.stem, self.one = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 4, 1, 2)
        self.five = nn.Sequential(nn.Conv2d(6, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 5, 2, 2))
        self.pool, self.mix = nn.MaxPool2d(3, 2, 1), nn.Conv2d(14, 14, 3, padding=1)
        self.head = nn.Linear(14, 5)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = torch.cat([self.one(x), self.five(x), self.pool(x)], dim=1)
        return self.head(torch.relu(x + self.mix(x)).mean(dim=(2, 3)))


class Gated(Branches):
    """Every map is weighted by something that looks at all of it."""

    def forward(self, x):
        x = self.stem(x)
        return self.head((x * torch.sigmoid(self.conv(x).mean(dim=(2, 3), keepdim=True))).mean(dim=(2, 3)))


class GatedFirst(Branches):
    """The same, but the weights are there before the maps."""

    def forward(self, x):
        x = self.stem(x)
        weights = torch.sigmoid(x.mean(dim=(2, 3), keepdim=True))
        return self.head((self.conv(x) * weights).mean(dim=(2, 3)))


class Thinks(Branches):
    """Its path depends on the image, so there is no fixed graph."""

    def forward(self, x):
        return super().forward(x) if float(x.detach().sum()) > -1e9 else x


def plain(*modules) -> nn.Sequential:
    return nn.Sequential(*modules, nn.Flatten(), nn.LazyLinear(4))


NETS = {
    "zfnet": (lambda: ZFNet(5, geometry=TINY), "conv4"),
    "zfnet, first layer": (lambda: ZFNet(5, geometry=TINY), "conv1"),
    "zfnet, fully connected": (lambda: ZFNet(5, geometry=TINY), "fc5"),
    "zfnet with batch norm": (lambda: ZFNet(5, geometry=TINY, batch_norm=True), "conv3"),
    "shortcut": (Branches, "conv"),
    "concatenation": (Inception, "five"),
    "gate": (Gated, "conv"),
    "gate, first": (GatedFirst, "conv"),
    "shortcut, a container": (Branches, "stem"),
    "no graph": (Thinks, "conv"),
    "dilated, grouped": (lambda: plain(
        nn.Conv2d(3, 6, 3, dilation=2), nn.ReLU(True), nn.Conv2d(6, 6, 5, 3, 4, groups=3), nn.AvgPool2d(2), nn.ReLU(),
        nn.Conv2d(6, 4, (3, 1))), "4"),
    "ceil pools": (lambda: plain(
        nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.Conv2d(3, 4, 1), nn.MaxPool2d(2, 2, dilation=2, ceil_mode=True),
        nn.Conv2d(4, 4, 3, padding="same"), nn.Sigmoid()), "1"),
    "a stride that skips": (lambda: plain(nn.Conv2d(3, 5, 1, 3), nn.ReLU(), nn.Conv2d(5, 5, 2, 3)), "0"),
}  # fmt: skip


def network(name: str) -> tuple[nn.Module, str]:
    torch.manual_seed(1)
    net, layer = NETS[name][0](), NETS[name][1]
    net(torch.randn(4, 3, 28, 28))  # lazy layers, and running means that are not 0
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.normal_(module.weight, std=1.5 / module.weight[0].numel() ** 0.5)
                nn.init.normal_(module.bias, std=0.3) if module.bias is not None else None
    return net.eval(), layer


def brute(net, image, squares: list[torch.Tensor], layer: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(P,classes) probabilities and (P,) activities: every picture through the whole network, one at a time."""
    kept = []
    path = net.layer_path(layer) if hasattr(net, "layer_path") else layer
    handle = net.get_submodule(path).register_forward_hook(lambda m, i, out: kept.append(out[0].clone()))
    with torch.no_grad():
        net(image[None])
        maps = kept[-1]
        channel = int((maps.flatten(1).amax(1) if maps.dim() == 3 else maps).argmax())
        scores = torch.stack([net(square[None])[0].softmax(-1) for square in squares])
    handle.remove()
    return scores, torch.stack([maps[channel].sum() for maps in kept[1:]])


def covered(image, corners, size, fill=0.0) -> list[torch.Tensor]:
    pictures = []
    for top, left in corners.flatten(0, 1).tolist():
        picture = image.clone()
        picture[:, top : top + size[0], left : left + size[1]] = fill
        pictures.append(picture)
    return pictures


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("size", "stride"), [((1, 1), (9, 9)), ((8, 8), (5, 5)), ((5, 11), (7, 3)), ((20, 3), (4, 12)),
                                              ((27, 27), (1, 1)), ((28, 28), (1, 1))])  # fmt: skip
def test_it_equals_one_whole_forward_pass_per_square(name, size, stride):
    net, layer = network(name)
    image = torch.randn(3, 28, 28)
    maps = occlude(net, image, size=size, stride=stride, layer=layer, fill=0.3)
    rows, columns = ((28 - s) // step + 1 for s, step in zip(size, stride))
    assert maps.probability.shape == maps.prediction.shape == maps.activity.shape == (rows, columns)
    assert maps.corners.shape == (rows, columns, 2) and maps.corners[-1, 0, 0] == (rows - 1) * stride[0]
    scores, activity = brute(net, image, covered(image, maps.corners, size, 0.3), layer)
    torch.testing.assert_close(maps.probability.flatten(), scores[:, maps.label], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(maps.activity.flatten(), activity, rtol=1e-5, atol=1e-5 * float(activity.abs().max()))
    assert torch.equal(maps.prediction.flatten(), scores.argmax(-1))


def run_of(net, image, layer: str, size=(3, 3)) -> tuple[occlusion.OcclusionRun, torch.Tensor, PartialForward | None]:
    """The run, squares at every second pixel, and the partial forward for them."""
    run = occlusion.OcclusionRun(net, image, layer)
    corners = occlusion._corners(image.shape[1:], size, (2, 2)).flatten(0, 1)
    with torch.no_grad():
        return run, corners, run.partial(corners, size, 0.0)


def test_the_early_layers_are_computed_in_part_and_the_rest_whole():
    """Else the equality above would be that of a slow loop with itself."""
    reached = {}
    for name in NETS:
        _, _, partial = run_of(network(name)[0], torch.randn(3, 28, 28), network(name)[1])
        steps = [partial.steps[place] for place in partial.places if place <= partial.cut] if partial else []
        reached[name] = [type(step).__name__ for step in steps]
    assert reached["zfnet"] == ["Filter", "Rectify", "Pool", "Pass"] * 2 + ["Filter", "Rectify"] * 2
    assert reached["shortcut"][-3:] == reached["shortcut, a container"][-3:] == ["Filter", "Add", "Rectify"]
    assert reached["concatenation"][-4:] == ["Cat", "Filter", "Add", "Rectify"] and reached["no graph"] == []
    assert (
        reached["gate"] == reached["gate, first"] == ["Filter", "Scale", "Rectify", "Pool"]
    )  # up to what the gate and its input both read
    assert len(reached["dilated, grouped"]) == 6 and len(reached["ceil pools"]) == 5


def layer_of(module: nn.Module, maps: torch.Tensor) -> Layer:
    return PartialForward(record(nn.Sequential(module), maps, "0", whole=True), maps).layers[1]


def test_a_convolution_reaches_what_it_says_it_reaches():
    """`reached` against the rows that really change, for every place of a block of two rows."""
    conv = nn.Conv2d(1, 1, (5, 1), stride=(2, 1), padding=(1, 0), bias=False).requires_grad_(False)
    nn.init.ones_(conv.weight)
    layer = layer_of(conv, torch.zeros(1, 1, 12, 1))
    for start in range(11):
        image = torch.zeros(1, 1, 12, 1)
        image[0, 0, start : start + 2] = 1
        changed = conv(image)[0, 0, :, 0].nonzero().flatten()
        low, high = layer.reached([(torch.tensor([[start, 0]]), torch.tensor([[start + 1, 0]]))])
        assert (int(low[0, 0]), int(high[0, 0])) == (int(changed[0]), int(changed[-1]))


def test_squares_at_the_border_are_computed_apart_because_they_reach_less():
    _, corners, partial = run_of(*network_and_image("zfnet"), size=(4, 4))
    partial.cut = 5  # where squares in the middle do not reach the border yet
    kinds = partial.classes(corners, (4, 4)).view(13, 13)
    assert kinds[0, 0] != kinds[6, 6] and 4 <= len(kinds.unique()) <= 16
    first, last = partial.boxes(corners, (4, 4))[partial.cut]
    for kind in kinds.unique():
        lengths = (last - first + 1)[kinds.flatten() == kind]
        assert bool((lengths.amin(0) >= 0.85 * lengths.amax(0)).all())


def network_and_image(name: str) -> tuple[nn.Module, torch.Tensor, str]:
    net, layer = network(name)
    return net, torch.randn(3, 28, 28), layer


def test_where_parts_would_save_too_little_whole_images_pass(monkeypatch):
    net, image, layer = network_and_image("zfnet")
    run, corners, partial = run_of(net, image, layer)
    saved = partial.choose(corners, (3, 3))
    assert 0 < saved < sum(map(partial.work, partial.places))
    monkeypatch.setattr(occlusion, "SAVED", 10 * saved)
    with torch.no_grad():
        assert run.partial(corners[60:71], (3, 3), 0.0) and run.partial(corners[60:69], (3, 3), 0.0) is None
    whole = occlude(net, image, size=9, stride=9, layer=layer)
    monkeypatch.setattr(occlusion, "SAVED", 0)
    torch.testing.assert_close(whole.probability, occlude(net, image, size=9, stride=9, layer=layer).probability)


def test_multiply_adds_are_those_of_every_layer_and_a_square_needs_fewer():
    net, image, _ = network_and_image("zfnet")
    counts = []
    modules = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    handles = [m.register_forward_hook(lambda m, i, o: counts.append(o.numel() * m.weight[0].numel())) for m in modules]
    net(image[None])
    [handle.remove() for handle in handles]
    assert partial_forward.multiply_adds(net, image) == counts
    small, large = (partial_forward.multiply_adds(net, image, size) for size in (3, (9, 9)))
    assert small[0] == counts[0] // 13**2 * 16 and small[-2:] == counts[-2:]  # 4 of conv1's 13 rows see a square of 3
    assert all(one <= other <= full for one, other, full in zip(small, large, counts))


def test_what_is_not_exact_is_not_used(monkeypatch):
    """Two squares are computed both ways before anything else."""
    net, image, layer = network_and_image("shortcut")
    scatter = Layer.scatter
    monkeypatch.setattr(Layer, "scatter", lambda self, change: scatter(self, change) * 1.02)
    assert run_of(net, image, layer)[2] is None
    maps = occlude(net, image, size=6, stride=11, layer=layer)
    scores, _ = brute(net, image, covered(image, maps.corners, (6, 6)), layer)
    torch.testing.assert_close(maps.probability.flatten(), scores[:, maps.label], rtol=1e-5, atol=1e-5)


def test_batches_of_any_size_give_the_same():
    net, layer = network("zfnet")
    image = torch.randn(3, 28, 28)
    whole = occlude(net, image, size=6, stride=2, layer=layer)
    parts = occlude(net, image, size=6, stride=2, layer=layer, memory=1)
    torch.testing.assert_close(whole.probability, parts.probability, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(whole.activity, parts.activity, rtol=1e-5, atol=1e-5)


def test_the_budget_bounds_the_batch(monkeypatch):
    net, image, layer = network_and_image("zfnet")
    _, corners, partial = run_of(net, image, layer)
    sizes, compute = [], PartialForward.__call__

    def counted(self, patches, channel):
        sizes.append(len(patches.corners))
        return compute(self, patches, channel)

    monkeypatch.setattr(PartialForward, "__call__", counted)
    occlude(net, image, size=3, stride=2, layer=layer, memory=8 * 10 * partial.numbers(corners, (3, 3)))
    assert set(sizes[1:-1]) == {10} and sum(sizes[1:]) == len(corners)  # the first two are the check


def test_captums_map_is_ours_averaged_over_the_squares_that_cover_a_pixel():
    net, layer = network("zfnet")
    image = torch.randn(3, 28, 28)
    maps = occlude(net, image, size=8, stride=4, layer=layer)
    theirs = Occlusion(lambda x: net(x).softmax(-1)).attribute(
        image[None], sliding_window_shapes=(3, 8, 8), strides=(3, 4, 4), baselines=0.0, target=maps.label
    )[0, 0]
    total, count = np.zeros((28, 28)), np.zeros((28, 28))
    for (top, left), probability in zip(maps.corners.flatten(0, 1).tolist(), maps.probability.flatten().tolist()):
        total[top : top + 8, left : left + 8] += maps.before[0] - probability
        count[top : top + 8, left : left + 8] += 1
    np.testing.assert_allclose(total / count, theirs.detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("padding", [0, 1, 3])
def test_the_change_of_a_convolution_is_the_convolution_of_the_change(padding):
    conv = nn.Conv2d(4, 5, 3, padding=padding).requires_grad_(False)
    change = torch.zeros(1, 4, 9, 9)
    change[..., 3:5, 4:7] = torch.randn(4, 2, 3)
    scattered = layer_of(conv, torch.randn(1, 4, 9, 9)).scatter(change[..., 3:5, 4:7])
    expected = F.conv2d(change, conv.weight, padding=2)[..., 3:7, 4:9]
    torch.testing.assert_close(scattered, expected, rtol=1e-5, atol=1e-5)


def test_the_network_is_left_as_it_was_found():
    net, layer = network("zfnet with batch norm")
    net.train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    occlude(net, torch.randn(3, 28, 28), size=9, stride=9, layer=layer)
    assert net.training and all(m.training for m in net.modules())
    assert not any(m._forward_hooks for m in net.modules())
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


FRAME = torch.arange(3 * 12 * 12).view(3, 12, 12).float()


def test_fills_are_what_they_say():
    corners = torch.tensor([[0, 0], [4, 5]])
    assert torch.equal(occluders.blocks(FRAME, corners, (4, 3), 2), torch.full((2, 3, 4, 3), 2.0))
    assert torch.equal(occluders.blocks(FRAME, corners, (4, 3), "grey"), torch.zeros(2, 3, 4, 3))
    mean = occluders.blocks(FRAME, corners, (4, 3), "mean")
    torch.testing.assert_close(mean, FRAME.mean(dim=(1, 2)).view(1, 3, 1, 1).expand(2, 3, 4, 3))
    assert torch.equal(occluders.blocks(FRAME, corners, (4, 3), FRAME)[1], FRAME[:, 4:8, 5:8])
    noise = [occluders.blocks(FRAME, corners, (4, 3), "noise") for _ in range(2)]
    assert torch.equal(*noise) and float(noise[0].std()) > 0
    flat = occluders.blocks(torch.full((3, 12, 12), 3.0), corners, (4, 3), "blur")
    torch.testing.assert_close(flat, torch.full((2, 3, 4, 3), 3.0))


def test_a_border_fill_continues_what_is_around_the_square():
    ramp = torch.arange(12.0).expand(3, 12, 12)  # grows to the right, the same in every row
    filled = occluders.blocks(ramp, torch.tensor([[3, 4]]), (5, 3), "border")[0]
    middle = filled[:, 2, 1]  # in the middle left and right balance, above and below are the ramp's own
    torch.testing.assert_close(middle, torch.full((3,), 5.0))
    assert bool((filled[:, :, 0] < filled[:, :, 1]).all()) and bool((filled[:, :, 1] < filled[:, :, 2]).all())
    corner = occluders.blocks(torch.full((3, 12, 12), 7.0), torch.tensor([[0, 0], [8, 8]]), (4, 4), "border")
    torch.testing.assert_close(corner, torch.full((2, 3, 4, 4), 7.0))
    assert torch.equal(occluders.blocks(ramp, torch.tensor([[0, 0]]), (12, 12), "border"), torch.zeros(1, 3, 12, 12))


@pytest.mark.parametrize("fill", occluders.FILLS)
def test_every_fill_reaches_the_network(fill):
    net, layer = network("zfnet")
    image = torch.randn(3, 28, 28)
    maps = occlude(net, image, size=9, stride=19, layer=layer, fill=fill)
    pictures = covered(image, maps.corners, (9, 9))
    for picture, (top, left) in zip(pictures, maps.corners.flatten(0, 1).tolist()):
        picture[:, top : top + 9, left : left + 9] = occluders.blocks(image, torch.tensor([[top, left]]), (9, 9), fill)[
            0
        ]
    scores, _ = brute(net, image, pictures, layer)
    torch.testing.assert_close(maps.probability.flatten(), scores[:, maps.label], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("changed", "sentence"), [
    ({"size": 29}, "size must be pixels or .rows, columns., at least 1, at most 28x28, got 29"),
    ({"size": 0}, "size must be pixels"), ({"stride": 0}, "stride must be pixels"), ({"stride": 1.5}, "stride must be"),
    ({"size": (3, 3, 3)}, "size must be"), ({"label": 5}, "label must be a class from 0 to 4, got 5"),
    ({"label": 1.0}, "label must be"), ({"label": "1"}, "label must be"),
    ({"label": torch.tensor(1.0)}, "label must be"),
    ({"fill": 1e39}, "fill must be"), ({"image": torch.zeros(3, 20, 20)}, "images of shape .1, 3, 20, 20."),
    ({"image": torch.zeros(4, 28, 28)}, "images must have 3 channels"), ({"memory": 1e6}, "memory must be"),
    ({"fill": "black"}, "fill must be a number, grey, mean, blur, noise, border"),
    ({"fill": float("nan")}, "fill must be"), ({"fill": torch.zeros(3, 5, 5)}, "got a tensor"),
    ({"layer": "conv9"}, "layer 'conv9' is not in this network"),
    ({"image": torch.zeros(2, 3, 28, 28)}, "image must be one preprocessed image"),
    ({"image": torch.full((3, 28, 28), torch.nan)}, "NaN"), ({"memory": 0}, "memory must be"),
])  # fmt: skip
def test_bad_input_gets_one_sentence(changed, sentence):
    net, layer = network("zfnet")
    given = {"image": torch.randn(3, 28, 28), "size": 5, "stride": 5, "layer": layer} | changed
    with pytest.raises((ValueError, TypeError), match=sentence):
        occlude(net, given.pop("image"), **given)


def test_a_network_without_scores_is_refused():
    with pytest.raises(ValueError, match="net must give scores"):
        occlude(nn.Sequential(nn.Conv2d(3, 4, 3)), torch.randn(3, 28, 28), size=5, stride=5, layer="0")


class Small(nn.Module):
    """Layers that give no maps, and one without use; what it gives depends on `gives`."""

    def __init__(self, gives: str = "scores"):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.pool, self.tokens = nn.Conv2d(3, 8, 4, 4), nn.MaxPool2d(2, return_indices=True), nn.Linear(8, 8)
        self.unused, self.head, self.gives = nn.Linear(3, 3), nn.Linear(8, 4), gives

    def forward(self, x):
        maps, _ = self.pool(self.conv(x))
        scores = self.head(self.tokens(maps.flatten(2).transpose(1, 2)).mean(1))
        return (scores, 1) if self.gives == "tuple" else scores * torch.nan if self.gives == "NaN" else scores


@pytest.mark.parametrize(("net", "layer", "sentence"), [
    (Small(), "unused", "layer 'unused' took no part"), (Small(), "pool", "layer 'pool' gives tuple"),
    (Small(), "tokens", r"layer 'tokens' gives \(1, 4, 8\); choose one of maps"),
    (Small("tuple"), "conv", r"net must give scores \(N,classes\), got tuple"),
    (Small("NaN"), "conv", "net gives scores without probabilities; look for NaN"), (5, "conv", "net must be a torch"),
])  # fmt: skip
def test_networks_that_cannot_be_occluded_get_one_sentence(net, layer, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        occlude(net, torch.randn(3, 16, 16), size=5, stride=5, layer=layer)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_network_compiled_by_torch_script_gets_one_sentence():
    net = torch.jit.trace(nn.Sequential(nn.Conv2d(3, 4, 16), nn.Flatten()), torch.zeros(1, 3, 16, 16))
    with pytest.raises(ValueError, match=r"it is compiled .*; pass the Python module it was made from"):
        occlude(net, torch.randn(3, 16, 16), size=5, stride=5, layer="0")


@pytest.mark.parametrize("label", [np.int64(2), np.uint8(2), torch.tensor(2), torch.tensor(2, dtype=torch.uint8)])
def test_a_label_is_an_integer_of_any_kind(label):
    net, layer = network("zfnet")
    image = torch.randn(3, 28, 28)
    one, two = (occlude(net, image, size=9, stride=9, layer=layer, label=k) for k in (2, label))
    assert type(two.label) is int and torch.equal(one.probability, two.probability)


# --- networks that do more than their modules say --------------------------------------------------------------------

MASK = torch.tensor([0.0, 1, 1, 0, 1, 3])[:, None, None]


def own_forward(module, change):
    module.forward = lambda x, own=module.forward: change(own, x)


ALTERED = {
    "hook on the network": lambda net: net.register_forward_hook(lambda m, i, o: o * 3),
    "pre-hook on the network": lambda net: net.register_forward_pre_hook(lambda m, i: (i[0] * 2 - 1,)),
    "forward of the network": lambda net: own_forward(net, lambda own, x: own(x * 2 - 1)),
    "hook on a convolution": lambda net: net[0][0].register_forward_hook(lambda m, i, o: o * MASK),
    "pre-hook on a convolution": lambda net: net[0][0].register_forward_pre_hook(lambda m, i: (i[0] * 2 - 1,)),
    "forward of a convolution": lambda net: own_forward(net[0][0], lambda own, x: own(x) * MASK),
    "hook on a ReLU": lambda net: net[0][1].register_forward_hook(lambda m, i, o: o * MASK),
    "hook on a pool": lambda net: net[0][2].register_forward_hook(lambda m, i, o: o * MASK),
    "hook on a container": lambda net: net[0].register_forward_hook(
        lambda m, i, o: o * MASK if isinstance(o, torch.Tensor) else o
    ),
}


@pytest.mark.parametrize("how", ALTERED)
@pytest.mark.parametrize("layer", ["0.2", "1"])
def test_hooks_and_a_forward_of_ones_own_count(how, layer):
    torch.manual_seed(2)
    stem = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2))
    net = nn.Sequential(stem, nn.Conv2d(6, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 11 * 11, 4)).eval()
    ALTERED[how](net)
    image = torch.randn(3, 28, 28)
    maps = occlude(net, image, size=6, stride=11, layer=layer)
    scores, activity = brute(net, image, covered(image, maps.corners, (6, 6)), layer)
    torch.testing.assert_close(maps.probability.flatten(), scores[:, maps.label], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(maps.activity.flatten(), activity, rtol=1e-5, atol=1e-4)


class InPlace(Branches):
    def forward(self, x):
        x -= 0.5
        return super().forward(x)


def test_a_network_that_works_in_place_does_not_touch_the_image():
    torch.manual_seed(3)
    net, image = InPlace().eval(), torch.randn(3, 28, 28)
    before = image.clone()
    maps = occlude(net, image, size=9, stride=9, layer="conv")
    assert torch.equal(image, before)
    scores, activity = brute(net, image.clone(), covered(image, maps.corners, (9, 9)), "conv")
    torch.testing.assert_close(maps.probability.flatten(), scores[:, maps.label])
    torch.testing.assert_close(maps.activity.flatten(), activity, rtol=1e-5, atol=1e-4)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.conv, self.relu, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.Linear(3, 4)

    def forward(self, x):
        return self.head(self.conv(self.relu(self.conv(x))).mean(dim=(2, 3)))


@pytest.mark.parametrize("saved", [0, 2**60])
def test_a_module_that_is_used_twice_is_taken_at_its_first_use(monkeypatch, saved):
    monkeypatch.setattr(occlusion, "SAVED", saved)
    net, image = Twice().eval(), torch.randn(3, 28, 28)
    maps = occlude(net, image, size=9, stride=9, layer="conv")
    with torch.no_grad():
        wanted = net.conv(torch.stack(covered(image, maps.corners, (9, 9))))[:, maps.channel].sum(dim=(1, 2))
    torch.testing.assert_close(maps.activity.flatten(), wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("call", [
    lambda net, x: occlude(net, x[0], size=5, stride=5, layer="0"),
    lambda net, x: zflib.correspondence(net, x, [[0, 0, 4, 4]] * 2, layer="0"),
    lambda net, x: zflib.invariance(net, x, 0, transform="rotate", amounts=[5], layers="0"),
])  # fmt: skip
def test_a_norm_over_the_batch_is_refused_since_images_would_mix(call):
    def net(norm):
        return nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()

    images = torch.randn(2, 3, 12, 12)
    with pytest.raises(ValueError, match="net: module '1' normalises over the batch; give it running statistics"):
        call(net(nn.BatchNorm2d(4, track_running_stats=False)), images)
    for norm in (nn.BatchNorm2d(4), nn.InstanceNorm2d(4)):
        call(net(norm), images)


def test_a_fill_that_half_precision_cannot_hold_is_refused():
    image = torch.randn(3, 28, 28)
    occluders.check_fill(image, 1e5)
    with pytest.raises(ValueError, match="fill must be"):
        occluders.check_fill(image.half(), 1e5)


def test_blocks_are_written_on_the_device_of_the_maps():
    """The meta device stands for a GPU: it takes no index from the CPU either."""
    maps, some = torch.empty(4, 2, 8, 8, device="meta"), torch.empty(4, 2, 3, 3, device="meta")
    for add in (False, True):
        partial_forward._put(maps, some, torch.tensor([[0, 0], [1, 1], [2, 2], [0, 0]]), add=add)


class Deep(nn.Module):
    """A local stem, then a shortcut, then a chain of maps of one size."""

    def __init__(self, depth: int):
        super().__init__()
        self.stem, self.side = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 16, 3, padding=1)
        self.chain = nn.Sequential(*(nn.Conv2d(16, 16, 3, padding=1) for _ in range(depth)))
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.stem(x)
        x = self.side(x) + torch.cat([x, x, x, x], dim=1)
        return self.head(self.chain(x).mean(dim=(2, 3)))


def alive(of: torch.Tensor) -> int:
    plain = [t for t in gc.get_objects() if type(t) is torch.Tensor and not t.is_nested]
    same = [t for t in plain if t.shape == of.shape]
    return len({t.data_ptr() for t in same})


def test_the_budget_counts_what_lies_behind_the_patches_and_no_more_is_kept():
    run, corners, partial = run_of(Deep(8).eval(), torch.randn(3, 28, 28), "chain.7", (4, 4))
    step, counts = partial.steps[partial.layer], []
    again = step.again
    step.again = lambda maps: counts.append(alive(maps)) or again(maps)
    with torch.no_grad():
        partial(run._covered(corners[:5], (4, 4), 0.0), 0)
    assert counts == [1]  # what the last convolution reads; what it gives comes on top
    assert partial.numbers(corners, (4, 4)) == 2 * 16 * 14 * 14


class Early(nn.Module):
    """Scores divided by a parameter that is read before anything else."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 6, 3, 2, 1), nn.Linear(6, 5)
        self.temperature = nn.Parameter(torch.tensor(0.1))

    def forward(self, x):
        temperature = self.temperature
        return self.head(torch.relu(self.conv(x)).mean(dim=(2, 3))) / temperature


class Optional(Early):
    """An optional argument: given, it would make another network."""

    def forward(self, x, mask=None, power: float = 2.0):
        x = torch.relu(self.conv(x)) if mask is None else self.conv(x) * mask
        return self.head(x.mean(dim=(2, 3))) / self.temperature / power


@pytest.mark.parametrize("net", [Early(), Optional()], ids=["parameter", "optional"])
def test_parameters_and_optional_arguments_of_a_forward(net):
    image = torch.randn(3, 28, 28)
    maps = occlude(net.eval(), image, size=6, stride=11, layer="conv")
    for row, column in product(range(3), range(3)):
        covered = image.clone()
        top, left = maps.corners[row, column].tolist()
        covered[:, top : top + 6, left : left + 6] = 0
        expected = net(covered[None]).softmax(-1)[0, maps.label]
        torch.testing.assert_close(maps.probability[row, column], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name, layer, side", [
    ("alexnet", "features.6", 127), ("squeezenet1_1", "features.3.expand3x3", 95), ("resnet18", "layer2.0.conv1", 95),
    ("densenet121", "features.denseblock1", 64),
])  # fmt: skip
def test_networks_of_torchvision(name, layer, side):
    torch.manual_seed(0)
    net, image = torchvision.models.get_model(name, weights=None).eval(), torch.randn(3, side, side)
    maps = occlude(net, image, size=24, stride=(side - 24) // 2, layer=layer)
    assert name == "densenet121" or run_of(net, image, layer, (24, 24))[2].cut >= 10  # through branches, in parts
    for row, column in ((0, 0), (1, 2), (2, 1)):
        covered = image.clone()
        top, left = maps.corners[row, column].tolist()
        covered[:, top : top + 24, left : left + 24] = 0
        expected = net(covered[None]).softmax(-1)[0, maps.label]
        torch.testing.assert_close(maps.probability[row, column], expected, rtol=1e-5, atol=1e-6)
        with hooks.watched(net, [layer]) as look:
            activity = look(covered[None])[0][layer][0, maps.channel].sum()
        torch.testing.assert_close(maps.activity[row, column], activity, rtol=1e-4, atol=1e-4)
