"""Pictures that move where no kernel runs: animated PNGs, which notebook viewers play."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

COLOURS = (None, 256, 96)  # of all frames together: first all there are, then fewer
LEAST = 64  # pixels of the longer side: smaller pictures show nothing


def animated(frames: Sequence[np.ndarray], *, seconds: float = 0.6, most: int = 1_000_000) -> bytes:
    """An animated PNG of (H,W,3) uint8 frames, `seconds` each, over and over, of at most `most` bytes.

    Too large a file is made again with fewer colours, then smaller. Smaller frames are filled up with white. No frames,
    or a limit that no readable picture meets, raise ValueError.
    """
    if not len(frames):
        raise ValueError("frames must be at least one (H,W,3) uint8 picture, got none")
    height, width = (max(frame.shape[axis] for frame in frames) for axis in (0, 1))
    pictures = [Image.fromarray(_filled(frame, height, width)) for frame in frames]
    side = max(height, width)
    for colours in COLOURS:
        if len(data := _png(_with_colours(pictures, colours), seconds)) <= most:
            return data
    while (side := round(side * 0.85)) >= LEAST:
        small = [picture.copy() for picture in pictures]
        for picture in small:
            picture.thumbnail((side, side), Image.LANCZOS)
        if len(data := _png(_with_colours(small, COLOURS[-1]), seconds)) <= most:
            return data
    raise ValueError(f"most must leave room for {len(frames)} frames, got {most} bytes; give fewer frames")


def _filled(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    below, right = height - frame.shape[0], width - frame.shape[1]
    return np.pad(frame, ((0, below), (0, right), (0, 0)), constant_values=255)


def _with_colours(pictures: list[Image.Image], colours: int | None) -> list[Image.Image]:
    """The pictures with one palette of so many colours, as an animated PNG needs it."""
    if colours is None:
        return pictures
    small = np.concatenate([np.asarray(picture)[::2, ::2] for picture in pictures])
    palette = Image.fromarray(small).quantize(colours, Image.Quantize.MEDIANCUT)
    return [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]


def _png(pictures: list[Image.Image], seconds: float) -> bytes:
    file, first = io.BytesIO(), pictures[0]
    first.save(file, "PNG", save_all=True, append_images=pictures[1:], duration=round(seconds * 1000), loop=0)
    return file.getvalue()
