"""How fast an occlusion map is: `occlude` beside captum's Occlusion, in one run, on the paper's 224 network.

    python tests/bench/bench_occlusion.py [--size 32] [--stride 8] [--threads N] [--rounds 3]

captum runs at the best of several `perturbations_per_eval`. Prints seconds per map, their ratio, and how far both
differ: captum's map is averaged over the squares that cover a pixel, so single squares are compared by its own sums.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from captum.attr import Occlusion
from torch import nn

import zflib
from zflib.experiments.occlusion import occlude

TRIED = (1, 4, 16, 64)


def captum_map(net: nn.Module, image: torch.Tensor, label: int, size: int, stride: int, batch: int) -> torch.Tensor:
    """(H,W): captum's attribution with a grey square, one number for all colours."""
    with torch.no_grad():
        return Occlusion(lambda x: net(x).softmax(-1)).attribute(
            image[None], sliding_window_shapes=(3, size, size), strides=(3, stride, stride), baselines=0.0,
            target=label, perturbations_per_eval=batch,
        )[0, 0]  # fmt: skip


def averaged(maps, side: int, size: int) -> torch.Tensor:
    """(H,W): what captum makes of the same squares: the mean drop of those that cover a pixel."""
    total, count = torch.zeros(side, side), torch.zeros(side, side)
    for (top, left), probability in zip(maps.corners.flatten(0, 1).tolist(), maps.probability.flatten()):
        total[top : top + size, left : left + size] += maps.before[0] - probability
        count[top : top + size, left : left + size] += 1
    return total / count.clamp(min=1)


def seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--stride", type=int, default=8)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    net = zflib.ZFNet().eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    with torch.no_grad():
        net.fc8.weight.mul_(0.01)  # else one class has all the probability, whatever is covered
    image = 50 * torch.randn(3, 224, 224)
    size, stride = options.size, options.stride
    maps = occlude(net, image, size=size, stride=stride)
    ours, theirs = [], {batch: [] for batch in TRIED}
    for _ in range(options.rounds):  # in turn, so that both meet the same machine
        ours.append(seconds(lambda: occlude(net, image, size=size, stride=stride)))
        for batch in TRIED:
            theirs[batch].append(seconds(lambda batch=batch: captum_map(net, image, maps.label, size, stride, batch)))
    best = min(TRIED, key=lambda batch: statistics.median(theirs[batch]))
    mine, other = statistics.median(ours), statistics.median(theirs[best])
    difference = (averaged(maps, 224, size) - captum_map(net, image, maps.label, size, stride, best)).abs().max()
    print(f"ZFNet 224, {size}x{size} at stride {stride}: {maps.probability.numel()} squares, {options.threads} threads")
    print(f"zflib occlude     {mine:8.2f} s")
    for batch in TRIED:
        print(f"captum, {batch:3} a time {statistics.median(theirs[batch]):8.2f} s")
    print(f"ratio {other / mine:.1f}x (captum at {best})   largest difference {float(difference):.1e}")


if __name__ == "__main__":
    main()
