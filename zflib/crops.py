"""A few photographs as thousands of images: square windows at several scales, and where each was cut from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
import torch
from PIL import Image

from .images import open_image
from .photos import photo, photo_names
from .tally import Peaks

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
    sizes: Sequence[int] = (64, 96, 144, 216),
    stride: float = 1 / 3,
    side: int = 64,
) -> Windows:
    """Every window of `sizes` pixels that fits into the pictures, at steps of `stride` of its size, as Windows.

    `pictures`: name -> image as `data.open_image` takes it; default: the shipped photographs. A window becomes
    `side` pixels wide (what a network's geometry.resize says). Bad sizes or a stride outside 0 to 1: ValueError.
    """
    named = {name: photo(name) for name in SHOWN if name in photo_names()} if pictures is None else pictures
    if not isinstance(named, Mapping) or not named:
        raise ValueError(f"pictures must be a dict name -> image with at least one, got {type(named).__name__}")
    _check(sizes, stride, side)
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


def _check(sizes, stride, side) -> None:
    whole = [*sizes, side] if isinstance(sizes, Sequence) and len(sizes) else [None]
    if not all(isinstance(n, Integral) and not isinstance(n, bool) and n >= 8 for n in whole):
        raise ValueError(f"sizes and side must be whole numbers of pixels, at least 8, got {sizes!r} and {side!r}")
    if not isinstance(stride, Real) or not 0 < stride <= 1:
        raise ValueError(f"stride must be a share of the window, above 0 and at most 1, got {stride!r}")


def _boxes(height: int, width: int, sizes: Sequence[int], stride: float) -> list[tuple[int, int, int, int]]:
    """Size by size in reading order."""
    found = []
    for size in sizes:
        step = max(1, round(size * stride))
        tops, lefts = range(0, height - size + 1, step), range(0, width - size + 1, step)
        found += [(top, left, top + size, left + size) for top in tops for left in lefts]
    return found


def distinct(peaks: Peaks, owners: torch.Tensor, boxes: torch.Tensor, *, k: int = 9, overlap: float = 0.2) -> Peaks:
    """Peaks (C,k) of those in `peaks` (C,K) that show another place: strongest first, nearly the same ones left out.

    `owners` (C,K): which picture; `boxes` (C,K,4): where in it. One goes if its box shares more than `overlap` (area
    in common over area of both) with a stronger one's. Where fewer than k are left: as in `Peaks`, -inf and -1.
    """
    keep = torch.stack([_apart(o, b, k, overlap) for o, b in zip(owners, boxes.float())])  # (C,k) places, -1: none
    at, none = keep.clamp(min=0), keep < 0
    values = peaks.values.gather(1, at).masked_fill(none, -torch.inf)
    images = peaks.images.gather(1, at).masked_fill(none, -1)
    positions = peaks.positions.gather(1, at[..., None].expand(-1, -1, 2)).masked_fill(none[..., None], -1)
    return Peaks(values, images, positions)


def _apart(owners: torch.Tensor, boxes: torch.Tensor, k: int, overlap: float) -> torch.Tensor:
    """(k,) places of one channel's candidates, in order, -1 where there are no more."""
    low, high = (
        torch.maximum(boxes[:, None, :2], boxes[None, :, :2]),
        torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:]),
    )
    common = (high - low).clamp(min=0).prod(dim=-1)  # (K,K)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=-1)
    share = common / (area[:, None] + area[None, :] - common).clamp(min=1e-9)
    near = ((share > overlap) & (owners[:, None] == owners[None, :])).tolist()
    kept: list[int] = []
    for candidate in range(len(owners)):
        if len(kept) < k and not any(near[candidate][other] for other in kept):
            kept.append(candidate)
    return torch.tensor(kept + [-1] * (k - len(kept)))
