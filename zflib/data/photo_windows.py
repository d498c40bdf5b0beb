"""A few photographs as thousands of images: square windows at several scales, and where each was cut from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from .images import open_image
from .photographs import photo, photo_names

#: The photographs that `windows` cuts when it gets none. (Of the motorcycle no licence is stated.)
SHOWN = ("astronaut", "chelsea", "china", "coffee", "flower", "grace_hopper", "rocket")


@dataclass(frozen=True)
class Windows:
    """N square windows of some pictures: `pixels` (N,3,S,S) uint8, and `pictures` (N,), `boxes` (N,4): where from.

    `pictures` are indices into `names`; a box is (top, left, bottom, right) in its picture's own pixels.
    """

    pixels: torch.Tensor
    pictures: torch.Tensor
    boxes: torch.Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pixels)

    def inside(self, images: torch.Tensor, boxes: torch.Tensor, *, crop: int) -> torch.Tensor:
        """(…,4) boxes in the pictures' own pixels, from (…,4) boxes in the network's crop of windows `images` (…)."""
        outer, side = self.boxes[images].float(), self.pixels.shape[-1]
        scale = (outer[..., 2:3] - outer[..., 0:1]) / side
        margin = (side - crop) // 2
        return outer[..., [0, 1, 0, 1]] + (boxes + margin) * scale


def windows(
    pictures: Mapping | None = None,
    *,
    sizes: Sequence[int] | None = None,
    stride: float = 1 / 3,
    side: int = 64,
) -> Windows:
    """Every window of `sizes` pixels that fits into the pictures, at steps of `stride` of its size, as Windows.

    `pictures`: name -> image as `data.open_image` takes it; default: the shipped photographs. A window becomes
    `side` pixels wide (what a network's geometry.resize says); `sizes` are by default 64, 96, 144 and 216, or 192 and
    288 for a `side` of more than 128. Sizes that fit into none of them: ValueError.
    """
    named = {name: photo(name) for name in SHOWN if name in photo_names()} if pictures is None else pictures
    if not isinstance(named, Mapping) or not named:
        raise ValueError(f"pictures must be a dict name -> image with at least one, got {type(named).__name__}")
    if sizes is None:
        sizes = (192, 288) if side > 128 else (64, 96, 144, 216)
    pixels, owners, boxes = [], [], []
    for owner, (name, source) in enumerate(named.items()):
        picture = open_image(source, name=str(name))
        for box in _boxes(picture.height, picture.width, sizes, stride):
            top, left, bottom, right = box
            small = picture.crop((left, top, right, bottom)).resize((side, side), Image.Resampling.BILINEAR)
            pixels.append(np.asarray(small).transpose(2, 0, 1))
            owners.append(owner)
            boxes.append(box)
    if not pixels:
        raise ValueError(f"sizes: no window of {min(sizes)} pixels fits into these pictures; use smaller ones")
    stacked = torch.from_numpy(np.stack(pixels))
    return Windows(stacked, torch.tensor(owners), torch.tensor(boxes), tuple(map(str, named)))


def _boxes(height: int, width: int, sizes: Sequence[int], stride: float) -> list[tuple[int, int, int, int]]:
    """Size by size in reading order."""
    found = []
    for size in sizes:
        step = max(1, round(size * stride))
        tops, lefts = range(0, height - size + 1, step), range(0, width - size + 1, step)
        found += [(top, left, top + size, left + size) for top in tops for left in lefts]
    return found
