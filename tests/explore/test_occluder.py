"""The pictures behind the occlusion explorer: what they say is what `occlude` and one forward pass say."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import nn

import zflib
from zflib import data, explore, show
from zflib.explore import charts
from zflib.explore.occlusion_explorer import Occluder


@pytest.fixture(scope="module")
def square():
    net = zflib.load("zfnet56")
    return Occluder(net, net.preprocess(data.photo("chelsea"))[0], places=7)


def test_one_position_is_a_forward_pass_of_the_covered_image(square):
    image, probabilities, activation_map, projection = square.at(8, 16, 12)
    covered = square.image.clone()
    covered[:, 8:20, 16:28] = 0
    assert torch.equal(image, covered)
    with torch.no_grad():
        torch.testing.assert_close(probabilities, square.net(covered[None])[0].softmax(-1))
    deconvnet = zflib.Deconvnet(square.net)
    maps = deconvnet.activations(covered[None], "conv5")[0]
    torch.testing.assert_close(activation_map, maps[square.channel])
    torch.testing.assert_close(projection, deconvnet.project(covered[None], "conv5", square.channel)[0])
    torch.testing.assert_close(square._way.record(covered[None], "conv5", whole=True).scores, square.net(covered[None]))
    torch.testing.assert_close(square.maps(12).probability[1, 2], probabilities[square.label], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(square.maps(12).activity[1, 2], activation_map.sum(), rtol=1e-4, atol=1e-4)


def test_a_square_is_kept_inside_the_image(square):
    assert torch.equal(square.covered(500, 500, 20), square.covered(36, 36, 20))
    assert torch.equal(square.covered(-3, -500, 20), square.covered(0, 0, 20))
    assert float(square.covered(0, 0, 56).abs().max()) == 0


def test_bars_are_as_long_as_the_probabilities():
    net = small()
    net.classes = list("abcdef")
    pixels = charts.class_bars(torch.tensor([0.1, 0.5, 0.0, 0.25, 0.05, 0.1]), net, 3)
    rows = [number * (charts.SIDE // charts.TOP) + 20 for number in range(charts.TOP)]
    orange = tuple(int(show.ORANGE[i : i + 2], 16) for i in (1, 3, 5))
    lengths = [int((pixels[row] != 255).any(axis=1).sum()) for row in rows]
    expected = [0.5, 0.25, 0.1, 0.1, 0.05]
    assert lengths == pytest.approx([value * (charts.SIDE - 1) for value in expected], abs=2)
    assert tuple(pixels[rows[1], 5]) == orange and tuple(pixels[rows[0], 5]) != orange


def small() -> nn.Sequential:
    torch.manual_seed(0)
    body = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    return nn.Sequential(*body, nn.Linear(16, 12), nn.ReLU(), nn.Dropout(), nn.Linear(12, 4))


def test_the_explorer_follows_its_sliders_to_every_end():
    panel = explore.occlusion(small(), torch.randn(3, 40, 56), layer="0")
    seen = [panel.pixels]
    for name in ("row", "column"):
        for end in (panel.controls[name].min, panel.controls[name].max):
            panel.controls[name].value = end
            seen.append(panel.pixels)
    for end in (panel.controls["size"].options[0], panel.controls["size"].options[-1]):
        panel.controls["size"].value = end
        seen.append(panel.pixels)
    assert "40×40 at row 0, column 16:" in panel.text  # the last square is kept inside, where its frame is drawn
    assert panel.status.value == "" and all(pixels.shape == seen[0].shape for pixels in seen)
    assert len({pixels.tobytes() for pixels in seen}) == len(seen)
    assert "p(" in panel.text and np.ptp(panel.pixels) > 0


def drag(panel, number: int, row: float, column: float) -> None:
    """The pointer held at a place of the image, as shares of it, in one of the six pictures."""
    left, top = number % 3 * (charts.SIDE + charts.GAP), number // 3 * charts.ROW + charts.STRIP
    panel.point(left + round(column * charts.SIDE), top + round(row * charts.SIDE), (left + 10, top + 10))


def test_the_pointer_puts_the_middle_of_the_square_where_it_is():
    panel = explore.occlusion(small(), torch.randn(3, 56, 56), layer="0")
    size = panel.controls["size"].value
    for number in (0, 1, 3, 4, 5):
        drag(panel, number, 0.25, 0.5)
        assert (panel.values["row"], panel.values["column"]) == (14 - size // 2, 28 - size // 2)
        drag(panel, number, 0.9, 2)  # beyond the picture in which it was pressed
        assert (panel.values["row"], panel.values["column"]) == (min(50 - size // 2, 56 - size), 56 - size)
    drag(panel, 2, 0.1, 0.1)  # the bars
    assert panel.values["column"] == 56 - size and panel.status.value == ""


def test_maps_of_another_size_appear_later_coarse_ones_first(monkeypatch):
    measured, go_on = [], threading.Event()
    measure = Occluder._measure

    def slowly(self, size, places):
        if measured:
            assert go_on.wait(20)
        measured.append((size, places))
        return measure(self, size, places)

    monkeypatch.setattr(Occluder, "_measure", slowly)
    panel = explore.occlusion(small(), torch.randn(3, 56, 56), layer="0")
    first, desk = panel.controls["size"].value, panel._draw.__self__
    panel.controls["size"].value = 8
    waiting, known = panel.pixels, [desk.measuring(8) or 0]
    panel.controls["size"].value = 16  # what is no longer asked for is not measured to its end
    panel.controls["size"].value = 8
    go_on.set()
    desk.measuring.wait()
    assert known == [0] and desk.measuring(8) == 9 and desk.measuring(first) == 9 and panel.status.value == ""
    assert measured[0] == (first, 9) and (16, 9) not in measured and measured[-2:] == [(8, 5), (8, 9)]
    assert not np.array_equal(panel.pixels, waiting)
    assert np.array_equal(panel.pixels, desk.square.pixels(**panel_values(panel)))


def panel_values(panel) -> dict:
    return {name: value for name, value in panel.values.items() if name != "own"}


def test_the_projection_is_drawn_in_four_ways():
    net = zflib.load("zfnet56")
    panel, seen = explore.occlusion(net, net.preprocess(data.photo("coffee"))), set()
    for view in ("raw", "calm", "lit", "grey"):
        panel.controls["view"].value = view
        seen.add(
            panel.pixels[charts.ROW + charts.STRIP : charts.ROW + charts.STRIP + charts.SIDE, : charts.SIDE].tobytes()
        )
    assert len(seen) == 4 and panel.status.value == ""


def test_a_large_image_has_no_more_sizes_than_a_small_one():
    panel = explore.occlusion(small(), torch.randn(3, 120, 120), layer="0")
    size, row = panel.controls["size"], panel.controls["row"]
    assert len(size.options) <= 15 and size.options[-1] + size.options[0] > 120
    row.value = row.max
    size.value = size.options[0]
    assert panel.status.value == "" and row.max + size.value == 120


def test_training_mode_neither_changes_what_is_seen_nor_the_network():
    net, image = small().train(), torch.randn(3, 12, 12)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    seen = Occluder(net, image, layer="0").at(2, 2, 4)[1]
    assert net.training and all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert torch.equal(seen, Occluder(net.eval(), image, layer="0").at(2, 2, 4)[1])


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = small()

    def forward(self, x):
        x -= 0.5
        return self.net(x)


def test_a_network_in_place_leaves_the_image_and_what_is_shown():
    net, image = InPlace().eval(), torch.randn(3, 12, 12)
    square = Occluder(net, image, layer="net.0")
    shown, probabilities, _, _ = square.at(0, 0, 4)
    assert torch.equal(square.image, image) and float(shown[:, :4, :4].abs().max()) == 0
    with torch.no_grad():
        torch.testing.assert_close(probabilities, net(shown[None].clone())[0].softmax(-1))


@pytest.mark.parametrize("prepare, layer", [(nn.Module.half, "0"), (nn.Module.double, "5"), (nn.Module.train, "5")])
def test_the_explorer_takes_any_precision_mode_and_layer(prepare, layer):
    panel = explore.occlusion(prepare(small()), torch.randn(1, 3, 12, 12), layer=layer)
    panel.controls["row"].value = panel.controls["row"].max
    assert panel.status.value == "" and np.ptp(panel.pixels) > 0


def test_a_network_without_a_way_down_is_looked_at_and_says_so():
    torch.manual_seed(0)
    refused = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(384, 5)).eval()
    panel = explore.occlusion(refused, IMAGE, layer="2")
    assert "No projection: net: module '1' is a GELU" in panel.text and "nn.GELU: …" in panel.text
    covered = IMAGE.clone()
    row, column, size = (panel.values[name] for name in ("row", "column", "size"))
    covered[:, row : row + size, column : column + size] = 0
    with torch.no_grad():
        after = float(refused(covered[None]).softmax(-1)[0, refused(IMAGE[None]).argmax()])
    assert f"to {after:.2f}" in panel.text
    refused.deconv_rules = {nn.GELU: lambda signal, before, after: signal.clamp(min=0)}
    assert "No projection" not in explore.occlusion(refused, IMAGE, layer="2").text


def test_a_normalisation_over_the_map_has_no_way_down_either():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(400, 5)).eval()
    assert "it uses 'native_group_norm' in module '1' (GroupNorm)" in explore.occlusion(net, IMAGE, layer="2").text


IMAGE = torch.randn(3, 12, 12)


@pytest.mark.parametrize(("call", "sentence"), [
    (lambda: explore.occlusion(small(), data.photo("coffee"), layer="0"), "image must be one .* got Image"),
    (lambda: explore.occlusion(5, IMAGE), "net must be a torch network"),
])  # fmt: skip
def test_bad_input_gets_one_sentence(call, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        call()
