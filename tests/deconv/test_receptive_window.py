"""The way down in windows gives exactly what whole maps give."""

import oracle
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zflib.deconv import Deconvnet
from zflib.deconv import _receptive_window as receptive_window
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


@pytest.mark.parametrize("name", ["as the paper's", "sees more than there is"])
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
    assert receptive_window.chunk(tape) == 1
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
    ours = receptive_window._subpixel(maps, conv.weight, stride)
    assert ours.shape == expected.shape
    torch.testing.assert_close(ours, expected)


def test_what_windows_cannot_follow():
    torch.manual_seed(0)
    images = torch.randn(1, 3, 12, 12)
    for net, layer in (
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d(2)), "1"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveMaxPool2d(3)), "1"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(400, 3)), "2"),
    ):
        d = Deconvnet(net)
        assert not receptive_window.possible(d.record(images, layer), d.rules)


def test_fit_keeps_what_is_on_the_map():
    values = torch.arange(12.0).view(1, 1, 3, 4)
    window = receptive_window.Window(values, torch.tensor([-1]), torch.tensor([3])).fit(5, 5)
    assert (window.top.item(), window.left.item()) == (0, 3)
    assert torch.equal(window.values[0, 0], values[0, 0, 1:, :2])
    outside = receptive_window.Window(values, torch.tensor([9]), torch.tensor([-9])).fit(5, 5)
    assert not outside.values.any() and 0 <= outside.top.item() < 5 and outside.left.item() == 0
