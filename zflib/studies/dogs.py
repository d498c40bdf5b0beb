"""The paper's own question, for dogs: where the eyes and noses of some Tiny ImageNet dogs are, and Table 1 for them.

data/make/dogs.py computes the numbers; what it needs to know is here, beside what reads them.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from .. import _files, models
from ..experiments.occluders import boxes_around, random_boxes
from ..experiments.part_correspondence import Correspondence, correspondence

PARTS = ("right eye", "left eye", "nose")  # in the order of Table 1; right and left are the viewer's
LAYERS = ("conv5", "fc7")  # the paper's layers 5 and 7
SIZE, SIZES, DRAWS = 11, (7, 9, 11, 13, 15), 10  # pixels of 56; draws of random places
SHARE = 0.05  # of the units, for the scores at one density


@dataclass(frozen=True)
class Dogs:
    """N images by file name, their WordNet ids and SHA-256, and (N,2) row and column of each part in 64x64 pixels."""

    images: tuple[str, ...]
    wnids: tuple[str, ...]
    sums: tuple[str, ...]
    parts: dict[str, torch.Tensor]
    note: str

    def __len__(self) -> int:
        return len(self.images)


def annotations(path: str | Path = _files.SHIPPED / "dogs.json") -> Dogs:
    """The shipped annotations: file names and places, no images."""
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    rows = content["dogs"]
    parts = {part: torch.tensor([row[part] for row in rows]) for part in PARTS}
    names = (tuple(row[key] for row in rows) for key in ("image", "wnid", "sha256"))
    return Dogs(*names, parts, content["note"])


class Table:
    """Table 1 for some images (N,3,H,W) whose parts lie at `positions`, by name: (N,2) each in pixels of the image.

    `score(name, layer, size, seed)` masks one part in every image. "random" is the paper's control, another place in
    every image, none that touches a part; "same place" one that it lacks: one random place, the same in every image,
    whatever part is there.
    """

    def __init__(self, net: nn.Module, images: torch.Tensor, positions: dict[str, torch.Tensor]):
        self.net, self.images, self.positions = net, images, positions
        self.whole = tuple(images.shape[-2:])
        self.score = lru_cache(maxsize=None)(self._score)

    def _score(self, name: str, layer: str, size: int = SIZE, seed: int = 0) -> Correspondence:
        return correspondence(self.net, self.images, self.boxes(name, size, seed), layer=layer)

    def boxes(self, name: str, size: int, seed: int = 0) -> torch.Tensor:
        """(N,4) rectangles of a part, "random" or "same place"."""
        count = len(self.images)
        if name == "same place":
            return random_boxes(1, size, self.whole, seed=seed).expand(count, -1)
        parts = {part: boxes_around(places, size, self.whole) for part, places in self.positions.items()}
        if name == "random":
            return random_boxes(count, size, self.whole, avoid=torch.stack(list(parts.values()), dim=1), seed=seed)
        return parts[name]


def load(net: models.ZFNet | None = None, path: str | Path = _files.SHIPPED / "dogs-correspondence.json") -> dict:
    """The shipped numbers as data.make.dogs writes them; warns if `net` is not the network they were computed with."""
    found = json.loads(Path(path).read_text(encoding="utf-8"))
    if net is not None and getattr(net, "card", {}).get("sha256") != found["sha256"]:
        other = f"another {found['network']} than yours (SHA-256 {found['sha256'][:12]}…)"
        again = "python -m data.make.dogs computes it again"
        warnings.warn(f"{Path(path).name} was computed with {other}; {again}", stacklevel=2)
    return found
