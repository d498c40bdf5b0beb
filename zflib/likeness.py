"""How alike a channel's nine images are: by their classes, by their pixels, and by the known part under each."""

from __future__ import annotations

import numpy as np
import torch

from .scenes import Scenes

_SIDES = ("left ", "right ", "back ", "front ")


def purity(labels: torch.Tensor) -> torch.Tensor:
    """(…,) share of the most common class among (…,k) class indices: 1 if all k are of one class, 1/k if all differ."""
    if labels.dim() < 1 or labels.shape[-1] < 1 or labels.is_floating_point():
        raise ValueError(f"labels must be (…,k) class indices, k at least 1, got {labels.dtype} {tuple(labels.shape)}")
    same = labels[..., :, None] == labels[..., None, :]  # (…,k,k): row i marks those of i's class
    return same.sum(dim=-1).amax(dim=-1) / labels.shape[-1]


def chance_purity(counts, *, k: int = 9, draws: int = 4000, seed: int = 0) -> float:
    """The mean purity of k different images drawn at random, `counts` (classes,) of them being of each class."""
    counts = np.asarray(counts, dtype=np.int64)
    if counts.ndim != 1 or not 1 <= k <= counts.sum() or counts.min() < 0:
        raise ValueError(f"counts must be images per class, k = {k} of them at least, got {counts.tolist()}")
    drawn = np.random.default_rng(seed).multivariate_hypergeometric(counts, k, size=draws, method="count")
    return float(drawn.max(axis=1).mean()) / k


def agreement(pictures: torch.Tensor) -> torch.Tensor:
    """(…,) mean cosine over all pairs among (…,k,C,h,w) pictures, each less its own mean: 1 if all are one picture.

    Contrast and brightness do not count. A picture of one value everywhere agrees with nothing: its cosines are 0.
    """
    if pictures.dim() < 4 or pictures.shape[-4] < 2:
        raise ValueError(f"pictures must be (…,k,C,h,w), k at least 2, got {tuple(pictures.shape)}")
    flat, k = pictures.flatten(-3).cpu().double(), pictures.shape[-4]  # MPS has no doubles
    flat = flat - flat.mean(dim=-1, keepdim=True)
    size = flat.norm(dim=-1, keepdim=True)
    flat = torch.where(size > 1e-9, flat / size.clamp(min=1e-9), 0)
    cosines = flat @ flat.mT  # (…,k,k)
    return (
        ((cosines.sum(dim=(-2, -1)) - cosines.diagonal(dim1=-2, dim2=-1).sum(dim=-1)) / (k * (k - 1)))
        .float()
        .to(pictures.device)
    )


def contours(pictures: torch.Tensor, *, cell: int = 4) -> torch.Tensor:
    """(…,1,h',w') where (…,C,h,w) pictures have contrast: mean difference of neighbouring pixels in cells of `cell`.

    A pattern moved by a pixel or turned from dark on light to light on dark has the same contours.
    """
    if pictures.dim() < 4 or min(pictures.shape[-2:]) <= cell:
        raise ValueError(f"pictures must be (…,C,h,w), larger than cells of {cell}, got {tuple(pictures.shape)}")
    down = pictures.diff(dim=-2)[..., :, :-1].abs().sum(dim=-3, keepdim=True)
    right = pictures.diff(dim=-1)[..., :-1, :].abs().sum(dim=-3, keepdim=True)
    strength = down + right
    pooled = torch.nn.functional.avg_pool2d(strength.flatten(0, -4), cell)
    return pooled.unflatten(0, strength.shape[:-3])


def part_kinds(world: Scenes) -> list[str]:
    """The parts of all classes without their side: a left eye, a right eye and a fish's eye are all "eye"."""
    return list(dict.fromkeys(_kind(name) for names in world.part_names for name in names))


def _kind(name: str) -> str:
    side = next((side for side in _SIDES if name.startswith(side)), "")
    return name.removeprefix(side)


def nearest_part(world: Scenes, images: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(kinds (…,), distances (…,)): the known part nearest to (…,2) points (row, column) of scenes number `images` (…).

    Points and distances are in the scenes' own pixels; kinds are indices into `part_kinds`.
    """
    if images.shape != points.shape[:-1] or points.shape[-1:] != (2,):
        raise ValueError(f"points must be (…,2), one for each image, got {tuple(images.shape)}, {tuple(points.shape)}")
    kinds, most = part_kinds(world), world.parts.shape[1]
    rows = [[kinds.index(_kind(name)) for name in names] for names in world.part_names]
    table = torch.tensor([row + [-1] * (most - len(row)) for row in rows])  # (classes, P)
    away = (world.parts[images] - points[..., None, :]).norm(dim=-1).nan_to_num(nan=torch.inf)  # (…,P)
    distances, which = away.min(dim=-1)
    return table[world.labels[images]].gather(-1, which[..., None])[..., 0], distances
