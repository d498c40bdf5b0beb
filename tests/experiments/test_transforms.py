"""Moved images against numpy, rot90, scipy and the rendered world, whose own poses are the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F

from zflib import data
from zflib.data import scenes
from zflib.experiments.transforms import Move, moved, named_move


@pytest.fixture
def images():
    return torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def smooth():
    """(1,1,41,41) without detail, so that resampling loses little."""
    noise = torch.randn(1, 1, 41, 41, generator=torch.Generator().manual_seed(1))
    return torch.from_numpy(ndimage.gaussian_filter(noise.numpy(), (0, 0, 3, 3)))


@pytest.mark.parametrize("move", [Move(), Move(angle=360), Move(angle=-720, scale=1.0)])
def test_no_move_is_the_same_bits_in_a_tensor_of_its_own(images, move):
    after = moved(images, move)
    assert move.identity and torch.equal(after, images) and after.data_ptr() != images.data_ptr()


@pytest.mark.parametrize("down, right", [(2, 0), (-3, 0), (0, 4), (3, -2), (20, 0)])
@pytest.mark.parametrize("fill, mode", [(0.0, "constant"), (0.7, "constant"), ("edge", "edge"), ("reflect", "reflect")])
def test_a_shift_by_whole_pixels_is_exact_for_every_fill(images, down, right, fill, mode):
    settings = {"constant_values": fill} if mode == "constant" else {}
    wide = np.pad(images.numpy().astype(np.float32), ((0, 0), (0, 0), (24, 24), (24, 24)), mode, **settings)
    expected = wide[:, :, 24 - down : 33 - down, 24 - right : 33 - right]
    np.testing.assert_array_equal(moved(images, Move(down, right), fill=fill).numpy(), expected.astype(np.float32))


@pytest.mark.parametrize("angle, k", [(90, 1), (180, 2), (270, 3), (-90, 3), (450, 1)])
def test_a_quarter_turn_is_rot90_and_counter_clockwise(images, angle, k):
    expected = np.rot90(images.numpy(), k, axes=(2, 3))
    np.testing.assert_array_equal(moved(images, Move(angle=angle)).numpy(), expected)
    top_right = torch.zeros(1, 1, 5, 5)
    top_right[..., 0, 4] = 1
    assert moved(top_right, Move(angle=90))[0, 0, 0, 0] == 1  # from the top right to the top left


def test_a_half_turn_of_an_oblong_image_is_exact_and_a_quarter_turn_stays_inside_the_frame():
    image = torch.randn(1, 1, 5, 9)
    assert torch.equal(moved(image, Move(angle=180)), image.flip(2, 3))
    turned = moved(image, Move(angle=90))
    assert turned.shape == image.shape
    torch.testing.assert_close(turned[..., 2:7], image[..., 2:7].rot90(1, (2, 3)), rtol=0, atol=1e-5)
    assert float(turned[..., :2].abs().max()) < 1e-5 > float(turned[..., 7:].abs().max())  # grey came in


@pytest.mark.parametrize("near, exact", [(Move(angle=90.001), Move(angle=90)), (Move(down=2.0001), Move(down=2)),
                                         (Move(right=-3.0001), Move(right=-3)), (Move(scale=1.00001), Move()),
                                         (Move(scale=0.99999), Move())])  # fmt: skip
@pytest.mark.parametrize("fill", [0.0, -1.3, "edge", "reflect"])
def test_resampling_agrees_with_the_exact_way_beside_it(images, near, exact, fill):
    torch.testing.assert_close(moved(images, near, fill=fill), moved(images, exact, fill=fill), rtol=0, atol=2e-3)


def test_half_a_pixel_is_the_mean_of_two(images):
    for fill in (0.0, 0.5, "edge", "reflect"):
        expected = (moved(images, Move(down=1), fill=fill) + moved(images, Move(down=2), fill=fill)) / 2
        torch.testing.assert_close(moved(images, Move(down=1.5), fill=fill), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("move", [Move(angle=30), Move(scale=1.7), Move(3.5, -2, 1.3, -70)])
def test_against_scipys_affine_transform(smooth, move):
    cos, sin = (f(math.radians(move.angle)) / move.scale for f in (math.cos, math.sin))
    matrix, centre = np.array([[cos, sin], [-sin, cos]]), np.array([20.0, 20.0])  # row, column
    offset = centre - matrix @ (centre + (move.down, move.right))
    expected = ndimage.affine_transform(smooth[0, 0].numpy(), matrix, offset, order=1, mode="constant", cval=0.3)
    found = moved(smooth, move, fill=0.3)[0, 0]
    inside = moved(torch.ones_like(smooth), move)[0, 0] > 0.999  # scipy does not blend with what lies outside
    torch.testing.assert_close(found[inside], torch.from_numpy(expected)[inside], rtol=0, atol=1e-4)


def test_enlarged_twice_is_interpolates_own_bilinear(images):
    expected = F.interpolate(images, scale_factor=2, mode="bilinear", align_corners=False)
    wide = F.pad(images, (4, 5, 4, 5), mode="replicate")  # 18x18, the picture half a pixel up and left of its middle
    torch.testing.assert_close(moved(wide, Move(1, 1, 2)), expected, rtol=0, atol=1e-5)


def test_shrinking_does_not_alias():
    stripes = (torch.arange(48) % 2).float().expand(1, 1, 48, 48) * 2 - 1
    fine = moved(stripes, Move(scale=1 / 3), fill="reflect")  # every third pixel
    assert float(fine.abs().max()) < 0.05
    assert float(moved(stripes, Move(scale=1.0), fill="reflect").abs().max()) == 1
    flat = moved(torch.ones(1, 1, 20, 20), Move(scale=0.5))
    assert float((flat[..., 8:12, 8:12] - 1).abs().max()) < 1e-5 and float(flat[..., 0, 0].abs().max()) == 0
    assert abs(float(flat.sum()) - 100) < 1  # a quarter of the area
    for fill in ("edge", "reflect", 1.0):
        assert float((moved(torch.ones(1, 1, 20, 20), Move(scale=0.3), fill=fill) - 1).abs().max()) < 1e-5


def test_scale_and_turn_commute_and_a_shift_comes_last(smooth):
    both = moved(smooth, Move(4, -3, 1.25, 40))
    turned_first = moved(moved(moved(smooth, Move(angle=40)), Move(scale=1.25)), Move(4, -3))
    inside = (slice(None), slice(None), slice(12, 29), slice(12, 29))
    assert float((both[inside] - turned_first[inside]).abs().max()) < 0.1 * float(smooth.abs().max())


@pytest.mark.parametrize("pose", [{"angle": 25.0}, {"scale": 1.2}, {"down": 5.0, "right": -3.0}, {"angle": 90.0}])
def test_agrees_with_the_poses_of_the_rendered_world(pose):
    """The thing moved in its world covers the pixels that the moved picture of the thing covers."""
    still, there = (scenes.scenes(10, pose=scenes.Pose.exactly(**p)).masks for p in ({}, pose))
    after = moved(still[:, None].float(), Move(**pose))[:, 0] > 0.5
    agree = (after & there).sum() / (after | there).sum()
    before = (still & there).sum() / (still | there).sum()
    assert agree > 0.95 and agree > before


def test_types_and_devices_stay_and_small_pictures_work():
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        assert moved(torch.ones(1, 1, 6, 6, dtype=dtype), Move(angle=10), fill="edge").dtype == dtype
    for fill in (0.0, "edge", "reflect"):
        for move in (Move(3), Move(angle=20), Move(scale=0.5), Move(scale=2)):
            assert moved(torch.ones(1, 1, 1, 2), move, fill=fill).isfinite().all()


def test_a_named_move_changes_one_part():
    assert named_move("translate", 3) == Move(down=3) and named_move("translate-right", -2) == Move(right=-2)
    assert named_move("scale", 2) == Move(scale=2) and named_move("rotate", 30) == Move(angle=30)


@pytest.mark.parametrize("move, message", [
    (Move(scale=0), "scale must be a factor from 0.25 to 4"), (Move(scale=5), "scale must be"),
    (Move(down=float("nan")), "down must be a finite number"), (Move(angle="90"), "angle must be a finite number"),
    (Move(down=float("inf")), "down must be"),
])  # fmt: skip
def test_bad_moves(images, move, message):
    with pytest.raises(ValueError, match=message):
        moved(images, move)


@pytest.mark.parametrize("fill", ["grey", "constant", float("nan"), None, 1e39, torch.zeros(3)])
def test_bad_fills(images, fill):
    with pytest.raises(ValueError, match="fill must be a number"):
        moved(images, Move(1), fill=fill)


def test_a_fill_must_fit_into_the_images_own_type(images):
    assert float(moved(images, Move(1), fill=1e5).max()) == 1e5
    with pytest.raises(ValueError, match="fill must be a number"):
        moved(images.half(), Move(1), fill=1e5)


def test_other_bad_input(images):
    with pytest.raises(TypeError, match=r"move must be a transforms.Move"):
        moved(images, (1, 2))
    with pytest.raises(ValueError, match=r"pass images\[None\]"):
        moved(images[0], Move())
    with pytest.raises(ValueError, match="transform must be one of 'translate'"):
        named_move("shear", 1)


def test_photographs_keep_their_range():
    image = data.stack(data.photo("chelsea"), 56).float()
    after = moved(image, Move(3.3, 2.2, 1.4, 33), fill="reflect")
    assert float(after.min()) >= float(image.min()) and float(after.max()) <= float(image.max()) + 1e-3
