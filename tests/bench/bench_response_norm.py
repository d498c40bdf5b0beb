"""How fast response normalisation is beside torch's own, forward and backward, in one run.

    PYTHONPATH=. python tests/bench/bench_response_norm.py [--threads N]

Prints milliseconds for both on (32,64,28,28) maps (conv1 of the quarter-scale network), and their ratio.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import nn

from zflib.models.response_norm import ResponseNorm


def milliseconds(norm: nn.Module, maps: torch.Tensor, grad: torch.Tensor, repeats: int = 15) -> float:
    """The best of some runs, forward and backward."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        norm(maps).backward(grad)
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    maps = torch.randn(32, 64, 28, 28, requires_grad=True)
    grad = torch.randn(maps.shape)
    ours = milliseconds(ResponseNorm(5), maps, grad)
    theirs = milliseconds(nn.LocalResponseNorm(5, 1e-4, 0.75, 2.0), maps, grad)
    print(f"(32,64,28,28), {options.threads} threads, torch {torch.__version__}")
    print(f"zflib {ours:.1f} ms, torch {theirs:.1f} ms, ratio {theirs / ours:.1f}x")


if __name__ == "__main__":
    main()
