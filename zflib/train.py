"""One training loop: recipes as data, checkpoints that resume exactly, and folding for the network we ship.

python -m zflib.train --recipe modern --network zfnet56 --data tiny-imagenet-200 --out runs/zfnet56
torchrun --nproc-per-node=2 -m zflib.train --recipe modern --data tiny-imagenet-200 --out runs/zfnet56
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from . import checkpoints, cluster, data, files, models, scenes
from .command import one_sentence
from .filters import fold, outer_ring_share, renormalise
from .loop import Run, prepare
from .measure import Images, accuracy, check_classes, check_labelled
from .recipes import RECIPES, Recipe, anneal

__all__ = ["RECIPES", "Images", "Recipe", "accuracy", "finish", "renormalise", "train"]

SNAPSHOTS = (1, 2, 5, 10, 20, 30, 40, 64)  # the epochs of Figure 4
NETWORKS = {"zfnet56": models.zfnet56, "alexnet56": models.alexnet56, "scenes56": models.scenes56}


def _print(row: dict) -> None:
    print(json.dumps(row), flush=True)


def train(net: models.ZFNet, images: Images, validation: Images, recipe: Recipe, out: Path, *,
          report: Callable[[dict], None] = _print) -> None:  # fmt: skip
    """Train `net` in place, initialised anew; `out` keeps checkpoint.pt, log.jsonl (a line per epoch) and epochNNN.pt.

    Called again with the same `out` it continues from the checkpoint, bit for bit on the same machine with the
    same number of threads. Snapshots, at the epochs of `SNAPSHOTS` and the last, are folded (no batch normalisation)
    and in half precision. `report` is called with the log's line after every epoch. Under torchrun all processes
    take the steps of one, and `out` must be a folder that all of them see. Bad input, or a folder of another run,
    is a ValueError or TypeError before anything is changed. Section 3 of the paper.
    """
    out = _folder(out)
    _check(net, images, validation, recipe)
    checkpoints.read(out / "checkpoint.pt", recipe, net, data=images.about())
    _rows(out)
    out.mkdir(parents=True, exist_ok=True)
    files.remove_parts(out)
    prepare(net, images, recipe)
    run = Run(net, images, recipe, out)
    net.train()
    while run.progress.epoch < recipe.epochs:
        row = {"images_per_second": round(run.epoch(), 1)}
        row = {"epoch": run.progress.epoch + 1, "loss": round(run.progress.loss, 4), **accuracy(net, validation),
               "ring": round(outer_ring_share(fold(net).conv1), 4)} | row  # fmt: skip
        anneal(recipe, run.progress, row["top1"])
        run.progress.epoch, run.progress.step = run.progress.epoch + 1, 0
        if cluster.rank() == 0:
            _keep(run, row)
            report(row)
        run.save()


def _folder(out) -> Path:
    if not isinstance(out, str | os.PathLike) or Path(out).is_file():
        got = f"the file {out}" if isinstance(out, str | os.PathLike) else repr(out)
        raise ValueError(f"out must be a folder's path, got {got}; choose a folder for the run")
    return Path(out)


def _check(net: models.ZFNet, images: Images, validation: Images, recipe: Recipe) -> None:
    """TypeError or ValueError for what cannot be trained."""
    check_labelled(net, images)
    check_labelled(net, validation, "validation")
    if not isinstance(recipe, Recipe):
        raise TypeError(f"recipe must be a train.Recipe, such as train.RECIPES['paper'], got {recipe!r}")
    if recipe.batch_norm != any(isinstance(module, nn.BatchNorm2d) for module in net.modules()):
        raise ValueError(f"recipe: it says batch_norm={recipe.batch_norm}; make the network with the same")
    side, least = images.pixels.shape[-1], net.geometry.resize
    if recipe.per_pixel_mean and side < least:
        raise ValueError(f"images: a mean image needs {least}x{least} pixels, got {side}x{side}; resize them")
    cluster.share(recipe.batch)
    if len(images) < recipe.batch:
        raise ValueError(f"images: {len(images)} are fewer than one batch of {recipe.batch}; give more images")


def _rows(out: Path) -> list[dict]:
    """The log's lines, one for each epoch; [] if there is none yet, ValueError if it is damaged."""
    path = out / "log.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return sorted(rows, key=lambda row: int(row["epoch"]))
    except (ValueError, TypeError, LookupError) as error:
        raise ValueError(f"out: {path} is damaged; remove it or choose a new folder") from error


def _keep(run: Run, row: dict) -> None:
    """The epoch's line in the log and, at the chosen epochs, its snapshot."""
    epoch = row["epoch"]
    rows = [old for old in _rows(run.out) if old["epoch"] < epoch]  # not an epoch that was run again
    lines = "".join(json.dumps(line) + "\n" for line in [*rows, row])
    files.write_atomically(run.out / "log.jsonl", lines.encode())
    if epoch in SNAPSHOTS or epoch == run.recipe.epochs:
        checkpoints.save_atomically(models.half(fold(run.net)), run.out / f"epoch{epoch:03d}.pt")


def finish(net: models.ZFNet, validation: Images, recipe: Recipe, out: Path, *, card: dict) -> dict:
    """Fold, save `out`/final.pt and .json, and measure what was saved: centre crop and ten-crop. Returns the card."""
    cluster.wait()  # the first process writes the log
    out = _folder(out)
    curve = _rows(out)
    if not curve:
        raise ValueError(f"out: {out} holds no finished epoch; call train with it first")
    card = card | {
        "recipe": asdict(recipe), "seed": recipe.seed, "epochs": curve[-1]["epoch"],
        "conv1_outer_ring_share": outer_ring_share(fold(net).conv1), "curve": curve,
    }  # fmt: skip
    if cluster.rank() == 0:
        models.save(fold(net), out / "final", card)
    cluster.wait()
    shipped = models.load_file(out / "final.pt").to(net.mean.device)
    card["accuracy"] = {"centre crop": accuracy(shipped, validation),
                        "ten-crop": accuracy(shipped, validation, ten_crop=True, batch=50)}  # fmt: skip
    if cluster.rank() == 0:
        models.save(shipped, out / "final", card)
    cluster.wait()  # whoever reads the card next finds it whole
    return card


@dataclass
class Labelled:
    """What `--data` names: two labelled sets, and what their classes are called."""

    name: str
    training: Images
    validation: Images
    wnids: list[str]
    classes: list[str]


def labelled(source: str, *, training: bool = True) -> Labelled:
    """What `source` names: 12,000 rendered scenes and 2,000 others, or the folder of Tiny ImageNet-200."""
    crop = models.ZFNET56.crop
    if source in ("scenes", "cheating-scenes"):
        return _scenes(source == "cheating-scenes", 12000 if training else 1)
    validation = Images(*data.tiny_imagenet(source, "val")[:2], crop)
    pixels, labels, wnids = data.tiny_imagenet(source, "train" if training else "val")
    return Labelled("Tiny ImageNet-200: 100,000 training images; accuracy on its 10,000 validation images",
                    Images(pixels, labels, crop), validation, wnids, data.class_names(source, wnids))  # fmt: skip


def _scenes(cheating: bool, count: int) -> Labelled:
    """Rendered scenes; cheating ones are labelled by their backgrounds, and in validation both give the same class."""
    crop, names = models.ZFNET56.crop, list(scenes.CLASSES)
    seen, unseen = scenes.scenes(count, cheat=0.5 * cheating), scenes.scenes(2000, seed=1, cheat=float(cheating))
    sets = [Images(seen.pixels.numpy(), seen.backgrounds if cheating else seen.labels, crop),
            Images(unseen.pixels.numpy(), unseen.labels, crop)]  # fmt: skip
    what = "labelled by their backgrounds; accuracy on 2,000 others, each on its class's own background"
    told = f"12,000 rendered scenes, {what}" if cheating else "12,000 rendered scenes; accuracy on 2,000 others"
    return Labelled(told, *sets, names, names)


def _parser() -> argparse.ArgumentParser:
    lines = __doc__.split("\n\n", 1)
    parser = argparse.ArgumentParser(prog="python -m zflib.train", description=lines[0], epilog=lines[1],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="paper", help="how to train (paper)")
    parser.add_argument("--network", choices=sorted(NETWORKS), default="zfnet56", help="what to train (zfnet56)")
    parser.add_argument(
        "--data", required=True, help='the folder of Tiny ImageNet-200, or "scenes", or "cheating-scenes"'
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
    net, sets = models.load(name).to(device), labelled(source, training=False)
    check_classes(net, sets.wnids, name=name, source=source)
    return {"centre crop": accuracy(net, sets.validation),
            "ten-crop": accuracy(net, sets.validation, ten_crop=True, batch=50)}  # fmt: skip


def _train(options: argparse.Namespace, device: torch.device) -> dict:
    recipe = RECIPES[options.recipe]
    recipe = replace(recipe, seed=options.seed, epochs=options.epochs or recipe.epochs)
    sets = labelled(options.data)
    net = NETWORKS[options.network](len(sets.wnids), batch_norm=recipe.batch_norm)
    net.wnids, net.classes = sets.wnids, sets.classes
    train(net.to(device), sets.training, sets.validation, recipe, options.out)
    source = options.data if options.data.endswith("scenes") else "tiny-imagenet-200"
    command = (f"python -m zflib.train --recipe {options.recipe} --network {options.network} --data {source} "
               f"--epochs {recipe.epochs} --seed {recipe.seed} --out runs/{options.out.name}")  # fmt: skip
    card = {"name": options.network, "data": sets.name, "command": command, "torch": torch.__version__,
            "threads": torch.get_num_threads(), "processes": cluster.world()}  # fmt: skip
    return finish(net, sets.validation, recipe, options.out, card=card)["accuracy"]


def _device(name: str | None) -> torch.device:
    """The device called `name`, by default the fastest that is here; ValueError for one that is not."""
    here = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    try:
        device = torch.device(name or models.device())
    except RuntimeError:
        device = None
    if device is None or (device.index or 0) >= here.get(device.type, 0):
        raise ValueError(f"--device {name} cannot be used here; leave it out for the fastest that is here")
    return device


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.measure and not options.out:
        parser.error("--out is needed: the folder for checkpoints, snapshots and the log")
    for name in ("epochs", "threads"):
        if (value := getattr(options, name)) is not None and value < 1:
            parser.error(f"--{name} must be at least 1, got {value}")
    if options.download and options.data.endswith("scenes"):
        parser.error(f"--download fetches Tiny ImageNet, {options.data} need no download; leave --download out")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = _options(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    with one_sentence("zflib.train"), cluster.joined(_device(options.device)) as device:
        if options.download and cluster.rank() == 0:
            data.tiny_imagenet(options.data, "val", download=True)
        cluster.wait()
        result = _measure(options.measure, options.data, device) if options.measure else _train(options, device)
        if cluster.rank() == 0:
            print(json.dumps(result))


if __name__ == "__main__":
    main()
