"""Which answers survive a move, measured on many labelled images.

python -m data.make.answers --data tiny-imagenet-200 --photographs imagenet-1000 --out data/answers-kept.json

--data: the 10,000 validation images of Tiny ImageNet, for zfnet56. --photographs: a folder of <wnid>.jpg, one for
each of ImageNet's 1,000 classes, for squeezenet.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from zflib import data, models
from zflib._arguments import one_sentence
from zflib._files import write_atomically
from zflib.experiments.transforms import Move
from zflib.studies import moves
from zflib.train.scoring import check_classes

#: Network -> a small shift, and one as large as the paper's for images of its size.
MOVES = {
    "squeezenet": {"15 px down": Move(down=15), "60 px down": Move(down=60)},
    "zfnet56": {"4 px down": Move(down=4), "15 px down": Move(down=15)},
}
SIZES = {"x 1.2": Move(scale=1.2), "x 1.8": Move(scale=1.8)}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m data.make.answers", description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="the folder of Tiny ImageNet-200")
    parser.add_argument("--photographs", required=True, help="a folder of <wnid>.jpg")
    parser.add_argument("--out", type=Path, required=True, help="the .json to write")
    options = parser.parse_args(arguments)
    with one_sentence("data.make.answers"):
        found = {name: measure(name, options) for name in MOVES}
        write_atomically(options.out, (json.dumps(found, indent=1) + "\n").encode())


def measure(name: str, options: argparse.Namespace) -> dict:
    """Each move's share of answers kept and its standard error, of n images."""
    net = models.load(name).requires_grad_(False)
    if name == "squeezenet":
        pixels, labels = data.imagenet_folder(options.photographs, net.wnids)
    else:
        pixels, labels, wnids = data.tiny_imagenet(options.data, "val")
        check_classes(net, wnids, name=name, source=options.data)
    images = data.centre_crop(net.normalise(torch.from_numpy(np.array(pixels[:]))), net.geometry.crop)
    kept = {}
    for words, move in (MOVES[name] | SIZES).items():
        share, error, count = moves.answers_kept(net, images, torch.as_tensor(labels), move)
        kept[words] = [round(share, 4), round(error, 4)]
        print(f"{name}, {words}: {share:.1%} ± {error:.1%} of {count}", flush=True)
    return {"sha256": net.card["sha256"], "images": count, "kept": kept}


if __name__ == "__main__":
    main()
