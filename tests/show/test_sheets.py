"""Figure 2 and posters: every tile in its cell, at least 150 pixels wide on the page, and how notebooks store them."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from zflib import show
from zflib.show import sheets


def row(label: str = "conv5 channel 7: 3 … 1", count: int = 6) -> tuple:
    """Flat patches, each of its own brightness, and projections without energy."""
    patches = [np.full((9, 9, 3), 20 * (i + 1), np.uint8) for i in range(count)]
    return label, patches, torch.zeros(count, 3, 9, 9)


def test_figure2_puts_patches_beside_lit_ones_and_projections():
    page = show.figure2([row()], across=2)
    side = ((2000 - 2 * sheets.SPACE) // 3 - sheets.GAP) // 2
    assert page.shape[1] == 2000 and side // 2 >= 150
    top = 2 * round(sheets.TEXT * 1.6)  # below headings and label
    for i in range(6):
        down, left = top + i // 2 * (side + sheets.GAP), i % 2 * (side + sheets.GAP)
        assert (page[down : down + side, left : left + side] == 20 * (i + 1)).all()
        for block in (1, 2):  # no energy: the lit patch and the projection are grey
            start = left + block * ((2000 - 2 * sheets.SPACE) // 3 + sheets.SPACE)
            assert (page[down : down + side, start : start + side] == show.GREY).all()
    assert page[: round(sheets.TEXT * 1.6), :700].min() < 120 and page[round(sheets.TEXT * 1.6) : top].min() < 80


def test_each_row_has_its_label_and_its_height():
    one, two = show.figure2([row()], across=3), show.figure2([row(), row("conv1")], across=3)
    head = round(sheets.TEXT * 1.6)
    assert two.shape[0] - head == 2 * (one.shape[0] - head)
    assert not np.array_equal(two[head : 2 * head], two[one.shape[0] : one.shape[0] + head])


def test_what_lies_beyond_the_image_is_light_grey():
    patch = torch.ones(1, 3, 8, 8)
    patch[..., 4:] = 0
    page = show.figure2([("x", patch, torch.zeros(1, 3, 8, 8))], across=1)
    line = page[-60]
    assert (line[:200] == 1).all() and (line[440:600] == sheets.BEYOND).all()


def test_figure2_refuses_rows_that_are_not_whole():
    label, patches, projections = row()
    with pytest.raises(ValueError, match=r"conv5 channel 7.*equally many, got 5 and 6"):
        show.figure2([(label, patches[:5], projections)])
    with pytest.raises(ValueError, match="rows must be at least one"):
        show.figure2([])


def test_channel_label():
    assert show.channel_label("conv5", 109, torch.tensor([12.345, 11.0, 9.812])) == "conv5 channel 109: 12.3 … 9.81"


def test_a_projection_tile_is_calmed_unless_told_otherwise():
    values = torch.randn(3, 9, 9)
    raw = show.fit(show.signed_pixels(values, full=show.limit(values, 99)), 40, smooth=True)
    assert np.array_equal(show.projection_tile(values, 40, raw=True), raw)
    assert show.projection_tile(values, 40).std() != raw.std()


def test_a_poster_has_captions_below_its_tiles():
    tiles = [np.full((5, 5, 3), value, np.uint8) for value in (10, 20, 30)]
    page = show.poster(tiles, ["dogs' faces", "dials", "a caption that needs more than a single line here"], columns=2)
    side = (2000 - 2 * sheets.GAP) // 2
    assert page.shape[1] == 2000 and (page[:side, :side] == 10).all() and (page[:side, side + 16 :] == 20).all()
    assert page[side : side + 40, :side].min() < 80
    with pytest.raises(ValueError, match="captions must be one for each tile, got 1 for 3 tiles"):
        show.poster(tiles, ["one"])


def test_a_page_stores_a_jpeg_and_its_width():
    page = np.full((100, 2000, 3), 90, np.uint8)
    _, metadata = show.on_page(page, "a grey strip")._repr_mimebundle_()
    assert metadata["image/jpeg"] == {"width": 1000, "alt": "a grey strip"}
    shown = show.on_page(page, "a grey strip")
    assert Image.open(io.BytesIO(shown.data)).size == (2000, 100)
    assert show.on_page(page[:, :300], "a part of it").width == 300
