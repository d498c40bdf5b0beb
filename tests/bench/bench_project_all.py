"""How fast a whole layer goes back to pixels: `project_all` beside captum's NeuronDeconvolution, in one run.

    PYTHONPATH=. python tests/bench/bench_project_all.py [zfnet:conv5 squeezenet1_1:features.4 …] [--threads N]

Prints, per layer, milliseconds per projection for both, their ratio, and how far the pictures differ; random weights.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings

import torch
import torchvision
from captum.attr import NeuronDeconvolution
from torch import nn

import zflib

CASES = ("zfnet:conv5", "squeezenet1_1:features.4", "squeezenet1_1:features.7", "resnet18:layer1", "resnet18:layer2")


def network(name: str) -> nn.Module:
    """As captum can take it: without response normalisation, which it would differentiate and the paper skips, and
    without ReLUs in place, which its hooks refuse."""
    net = zflib.ZFNet() if name == "zfnet" else torchvision.models.get_model(name, weights=None)
    for path, module in list(net.named_modules()):
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.ReLU):
            module.inplace = False
        elif name == "zfnet" and path.startswith("norm"):
            setattr(net, path, nn.Identity())
    return net.eval()


def seconds(*functions, rounds: int) -> list[float]:
    """The median time of each function; they take turns, after one turn to warm up."""
    times = [[] for _ in functions]
    for number in range(rounds + 1):
        for function, found in zip(functions, times):
            start = time.perf_counter()
            function()
            if number:
                found.append(time.perf_counter() - start)
    return [statistics.median(found) for found in times]


def compare(name: str, layer: str, rounds: int) -> None:
    """One line of the table."""
    torch.manual_seed(0)
    net, image = network(name), torch.randn(1, 3, 224, 224)
    deconvnet = zflib.Deconvnet(net)
    activations = deconvnet.activations(image, layer)
    maps, peaks = activations[0], zflib.deconv.strongest(activations)[0].tolist()
    path = net.layer_path(layer) if name == "zfnet" else layer
    captum = NeuronDeconvolution(net, net.get_submodule(path))

    ours, worst, count = deconvnet.project_all(image, layer), 0.0, len(maps)
    for channel in range(0, count, count // 4):
        unit = captum.attribute(image, (channel, *peaks[channel]))[0] * maps[channel].max()
        worst = max(worst, float((unit - ours[channel]).abs().max() / unit.abs().max().clamp(min=1e-30)))
    several = [(channel, *peaks[channel]) for channel in range(0, count, count // 3)]
    everything, some = seconds(
        lambda: deconvnet.project_all(image, layer),
        lambda: [captum.attribute(image, one) for one in several],
        rounds=rounds,
    )
    mine, theirs = 1000 * everything / count, 1000 * some / len(several)
    print(f"{name + ':' + layer:26}{count:9}{mine:9.2f}{theirs:9.2f}{theirs / mine:8.1f}x   {worst:.0e}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=CASES, metavar="network:layer")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", module="captum")
    print(f"{options.threads} threads, torch {torch.__version__}, milliseconds per projection")
    print(f"{'layer':26}{'channels':>9}{'zflib':>9}{'captum':>9}{'ratio':>9}   difference")
    for case in options.cases:
        compare(*case.split(":"), options.rounds)


if __name__ == "__main__":
    main()
