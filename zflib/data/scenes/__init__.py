"""A rendered little world with known truth: ten kinds of objects, their outlines, their parts and their poses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral

import numpy as np
import torch

from .objects import CLASSES, PARTS
from .rendering import BACKGROUNDS, backgrounds, draw_numbers, named, render

__all__ = ["BACKGROUNDS", "CLASSES", "FRONTAL", "PARTS", "VARIED", "Pose", "Scenes", "scenes"]

_CHUNK = 64  # scenes of one class that are painted together, at 64 pixels a side; about 20 MB while they are
_ROOM = 24 * 2**20  # bytes


@dataclass(frozen=True)
class Pose:
    """The range that poses are drawn from; `Pose(0, (1, 1), 0)` is frontal: centred, upright, at unit scale.

    `shift`: the largest shift down or right, in sides of the picture. `scale`: smallest and largest. `angle`: the
    largest turn in degrees, counter-clockwise as one sees it. `down` and `right` (pixels) and `turn` (degrees) are the
    middle of the range.
    """

    shift: float = 0.12
    scale: tuple[float, float] = (0.8, 1.2)
    angle: float = 15.0
    down: float = 0.0
    right: float = 0.0
    turn: float = 0.0

    @staticmethod
    def exactly(*, down: float = 0.0, right: float = 0.0, scale: float = 1.0, angle: float = 0.0) -> Pose:
        """One pose for every scene, in pixels and degrees: the same objects, colours and backgrounds, moved."""
        return Pose(0.0, (scale, scale), 0.0, down, right, angle)


#: The poses of a world that varies, and of one that does not: centred, upright, at unit scale.
VARIED, FRONTAL = Pose(), Pose(0, (1, 1), 0)


@dataclass(frozen=True)
class Scenes:
    """N rendered scenes and the truth about them; `scenes[i:j]`, `scenes[i]` and `scenes[indices]` are Scenes again.

    `pixels` (N,3,S,S) uint8; `labels` (N,) int64, an index into `classes`; `masks` (N,S,S) bool, where the object is;
    `parts` (N,P,2) float32, row and column of every part in the order of `part_names[label]`, in pixels counted from
    the middle of the top left one, NaN beyond the class's own parts; `pose` (N,4) float32: pixels down, pixels right,
    scale, degrees counter-clockwise; `backgrounds` (N,) int64, an index into BACKGROUNDS.
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    masks: torch.Tensor
    parts: torch.Tensor
    pose: torch.Tensor
    backgrounds: torch.Tensor
    classes: tuple[str, ...]

    @property
    def part_names(self) -> tuple[tuple[str, ...], ...]:
        """The names of the parts of every class in `classes`."""
        return tuple(PARTS[name] for name in self.classes)

    def part(self, name: str) -> torch.Tensor:
        """(N,2) row and column of one part, NaN in scenes of a class that lacks it; unknown name: ValueError."""
        known = dict.fromkeys(part for names in self.part_names for part in names)
        if name not in known:
            raise ValueError(
                f"name {name!r} is not a part of {', '.join(self.classes)}; choose one of {', '.join(known)}"
            )
        where = torch.tensor([names.index(name) if name in names else -1 for names in self.part_names])[self.labels]
        found = self.parts[torch.arange(len(self)), where]
        return torch.where(where[:, None] >= 0, found, torch.nan)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index) -> Scenes:
        if isinstance(index, Integral):
            index = [int(index)]
        tensors = {name: value[index] for name, value in vars(self).items() if name != "classes"}
        return replace(self, **tensors)


def scenes(
    n: int | range,
    *,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    pose: Pose = VARIED,
    cheat: float = 0.0,
    size: int = 64,
) -> Scenes:
    """The first `n` scenes of a seed, or a range of them, `size` pixels a side: (N,3,S,S) pixels and their truth.

    Scene i shows class i modulo the number of `classes` (default: CLASSES) and is the same whatever `n` is. Neither
    `pose`, `cheat` nor `classes` changes anything but what it says. `cheat`: how probable it is, 0 to 1, that a
    background is its class's own (BACKGROUNDS) instead of any of the ten. A wrong n, size or class is a ValueError.
    """
    numbers, classes = _check(n, size), _check_classes(classes)
    labels = np.arange(numbers.start, numbers.stop) % len(classes)
    table, truth = draw_numbers(numbers, seed), _empty(len(numbers), size, classes)
    truth["pose"][:] = _poses(named(table), size, pose)
    # Let go at once, untouched: glibc then keeps memory of this size instead of fetching it anew for every shape.
    np.empty(_ROOM, np.uint8)
    for label, name in enumerate(classes):
        _fill(truth, np.flatnonzero(labels == label), name, table, cheat)
    truth |= {key: truth[key].astype(np.float32) for key in ("parts", "pose")}
    return Scenes(
        labels=torch.from_numpy(labels), classes=classes, **{k: torch.from_numpy(v) for k, v in truth.items()}
    )


def _fill(truth: dict[str, np.ndarray], rows: np.ndarray, name: str, table: np.ndarray, cheat: float) -> None:
    """Render the scenes in `rows`, all of the class `name`, a chunk at a time."""
    size = truth["pixels"].shape[-1]
    step = max(1, _CHUNK * 64 * 64 // size**2)
    for chunk in (rows[i : i + step] for i in range(0, len(rows), step)):
        draw = named(table[chunk])
        truth["backgrounds"][chunk] = backgrounds(name, draw, cheat)
        found = render(name, draw, truth["pose"][chunk], truth["backgrounds"][chunk], size)
        for key, value in found.items():
            truth[key][chunk, : value.shape[1]] = value  # a class may have fewer parts than another


def _empty(n: int, size: int, classes: tuple[str, ...]) -> dict[str, np.ndarray]:
    return {
        "pixels": np.empty((n, 3, size, size), np.uint8),
        "masks": np.empty((n, size, size), bool),
        "parts": np.full((n, max(len(PARTS[name]) for name in classes), 2), np.nan),
        "pose": np.empty((n, 4)),
        "backgrounds": np.empty(n, np.int64),
    }


def _poses(draws: dict[str, np.ndarray], size: int, pose: Pose) -> np.ndarray:
    """(N,4) pixels down, pixels right, scale, degrees."""
    (low, high), reach = pose.scale, pose.shift * size
    down = pose.down + reach * (2 * draws["down"] - 1)
    right = pose.right + reach * (2 * draws["right"] - 1)
    scale = low * (high / low) ** draws["scale"]
    return np.stack([down, right, scale, pose.turn + pose.angle * (2 * draws["angle"] - 1)], axis=1)


def _check(n, size) -> range:
    """The numbers of the scenes that are wanted."""
    numbers = n if isinstance(n, range) else range(n)
    if not numbers or numbers.step != 1 or numbers.start < 0:
        raise ValueError(f"n must be at least 1 scene, or a range of them such as range(100, 200), got {n!r}")
    if not 16 <= size <= 1024:
        raise ValueError(f"size must be from 16 to 1024 pixels, got {size}")
    return numbers


def _check_classes(classes) -> tuple[str, ...]:
    chosen = CLASSES if classes is None else (classes,) if isinstance(classes, str) else tuple(classes)
    wrong = next((name for name in chosen if name not in CLASSES), None)
    if wrong is not None:
        raise ValueError(f"classes: {wrong!r} is not one; choose from {', '.join(CLASSES)}")
    return chosen
