"""How fast an occlusion map is: `occlude` beside captum's Occlusion, in one run, on three networks at 224 pixels.

    PYTHONPATH=. python tests/bench/bench_occlusion.py [--networks zfnet squeezenet1_1 resnet18] [--threads N]

captum runs at the best of several `perturbations_per_eval`. Prints seconds per map, their ratio, and how far both
differ: captum's map is averaged over the squares that cover a pixel, so single squares are compared by its own sums.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
import torchvision
from captum.attr import Occlusion
from torch import nn

import zflib
from zflib.experiments.occlusion import occlude

TRIED, SIZE = (1, 4, 16, 64), 32
#: name -> (layer, stride, how many times as fast as captum it has to be)
NETWORKS = {"zfnet": ("conv5", 8, 6.9), "squeezenet1_1": ("features.12", 16, 2.0), "resnet18": ("layer4", 16, 1.6)}


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name != "zfnet":
        return torchvision.models.get_model(name, weights=None).eval()
    net = zflib.ZFNet().eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    with torch.no_grad():
        net.fc8.weight.mul_(0.01)  # else one class has all the probability, whatever is covered
    return net


def captum_map(net: nn.Module, image: torch.Tensor, label: int, stride: int, batch: int) -> torch.Tensor:
    """(H,W): captum's attribution with a grey square, one number for all colours."""
    with torch.no_grad():
        return Occlusion(lambda x: net(x).softmax(-1)).attribute(
            image[None], sliding_window_shapes=(3, SIZE, SIZE), strides=(3, stride, stride), baselines=0.0,
            target=label, perturbations_per_eval=batch,
        )[0, 0]  # fmt: skip


def averaged(maps, side: int) -> torch.Tensor:
    """(H,W): what captum makes of the same squares: the mean drop of those that cover a pixel."""
    total, count = torch.zeros(side, side), torch.zeros(side, side)
    for (top, left), probability in zip(maps.corners.flatten(0, 1).tolist(), maps.probability.flatten()):
        total[top : top + SIZE, left : left + SIZE] += maps.before[0] - probability
        count[top : top + SIZE, left : left + SIZE] += 1
    return total / count.clamp(min=1)


def seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(name: str, rounds: int) -> None:
    net, (layer, stride, wanted) = network(name), NETWORKS[name]
    image = (50 if name == "zfnet" else 1) * torch.randn(3, 224, 224)
    maps = occlude(net, image, size=SIZE, stride=stride, layer=layer)
    ours, theirs = [], {batch: [] for batch in TRIED}
    for _ in range(rounds):  # in turn, so that both meet the same machine
        for batch in TRIED:
            theirs[batch].append(seconds(lambda batch=batch: captum_map(net, image, maps.label, stride, batch)))
            ours.append(seconds(lambda: occlude(net, image, size=SIZE, stride=stride, layer=layer)))
    best = min(TRIED, key=lambda batch: statistics.median(theirs[batch]))
    mine, other = statistics.median(ours), statistics.median(theirs[best])
    difference = (averaged(maps, 224) - captum_map(net, image, maps.label, stride, best)).abs().max()
    print(f"{name}, {SIZE}x{SIZE} at stride {stride}: {maps.probability.numel()} squares")
    print(f"  zflib occlude     {mine:8.2f} s")
    for batch in TRIED:
        print(f"  captum, {batch:3} a time {statistics.median(theirs[batch]):8.2f} s")
    print(
        f"  ratio {other / mine:.1f}x (captum at {best}), at least {wanted}x is wanted   "
        f"largest difference {float(difference):.1e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.networks:
        measure(name, options.rounds)


if __name__ == "__main__":
    main()
