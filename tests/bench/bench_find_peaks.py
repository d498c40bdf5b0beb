"""What `find_peaks` costs: images per second of the bare forward pass and of the search, all layers of zfnet56.

    PYTHONPATH=. python tests/bench/bench_find_peaks.py [--images N] [--rounds R] [--threads N]

Both read the same random uint8 pixels in the same batches; the rounds alternate, the ratio is the rounds' median.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch

import zflib
from zflib.experiments.peaks import find_peaks

BATCH = 64


def bare(net: zflib.ZFNet, pixels: np.ndarray) -> None:
    """The forward pass alone, with the cropping and normalising that it needs."""
    with torch.no_grad():
        for first in range(0, len(pixels), BATCH):
            block = torch.from_numpy(pixels[first : first + BATCH])
            net(net.normalise(zflib.data.centre_crop(block, net.geometry.crop)))


def seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    net, count = zflib.load("zfnet56"), options.images
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, 64, 64), dtype=np.uint8)
    bare(net, pixels[: 4 * BATCH])
    rounds = []
    for _ in range(options.rounds):
        alone = seconds(lambda: bare(net, pixels))
        rounds.append((alone, seconds(lambda: find_peaks(net, pixels, layers=net.layer_names, batch_size=BATCH))))
    slow, fast = (statistics.median(times) for times in zip(*rounds))
    ratio = statistics.median(alone / search for alone, search in rounds)
    print(f"{count} images, {len(net.layer_names)} layers, {options.threads} threads, torch {torch.__version__}")
    print(f"bare forward pass  {count / slow:8.1f} images/s")
    print(f"find_peaks         {count / fast:8.1f} images/s")
    print(f"throughput kept    {100 * ratio:8.1f} %   rounds: {', '.join(f'{100 * a / s:.0f}' for a, s in rounds)}")


if __name__ == "__main__":
    main()
