"""The networks of notebook 13 that are trained on Caltech-101 itself: from scratch, or from another task's weights.

python -m data.make.transfer_training --data caltech-101 --work runs/transfer --out data/transfer.json
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch

from data.make.transfer import Results, add_arguments, pixels_of
from zflib import data, models
from zflib._arguments import one_sentence
from zflib.experiments.transfer_learning import mean_over_classes, split_classes
from zflib.record.hooks import unchanged
from zflib.train import RECIPES, Images, Recipe, checkpoints
from zflib.train.steps import Run, prepare, resized

#: Sixteen epochs at 32 pixels: what an hour of one slow core pays for four networks.
SCRATCH = replace(RECIPES["modern"], epochs=16, batch=32, lr=0.03, dropout=0.5, sizes=(32,))
#: From the weights of zfnet56: a few epochs at its own size, with small steps and no batch normalisation.
TUNED = replace(RECIPES["modern"], epochs=5, batch=32, lr=0.004, dropout=0.3, batch_norm=False, sizes=())


def rows() -> dict[str, tuple[Recipe, int, int]]:
    """name -> (recipe, images per class, draw)."""
    found = {}
    for draw in range(2):
        for per_class in (30, 15):
            found[f"scratch {per_class} draw {draw}"] = SCRATCH, per_class, draw
    found |= {f"tuned 30 draw {draw}": (TUNED, 30, draw) for draw in range(2)}
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m data.make.transfer_training", description=__doc__.split("\n")[0])
    parser.add_argument("rows", nargs="*", help="which rows, by name; all that are missing, if none is named")
    add_arguments(parser)
    options = parser.parse_args(arguments)
    with one_sentence("data.make.transfer_training"):
        results = Results(options.out)
        pixels, labels = pixels_of(options.data, options.work)
        for name in results.wanted(rows(), options.rows):
            recipe, per_class, draw = rows()[name]
            began = time.monotonic()
            accuracy = train_and_test(pixels, labels, recipe, per_class, draw, options.work / name.replace(" ", "-"))
            seconds = round(time.monotonic() - began)
            results.add(name, accuracy=[accuracy], per_class=per_class, seed=draw, recipe=asdict(recipe),
                        network="zfnet56", seconds=seconds, command="data.make.transfer_training")  # fmt: skip


def train_and_test(pixels, labels: torch.Tensor, recipe: Recipe, per_class: int, draw: int, out: Path) -> float:
    """Mean over classes of a network that was trained on one draw of (N,3,64,64) pixels; `out` keeps its checkpoint."""
    train, test = split_classes(labels, per_class, seed=draw)
    recipe = replace(recipe, seed=draw)
    images = Images(pixels[train.numpy()], labels[train], models.ZFNET56.crop)
    net = models.ZFNet(int(labels.max()) + 1, geometry=models.ZFNET56, batch_norm=recipe.batch_norm)
    out.mkdir(parents=True, exist_ok=True)
    state = checkpoints.read(out, recipe, net)
    prepare(net, images, recipe)
    if not recipe.batch_norm:
        take_weights(net, models.load("zfnet56"))
    run = Run(net, images, recipe, out)
    if state:
        run.progress = checkpoints.restore(state, run.parts)
    net.train()
    while run.progress.epoch < recipe.epochs:
        run.epoch()
        run.progress.epoch, run.progress.step = run.progress.epoch + 1, 0
        run.save()
        print(f"{out.name}: epoch {run.progress.epoch} of {recipe.epochs}, loss {run.progress.loss:.3f}", flush=True)
    return mean_over_classes(answers(net, pixels[test.numpy()], recipe), labels[test])


def take_weights(net: models.ZFNet, trained: models.ZFNet) -> None:
    """All of another network's weights but for those of its last layer, whose classes are others."""
    last = net.layer_names[-1]
    state = {name: value for name, value in trained.state_dict().items() if not name.startswith(last)}
    net.load_state_dict(net.state_dict() | state)


def answers(net: models.ZFNet, pixels, recipe: Recipe) -> torch.Tensor:
    """(N,) classes of (N,3,64,64) uint8 pixels: the centre crop, at the last size that the network was trained on."""
    side, found = (recipe.sizes or (net.geometry.crop,))[-1], []
    with unchanged(net), torch.no_grad():
        for some in torch.from_numpy(pixels).split(100):
            crops = data.centre_crop(net.normalise(some), net.geometry.crop)
            found.append(net(resized(crops, side)).argmax(dim=-1))
    return torch.cat(found)


if __name__ == "__main__":
    main()
