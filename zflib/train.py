"""One training loop: recipes as data, checkpoints that resume exactly, and folding for the network we ship.

python -m zflib.train --recipe modern --network zfnet56 --data tiny-imagenet-200 --out runs/zfnet56
torchrun --nproc-per-node=2 -m zflib.train --recipe modern --data tiny-imagenet-200 --out runs/zfnet56
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from . import checkpoints, cluster, data, files, models, scenes
from .filters import fold, outer_ring_share, renormalise
from .loop import Run, prepare
from .measure import Images, accuracy
from .recipes import RECIPES, Recipe, anneal

__all__ = ["RECIPES", "Images", "Recipe", "accuracy", "finish", "renormalise", "train"]

SNAPSHOTS = (1, 2, 5, 10, 20, 30, 40, 64)  # the epochs of Figure 4
NETWORKS = {"zfnet56": models.zfnet56, "alexnet56": models.alexnet56, "scenes56": models.scenes56}


def _print(row: dict) -> None:
    print(json.dumps(row), flush=True)


def train(net: models.ZFNet, images: Images, validation: Images, recipe: Recipe, out: Path, *,
          report: Callable[[dict], None] = _print) -> None:  # fmt: skip
    """Train `net` in place and keep in `out`: checkpoint.pt, log.jsonl (a line per epoch) and epochNNN.pt.

    Called again with the same `out` it continues from the checkpoint, bit for bit on the same machine with the
    same number of threads. Snapshots, at the epochs of `SNAPSHOTS` and the last, are folded (no batch normalisation)
    and in half precision. `report` is called with the log's line after every epoch. Under torchrun all processes
    take the steps of one, and `out` must be a folder that all of them see. Section 3 of the paper.
    """
    cluster.share(recipe.batch)
    if len(images) < recipe.batch:
        raise ValueError(f"images: {len(images)} are fewer than one batch of {recipe.batch}; give more images")
    out = Path(out)
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


def _keep(run: Run, row: dict) -> None:
    """The epoch's line in the log and, at the chosen epochs, its snapshot."""
    path, epoch = run.out / "log.jsonl", row["epoch"]
    before = path.read_text().splitlines() if path.exists() else []
    rows = [line for line in before if json.loads(line)["epoch"] < epoch]  # an epoch that was run again
    files.write_atomically(path, ("\n".join([*rows, json.dumps(row)]) + "\n").encode())
    if epoch in SNAPSHOTS or epoch == run.recipe.epochs:
        checkpoints.save_atomically(models.half(fold(run.net)), run.out / f"epoch{epoch:03d}.pt")


def finish(net: models.ZFNet, validation: Images, recipe: Recipe, out: Path, *, card: dict) -> dict:
    """Fold, save `out`/final.pt and .json, and measure what was saved: centre crop and ten-crop. Returns the card."""
    cluster.wait()  # the first process writes the log
    curve = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
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
    net, validation = models.load(name).to(device), labelled(source, training=False).validation
    return {"centre crop": accuracy(net, validation), "ten-crop": accuracy(net, validation, ten_crop=True, batch=50)}


def _train(options: argparse.Namespace, device: torch.device) -> dict:
    recipe = replace(RECIPES[options.recipe], seed=options.seed)
    recipe = replace(recipe, epochs=options.epochs) if options.epochs else recipe
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


def main(arguments: list[str] | None = None) -> None:
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.measure and not options.out:
        parser.error("--out is needed: the folder for checkpoints, snapshots and the log")
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        with cluster.joined(torch.device(options.device or models.device())) as device:
            if options.download and cluster.rank() == 0:
                data.tiny_imagenet(options.data, "val", download=True)
            cluster.wait()
            result = _measure(options.measure, options.data, device) if options.measure else _train(options, device)
            if cluster.rank() == 0:
                print(json.dumps(result))
    except (ValueError, OSError) as error:
        sys.exit(f"zflib.train: {error}")


if __name__ == "__main__":
    main()
