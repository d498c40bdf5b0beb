"""The paper's own question, for dogs: where the eyes and noses of some Tiny ImageNet dogs are, and Table 1 for them.

data/make/dogs.py computes the numbers; what it needs to know is here, beside what reads them.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from .. import _files, models, show
from ..experiments.occluders import boxes_around, random_boxes
from ..experiments.part_correspondence import Correspondence, correspondence, expected_distances, hamming_distances

PARTS = ("right eye", "left eye", "nose")  # in the order of Table 1; right and left are the viewer's
LAYERS = ("conv5", "fc7")  # the paper's layers 5 and 7
SIZE, SIZES, DRAWS = 11, (7, 9, 11, 13, 15), 20  # pixels of 56; draws of random places
SHARE = 0.05  # of the units, for the scores at one density
#: What the eyes and the nose together are compared with.
CONTROLS = ("random", "same place", "another part")
#: Table 1 of the paper: means and what it prints after ±.
PAPER = {
    "conv5": {
        "right eye": (0.067, 0.007),
        "left eye": (0.069, 0.007),
        "nose": (0.079, 0.017),
        "random": (0.107, 0.017),
    },
    "fc7": {"right eye": (0.069, 0.015), "left eye": (0.068, 0.013), "nose": (0.069, 0.011), "random": (0.073, 0.014)},
}


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


class Scores:
    """The scores of all pairs of N dogs under every mask of a `Table`, at one layer and one size of the squares.

    `share`: only this share of each dog's units counts, those that change most; 1: all of them. `pairs` by row,
    (draws,N,N): a part has one draw, "eyes and nose" is the mean of the three parts, "another part" that of pairs with
    different ones. `nulls`: the same by chance.
    """

    def __init__(self, table: Table, layer: str, *, size: int = SIZE, share: float = 1.0, draws: int = DRAWS):
        self.count, names = len(table.images), list(table.positions)
        drawn = {name: range(1) for name in names} | {name: range(draws) for name in ("random", "same place")}
        signs = {
            name: [table.score(name, layer, size, seed).strongest(share).signs for seed in seeds]
            for name, seeds in drawn.items()
        }
        self.pairs = self._of(signs, names, hamming_distances)
        self.nulls = self._of(signs, names, expected_distances)

    def _of(self, signs: Mapping, parts: list[str], distances: Callable) -> dict[str, torch.Tensor]:
        found = {name: torch.stack([distances(one) for one in several]) for name, several in signs.items()}
        whole = distances(torch.cat([signs[part][0] for part in parts]))
        blocks = whole.view(len(parts), self.count, len(parts), self.count).transpose(1, 2)  # (P,P,N,N)
        same = torch.eye(len(parts), dtype=torch.bool)
        return found | {"eyes and nose": blocks[same].mean(0)[None], "another part": blocks[~same].mean(0)[None]}

    def draws(self, row: str, dogs: torch.Tensor | None = None, *, relative: bool = False) -> torch.Tensor:
        """(draws,) the score of a row, for all or for some of the dogs; `relative`: divided by the score by chance."""
        values = _of_different(self.pairs[row], dogs)
        return values / _of_different(self.nulls[row], dogs) if relative else values

    def mean(self, row: str, *, relative: bool = False) -> tuple[float, float]:
        """(the mean over the draws, its standard error over the dogs, by the jackknife)."""
        return jackknife(lambda dogs: float(self.draws(row, dogs, relative=relative).mean()), self.count)

    def difference(self, row: str, control: str, *, relative: bool = False) -> tuple[float, float]:
        """(row - control, its standard error over the dogs and over the draws of places)."""

        def value(dogs):
            one, other = (self.draws(name, dogs, relative=relative).mean() for name in (row, control))
            return float(one - other)

        found, error = jackknife(value, self.count)
        drawn = self.draws(control, relative=relative)
        places = float(drawn.var()) / len(drawn) if len(drawn) > 1 else 0.0
        return found, (error**2 + places) ** 0.5


def _of_different(matrices: torch.Tensor, dogs: torch.Tensor | None) -> torch.Tensor:
    """(draws,) the mean over pairs of different dogs of (draws,N,N)."""
    if dogs is not None:
        matrices = matrices[:, dogs][:, :, dogs]
    return matrices[:, ~torch.eye(matrices.shape[1], dtype=torch.bool)].mean(dim=1)


def jackknife(value: Callable[[torch.Tensor], float], count: int) -> tuple[float, float]:
    """(value of all, its standard error): what `value` gives each time one of `count` is left out. Efron (1982)."""
    everyone = torch.arange(count)
    without = torch.tensor([value(everyone[everyone != one]) for one in range(count)], dtype=torch.float64)
    return value(everyone), float(((without - without.mean()).square().sum() * (count - 1) / count).sqrt())


def load(net: models.ZFNet | None = None, path: str | Path = _files.SHIPPED / "dogs-correspondence.json") -> dict:
    """The shipped numbers as data.make.dogs writes them; warns if `net` is not the network they were computed with."""
    found = json.loads(Path(path).read_text(encoding="utf-8"))
    if net is not None and getattr(net, "card", {}).get("sha256") != found["sha256"]:
        other = f"another {found['network']} than yours (SHA-256 {found['sha256'][:12]}…)"
        again = "python -m data.make.dogs computes it again"
        warnings.warn(f"{Path(path).name} was computed with {other}; {again}", stacklevel=2)
    return found


ROWS = {"right eye": "right eye", "left eye": "left eye", "nose": "nose", "another part": "another part of the face",
        "random": "random places", "same place": "one place, the same in all"}  # fmt: skip
COLOURS = {"another part": "#56b4e9", "random": "#8c8c8c", "same place": "#d55e00"}  # parts are blue


def draw_table(ax: show.Axes, numbers: dict, layer: str) -> show.Axes:
    """Table 1 at one layer: our rows with their standard errors, every draw of places, and the paper's values."""
    found = numbers["layers"][layer]
    for height, name in enumerate(ROWS):
        row, colour = found["rows"][name], COLOURS.get(name, "#0072b2")
        ax.barh(height, row["delta"], 0.62, color=colour, alpha=0.85)
        ax.errorbar(row["delta"], height, xerr=row["error"], color="black", capsize=4, lw=1.5)
        if len(row["draws"]) > 1:
            ax.plot(row["draws"], [height + 0.2] * len(row["draws"]), "|", color="black", ms=7, alpha=0.5)
        if name in PAPER[layer]:
            ax.plot(PAPER[layer][name][0], height, "D", mfc="white", mec="black", ms=9)
    ax.axvline(found["null"], color="black", ls="--", lw=1)
    ax.text(found["null"], -0.75, "chance", ha="center", fontsize=10)
    ax.set_yticks(range(len(ROWS)), ROWS.values())
    ax.set(xlim=(0, 0.115), ylim=(len(ROWS) - 0.5, -0.55), xlabel="score, lower is more alike")
    ax.set_title(f"layer {'57'[LAYERS.index(layer)]} ({layer})", pad=18)
    return ax
