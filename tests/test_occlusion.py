"""Occlusion equals one whole forward pass per square, for every size, stride, fill and kind of network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import Occlusion
from torch import nn
from torch.nn import functional as F

import zflib
from zflib import fills, occlusion, trunk
from zflib.models import Conv, Geometry, ZFNet
from zflib.occlusion import occlude

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


def test_the_early_layers_are_computed_in_part_and_the_rest_whole():
    """Else the equality above would be that of a slow loop with itself."""
    reached = {name: len(occlusion.Look(network(name)[0], torch.randn(3, 28, 28), network(name)[1]).local((3, 3)))
               for name in NETS}  # fmt: skip
    assert reached["zfnet"] >= 6 and reached["shortcut"] == 4 and reached["dilated, grouped"] >= 4
    assert reached["no graph"] == 0 == reached["shortcut, a container"] and reached["ceil pools"] >= 3


def test_a_convolution_reaches_what_it_says_it_reaches():
    """`reached` against the rows that really change, for every place of a block of two rows."""
    conv = nn.Conv2d(1, 1, (5, 1), stride=(2, 1), padding=(1, 0), bias=False)
    nn.init.ones_(conv.weight)
    whole = torch.zeros(1, 12, 1)
    stage = trunk.Stage(None, conv, F.pad(whole, (0, 0, 1, 1)), conv(whole[None])[0])
    for start in range(11):
        image = torch.zeros(1, 1, 12, 1)
        image[0, 0, start : start + 2] = 1
        changed = conv(image)[0, 0, :, 0].nonzero().flatten()
        low, high = stage.reached(0, torch.tensor(start), torch.tensor(start + 1))
        assert (int(low), int(high)) == (int(changed[0]), int(changed[-1]))


def test_blocks_at_the_border_are_computed_apart_because_they_reach_less():
    net, layer = network("zfnet")
    look = occlusion.Look(net, torch.randn(3, 28, 28), layer)
    corners = occlusion._corners((28, 28), (4, 4), (2, 2)).flatten(0, 1)
    kinds = look.classes(corners, (4, 4)).view(13, 13)
    assert kinds[0, 0] != kinds[6, 6] and 4 <= len(kinds.unique()) <= 16
    order = look.order(corners, (4, 4))
    assert torch.equal(order.sort().values, torch.arange(169)) and kinds.flatten()[order].diff().min() >= 0


def test_where_parts_would_save_too_little_whole_images_pass(monkeypatch):
    net, layer = network("zfnet")
    look = occlusion.Look(net, torch.randn(3, 28, 28), layer)
    stages = look.local((3, 3))
    saved = sum(s.work * (1 - share) for s, share in zip(stages, trunk.shares(stages, (3, 3))))
    dense = sum(s.out.numel() * s.module.in_channels * s.module.kernel_size[0] ** 2
                for s in stages if isinstance(s.module, nn.Conv2d))  # fmt: skip
    assert sum(s.work for s in stages) == dense and 0 < saved < dense
    monkeypatch.setattr(occlusion, "SAVED", 10 * saved)
    look.choose((3, 3), 11)
    assert look.local((3, 3)) == stages
    look.choose((3, 3), 9)
    assert look.local((3, 3)) == []
    image = torch.randn(3, 28, 28)
    whole = occlude(net, image, size=9, stride=9, layer=layer)
    monkeypatch.setattr(occlusion, "SAVED", 0)
    torch.testing.assert_close(whole.probability, occlude(net, image, size=9, stride=9, layer=layer).probability)


def test_batches_of_any_size_give_the_same():
    net, layer = network("zfnet")
    image = torch.randn(3, 28, 28)
    whole = occlude(net, image, size=6, stride=2, layer=layer)
    parts = occlude(net, image, size=6, stride=2, layer=layer, memory=1)
    torch.testing.assert_close(whole.probability, parts.probability, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(whole.activity, parts.activity, rtol=1e-5, atol=1e-5)


def test_the_budget_bounds_the_batch():
    look = occlusion.Look(zflib.ZFNet(7).eval(), torch.randn(3, 224, 224), "conv5")
    corners = torch.zeros(100, 100, 2, dtype=torch.int64)
    sizes = [len(b) for b in occlusion._batches(look, corners.flatten(0, 1), (32, 32), 10 * look.bytes((32, 32)))]
    assert set(sizes) == {10} and sum(sizes) == 10_000
    assert look.bytes((200, 200)) > look.bytes((32, 32)) > 8 * 384 * 13 * 13


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
    conv = nn.Conv2d(4, 5, 3, padding=padding)
    whole, change = torch.randn(1, 4, 9, 9), torch.zeros(1, 4, 9, 9)
    change[..., 3:5, 4:7] = torch.randn(4, 2, 3)
    stage = trunk.Stage(None, conv, whole[0], conv(whole)[0])
    spread = stage.spread(change[..., 3:5, 4:7])
    expected = F.conv2d(change, conv.weight, padding=2)[..., 3:7, 4:9]
    torch.testing.assert_close(spread, expected, rtol=1e-5, atol=1e-5)


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
    assert torch.equal(fills.blocks(FRAME, corners, (4, 3), 2), torch.full((2, 3, 4, 3), 2.0))
    assert torch.equal(fills.blocks(FRAME, corners, (4, 3), "grey"), torch.zeros(2, 3, 4, 3))
    mean = fills.blocks(FRAME, corners, (4, 3), "mean")
    torch.testing.assert_close(mean, FRAME.mean(dim=(1, 2)).view(1, 3, 1, 1).expand(2, 3, 4, 3))
    assert torch.equal(fills.blocks(FRAME, corners, (4, 3), FRAME)[1], FRAME[:, 4:8, 5:8])
    noise = [fills.blocks(FRAME, corners, (4, 3), "noise") for _ in range(2)]
    assert torch.equal(*noise) and float(noise[0].std()) > 0
    flat = fills.blocks(torch.full((3, 12, 12), 3.0), corners, (4, 3), "blur")
    torch.testing.assert_close(flat, torch.full((2, 3, 4, 3), 3.0))


def test_a_border_fill_continues_what_is_around_the_square():
    ramp = torch.arange(12.0).expand(3, 12, 12)  # grows to the right, the same in every row
    filled = fills.blocks(ramp, torch.tensor([[3, 4]]), (5, 3), "border")[0]
    middle = filled[:, 2, 1]  # in the middle left and right balance, above and below are the ramp's own
    torch.testing.assert_close(middle, torch.full((3,), 5.0))
    assert bool((filled[:, :, 0] < filled[:, :, 1]).all()) and bool((filled[:, :, 1] < filled[:, :, 2]).all())
    corner = fills.blocks(torch.full((3, 12, 12), 7.0), torch.tensor([[0, 0], [8, 8]]), (4, 4), "border")
    torch.testing.assert_close(corner, torch.full((2, 3, 4, 4), 7.0))
    assert torch.equal(fills.blocks(ramp, torch.tensor([[0, 0]]), (12, 12), "border"), torch.zeros(1, 3, 12, 12))


@pytest.mark.parametrize("fill", fills.FILLS)
def test_every_fill_reaches_the_network(fill):
    net, layer = network("zfnet")
    image = torch.randn(3, 28, 28)
    maps = occlude(net, image, size=9, stride=19, layer=layer, fill=fill)
    pictures = covered(image, maps.corners, (9, 9))
    for picture, (top, left) in zip(pictures, maps.corners.flatten(0, 1).tolist()):
        picture[:, top : top + 9, left : left + 9] = fills.blocks(image, torch.tensor([[top, left]]), (9, 9), fill)[0]
    scores, _ = brute(net, image, pictures, layer)
    torch.testing.assert_close(maps.probability.flatten(), scores[:, maps.label], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("changed", "sentence"), [
    ({"size": 29}, "size must be pixels or .rows, columns., at least 1, at most 28x28, got 29"),
    ({"size": 0}, "size must be pixels"), ({"stride": 0}, "stride must be pixels"), ({"stride": 1.5}, "stride must be"),
    ({"size": (3, 3, 3)}, "size must be"), ({"label": 5}, "label must be a class from 0 to 4, got 5"),
    ({"label": True}, "label must be"), ({"fill": "black"}, "fill must be a number, grey, mean, blur, noise, border"),
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
