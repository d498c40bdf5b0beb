"""Animated PNGs: all frames in their order, and never too large."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from zflib import show


def noise(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def opened(data: bytes) -> list[np.ndarray]:
    image, frames = Image.open(io.BytesIO(data)), []
    for i in range(image.n_frames):
        image.seek(i)
        frames.append(np.asarray(image.convert("RGB")))
    return frames


def test_frames_come_back_as_they_were():
    frames = [noise(seed=i) for i in range(3)]
    data = show.animated(frames, seconds=0.25)
    image = Image.open(io.BytesIO(data))
    assert image.n_frames == 3 and image.info["duration"] == 250 and image.info["loop"] == 0
    assert all(np.array_equal(one, other) for one, other in zip(opened(data), frames))


@pytest.mark.parametrize("most", [140_000, 50_000])
def test_too_large_a_file_gets_fewer_colours_and_then_smaller(most):
    frames = [noise(200, 240, seed=i) for i in range(3)]
    data = show.animated(frames, most=most)
    found = opened(data)
    assert len(data) <= most and len(found) == 3
    height, width = found[0].shape[:2]
    assert abs(height / width - 200 / 240) < 0.02
    assert all(len(np.unique(frame.reshape(-1, 3), axis=0)) <= 256 for frame in found)


def test_few_colours_keep_the_picture():
    flat = [np.full((200, 300, 3), value, np.uint8) for value in (10, 120, 240)]
    for frame in flat:
        frame[:100] += noise(100, 300) // 32
    data = show.animated(flat, most=60_000)
    assert len(data) <= 60_000 and len(opened(data)) == 3
    assert [int(frame[-1, -1, 0]) for frame in opened(data)] == pytest.approx([10, 120, 240], abs=8)


def test_smaller_frames_are_filled_up_with_white():
    first, second = opened(show.animated([noise(60, 80), noise(40, 50, 1)]))
    assert np.array_equal(second[:40, :50], noise(40, 50, 1)) and (second[40:] == 255).all()
    assert (second[:, 50:] == 255).all() and first.shape == second.shape


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="frames must be at least one"):
        show.animated([])
    with pytest.raises(ValueError, match="most must leave room for 1 frames, got 100 bytes"):
        show.animated([noise()], most=100)
