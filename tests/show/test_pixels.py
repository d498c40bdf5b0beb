"""Pictures, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import zflib
from zflib import show
from zflib.show import pixels


def grey(height: int, width: int, value: int = 7) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


# --- tensors to pixels -----------------------------------------------------------------------------------------------


def test_dead_projection_is_all_grey():
    assert (show.signed_pixels(torch.zeros(3, 5, 6)) == show.GREY).all()
    assert show.limit(torch.zeros(3, 5, 6)) == 1.0


def test_signed_pixels_are_symmetric_about_grey_and_clipped_at_full():
    values = torch.tensor([0.0, 1.0, -1.0, 0.5, -0.5, 9.0, -9.0]).view(1, 1, -1).expand(3, 1, -1)
    row = show.signed_pixels(values, full=1.0)[0, :, 0].astype(int) - show.GREY
    assert row.tolist()[:5] == [0, 127, -127, 64, -64]
    assert row[5] == 127 and row[6] == -128
    assert show.signed_pixels(values, full=1.0).shape == (1, 7, 3)


def test_limit_is_a_percentile_of_what_is_not_zero():
    values = torch.zeros(3, 100, 100)
    values[0, 0] = torch.arange(1, 101) * torch.tensor([1, -1]).repeat(50)
    values[1, 0, 0] = 1e6
    assert show.limit(values, 50) == pytest.approx(51)
    assert show.limit(values, 100) == 1e6
    assert show.limit(values) < 6e5  # one bright pixel does not dim the rest as far as it could


def test_signed_pixels_refuse_another_shape():
    for wrong in (torch.zeros(1, 3, 4, 4), torch.zeros(4, 4), torch.zeros(4, 4, 3)):
        with pytest.raises(ValueError, match=r"projection must be \(3,H,W\)"):
            show.signed_pixels(wrong)


def test_image_pixels_of_each_kind():
    net = zflib.zfnet56(4)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    image = net.preprocess([photo])[0]
    assert np.array_equal(show.image_pixels(image, net), np.asarray(photo)[4:60, 4:60])
    assert np.array_equal(show.image_pixels(photo), np.asarray(photo))
    assert show.image_pixels(np.zeros((4, 5), np.uint8)).shape == (4, 5, 3)
    with pytest.raises(ValueError, match="image must be one"):
        show.image_pixels(image[None], net)


def test_image_pixels_for_a_network_without_denormalise_use_the_full_range():
    pixels = show.image_pixels(torch.linspace(-2, 3, 48).view(3, 4, 4), nn.Conv2d(3, 1, 1))
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert np.isfinite(show.image_pixels(torch.ones(3, 4, 4), nn.Conv2d(3, 1, 1))).all()


def test_map_pixels_run_from_dark_to_bright():
    dark, bright = show.map_pixels(torch.tensor([[0.0, 2.0]]))[0].sum(axis=1)
    assert dark < bright
    assert (show.map_pixels(torch.zeros(3, 3)) == show.map_pixels(torch.zeros(1, 1))[0, 0]).all()
    assert np.array_equal(show.map_pixels(torch.full((2, 2), -3.0)), show.map_pixels(torch.zeros(2, 2)))
    half = show.map_pixels(torch.tensor([[1.0]]), full=2.0)
    assert np.array_equal(half, show.map_pixels(torch.tensor([[1.0, 2.0]]))[:, :1])


# --- geometry --------------------------------------------------------------------------------------------------------


def test_upscale_repeats_pixels_or_smooths_them():
    pixels = np.zeros((2, 4, 3), np.uint8)
    pixels[0, 0] = 200
    large = show.upscale(pixels, 12)
    assert large.shape == (6, 12, 3) and (large[:3, :3] == 200).all() and large.sum() == 200 * 27
    assert len(np.unique(show.upscale(pixels, 12, smooth=True))) > 2
    assert show.upscale(grey(100, 1), 10).shape == (10, 1, 3)


CROPS = [((1, 2, 3, 5), (2, 3)), ((-4, -4, 2, 2), (2, 2)), ((6, 6, 99, 99), (2, 2)), ((-9, -9, 99, 99), (8, 8))]


@pytest.mark.parametrize(("box", "shape"), CROPS)
def test_crop_box_is_clipped_to_the_image(box, shape):
    values = torch.arange(64.0).view(1, 8, 8).expand(3, 8, 8)
    cropped = show.crop_box(values, box)
    assert cropped.shape == (3, *shape)
    assert cropped[0, 0, 0] == max(0, box[0]) * 8 + max(0, box[1])


def test_mosaic_puts_pictures_in_reading_order():
    sheet = show.mosaic([grey(4, 4, i) for i in range(1, 6)], columns=3, gap=2)
    assert sheet.shape == (10, 16, 3)
    corners = [sheet[0, 0, 0], sheet[0, 6, 0], sheet[0, 12, 0], sheet[6, 0, 0], sheet[6, 6, 0]]
    assert corners == [1, 2, 3, 4, 5]
    assert (sheet[4:6] == 255).all() and (sheet[6:, 12:] == 255).all()


def test_mosaic_centres_smaller_pictures():
    sheet = show.mosaic([grey(6, 6), grey(2, 2, 9)], columns=2, gap=0)
    assert (sheet[2:4, 8:10] == 9).all() and (sheet == 9).sum() == 4 * 3


def test_fit_centres_on_white():
    square = show.fit(grey(2, 4), 8)
    assert (
        square.shape == (8, 8, 3)
        and (square[2:6] == 7).all()
        and (square[:2] == 255).all()
        and (square[6:] == 255).all()
    )


def test_framed_draws_around_the_box_and_leaves_what_is_in_it():
    pixels = grey(60, 60)
    framed = show.framed(pixels, (5, 5, 10, 10), scale=4)
    assert (pixels == 7).all() and framed.shape == pixels.shape
    assert (framed[22:38, 22:38] == 7).all()
    assert (framed != 7).any(axis=2)[18:42, 18:42].any() and not (framed != 7).any(axis=2)[:17].any()
    orange = tuple(int(show.ORANGE[i : i + 2], 16) for i in (1, 3, 5))
    assert (framed == orange).all(axis=2).any()


@pytest.mark.parametrize("box", [(-50, -50, 200, 200), (0, 0, 1, 1), (59, 59, 60, 60), (30, 30, 30, 30)])
def test_framed_stays_visible_at_borders_and_for_tiny_boxes(box):
    framed = show.framed(grey(60, 60), box)
    rows, columns = np.nonzero((framed != 7).any(axis=2))
    assert np.ptp(rows) >= 7 and np.ptp(columns) >= 7
    assert show.framed(grey(3, 3), (0, 0, 1, 1)).shape == (3, 3, 3)


def test_caption_adds_readable_text_above_and_breaks_long_lines():
    pixels = grey(20, 120)
    short, long = (
        show.caption(pixels, "conv5 · 7×7"),
        show.caption(pixels, "a title that needs more than one line here"),
    )
    assert short.shape == (41, 120, 3) and np.array_equal(short[21:], pixels)
    assert short[:21].min() < 80 and short[:21].max() == 255
    assert (len(long) - len(pixels) - 3) % 18 == 0 and len(long) > len(short)
    assert len(show.caption(pixels, "x", size=20)) > len(short)


def test_a_caption_does_not_break_at_a_no_break_space():
    assert pixels._wrapped("background. A: cup", 125, 13) == ["background. A:", "cup"]
    kept = "A:\N{NO-BREAK SPACE}cup"
    assert pixels._wrapped(f"background.  {kept}", 125, 13) == ["background.", kept]


def test_caption_has_a_glyph_for_every_sign_we_write():
    missing = show.caption(grey(1, 40), "\uffff")
    for sign in "×·–é→≤…":
        assert not np.array_equal(show.caption(grey(1, 40), sign), missing), sign


def test_beside_aligns_pictures_below_their_titles():
    row = show.beside([grey(20, 100, 1), grey(40, 100, 2)], ["a title too long for a single line", "b"], gap=10)
    plain = show.beside([grey(20, 100, 1), grey(40, 100, 2)], gap=10)
    assert plain.shape == (40, 210, 3) and row.shape[1] == 210
    head = len(row) - 40
    assert (row[head:, 110:] == 2).all() and (row[head : head + 20, :100] == 1).all() and (row[:, 100:110] == 255).all()
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        show.beside([grey(2, 2), grey(2, 2)], ["one"])
