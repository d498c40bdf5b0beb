"""The pictures behind the occlusion explorer: what they say is what `occlude` and one forward pass say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import zflib
from zflib import data, explore, occluder, show


@pytest.fixture(scope="module")
def square():
    net = zflib.load("zfnet56")
    return occluder.Occluder(net, net.preprocess(data.photo("chelsea"))[0], places=7)


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
    torch.testing.assert_close(square.maps(12).probability[1, 2], probabilities[square.label], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(square.maps(12).activity[1, 2], activation_map.sum(), rtol=1e-4, atol=1e-4)


def test_a_square_is_kept_inside_the_image(square):
    assert torch.equal(square.covered(500, 500, 20), square.covered(36, 36, 20))
    assert float(square.covered(0, 0, 56).abs().max()) == 0


def test_bars_are_as_long_as_the_probabilities():
    pixels = occluder.bars(torch.tensor([0.1, 0.5, 0.0, 0.25, 0.05, 0.1]), list("abcdef"), 3)
    rows = [number * (occluder.SIDE // occluder.TOP) + 20 for number in range(occluder.TOP)]
    orange = tuple(int(show.ORANGE[i : i + 2], 16) for i in (1, 3, 5))
    lengths = [int((pixels[row] != 255).any(axis=1).sum()) for row in rows]
    expected = [0.5, 0.25, 0.1, 0.1, 0.05]
    assert lengths == pytest.approx([value * (occluder.SIDE - 1) for value in expected], abs=2)
    assert tuple(pixels[rows[1], 5]) == orange and tuple(pixels[rows[0], 5]) != orange


def test_the_explorer_follows_its_sliders_to_every_end():
    net = zflib.load("zfnet56")
    panel = explore.occlusion(net, net.preprocess(data.photo("coffee")))
    seen = [panel.pixels]
    for name in ("row", "column"):
        for end in (panel.controls[name].min, panel.controls[name].max):
            panel.controls[name].value = end
            seen.append(panel.pixels)
    for end in (panel.controls["size"].options[0], panel.controls["size"].options[-1]):
        panel.controls["size"].value = end
        seen.append(panel.pixels)
    assert panel.status.value == "" and all(pixels.shape == seen[0].shape for pixels in seen)
    assert len({pixels.tobytes() for pixels in seen}) == len(seen)
    assert "p(" in panel.text and np.ptp(panel.pixels) > 0
