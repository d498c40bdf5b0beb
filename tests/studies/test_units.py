"""One channel as Figure 2 shows it: the deconvnet's projections at the fields' boxes, its map, its words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import zflib
from zflib import data, show
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


def test_a_field_that_is_not_known_is_the_whole_image(pixels):
    mixed = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU()).eval()
    mixed.deconv_rules = {nn.GroupNorm: lambda signal, before, after: signal}
    images = torch.from_numpy(pixels).float() / 255 - 0.5
    known = units.Units(mixed, images, layers=["2"])
    unit = known.unit("2", 1)
    assert unit.boxes.tolist() == [[0, 0, 12, 12]] * 9
    expected = zflib.Deconvnet(mixed).project(unit.images, "2", 1, positions=unit.positions)
    torch.testing.assert_close(unit.projections, expected)
    torch.testing.assert_close(known.strongest("2", range(1, 2)), expected[:1])


def test_a_unit_without_a_way_down_has_patches_and_maps(pixels):
    refused = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Conv2d(4, 5, 3)).eval()
    images = torch.from_numpy(pixels).float() / 255 - 0.5
    unit = units.Units(refused, images, layers=["2"]).unit("2", 3)
    with torch.no_grad():
        torch.testing.assert_close(unit.maps, refused(unit.images)[:, 3])
    assert "No projection: net: module '1' is a GELU" in units.describe_unit(unit, [])
    with pytest.raises(zflib.deconv.Unsupported, match="module '1' is a GELU"):
        _ = unit.projections
    shown = units.unit_pixels(unit)
    refused.deconv_rules = {nn.GELU: lambda signal, before, after: signal}
    projected = units.Units(refused, images, layers=["2"]).unit("2", 3)
    assert np.array_equal(units.unit_pixels(projected)[: len(shown)], shown)  # and below it the projections
    assert "No projection" not in units.describe_unit(projected, [])


def test_bad_input_is_named(net, pixels):
    with pytest.raises(ValueError, match="labels must be one for each image"):
        units.Units(net, pixels, layers=["conv1"], labels=torch.zeros(2, dtype=torch.int64))


def test_the_strongest_projections_of_all_channels_are_those_of_single_units(net, pixels, peaks):
    known = units.Units(net, pixels, peaks=peaks)
    for layer, channels in (("conv1", range(4)), ("conv2", range(1, 6)), ("fc3", range(2, 4))):
        together = known.strongest(layer, channels)
        for channel, projection in zip(channels, together, strict=True):
            torch.testing.assert_close(projection, known.unit(layer, channel).projections[0], rtol=1e-4, atol=1e-6)


def test_batches_of_the_strongest_do_not_matter(net, pixels, peaks, monkeypatch):
    whole = units.Units(net, pixels, peaks=peaks).strongest("conv2", range(6))
    monkeypatch.setattr(units, "BATCH", 2)
    torch.testing.assert_close(units.Units(net, pixels, peaks=peaks).strongest("conv2", range(6)), whole)


def test_a_unit_of_fewer_images_is_the_beginning_of_the_whole_one(net, pixels, peaks):
    known = units.Units(net, pixels, peaks=peaks)
    few, whole = known.unit("conv2", 3, 2), known.unit("conv2", 3)
    assert torch.equal(few.images, whole.images[:2]) and torch.equal(few.values, whole.values[:2])
    torch.testing.assert_close(few.projections, whole.projections[:2])
    torch.testing.assert_close(whole.maps, zflib.Deconvnet(net).activations(whole.images, "conv2")[:, 3])


COUNTS = {"conv1": 4, "features.3": 6}


def test_an_address_is_a_layer_and_a_channel():
    assert units.locate("conv1:3", COUNTS) == ("conv1", 3) and units.locate("features.3:0", COUNTS) == ("features.3", 0)


@pytest.mark.parametrize("address, sentence", [
    ("conv1", "unit must be a layer and a channel, like 'conv1:0', got 'conv1'"), (5, "a layer and a channel"),
    ("conv1:", "a layer and a channel"), ("conv1:-1", "a layer and a channel"), ("conv1:x", "a layer and a channel"),
    ("conv7:1", "unit must be of one of the layers conv1, features.3, got 'conv7:1'"),
    ("conv1:4", "unit must be one of the channels 0 to 3 of layer 'conv1', got 'conv1:4'"),
])  # fmt: skip
def test_a_wrong_address_is_answered_in_one_sentence(address, sentence):
    with pytest.raises(ValueError, match=sentence):
        units.locate(address, COUNTS)


def test_views_of_a_projection(net, pixels, peaks):
    unit = units.Units(net, pixels, peaks=peaks).unit("conv1", int(gallery.alive(peaks["conv1"])[0]))
    patch, projection = unit.patches[0], unit.projections[0]
    drawn = {view: units.unit_tiles(unit, view, 3)[0] for view in units.VIEWS}  # as large as the field: no enlarging
    full = show.limit(projection, 99)
    assert np.array_equal(drawn["raw"], show.signed_pixels(projection, full=full))
    calm = show.calm(projection)
    assert np.array_equal(drawn["calm"], show.signed_pixels(calm, full=show.limit(calm, 99)))
    assert np.array_equal(drawn["lit"], show.lit(patch, projection, net=net))
    red, green, blue = projection
    luminance = (0.299 * red + 0.587 * green + 0.114 * blue)[None]
    assert np.array_equal(drawn["grey"], show.signed_pixels(luminance, full=show.limit(luminance, 99)))
    with pytest.raises(ValueError, match="view must be one of"):
        units.unit_pixels(unit, "bright")


def test_what_lies_beyond_the_image_is_grey(net):
    values, numbers = torch.ones(1), torch.zeros(1, dtype=torch.int64)
    corner, box = torch.zeros(1, 2, dtype=torch.int64), torch.tensor([[-1, -1, 2, 2]])
    unit = units.Unit(net, "conv1", 0, values, numbers, corner, torch.zeros(1, 3, 10, 10), box)
    tile, mean = units.patch_tiles(unit, 3)[0], show.image_pixels(torch.zeros(3, 1, 1), net)[0, 0]
    assert (tile[0] == show.GREY).all() and (tile[:, 0] == show.GREY).all() and (tile[1:, 1:] == mean).all()
