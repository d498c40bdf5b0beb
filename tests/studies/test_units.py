"""One channel as Figure 2 shows it: the deconvnet's projections at the fields' boxes, its map, its words."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import zflib
from zflib import data
from zflib.models import Conv, Geometry, ZFNet
from zflib.studies import gallery, units

TINY = Geometry(12, 10, (Conv(4, 3, padding=1, pool=True, norm=True), Conv(6, 3, padding=1, pool=True)), hidden=(8,))


@pytest.fixture(scope="module")
def net() -> ZFNet:
    torch.manual_seed(1)
    net = ZFNet(5, geometry=TINY).eval()
    net.classes = list("abcde")
    return net


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (40, 3, 12, 12), dtype=np.uint8)


@pytest.fixture(scope="module")
def peaks(net, pixels):
    return zflib.find_peaks(net, pixels, layers=["conv1", "conv2", "fc3"], k=4)


def test_a_unit_is_the_deconvnets_and_its_boxes_are_the_fields(net, pixels, peaks):
    known = units.Units(net, pixels, peaks=peaks, labels=torch.arange(40) % 5)
    images = data.centre_crop(net.normalise(torch.from_numpy(pixels)), 10)
    for layer in ("conv1", "conv2"):
        for channel in gallery.alive(peaks[layer]).tolist():
            unit, found = known.unit(layer, channel), peaks[layer]
            assert torch.equal(unit.images, images[found.images[channel]])
            boxes = [zflib.receptive_field(net, layer, position) for position in found.positions[channel].tolist()]
            assert unit.boxes.tolist() == [list(box) for box in boxes]
            whole = zflib.Deconvnet(net).project(unit.images, layer, channel, positions=found.positions[channel])
            cut = gallery.crop(net, layer, whole, found.positions[channel])
            torch.testing.assert_close(unit.projections, cut, rtol=1e-4, atol=1e-6)
            assert known.names(unit) == [net.classes[n % 5] for n in unit.numbers.tolist()]
            assert float(unit.map.max()) == pytest.approx(float(found.values[channel, 0]), rel=1e-4)


def test_words_count_what_repeats(net, pixels, peaks):
    unit = units.Units(net, pixels, peaks=peaks).unit("conv1", int(gallery.alive(peaks["conv1"])[0]))
    assert "They are: fox ×2, cat." in units.describe_unit(unit, ["fox", "cat", "fox"])
    assert units.describe_unit(unit, ["a", "b", "c"]).endswith("They are: a, b, c.")
    assert "over the fourth" in units.describe_unit(unit, []) and "They are" not in units.describe_unit(unit, [])


def test_spotlight_dims_where_the_map_is_zero():
    white = np.full((8, 8, 3), 200, np.uint8)
    lit = units.spotlight(white, torch.tensor([[0.0, 0.0], [0.0, 5.0]]))
    assert lit[0, 0, 0] == 100 and lit[7, 7, 0] == 200 and lit.shape == white.shape
    assert (units.spotlight(white, torch.zeros(2, 2)) == 100).all()


def test_a_fully_connected_unit_sees_the_whole_image(net, pixels, peaks):
    channel = int(gallery.alive(peaks["fc3"])[0])
    unit = units.Units(net, pixels, peaks=peaks).unit("fc3", channel)
    assert not unit.spatial and float(unit.map) == pytest.approx(float(unit.values[0]), rel=1e-4)
    assert unit.boxes.tolist() == [[0, 0, 10, 10]] * 4 and torch.equal(unit.patches, unit.images)
    torch.testing.assert_close(unit.projections, zflib.Deconvnet(net).project(unit.images, "fc3", channel))
    assert units.unit_pixels(unit).shape[2] == 3


def test_bad_input_is_named(net, pixels):
    with pytest.raises(ValueError, match="labels must be one for each image"):
        units.Units(net, pixels, layers=["conv1"], labels=torch.zeros(2, dtype=torch.int64))
