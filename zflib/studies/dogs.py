"""The paper's own question, for dogs: where the eyes and noses of some Tiny ImageNet dogs are, and Table 1 for them."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from statistics import fmean, median_high

import torch
from torch import nn

from .. import _files, models
from ..experiments.occluders import boxes_around, random_boxes
from ..experiments.part_correspondence import Correspondence, compare, correspondence

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


def paths(root: str | Path, dogs: Dogs) -> list[Path]:
    """The dogs' files in an unpacked Tiny ImageNet; one that is missing or another image raises an error."""
    found = [Path(root) / "val" / "images" / name for name in dogs.images]
    for path, wanted in zip(found, dogs.sums):
        if not path.is_file():
            raise FileNotFoundError(f"there is no {path}; give the folder that holds val/images")
        if hashlib.sha256(path.read_bytes()).hexdigest() != wanted:
            raise ValueError(f"{path} is not the image that was annotated; unpack Tiny ImageNet again")
    return found


class Table:
    """Table 1 for some images (N,3,H,W) whose parts lie at `positions`, by name: (N,2) each in pixels of the image.

    `score(name, layer, size, seed)` masks one part in every image. "random" is the paper's control, another place in
    every image, none that touches a part; "same place" one that it lacks: one random place, the same in every image,
    whatever part is there. `draws`: how many of the last two.
    """

    def __init__(self, net: nn.Module, images: torch.Tensor, positions: dict[str, torch.Tensor], *, draws: int = DRAWS):
        self.net, self.images, self.positions, self.draws = net, images, positions, draws
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

    def rows(self, layer: str, size: int = SIZE, *, draws: int | None = None) -> dict[str, dict[str, float]]:
        """name -> numbers of a row, for the parts, "random" and "same place"; the last two are means over draws."""
        rows = {part: numbers(self.score(part, layer, size)) for part in self.positions}
        for name in ("random", "same place"):
            drawn = [self.score(name, layer, size, seed) for seed in range(draws or self.draws)]
            several = [numbers(score) for score in drawn]
            rows[name] = {key: fmean(row[key] for row in several) for key in several[0]}
        return rows

    def against_random(self, layer: str, *, share: float = 1.0) -> dict[str, dict[str, float]]:
        """part -> how much lower than random places, the mean over the draws; p is that of the median draw.

        `share`: only this share of the units, those that change most.
        """
        controls = [self.score("random", layer, seed=seed).strongest(share) for seed in range(self.draws)]
        found = {}
        for part in self.positions:
            mine = self.score(part, layer).strongest(share)
            both = [vars(compare(mine, control)) for control in controls]
            middles = {"difference": fmean, "p": median_high, "ratio_difference": fmean, "ratio_p": median_high}
            found[part] = {key: middle([one[key] for one in both]) for key, middle in middles.items()}
        return found

    def same_part(self, layer: str) -> dict[str, dict[str, float]]:
        """Two parts -> the scores of pairs with the same part masked and with different ones, and their p."""
        masks = {part: self.score(part, layer) for part in self.positions}
        pairs = combinations(masks, 2)
        both = {f"{one} / {other}": vars(compare(masks[one], masks[other])) for one, other in pairs}
        return {name: {key: one[key] for key in ("matched", "crossed", "same_p")} for name, one in both.items()}


def numbers(score: Correspondence) -> dict[str, float]:
    """What a row of the table holds."""
    sparse = score.strongest(SHARE)  # all images equally dense, about as the paper's must have been
    return {
        "delta": score.delta, "spread": score.std, "null": score.null, "ratio": score.ratio,
        "changed_fraction": score.changed_fraction, "z": score.z,
        "sparse_delta": sparse.delta, "sparse_spread": sparse.std, "sparse_null": sparse.null,
    }  # fmt: skip


def measure(net: models.ZFNet, root: str | Path, report: Callable[[str], None] = lambda line: None) -> dict:
    """All numbers of the dogs of a Tiny ImageNet folder: Table 1, its controls, and other sizes of the mask."""
    dogs = annotations()
    margin = (net.geometry.resize - net.geometry.crop) // 2
    places = {part: where - margin for part, where in dogs.parts.items()}
    table = Table(net, net.preprocess(paths(root, dogs)), places, draws=DRAWS)
    found = {"network": net.card.get("name"), "sha256": net.card.get("sha256"), "images": len(dogs), "size": SIZE,
             "draws": table.draws, "share": SHARE, "layers": {}}  # fmt: skip
    for layer in LAYERS:
        report(f"{layer} of {', '.join(LAYERS)}")
        sizes = {str(size): table.rows(layer, size, draws=3) for size in SIZES}
        rows = table.rows(layer)
        for name, row in rows.items():
            row["p"] = table.score(name, layer).p_value()  # of the first draw, where there are several
        found["layers"][layer] = {"rows": rows, "against random": table.against_random(layer),
                                  "against random, sparse": table.against_random(layer, share=SHARE),
                                  "same part": table.same_part(layer), "sizes": sizes}  # fmt: skip
    return found


def load(net: models.ZFNet | None = None, path: str | Path = _files.SHIPPED / "dogs-correspondence.json") -> dict:
    """The shipped numbers as `measure` gives them; warns if `net` is not the network they were computed with."""
    found = json.loads(Path(path).read_text(encoding="utf-8"))
    if net is not None and getattr(net, "card", {}).get("sha256") != found["sha256"]:
        other = f"another {found['network']} than yours (SHA-256 {found['sha256'][:12]}…)"
        again = "python -m data.make.dogs computes it again"
        warnings.warn(f"{Path(path).name} was computed with {other}; {again}", stacklevel=2)
    return found
