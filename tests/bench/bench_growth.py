"""How the cost grows with the work, as Markdown tables for README.md beside this file.

    PYTHONPATH=. python tests/bench/bench_growth.py [find_peaks batch channels size squares atlas] [--threads N]

A table for each name: seconds of several amounts of work, and how they grow from row to row beside the work. Random
weights where only the cost matters. Nothing else may run meanwhile; all tables take some ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torchvision
from bench_occlusion import network

import zflib

IMAGE = torch.Generator().manual_seed(0)


def resnet():
    torch.manual_seed(0)
    return torchvision.models.get_model("resnet18", weights=None).eval()


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 3, 64, 64), dtype=np.uint8)


def find_peaks() -> Iterator[tuple[int, Callable]]:
    """`find_peaks`, all layers of zfnet56, batches of 64 | images"""
    net = zflib.load("zfnet56")
    for count in (256, 512, 1024, 2048):
        yield count, lambda count=count: zflib.find_peaks(net, pixels(count), layers=net.layer_names)


def batch() -> Iterator[tuple[int, Callable]]:
    """`find_peaks`, 1,024 images of zfnet56 | images in a batch"""
    net, images = zflib.load("zfnet56"), pixels(1024)
    for size in (8, 32, 128, 512):
        yield size, lambda size=size: zflib.find_peaks(net, images, layers=net.layer_names, batch_size=size)


def channels() -> Iterator[tuple[int, Callable]]:
    """`Deconvnet.project`, so many channels of layer2 of ResNet-18, one image of 224 pixels | channels"""
    deconvnet, image = zflib.Deconvnet(resnet()), torch.randn(1, 3, 224, 224, generator=IMAGE)
    for count in (16, 32, 64, 128):
        images = image.expand(count, -1, -1, -1)
        yield count, lambda count=count, images=images: deconvnet.project(images, "layer2", torch.arange(count))


def size() -> Iterator[tuple[int, Callable]]:
    """`project_all`, layer2 of ResNet-18 (128 channels) | pixels of the image"""
    deconvnet = zflib.Deconvnet(resnet())
    for side in (112, 160, 224, 320):
        image = torch.randn(1, 3, side, side, generator=IMAGE)
        yield side**2, lambda image=image: deconvnet.project_all(image, "layer2")


def squares() -> Iterator[tuple[int, Callable]]:
    """`occlude`, squares of 32 pixels, the paper's network at 224 pixels | squares"""
    net, image = network("zfnet"), 50 * torch.randn(3, 224, 224, generator=IMAGE)
    for stride in (32, 16, 8):
        count = ((224 - 32) // stride + 1) ** 2
        yield count, lambda stride=stride: zflib.occlude(net, image, size=32, stride=stride)


def atlas() -> Iterator[tuple[int, Callable]]:
    """`write_atlas`, the 64 channels of conv1 of zfnet56 | images"""
    net = zflib.load("zfnet56")
    for count in (100, 200, 400):
        yield count, lambda count=count: _atlas(net, pixels(count))


def _atlas(net, images: np.ndarray) -> None:
    with tempfile.TemporaryDirectory() as folder:
        zflib.write_atlas(net, images, Path(folder) / "atlas", layers=["conv1"])


TABLES = {table.__name__: table for table in (find_peaks, batch, channels, size, squares, atlas)}


def seconds(function: Callable, rounds: int) -> float:
    """The median of some rounds, after one to warm up."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def table(rows: Callable, rounds: int) -> None:
    title, amount = rows.__doc__.split(" | ")
    print(f"\n{title}\n\n| {amount} | seconds | the work | the cost |\n|---|---|---|---|")
    before = None
    for work, function in rows():
        took = seconds(function, rounds)
        grown = f"{work / before[0]:.1f}x | {took / before[1]:.1f}x" if before else "|"
        print(f"| {work:,} | {took:.2f} | {grown} |", flush=True)
        before = work, took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", default=list(TABLES), metavar="table")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{options.threads} threads, torch {torch.__version__}")
    for name in options.tables:
        table(TABLES[name], options.rounds)


if __name__ == "__main__":
    main()
