"""The wall, addresses of units, and what a press in a picture chooses, compared with the deconvnet itself."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

import zflib
from zflib import data, explore, show
from zflib.deconv import receptive_field
from zflib.explore import channel_wall as walls
from zflib.explore import correspondence_explorer, layer_explorer
from zflib.studies import gallery
from zflib.studies.units import VIEWS, Units, patch_tiles, projection_pixels, sheet, unit_tiles

GEOMETRY = zflib.models.Geometry(64, 56, (
    zflib.models.Conv(8, 7, stride=2, padding=3, pool=True, norm=True), zflib.models.Conv(100, 3, padding=1, pool=True),
), hidden=(16,))  # fmt: skip


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = zflib.ZFNet(6, geometry=GEOMETRY).eval()
    net.classes = [f"class {i}" for i in range(6)]
    return net


@pytest.fixture(scope="module")
def squares():
    return np.random.default_rng(5).integers(0, 256, (12, 3, 64, 64), dtype=np.uint8)


@pytest.fixture(scope="module")
def peaks(net, squares):
    return zflib.find_peaks(net, squares, layers=["conv1", "conv2"])


@pytest.fixture
def wall(net, squares, peaks):
    return explore.wall(net, squares, peaks=peaks)


def tile_of(panel, channel: int) -> np.ndarray:
    row, column = divmod(channel % walls.PAGE, walls.COLUMNS)
    step = walls.TILE + walls.GAP
    top, left = walls.TITLE + row * step, walls.MARGIN + column * step
    return panel.pixels[top : top + walls.TILE, left : left + walls.TILE]


def middle_of(channel: int) -> tuple[int, int]:
    """Column and row of the middle of a tile."""
    row, column = divmod(channel % walls.PAGE, walls.COLUMNS)
    step = walls.TILE + walls.GAP
    return walls.MARGIN + column * step + walls.TILE // 2, walls.TITLE + row * step + walls.TILE // 2


# --- the wall --------------------------------------------------------------------------------------------------------


def test_a_tile_is_the_projection_from_the_channels_strongest_image(wall, net, squares, peaks):
    images = data.centre_crop(net.normalise(torch.from_numpy(squares)), 56)
    for layer in ("conv1", "conv2"):
        wall.controls["layer"].value = layer
        found = peaks[layer]
        for channel in range(1, 8):  # that of channel 0 is framed
            at = found.positions[channel, 0]
            whole = zflib.Deconvnet(net).project(images[found.images[channel, :1]], layer, channel, positions=at)
            cut = gallery.crop(net, layer, whole, at[None])[0]
            drawn = projection_pixels(cut, walls.TILE, view="calm").astype(int)
            assert np.abs(tile_of(wall, channel) - drawn).max() <= 1


@pytest.mark.parametrize("view", VIEWS)
def test_the_marked_channel_is_opened_with_nine_patches_and_projections(wall, net, squares, peaks, view):
    wall.controls["view"].value = view
    wall.controls["channel"].value = 37
    unit = Units(net, squares, peaks=peaks).unit("conv2", 37)
    right = sheet(unit_tiles(unit, view, walls.SIDE), columns=3, rows=3, gap=4)
    side, bottom = 3 * walls.SIDE + 8, len(wall.pixels) - walls.SPACE
    assert np.array_equal(wall.pixels[bottom - side : bottom, side + walls.SPACE :][:, :side], right)
    left = sheet(patch_tiles(unit, walls.SIDE), columns=3, rows=3, gap=4)
    assert np.array_equal(wall.pixels[bottom - side : bottom, :side], left)
    assert wall.text.startswith("conv2:37. Channel 37 of conv2") and wall.status.value == ""


def test_sliders_at_their_ends_and_pages(wall):
    panel, shape = wall, wall.pixels.shape
    for layer, last in (("conv1", 7), ("conv2", 99)):
        panel.controls["layer"].value = layer
        assert panel.controls["channel"].max == last
        for channel in (0, last):
            panel.controls["channel"].value = channel
            assert f"Channel {channel} of {layer}" in panel.text and panel.status.value == ""
    assert panel.values["page"] == 2 == panel.controls["page"].max and panel.pixels.shape == shape
    panel.controls["page"].value = 1
    assert panel.values["channel"] == 0 and "Channel 0 of conv2" in panel.text
    panel.controls["page"].value = 2
    assert panel.values["channel"] == 96 and "Channel 96 of conv2" in panel.text
    panel.controls["layer"].value = "conv1"
    assert panel.values["channel"] == 7 and panel.values["page"] == 1 == panel.controls["page"].max


def test_a_press_on_a_tile_opens_it(wall):
    for channel in (0, 15, 16, 95, 40):
        x, y = middle_of(channel)
        wall.point(x, y, (x, y))
        assert wall.values["channel"] == channel and f"Channel {channel} of conv2" in wall.text
    before = wall.values
    for x, y in ((5, 100), (400, 5), (400, walls.TITLE + walls.ROWS * 60 + 100)):  # margin, title, below
        wall.point(x, y, (x, y))
        assert wall.values == before and wall.status.value == ""
    wall.controls["page"].value = 2
    x, y = middle_of(99)
    wall.point(x, y, (x, y))
    assert wall.values["channel"] == 99
    x, y = middle_of(4)  # of channel 100, which the layer lacks
    wall.point(x, y, (x, y))
    assert wall.values["channel"] == 99


def test_a_page_that_takes_long_is_shown_before_it_is_complete(net, squares, peaks, monkeypatch):
    go_on, drawn = threading.Event(), threading.Event()

    class Slow(walls.Mined):
        def tiles(self, layer, channels):
            if layer == "conv1":
                assert go_on.wait(20)
            return super().tiles(layer, channels)

    monkeypatch.setattr(walls, "Mined", Slow)
    monkeypatch.setattr(walls, "PATIENCE", -1)
    panel = explore.wall(net, squares, peaks=peaks)
    panel.controls["layer"].value = "conv1"
    assert (tile_of(panel, 3) == 235).all() and "Channel 0 of conv1" in panel.text
    panel.picture.observe(lambda change: drawn.set(), names="value")
    go_on.set()
    assert drawn.wait(20)
    whole = explore.wall(net, squares, peaks=peaks, layer="conv1")
    assert np.array_equal(panel.pixels, whole.pixels)


@pytest.fixture(scope="module")
def mined(net, squares):
    return gallery.mine(net, squares, torch.arange(12) % 6, layers=["conv1", "conv2"], chosen=3)


def test_a_gallery_without_its_images_shows_projections_and_names(net, mined):
    panel = explore.wall(net, gallery=mined)
    for channel in (3, int(mined.chosen["conv2"][0])):
        panel.controls["channel"].value = channel
        large = projection_pixels(mined.tile("conv2", channel), walls.WHOLE, view="calm")
        bottom = len(panel.pixels) - walls.SPACE
        assert np.array_equal(panel.pixels[bottom - walls.WHOLE : bottom, : walls.WHOLE], large)
        assert all(name in panel.text for name in mined.class_names("conv2", channel))
        small = projection_pixels(mined.tile("conv2", channel + 1), walls.TILE, view="calm")
        frame = 2 if (channel + 1) % walls.COLUMNS else 0  # of the tile on its left
        assert np.array_equal(tile_of(panel, channel + 1)[:, frame:], small[:, frame:])
    nine = sheet(
        [projection_pixels(one, walls.SIDE, view="calm") for one in mined.nine("conv2", channel)],
        columns=3,
        rows=3,
        gap=4,
    )
    right = walls.WHOLE + walls.SPACE
    assert np.array_equal(panel.pixels[bottom - walls.WHOLE : bottom, right : right + 488][::2, ::2], nine[::2, ::2])
    for view in VIEWS:
        panel.controls["view"].value = view
        assert panel.status.value == ""


def test_a_gallery_with_its_images_is_looked_up_in_them(net, squares, mined, peaks):
    panel = explore.wall(net, squares, gallery=mined, unit="conv2:5")
    assert np.array_equal(panel.pixels, explore.wall(net, squares, peaks=peaks, unit="conv2:5").pixels)


def test_wall_and_units_begin_at_an_address(net, squares, peaks):
    for make in (explore.wall, explore.units):
        panel = make(net, squares, peaks=peaks, unit="conv2:73")
        assert (panel.values["layer"], panel.values["channel"]) == ("conv2", 73) and panel.text.startswith("conv2:73.")
        wrong = {"conv2": "unit must be a layer and a channel", "conv2:100": "channels 0 to 99 of layer 'conv2'",
                 "fc3:0": "one of the layers conv1, conv2"}  # fmt: skip
        for address, sentence in wrong.items():
            with pytest.raises(ValueError, match=sentence):
                make(net, squares, peaks=peaks, unit=address)
        with pytest.raises(ValueError, match="view must be one of"):
            make(net, squares, peaks=peaks, view="nice")
        with pytest.raises(ValueError, match="layer must be one of"):
            make(net, squares, peaks=peaks, layer="conv9")


# --- the explorers of units and of layers ----------------------------------------------------------------------------


def test_every_view_draws_something_else(net, squares, peaks):
    panels = [explore.units(net, squares, peaks=peaks), explore.layers(net, ["coffee"], layer="conv2")]
    for panel in panels:
        seen = set()
        for view in VIEWS:
            panel.controls["view"].value = view
            seen.add(panel.pixels.tobytes())
            assert panel.status.value == ""
        assert len(seen) == 4 and panel.pixels.shape[1] <= 1000


@pytest.fixture
def layers(net):
    return explore.layers(net, ["coffee"], layer="conv2", view="raw")


def expected(net, channel: int, position: tuple[int, int]) -> np.ndarray:
    image = net.preprocess([data.photo("coffee")])
    whole = zflib.Deconvnet(net).project(image, "conv2", channel, positions=position)[0]
    box = [min(max(edge, 0), 56) for edge in receptive_field(net, "conv2", position)]
    return projection_pixels(show.crop_box(whole, box), layer_explorer.SIDE)


def shown(panel) -> np.ndarray:
    return panel.pixels[-layer_explorer.SIDE :, -layer_explorer.SIDE :].astype(int)


def test_a_press_in_the_map_projects_that_position(layers, net):
    side, step = layer_explorer.SIDE, layer_explorer.SIDE + layer_explorer.GAP
    title, channel = len(layers.pixels) - side, layers.values["channel"]
    rows, columns = 14, 14  # of conv2
    for row, column in ((0, 0), (13, 13), (4, 9)):
        x, y = step + int((column + 0.5) * side / columns), title + int((row + 0.5) * side / rows)
        layers.point(x, y, (x, y))
        assert (layers.values["row"], layers.values["column"], layers.values["strongest"]) == (row, column, False)
        assert f"at row {row}, column {column} of its 14×14 map" in layers.text
        assert np.abs(shown(layers) - expected(net, channel, (row, column))).max() <= 1


def test_a_press_in_the_photograph_chooses_the_position_that_looks_there(layers, net):
    side, title = layer_explorer.SIDE, len(layers.pixels) - layer_explorer.SIDE
    for x, y in ((120, 120), (3, 200), (230, 60)):
        layers.point(x, title + y, (x, title + y))
        top, left, bottom, right = receptive_field(net, "conv2", (layers.values["row"], layers.values["column"]))
        row, column = y * 56 / side, x * 56 / side
        assert abs((top + bottom) / 2 - row) <= 4 and abs((left + right) / 2 - column) <= 4
    layers.point(600, title + 10, (600, title + 10))  # in the patch: nothing
    assert layers.status.value == "" and layers.values["strongest"] is False


def test_sliders_choose_the_position_and_the_tick_goes_back(layers, net):
    first, channel = dict(layers.values), layers.values["channel"]
    strongest = layers.pixels
    for name in ("row", "column"):
        for end in (0, layers.controls[name].max):
            layers.controls[name].value = end
            assert layers.values["strongest"] is False or layers.values[name] == first[name]
            assert layers.status.value == ""
    position = layers.values["row"], layers.values["column"]
    assert position == (13, 13) and np.abs(shown(layers) - expected(net, channel, position)).max() <= 1
    layers.controls["channel"].value = 0 if channel else 1
    assert (layers.values["row"], layers.values["column"]) == position  # another channel at the same position
    layers.controls["channel"].value = channel
    layers.controls["strongest"].value = True
    assert layers.values == first and np.array_equal(layers.pixels, strongest)


def test_a_press_among_the_units_of_a_fully_connected_layer_chooses_one(net):
    panel = explore.layers(net, ["coffee"], layer="fc3")
    side, step = layer_explorer.SIDE, layer_explorer.SIDE + layer_explorer.GAP
    x, y = step + side // 2 + 5, len(panel.pixels) - side + 5  # 16 units in 4 rows of 4
    panel.point(x, y, (x, y))
    assert panel.values["channel"] == 2 and panel.status.value == ""


# --- the explorer of correspondence ----------------------------------------------------------------------------------


def test_a_drag_moves_the_masks_of_all_images(net, squares):
    images = net.preprocess(squares[:3].transpose(0, 2, 3, 1))
    panel = explore.correspondence(net, images, {"nose": torch.full((3, 2), 28)}, layers=["conv2"], size=9)
    side, gap = correspondence_explorer.SIDE, correspondence_explorer.GAP
    start = side + gap + 80, 80
    x, y = side + gap + round(40.5 / 56 * side), round(20.5 / 56 * side)
    panel.point(x, y, start)
    assert (panel.values["down"], panel.values["right"]) == (-8, 12) and "8 px up, 12 px right" in panel.text
    boxes = torch.tensor([[16, 36, 25, 45]] * 3)
    score = zflib.experiments.correspondence(net, images, boxes, layer="conv2")
    assert f"delta {score.delta:.3f}, by chance {score.null:.3f}" in panel.text
    panel.point(0, 0, start)  # far to the left of the image: its corner
    assert (panel.values["down"], panel.values["right"]) == (-24, -24)
    before = panel.values
    panel.point(300, side + 60, (300, side + 60))  # below the images
    assert panel.values == before and panel.status.value == ""


def test_masks_stay_inside_at_every_end_of_the_sliders(net, squares):
    images = net.preprocess(squares[:3].transpose(0, 2, 3, 1))
    panel = explore.correspondence(net, images, {"nose": torch.full((3, 2), 28)}, layers=["conv2"])
    for name in ("down", "right"):
        for end in (panel.controls[name].min, panel.controls[name].max):
            panel.controls[name].value = end
            assert panel.status.value == "" and f"{abs(end)} px" in panel.text
