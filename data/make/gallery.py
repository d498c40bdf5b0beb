"""Figure 2 as data: mine the validation images of Tiny ImageNet and write what zflib ships.

python -m data.make.gallery zfnet56 --data tiny-imagenet-200 --out data/zfnet56-peaks.npz
"""

from __future__ import annotations

import argparse
from pathlib import Path

from zflib import data, models
from zflib._arguments import one_sentence
from zflib.studies.gallery import alive, mine, save
from zflib.train.scoring import check_classes


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m data.make.gallery", description=__doc__.split("\n")[0])
    parser.add_argument("name", help="a shipped network")
    parser.add_argument("--data", required=True, help="the folder of Tiny ImageNet-200")
    parser.add_argument("--out", type=Path, required=True, help="the .npz to write")
    parser.add_argument("--channels", type=int, default=12, help="how many channels of each layer to draw and project")
    parser.add_argument("--first", type=int, help="only the first so many validation images")
    options = parser.parse_args(arguments)
    with one_sentence("data.make.gallery"):
        _mine(options)


def _mine(options: argparse.Namespace) -> None:
    """What the command does."""
    net = models.load(options.name).to(models.device())
    pixels, labels, wnids = data.tiny_imagenet(options.data, "val")
    check_classes(net, wnids, name=options.name, source=options.data)
    root = Path(options.data.removesuffix(".zip")).expanduser()
    rows = (root / "val" / "val_annotations.txt").read_text().splitlines()
    names = [row.split("\t")[0] for row in rows]
    layers = net.conv_names
    some = slice(options.first)
    gallery = mine(net, pixels[some], labels[some], layers=layers, chosen=options.channels, names=names[some])
    save(gallery, options.out)
    chance = gallery.chance()
    for layer in gallery.layers:
        print(f"{layer}: purity {float(gallery.purities(layer).mean()):.3f} (chance {chance:.3f}), ", end="")
        print(f"{len(alive(gallery.peaks[layer]))} of {len(gallery.peaks[layer].values)} channels alive")


if __name__ == "__main__":
    main()
