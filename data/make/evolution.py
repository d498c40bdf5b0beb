"""Figure 4 as data: the same channels at every snapshot, over the training images; and a small run with its controls.

python -m data.make.evolution zfnet56 --data tiny-imagenet-200 --every 4 --out data/zfnet56-evolution.npz
python -m data.make.evolution scenes --out data/scenes56-evolution.npz
python -m data.make.evolution controls --out data/evolution-controls.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from zflib import _files, data, models, train
from zflib._arguments import one_sentence
from zflib.data import scenes
from zflib.experiments import find_peaks
from zflib.studies import evolution, evolution_controls

SEEDS = {"one-cycle": 5, "constant": 3}  # trainings behind the controls, by their schedule
PUSHED = 3  # of the first: their jumps are compared with those of pushed networks
EPOCHS = (0, 1, 2, 3, 4, 6, 8, 12)  # of which agreement with the last is measured
BEFORE = 6  # jumps are counted from this epoch to the last


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m data.make.evolution", description=__doc__.split("\n")[0])
    parser.add_argument("name", help="a shipped network that has snapshots; scenes, a small run; controls, of it")
    parser.add_argument("--data", help="the folder of Tiny ImageNet-200")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    parser.add_argument("--every", type=int, default=1, help="take every n-th training image")
    parser.add_argument("--channels", type=int, default=6, help="how many channels of each layer, drawn at random")
    options = parser.parse_args(arguments)
    with one_sentence("data.make.evolution"):
        {"scenes": _small_run, "controls": _controls}.get(options.name, _evolve)(options)


def _evolve(options: argparse.Namespace) -> None:
    """Of a shipped network."""
    nets, generator = models.snapshots(options.name), torch.Generator().manual_seed(0)
    layers, last = {}, evolution.last_of(nets)
    for layer in last.conv_names:
        drawn = torch.randperm(last.get_submodule(layer).out_channels, generator=generator)
        layers[layer] = drawn[: options.channels].sort().values.tolist()
    pixels, labels, _ = data.tiny_imagenet(options.data or "tiny-imagenet-200", "train")
    found = evolution.evolve(nets, pixels[:: options.every], layers=layers)
    for one in found.values():
        one.images *= options.every  # numbers in the whole set
        one.labels = torch.as_tensor(labels)[one.images]
    evolution.save(found, options.out, network=last.card["sha256"])


def _small_run(options: argparse.Namespace) -> None:
    """The networks before the first step and after every epoch, and the nine strongest scenes of all channels."""
    nets, accuracy = evolution.grow(evolution.small_recipe())
    pixels, layers = evolution.world().pixels, evolution.last_of(nets).conv_names
    peaks = {epoch: find_peaks(net, pixels, layers=layers, k=9) for epoch, net in nets.items()}
    evolution.save_run(evolution.SmallRun(nets, peaks, accuracy), options.out)


def _controls(options: argparse.Namespace) -> None:
    """Trainings at each of two schedules: agreement with the end; and, of the first, jumps against pushes."""
    found = {what: {"one-cycle": [], "constant": []} for what in ("agreements", "accuracy")}
    found |= {"jumps": [], "jump shares": {}}
    for schedule, agreements in found["agreements"].items():
        for seed in range(SEEDS[schedule]):
            recipe = evolution.small_recipe(seed, constant=schedule == "constant")
            nets, accuracy = evolution.grow(recipe)
            found["accuracy"][schedule].append(accuracy)
            some = {epoch: nets[epoch] for epoch in EPOCHS}
            agreements.append(_rounded(evolution_controls.agreements(some, _views(nets), recipe)))
            if schedule == "one-cycle" and seed < PUSHED:
                found["jumps"].append(_jumps(nets, seed))
            if seed == 0:
                shares = evolution_controls.jump_shares(nets, evolution.world().pixels)
                found["jump shares"][schedule] = {layer: [round(x, 4) for x in row] for layer, row in shares.items()}
            print(schedule, seed, accuracy[-1], flush=True)
    large = models.snapshots("zfnet56")
    found["zfnet56"] = _rounded(evolution_controls.agreements(large, _windows(large), _recipe(large)))
    _files.write_atomically(options.out, (json.dumps(found) + "\n").encode())


def _views(nets: dict) -> torch.Tensor:
    """(40,3,56,56) scenes that no run was trained on."""
    last = evolution.last_of(nets)
    return data.centre_crop(last.normalise(scenes.scenes(40, seed=1).pixels), last.geometry.crop)


def _windows(nets: dict) -> torch.Tensor:
    """(68,3,56,56) windows of the shipped photographs, at all scales."""
    last = evolution.last_of(nets)
    return data.centre_crop(last.normalise(data.windows(sizes=(96, 144, 216), stride=0.5).pixels[::12]), 56)


def _recipe(nets: dict) -> train.Recipe:
    return train.Recipe(**evolution.last_of(nets).card["recipe"])


def _rounded(agreements: dict) -> dict:
    return {what: {layer: {epoch: round(value, 4) for epoch, value in curve.items()} for layer, curve in curves.items()}
            for what, curves in agreements.items()}  # fmt: skip


def _jumps(nets: dict, seed: int) -> dict:
    """Who was pushed -> layer -> (jumps, jumps within a class) of each draw, moved as much as training moved it."""
    world = evolution.world()
    ends = [find_peaks(nets[epoch], world.pixels, layers=nets[0].conv_names, k=1) for epoch in (BEFORE, max(nets))]
    by_training = {layer: [evolution_controls.kept_class(ends[0][layer].images[:, 0], ends[1][layer].images[:, 0],
                                                         world.labels)] for layer in nets[0].conv_names}  # fmt: skip
    counts = {layer: rows[0][0] for layer, rows in by_training.items()}
    pushes = {name: evolution_controls.matched_pushes(nets[epoch], world.pixels, world.labels, counts, seed=seed)
              for name, epoch in (("pushed", BEFORE), ("untrained, pushed", 0))}  # fmt: skip
    return {"trained": by_training, **pushes}


if __name__ == "__main__":
    main()
