"""Receptive fields against the numbers of the literature and against brute force; patches cut at their borders."""

from dataclasses import replace

import pytest
import torch
import torchvision
from torch import nn

import zflib
from zflib.deconv import Unsupported
from zflib.deconv.receptive_boxes import patches, receptive_field, receptive_fields

tv = torchvision.models


def side(net, layer, position=(3, 3), **size):
    top, left, bottom, right = receptive_field(net, layer, position, **size)
    assert bottom - top == right - left
    return bottom - top


def test_the_papers_network():
    net = zflib.ZFNet(2, geometry=replace(zflib.models.ZFNET, hidden=(8, 8)))
    assert [side(net, f"conv{i}") for i in range(1, 6)] == [7, 27, 75, 107, 139]
    assert receptive_field(net, "conv1", (0, 0)) == (-1, -1, 6, 6)  # not clipped
    assert receptive_field(net, "conv1", (109, 2)) == (217, 3, 224, 10)
    assert receptive_field(net, "fc6", (0, 0)) == (0, 0, 224, 224)


def test_alexnet():
    net = tv.alexnet().features
    assert [side(net, i) for i in ("0", "3", "6", "8", "10")] == [11, 51, 99, 131, 163]


def all_ones(net):
    """A linear network whose gradient is positive wherever a unit looks."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.ones_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return net.double().eval()


def looked_at(net, layer, position, size):
    """(top, left, bottom, right) of the pixels with a gradient, by autograd; pools average here."""
    image, found = torch.ones(1, 3, size, size, dtype=torch.float64, requires_grad=True), []
    hook = net.get_submodule(layer).register_forward_hook(lambda m, i, o: found.append(o))
    net(image)
    hook.remove()
    (gradient,) = torch.autograd.grad(found[0][0, 0, position[0], position[1]], image)
    rows, columns = gradient[0].sum(0).nonzero().unbind(1)
    return rows.min().item(), columns.min().item(), rows.max().item() + 1, columns.max().item() + 1


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.small, self.large = nn.Conv2d(3, 2, 1, stride=2), nn.Conv2d(3, 2, 5, stride=2, padding=2, dilation=1)
        self.shift = nn.Sequential(nn.ZeroPad2d((3, 0, 0, 3)), nn.Conv2d(3, 2, 4, stride=2))
        self.last = nn.Conv2d(4, 2, 2)

    def forward(self, x):
        return self.last(torch.cat([self.small(x) + self.large(x), self.shift(x)], 1))


NETWORKS = {
    "strides": lambda: nn.Sequential(nn.Conv2d(3, 2, 5, 3), nn.Conv2d(2, 2, 2, 2, 1), nn.Conv2d(2, 2, 3, padding=2)),
    "dilation": lambda: nn.Sequential(nn.Conv2d(3, 2, 3, 2, 2, dilation=2), nn.Conv2d(2, 2, 2, dilation=3)),
    "not square": lambda: nn.Sequential(nn.Conv2d(3, 2, (2, 5), (2, 1), (0, 3)), nn.Conv2d(2, 2, (3, 1), (1, 2))),
    "average pools": lambda: nn.Sequential(
        nn.Conv2d(3, 2, 3, padding=1), nn.AvgPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(2, 2, 1)
    ),
    "adaptive pool": lambda: nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(4), nn.Conv2d(2, 2, 2)),
    "global pool": lambda: nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1)),
    "branches": Branches,
    "shuffle": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ChannelShuffle(2), nn.Conv2d(4, 2, 3)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_brute_force(name):
    torch.manual_seed(0)
    size, net = 21, all_ones(NETWORKS[name]())
    for layer, _ in net.named_children():
        h, w = zflib.Deconvnet(net).activations(torch.zeros(1, 3, size, size), layer).shape[2:]
        for position in {(0, 0), (h - 1, 0), (h // 2, w // 2), (h - 1, w - 1)}:
            top, left, bottom, right = receptive_field(net, layer, position, size=size)
            clipped = max(top, 0), max(left, 0), min(bottom, size), min(right, size)
            seen = looked_at(net, layer, position, size)
            if name != "strides" or clipped == (top, left, bottom, right):
                assert clipped == seen
            else:  # a place of the padding stands for pixels that no unit of a strided layer looks at
                assert clipped[:2] <= seen[:2] and clipped[2:] >= seen[2:]


@pytest.mark.parametrize("settings", [(2,), (3, 2), (3, 1, 1), (3, 3, 1, 2)], ids=str)
@pytest.mark.parametrize("ceil", [False, True])
def test_max_pools_look_at_every_place_of_their_window(settings, ceil):
    """By trial: a pixel counts if raising it alone changes the unit."""
    net = all_ones(nn.Sequential(nn.Conv2d(3, 1, 1), nn.MaxPool2d(*settings, ceil_mode=ceil)))
    size, images = 8, torch.eye(64, dtype=torch.float64).view(64, 1, 8, 8).expand(64, 3, 8, 8)
    maps = net(images)[:, 0]
    for position in [(0, 0), (1, 1), tuple(n - 1 for n in maps.shape[1:])]:
        seen = maps[:, position[0], position[1]].view(8, 8).nonzero()
        top, left, bottom, right = receptive_field(net, "1", position, size=size)
        rows, columns = seen.unbind(1)
        dilation = settings[3] if len(settings) == 4 else 1
        assert (
            max(top, top % dilation) <= rows.min()
            and left <= columns.min()
            and bottom > rows.max()
            and right > columns.max()
        )
        inside = [r for r in range(top, bottom, dilation) if 0 <= r < size]
        assert inside == rows.unique().tolist()


KNOWN = [
    (tv.resnet18, "layer2"), (tv.squeezenet1_1, "features.6"),
    *(pytest.param(*known, marks=pytest.mark.nightly) for known in (
        (tv.densenet121, "features.transition1"), (tv.shufflenet_v2_x0_5, "stage3"),
        (lambda: tv.googlenet(init_weights=False, transform_input=True), "inception3b"))),
]  # fmt: skip


@pytest.mark.parametrize("make, layer", KNOWN)
def test_known_networks_have_receptive_fields(make, layer):
    top, left, bottom, right = receptive_field(make().eval(), layer, (2, 2), size=64)
    assert top == left and bottom == right and bottom - top > 20


@pytest.mark.parametrize("rule", ["deconvnet", "gradient", "guided"])
def test_projections_vanish_outside_their_receptive_field(rule):
    torch.manual_seed(0)
    net, image = zflib.zfnet56(3), torch.randn(1, 3, 56, 56)
    for layer, position in (("conv1", (27, 27)), ("conv2", (0, 13)), ("pool2", (3, 3)), ("conv4", (6, 0))):
        channel = int(zflib.Deconvnet(net).activations(image, layer)[0, :, position[0], position[1]].argmax())
        projected = zflib.Deconvnet(net, rule=rule).project(image, layer, channel, positions=position)
        box = receptive_field(net, layer, position)
        top, left, bottom, right = (max(0, edge) for edge in box)
        outside = projected.clone()
        outside[..., top:bottom, left:right] = 0
        assert projected.any() and not outside.any()
        assert patches(projected, [box]).count_nonzero() == projected.count_nonzero()


def test_many_fields_at_once():
    net = zflib.zfnet56(3)
    positions = torch.tensor([[[0, 0], [6, 3]], [[6, 3], [2, 5]]])
    boxes = receptive_fields(net, "conv4", positions)
    assert boxes.shape == (2, 2, 4) and boxes.dtype == torch.int64
    for box, position in zip(boxes.reshape(-1, 4).tolist(), positions.reshape(-1, 2).tolist()):
        assert tuple(box) == receptive_field(net, "conv4", position)
    assert receptive_fields(net, "fc6", positions).unique(dim=1).tolist() == [[[0, 0, 56, 56]]] * 2
    assert torch.equal(receptive_fields(net, "conv4", positions.tolist()), boxes)
    with pytest.raises(ValueError, match=r"positions must be \(…,2\), rows and columns, got shape \(2, 3\)"):
        receptive_fields(net, "conv4", torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="positions: the maps of layer 'conv4' are 7x7"):
        receptive_fields(net, "conv4", torch.tensor([[0, 0], [0, 7]]))


def test_inputs_that_are_not_square_and_a_layer_by_its_module():
    body = nn.Sequential(nn.Conv2d(3, 2, 3, 2), nn.AdaptiveAvgPool2d((2, 3)), nn.Flatten(), nn.Linear(12, 2))
    assert receptive_field(body, "0", (3, 9), size=(9, 21)) == (6, 18, 9, 21)
    assert receptive_field(body, body[1], (0, 1), size=(9, 21)) == receptive_field(body, "1", (0, 1), size=(9, 21))
    assert receptive_field(body, "1", (1, 2), size=(9, 21)) == (4, 12, 9, 21)
    assert receptive_field(body, "3", (0, 0), size=(9, 21)) == (0, 0, 9, 21)
    assert receptive_fields(body, body[3], [[0, 0]], size=(9, 21)).tolist() == [[0, 0, 9, 21]]
    with pytest.raises(ValueError, match="layer Conv2d is not in this network; it has 0, 1"):
        receptive_field(body, nn.Conv2d(3, 2, 3), (0, 0))


def test_what_is_refused_on_the_way_down_can_have_a_receptive_field():
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.GELU(), nn.Conv2d(2, 2, 3, 2), nn.Softmax(1))
    assert receptive_field(net, "2", (1, 1), size=15) == (2, 2, 7, 7)
    with pytest.raises(Unsupported, match="receptive fields are known for convolutions and pools, not for '_softmax'"):
        receptive_field(net, "3", (1, 1), size=15)


def test_patches_are_exact_and_filled_outside():
    images = torch.arange(1.0, 76).view(1, 3, 5, 5).expand(6, 3, 5, 5)
    boxes = [(1, 1, 4, 4), (-1, -2, 2, 1), (3, 4, 6, 7), (-7, 0, -4, 3), (9, 9, 12, 12), (0, -1, 3, 2)]
    cut = patches(images, torch.tensor(boxes), fill=-5.0)
    for patch, image, (top, left, bottom, right) in zip(cut, images, boxes):
        for i, row in enumerate(range(top, bottom)):
            for j, column in enumerate(range(left, right)):
                inside = 0 <= row < 5 and 0 <= column < 5
                assert patch[0, i, j] == (image[0, row, column] if inside else -5)
    assert patches(images[:1], [(-1, -1, 7, 6)]).sum() == images[0].sum()


def test_what_patches_refuse():
    images = torch.zeros(2, 3, 5, 5)
    with pytest.raises(ValueError, match=r"boxes must be \(N,4\), one for each of the images"):
        patches(images, [(0, 0, 1, 1)])
    for boxes in ([(0.5, 0, 3.5, 3)] * 2, None, "ab"):
        with pytest.raises(TypeError, match=r"boxes must be \(N,4\), one for each of the images"):
            patches(images, boxes)
    for none, got in (([1], "list"), (images[:0], r"\(0, 3, 5, 5\)")):
        with pytest.raises(ValueError, match=rf"images must be a tensor \(N,C,H,W\) of at least one image, got {got}"):
            patches(none, torch.zeros(0, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="boxes must all have one size"):
        patches(images, [(0, 0, 1, 1), (0, 0, 2, 1)])
    with pytest.raises(ValueError, match="at least 1x1"):
        patches(images, [(0, 0, 0, 1)] * 2)


def test_what_is_wrong():
    net = zflib.zfnet56(3)
    with pytest.raises(ValueError, match="layer 'conv9' is not in this network; it has conv1, pool1"):
        receptive_field(net, "conv9", (0, 0))
    with pytest.raises(ValueError, match="position: the maps of layer 'conv5' are 7x7, rows 0 to 6"):
        receptive_field(net, "conv5", (7, 0))
    with pytest.raises((TypeError, ValueError), match="position must be"):
        receptive_field(net, "conv5", 3)
    for size in (0, -3, 5.5, "9", (16, 0), (1, 2, 3)):
        with pytest.raises(ValueError, match="size must be pixels or"):
            receptive_field(net, "conv5", (0, 0), size=size)
    with pytest.raises(ValueError, match="do not fit this network"):
        receptive_field(net, "conv5", (0, 0), size=3)
    upsampled = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Upsample(scale_factor=2))
    with pytest.raises(
        Unsupported, match="receptive fields are known for convolutions and pools, not for 'upsample_nearest2d'"
    ):
        receptive_field(upsampled, "1", (0, 0), size=9)
