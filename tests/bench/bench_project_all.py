"""How fast a whole layer goes back to pixels: `project_all` beside captum's NeuronDeconvolution, in one run.

    python tests/bench/bench_project_all.py [layer] [--threads N]

Prints milliseconds per projection for both, their ratio, and how far the pictures differ.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings

import torch
from captum.attr import NeuronDeconvolution

import zflib


def seconds(function, repeats: int) -> float:
    """The median of `repeats` runs, after one to warm up."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def captum_like(net: zflib.ZFNet) -> torch.nn.Module:
    """The same network without response normalisation, which captum would differentiate and the paper skips."""
    for name, _ in net.named_children():
        if name.startswith("norm"):
            setattr(net, name, torch.nn.Identity())
    return net


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("layer", nargs="?", default="conv5")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", module="captum")
    torch.manual_seed(0)
    net = captum_like(zflib.ZFNet().eval())
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    image = torch.randn(1, 3, 224, 224)
    deconvnet = zflib.Deconvnet(net)
    tape = deconvnet.record(image, options.layer)
    maps = tape.activations[0]
    peaks = zflib.deconv.strongest(tape.activations)[0].tolist()
    captum = NeuronDeconvolution(net, net.get_submodule(net.layer_path(options.layer)))
    chosen = list(range(0, len(maps), len(maps) // 8))

    ours = deconvnet.project_all(image, options.layer)
    worst = 0.0
    for channel in chosen:
        unit = captum.attribute(image, (channel, *peaks[channel]))[0] * maps[channel].max()
        worst = max(worst, float((unit - ours[channel]).abs().max() / unit.abs().max()))
    all_seconds = seconds(lambda: deconvnet.project_all(image, options.layer), 3)
    one_seconds = seconds(lambda: captum.attribute(image, (0, *peaks[0])), 9)
    mine = all_seconds / len(maps)
    print(f"{options.layer}: {len(maps)} channels, {options.threads} threads, torch {torch.__version__}")
    print(f"zflib project_all   {1000 * mine:8.2f} ms per projection ({all_seconds:.2f} s in all)")
    print(f"captum one neuron   {1000 * one_seconds:8.2f} ms per projection")
    print(f"ratio {one_seconds / mine:.1f}x   largest relative difference {worst:.1e}")


if __name__ == "__main__":
    main()
