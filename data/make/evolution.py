"""Figure 4 as data: the same channels at every snapshot, over the training images of Tiny ImageNet.

python -m data.make.evolution zfnet56 --data tiny-imagenet-200 --out data/zfnet56-evolution.npz
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from zflib import data, models
from zflib._arguments import one_sentence
from zflib.studies.evolution import evolve, last_of, save


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m data.make.evolution", description=__doc__.split("\n")[0])
    parser.add_argument("name", help="a shipped network that has snapshots")
    parser.add_argument("--data", required=True, help="the folder of Tiny ImageNet-200")
    parser.add_argument("--out", type=Path, required=True, help="the .npz to write")
    parser.add_argument("--every", type=int, default=1, help="take every n-th training image")
    parser.add_argument("--channels", type=int, default=6, help="how many channels of each layer, drawn at random")
    options = parser.parse_args(arguments)
    with one_sentence("data.make.evolution"):
        _evolve(options)


def _evolve(options: argparse.Namespace) -> None:
    """What the command does."""
    nets, generator = models.snapshots(options.name), torch.Generator().manual_seed(0)
    layers, last = {}, last_of(nets)
    for layer in last.conv_names:
        drawn = torch.randperm(last.get_submodule(layer).out_channels, generator=generator)
        layers[layer] = drawn[: options.channels].sort().values.tolist()
    pixels = data.tiny_imagenet(options.data, "train")[0][:: options.every]
    found = evolve(nets, pixels, layers=layers)
    for evolution in found.values():
        evolution.images *= options.every  # numbers in the whole set
    save(found, options.out, network=last.card["sha256"])


if __name__ == "__main__":
    main()
