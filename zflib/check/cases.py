"""What an exercise tries its target and an attempt on: the same arguments every time, in fresh tensors."""

from collections.abc import Callable

import torch
from torch import nn


def case(*args, **kwargs) -> tuple[tuple, dict]:
    """The arguments of one call."""
    return args, kwargs


def seeded(seed: int) -> Callable:
    """Decorates `make(generator)`, which yields cases: a function that lists them, the same ones at every call."""
    return lambda make: lambda: list(make(torch.Generator().manual_seed(seed)))


def randomised(net: nn.Module, generator: torch.Generator, *, std: float = 1.0) -> nn.Module:
    """The network without gradients, in evaluation mode, its parameters drawn anew from a normal distribution."""
    for parameter in net.requires_grad_(False).eval().parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
    return net
