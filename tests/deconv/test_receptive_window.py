"""The way down in windows gives exactly what whole maps give."""

import oracle
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from zflib.deconv import Deconvnet
from zflib.deconv import _receptive_window as receptive_window
from zflib.deconv._subpixel import subpixel
from zflib.models.response_norm import ResponseNorm

Conv, Pool, ReLU = nn.Conv2d, nn.MaxPool2d, nn.ReLU
NETWORKS = {
    "as the paper's": lambda: [
        Conv(3, 4, 7, 2, 1), ReLU(), Pool(3, 2, ceil_mode=True), ResponseNorm(), Conv(4, 5, 5, 2), ReLU(),
        Pool(3, 2, ceil_mode=True), Conv(5, 4, 3, padding=1), ReLU()],
    "subpixel, stride 4": lambda: [Conv(3, 4, 11, 4, 2), ReLU(), Conv(4, 4, 3, 3, 3), ReLU()],
    "stride above the kernel": lambda: [Conv(3, 4, 2, 3, 2), ReLU(), Pool(2, 3, ceil_mode=True)],
    "uneven": lambda: [
        Conv(3, 4, (2, 5), (1, 2), (3, 0)), ReLU(), Pool((3, 2), (2, 1), (1, 0)), Conv(4, 3, (4, 1), (2, 1))],
    "dilated": lambda: [
        Conv(3, 4, 3, 2, 2, dilation=2), nn.BatchNorm2d(4), ReLU(), Pool(3, 2, 1, dilation=2), Conv(4, 4, 2)],
    "grouped": lambda: [
        Conv(3, 6, 3, 2, groups=3), ReLU(), Conv(6, 6, 3, groups=6, padding=2), ReLU(), Pool(2), Conv(6, 2, 1)],
    "sees more than there is": lambda: [
        m for i in range(5) for m in (Conv(4 if i else 3, 4, 5, 1 + i % 2, 2), ReLU(), Pool(3, 1, 1))],
    "one place": lambda: [
        Conv(3, 4, 5, 2, 2), ReLU(), Pool(3, 2, ceil_mode=True), Conv(4, 5, 5), ReLU(), Conv(5, 3, 1)],
}  # fmt: skip


class Inception(nn.Module):
    """Four branches of different reach, put side by side, twice; a pool among them."""

    def __init__(self, inside, out=3):
        super().__init__()
        self.point = nn.Sequential(Conv(inside, out, 1), ReLU())
        self.three = nn.Sequential(Conv(inside, 2, 1), ReLU(), Conv(2, out, 3, padding=1), ReLU())
        self.five = nn.Sequential(Conv(inside, 2, 1), ReLU(), Conv(2, out, 5, padding=2), ReLU())
        self.pool = nn.Sequential(Pool(3, 1, 1, ceil_mode=True), Conv(inside, out, 1), ReLU())

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.children()], dim=1)


class Skip(nn.Module):
    """Two ways over a stride, which pad differently; `minus` subtracts."""

    def __init__(self, inside, out, minus=False):
        super().__init__()
        self.long = nn.Sequential(
            Conv(inside, 4, 3, 2, 1), nn.BatchNorm2d(4), ReLU(), Conv(4, out, 3, padding=1), nn.BatchNorm2d(out)
        )
        self.short, self.minus, self.relu = Conv(inside, out, 1, 2), minus, ReLU()

    def forward(self, x):
        return self.relu(
            torch.sub(self.long(x), self.short(x), alpha=2) if self.minus else self.long(x) + self.short(x)
        )


class Stacked(nn.Module):
    """Two maps joined along their rows."""

    def forward(self, x):
        return torch.cat([x, x], dim=2)


class Twice(nn.Module):
    """One map used several times: added to itself, and joined to itself."""

    def forward(self, x):
        return torch.cat([x + x, x.relu(), x], dim=1) + torch.cat([x, x, x], dim=1)


BRANCHING = {
    "inception": lambda: [
        Conv(3, 4, 5, 2, 2), ReLU(), Pool(3, 2, 1), Inception(4), Inception(12), Pool(3, 2, ceil_mode=True),
        Conv(12, 3, 1)],
    "skips": lambda: [Conv(3, 4, 3, padding=1), ReLU(), Skip(4, 5), Skip(5, 6, True), Conv(6, 4, 3)],
    "the same place twice": lambda: [Conv(3, 2, 3, 2), ReLU(), Twice(), Conv(6, 2, 3, padding=2), Twice()],
}  # fmt: skip
NETWORKS |= BRANCHING


def make(name):
    torch.manual_seed(0)
    return nn.Sequential(*NETWORKS[name]()).double().eval()


def whole(d, tape, seeds):
    with torch.no_grad():
        return d._whole(tape, seeds)


@pytest.mark.parametrize("rule", oracle.RULES)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_position_of_every_layer(name, rule):
    """Corners, borders and the inside: one seed per position, in two images."""
    net = make(name)
    d, images = (
        Deconvnet(net, rule=rule),
        torch.randn(2, 3, *((22, 19) if name != "as the paper's" else (40, 37)), dtype=torch.float64),
    )
    for layer in list(dict(net.named_children()))[1::2] + [str(len(net) - 1)]:
        tape = d.record(images, layer)
        assert receptive_window.possible(tape, d.rules)
        n, c, h, w = tape.activations.shape
        positions = torch.cartesian_prod(torch.arange(h), torch.arange(w)).view(-1, 2)
        rows, columns = positions.unbind(1)
        border = (rows == 0) | (rows == h - 1) | (columns == 0) | (columns == w - 1)
        positions = positions[border | (torch.rand(len(positions)) < 20 / len(positions))]
        owners, channels = torch.arange(len(positions)) % n, torch.arange(len(positions)) % c
        expected = whole(d, tape, receptive_window.seeds(tape, owners, channels, positions))
        ours = d.descend(tape, owners, channels, positions)
        if rule == "gradient":
            oracle.close(ours, expected, 1e-10)
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["as the paper's", "sees more than there is", "inception"])
def test_small_chunks_give_the_same(name, monkeypatch):
    """One seed at a time, whose windows are of different sizes, from one tape."""
    d, image = Deconvnet(make(name)), torch.randn(1, 3, 40, 37, dtype=torch.float64)
    tape = d.record(image, "5")
    height, width = tape.activations.shape[2:]
    positions = torch.tensor([[0, 0], [height // 2, width // 2], [height - 1, 0], [0, width - 1], [1, 1]])
    some = torch.zeros(5, dtype=torch.int64), torch.arange(5) % 4, positions.clamp(max=min(height, width) - 1)
    expected = whole(d, tape, receptive_window.seeds(tape, *some))
    oracle.close(d.descend(tape, *some), expected, 1e-10)
    monkeypatch.setattr(receptive_window, "FLOATS", 1)
    assert receptive_window.chunk(tape, True) == 1
    oracle.close(d.descend(tape, *some), expected, 1e-10)


def test_a_tape_serves_several_descents():
    d, images = Deconvnet(make("as the paper's")), torch.randn(2, 3, 40, 37, dtype=torch.float64)
    tape = d.record(images, "4")
    some = torch.tensor([0, 1]), torch.tensor([2, 1]), torch.tensor([[0, 0], [2, 1]])
    first = d.descend(tape, *some)
    d.descend(tape, *(x.flip(0) for x in some))
    assert torch.equal(first, d.descend(tape, *some))
    oracle.close(first, whole(d, tape, receptive_window.seeds(tape, *some)), 1e-12)


@pytest.mark.parametrize("kernel", [1, 2, 3, 7, (3, 2), (2, 5)])
@pytest.mark.parametrize("stride", [2, 3, 4])
def test_subpixel_filters(kernel, stride):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, kernel, stride).double()
    maps = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    expected = F.conv_transpose2d(maps, conv.weight, None, stride)
    ours = subpixel(maps, conv.weight, stride)
    assert ours.shape == expected.shape
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("rule", oracle.RULES)
@pytest.mark.parametrize("name, layer", [("squeezenet1_1", "features.6"), ("resnet18", "layer2")])
def test_real_networks_that_branch(name, layer, rule):
    torch.manual_seed(0)
    net, images = torchvision.models.get_model(name, weights=None).eval(), torch.randn(2, 3, 77, 83)
    d = Deconvnet(net, rule=rule)
    tape = d.record(images, layer)
    assert receptive_window.possible(tape, d.rules)
    alive = tape.activations.nonzero()  # at the border, too: the map is small
    owners, channels, *positions = alive[torch.randperm(len(alive))[:16]].unbind(1)
    some = owners, channels, torch.stack(positions, dim=1)
    expected = whole(d, tape, receptive_window.seeds(tape, *some))
    assert expected.flatten(1).any(1).sum() > 8
    oracle.close(d.descend(tape, *some), expected, 1e-5)


def test_a_rule_of_the_callers_beside_branches():
    """A module that the layer does not need may have one; on the way to the layer, whole maps go down."""
    torch.manual_seed(0)
    net, image = nn.Sequential(Conv(3, 4, 3), Skip(4, 4), nn.GELU(), Skip(4, 2)).eval(), torch.randn(1, 3, 30, 30)
    d = Deconvnet(net, rules={nn.GELU: lambda signal, before, after: 2 * signal})
    assert receptive_window.possible(d.record(image, "1"), d.rules)
    assert not receptive_window.possible(d.record(image, "3"), d.rules)


def test_chunks_count_the_windows_and_not_the_maps():
    d = Deconvnet(make("skips"))
    tape = d.record(torch.randn(1, 3, 64, 64, dtype=torch.float64), "3")
    # a 3x3 filter and the same with stride 2, twice, then the first filter: 3, 7, 9, 19, 21 rows
    sizes = receptive_window._reach(tape)
    assert max(side for _, side, _ in sizes) == 21 and (3, 21, 21) in sizes and (4, 19, 19) in sizes
    assert receptive_window.chunk(tape, True) > receptive_window.chunk(tape, False)


def test_what_windows_cannot_follow():
    torch.manual_seed(0)
    images = torch.randn(1, 3, 12, 12)
    for net, layer in (
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d(2)), "1"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveMaxPool2d(3)), "1"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(400, 3)), "2"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), Stacked()), "1"),
    ):
        d = Deconvnet(net)
        assert not receptive_window.possible(d.record(images, layer), d.rules)


def test_fit_keeps_what_is_on_the_map():
    values = torch.arange(12.0).view(1, 1, 3, 4)
    window = receptive_window.Cutout(values, torch.tensor([-1]), torch.tensor([3])).fit(5, 5)
    assert (window.top.item(), window.left.item()) == (0, 3)
    assert torch.equal(window.values[0, 0], values[0, 0, 1:, :2])
    outside = receptive_window.Cutout(values, torch.tensor([9]), torch.tensor([-9])).fit(5, 5)
    assert not outside.values.any() and 0 <= outside.top.item() < 5 and outside.left.item() == 0
