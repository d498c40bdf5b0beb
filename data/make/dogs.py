"""Table 1 as data: the correspondence of five annotated dogs.

python -m data.make.dogs --data tiny-imagenet-200 --out data/dogs-correspondence.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from statistics import fmean, median_high

from zflib import models
from zflib._arguments import one_sentence
from zflib._files import write_atomically
from zflib.experiments.part_correspondence import Correspondence, compare
from zflib.studies import dogs


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m data.make.dogs", description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="the folder of Tiny ImageNet-200")
    parser.add_argument("--out", type=Path, required=True, help="the .json to write")
    parser.add_argument("--network", default="zfnet56", help="a shipped network (%(default)s)")
    options = parser.parse_args(arguments)
    with one_sentence("data.make.dogs"):
        found = rounded(measure(models.load(options.network), options.data, report=print))
        write_atomically(options.out, (json.dumps(found, indent=1) + "\n").encode())


def paths(root: str | Path, known: dogs.Dogs) -> list[Path]:
    """The dogs' files in an unpacked Tiny ImageNet; one that is missing or another image raises an error."""
    found = [Path(root) / "val" / "images" / name for name in known.images]
    for path, wanted in zip(found, known.sums):
        if not path.is_file():
            raise FileNotFoundError(f"there is no {path}; give the folder that holds val/images")
        if hashlib.sha256(path.read_bytes()).hexdigest() != wanted:
            raise ValueError(f"{path} is not the image that was annotated; unpack Tiny ImageNet again")
    return found


class Rows(dogs.Table):
    """The table with everything that is shipped of it; `draws`: how many of "random" and "same place"."""

    def __init__(self, *given, draws: int = dogs.DRAWS):
        super().__init__(*given)
        self.draws = draws

    def rows(self, layer: str, size: int = dogs.SIZE, *, draws: int | None = None) -> dict[str, dict[str, float]]:
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
    sparse = score.strongest(dogs.SHARE)  # all images equally dense, about as the paper's must have been
    return {
        "delta": score.delta, "spread": score.std, "null": score.null, "ratio": score.ratio,
        "changed_fraction": score.changed_fraction, "z": score.z,
        "sparse_delta": sparse.delta, "sparse_spread": sparse.std, "sparse_null": sparse.null,
    }  # fmt: skip


def measure(net: models.ZFNet, root: str | Path, report: Callable[[str], None] = lambda line: None) -> dict:
    """All numbers of the dogs of a Tiny ImageNet folder: Table 1, its controls, and other sizes of the mask."""
    known = dogs.annotations()
    margin = (net.geometry.resize - net.geometry.crop) // 2
    places = {part: where - margin for part, where in known.parts.items()}
    table = Rows(net, net.preprocess(paths(root, known)), places, draws=dogs.DRAWS)
    found = {"network": net.card.get("name"), "sha256": net.card.get("sha256"), "images": len(known), "size": dogs.SIZE,
             "draws": table.draws, "share": dogs.SHARE, "layers": {}}  # fmt: skip
    for layer in dogs.LAYERS:
        report(f"{layer} of {', '.join(dogs.LAYERS)}")
        sizes = {str(size): table.rows(layer, size, draws=3) for size in dogs.SIZES}
        rows = table.rows(layer)
        for name, row in rows.items():
            row["p"] = table.score(name, layer).p_value()  # of the first draw, where there are several
        found["layers"][layer] = {"rows": rows, "against random": table.against_random(layer),
                                  "against random, sparse": table.against_random(layer, share=dogs.SHARE),
                                  "same part": table.same_part(layer), "sizes": sizes}  # fmt: skip
    return found


def rounded(value):
    """The same with every real number rounded to six places."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return round(value, 6) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
