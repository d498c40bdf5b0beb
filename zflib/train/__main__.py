"""Train a network, or measure a shipped one.

python -m zflib.train --recipe modern --network zfnet56 --data tiny-imagenet-200 --out runs/zfnet56
python -m zflib.train --measure squeezenet --data imagenet-val
torchrun --nproc-per-node=2 -m zflib.train --recipe modern --data tiny-imagenet-200 --out runs/zfnet56
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

from .. import data, models
from .._arguments import one_sentence
from . import distributed
from .recipes import RECIPES
from .run import NETWORKS, RENDERED, finish, labelled, train
from .scoring import Images, accuracy, check_classes


def _parser() -> argparse.ArgumentParser:
    lines = __doc__.split("\n\n", 1)
    parser = argparse.ArgumentParser(prog="python -m zflib.train", description=lines[0], epilog=lines[1],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="paper", help="how to train (paper)")
    parser.add_argument("--network", choices=sorted(NETWORKS), default="zfnet56", help="what to train (zfnet56)")
    parser.add_argument(
        "--data",
        required=True,
        help="a folder of Tiny ImageNet-200, or scenes, or cheating-scenes; "
        "to measure squeezenet, photographs with WordNet ids in their paths",
    )
    parser.add_argument("--download", action="store_true", help="fetch Tiny ImageNet-200 to --data first (248 MB)")
    parser.add_argument("--out", type=Path, help="for checkpoints, snapshots and the log; a run there is continued")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="torch threads; resuming is bit-exact for the same number")
    parser.add_argument("--device", help="cuda, mps or cpu; by default the fastest that is here")
    parser.add_argument("--measure", metavar="NAME", help="train nothing: print the accuracy of a shipped network")
    return parser


def _measure(name: str, source: str, device: torch.device) -> dict:
    net = models.load(name).to(device)
    if isinstance(net, models.SqueezeNet):
        images, batch = Images(*data.imagenet_folder(source, net.wnids), net.geometry.crop), 20
    else:
        sets, batch = labelled(source, training=False), 250
        check_classes(net, sets.wnids, name=name, source=source)
        images = sets.validation
    return {"centre crop": accuracy(net, images, batch=batch),
            "ten-crop": accuracy(net, images, ten_crop=True, batch=batch // 5)}  # fmt: skip


def _train(options: argparse.Namespace, device: torch.device) -> dict:
    recipe = RECIPES[options.recipe]
    epochs = recipe.epochs if options.epochs is None else options.epochs
    recipe = replace(recipe, seed=options.seed, epochs=epochs)
    sets = labelled(options.data)
    net = NETWORKS[options.network](len(sets.wnids), batch_norm=recipe.batch_norm)
    net.wnids, net.classes = sets.wnids, sets.classes
    train(net.to(device), sets.training, sets.validation, recipe, options.out)
    source = options.data if options.data in RENDERED else "tiny-imagenet-200"
    command = (f"python -m zflib.train --recipe {options.recipe} --network {options.network} --data {source} "
               f"--epochs {recipe.epochs} --seed {recipe.seed} --out runs/{options.out.name}")  # fmt: skip
    card = {"name": options.network, "data": sets.name, "command": command, "torch": torch.__version__,
            "threads": torch.get_num_threads(), "processes": distributed.world()}  # fmt: skip
    return finish(net, sets.validation, recipe, options.out, card=card)["accuracy"]


def _device(name: str | None) -> torch.device:
    """The device called `name`, by default the fastest that is here; ValueError for one that is not."""
    try:
        return torch.empty(0, device=name or models.device()).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name} cannot be used here; leave it out for the fastest that is here") from error


def main(arguments: list[str] | None = None) -> None:
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.measure and not options.out:
        parser.error("--out is needed: the folder for checkpoints, snapshots and the log")
    if options.threads:
        torch.set_num_threads(options.threads)
    with one_sentence("zflib.train"), distributed.joined(_device(options.device)) as device:
        tiny = options.data not in RENDERED and options.measure != "squeezenet"
        if tiny and distributed.rank() == 0:  # fetched and decoded once, then read by all
            for split in ["val"] if options.measure else ["val", "train"]:
                data.tiny_imagenet(options.data, split, download=options.download)
        distributed.wait()
        result = _measure(options.measure, options.data, device) if options.measure else _train(options, device)
        if distributed.rank() == 0:
            print(json.dumps(result))


if __name__ == "__main__":
    main()
