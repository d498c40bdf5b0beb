"""Table 1 as data: the correspondence of the annotated dogs.

python -m data.make.dogs --data tiny-imagenet-200 --out data/dogs-correspondence.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from scipy import stats

from zflib import models
from zflib._arguments import one_sentence
from zflib._files import write_atomically
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


def measure(net: models.ZFNet, root: str | Path, report: Callable[[str], None] = lambda line: None) -> dict:
    """All numbers of the dogs of a Tiny ImageNet folder: Table 1, its controls, and other sizes of the mask."""
    known = dogs.annotations()
    margin = (net.geometry.resize - net.geometry.crop) // 2
    places = {part: where - margin for part, where in known.parts.items()}
    table = dogs.Table(net, net.preprocess(paths(root, known)), places)
    found = {"network": net.card.get("name"), "sha256": net.card.get("sha256"), "images": len(known), "size": dogs.SIZE,
             "draws": dogs.DRAWS, "share": dogs.SHARE, "layers": {}}  # fmt: skip
    for layer in dogs.LAYERS:
        report(f"{layer} of {', '.join(dogs.LAYERS)}")
        sparse = dogs.Scores(table, layer, share=dogs.SHARE, draws=dogs.DRAWS)
        whole = dogs.Scores(table, layer, draws=dogs.DRAWS)
        sizes = {str(size): dogs.Scores(table, layer, size=size, share=dogs.SHARE, draws=dogs.DRAWS)
                 for size in dogs.SIZES}  # fmt: skip
        found["layers"][layer] = {
            "changed": table.score("nose", layer).changed_fraction,
            "null": float(sparse.nulls["nose"][0, 0, 1]),
            "rows": rows(sparse), "against": against(sparse),
            "all units": {"rows": rows(whole, relative=True), "against": against(whole, relative=True)},
            "sizes": {size: against(scores) for size, scores in sizes.items()},
        }  # fmt: skip
    return found


def rows(scores: dogs.Scores, **how) -> dict[str, dict]:
    """Row -> its score, the standard error over the dogs, and the score of each draw of places."""
    found = {}
    for name in scores.pairs:
        delta, error = scores.mean(name, **how)
        found[name] = {"delta": delta, "error": error, "draws": scores.draws(name, **how).tolist()}
    return found


def against(scores: dogs.Scores, **how) -> dict[str, dict[str, float]]:
    """Control -> eyes and nose minus it, the standard error, and a two-sided p from Student's t; see `Scores`."""
    found = {}
    for control in dogs.CONTROLS:
        difference, error = scores.difference("eyes and nose", control, **how)
        p = float(2 * stats.t.sf(abs(difference / error), scores.count - 1))
        found[control] = {"difference": difference, "error": error, "p": p}
    return found


def rounded(value):
    """The same with every real number rounded to six places."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return round(value, 6) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
