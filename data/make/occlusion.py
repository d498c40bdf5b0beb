"""Does a projection show where its channel's activity comes from? Measured on every photograph, against strangers.

python -m data.make.occlusion --out data/occlusion-agreement.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from zflib import data, models, occlude
from zflib._files import write_atomically
from zflib.studies import localisation

#: Network -> size and stride of the square, in pixels of its images.
NETWORKS = {"squeezenet": (51, 16), "zfnet56": (14, 3)}
SIZES = (144, 216)  # of the strangers' windows, in pixels of the photographs
COUNT, SEED = 100, 0


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m data.make.occlusion", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="the .json to write")
    options = parser.parse_args(arguments)
    found = {"seed": SEED, "strangers": COUNT, "networks": {name: measure(name) for name in NETWORKS}}
    write_atomically(options.out, (json.dumps(found, separators=(",", ":")) + "\n").encode())


def measure(name: str) -> dict:
    """The agreement of every photograph's own projection, and of the strangers', in three digits."""
    net, (size, stride) = models.load(name).requires_grad_(False), NETWORKS[name]
    windows, rows = data.windows(data.photos(), sizes=SIZES, stride=0.5, side=net.geometry.resize), {}
    photographs = net.preprocess([data.photo(photo) for photo in data.photo_names()])
    for number, photo in enumerate(data.photo_names()):
        image = net.preprocess(data.photo(photo))[0]
        look = occlude(net, image, size=size, stride=stride)
        own = float(localisation.agreement(net, image[None], look, size=size, stride=stride)[0])
        others = localisation.strangers(net, windows, photo, look, count=COUNT, seed=SEED, size=size, stride=stride)
        rest = torch.cat([photographs[:number], photographs[number + 1 :]])
        wholes = localisation.agreement(net, rest, look, size=size, stride=stride)  # taken as its own photograph is
        rows[photo] = {"own": round(own, 3), "others": rounded(others), "wholes": rounded(wholes[~wholes.isnan()])}
        print(f"{name}, {photo}: {own:.2f}, above {localisation.percentile(own, others):.0f} of 100", flush=True)
    return {"sha256": net.card["sha256"], "size": size, "stride": stride, "photographs": rows}


def rounded(values: torch.Tensor) -> list[float]:
    return [round(float(value), 3) for value in values]


if __name__ == "__main__":
    main()
