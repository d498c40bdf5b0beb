"""Figure 2 as data: mine a set of labelled images with a shipped network and write what zflib ships.

python -m data.make.gallery zfnet56 --data tiny-imagenet-200 --out data/zfnet56-peaks.npz
python -m data.make.gallery zfnet56 --photographs imagenet-1000 --channels 24 --out data/zfnet56-photographs.npz
python -m data.make.gallery squeezenet --photographs imagenet-1000 --channels 12 --projected 6 --side 64 \\
    --out data/squeezenet-photographs.npz

--data: the 10,000 validation images of Tiny ImageNet. --photographs: a folder of <wnid>.jpg, one photograph for each of
ImageNet's 1,000 classes. A file holds, for every channel of every layer, its nine strongest images: values, numbers,
positions and classes; the projection from the strongest one; and for channels drawn at random (seed 0), and for
photographs those that we named by hand (`zflib.studies.channel_names`), the projections from all nine, or from the
first --projected. It holds no picture of an image: projections in 8 bits, each with its scale, cropped to receptive
fields; those larger than --side are averaged down to it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from zflib import _files, data, models
from zflib._arguments import one_sentence
from zflib.studies.channel_names import named_channels
from zflib.studies.gallery import alive, mine, save
from zflib.train.scoring import check_classes


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m data.make.gallery", description=__doc__.split("\n")[0])
    parser.add_argument("name", help="a shipped network")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", help="the folder of Tiny ImageNet-200")
    source.add_argument("--photographs", help="a folder of <wnid>.jpg, one for each of ImageNet's classes")
    parser.add_argument("--out", type=Path, required=True, help="the .npz to write")
    parser.add_argument("--channels", type=int, default=12, help="how many channels of each layer to draw and project")
    parser.add_argument("--projected", type=int, default=9, help="from how many of their nine images")
    parser.add_argument("--side", type=int, help="store projections at no more than so many pixels a side")
    parser.add_argument("--also", default="", help="channels to project besides those named, as conv5:109,conv5:7")
    parser.add_argument("--first", type=int, help="only the first so many images")
    options = parser.parse_args(arguments)
    with one_sentence("data.make.gallery"):
        _mine(options)


def _mine(options: argparse.Namespace) -> None:
    """What the command does."""
    net = models.load(options.name).to(models.device())
    images, labels, names, classes = _tiny(net, options) if options.data else _photographs(options.photographs)
    named = named_channels(options.name) if options.photographs else {}  # after what they find in photographs
    also = {layer: sorted(known) for layer, known in named.items()}
    for layer, _, channel in (unit.partition(":") for unit in options.also.split(",") if unit):
        also[layer] = [*also.get(layer, []), int(channel)]
    some = slice(options.first)
    gallery = mine(
        net, images[some], labels[some], layers=net.conv_names, chosen=options.channels, also=also, names=names[some],
        classes=classes, projected=options.projected, side=options.side,
    )  # fmt: skip
    save(gallery, options.out)
    _report(gallery)


def _tiny(net, options: argparse.Namespace) -> tuple:
    """(images, labels, file names, None: the network's classes)."""
    pixels, labels, wnids = data.tiny_imagenet(options.data, "val")
    check_classes(net, wnids, name=options.name, source=options.data)
    root = Path(options.data.removesuffix(".zip")).expanduser()
    rows = (root / "val" / "val_annotations.txt").read_text().splitlines()
    return pixels, labels, [row.split("\t")[0] for row in rows], None


def _photographs(folder: str) -> tuple:
    """(files, labels, file names, ImageNet's class names)."""
    card = json.loads((_files.SHIPPED / "squeezenet.json").read_text(encoding="utf-8"))
    files, (_, labels) = data.folder(folder), data.imagenet_folder(folder, card["wnids"])
    return files, labels, [file.name for file in files], card["classes"]


def _report(gallery) -> None:
    chance = gallery.chance()
    for layer in gallery.layers:
        print(f"{layer}: purity {float(gallery.purities(layer).mean()):.3f} (chance {chance:.3f}), ", end="")
        print(f"{len(alive(gallery.peaks[layer]))} of {len(gallery.peaks[layer].values)} channels alive")


if __name__ == "__main__":
    main()
