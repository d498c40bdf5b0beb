"""What a record is made of: one small class for each kind of step that a network takes from the image to its scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

Pair = tuple[int, int]


class Unsupported(NotImplementedError, ValueError):
    """The network holds an operation for which the paper gives no way down."""


class Window(NamedTuple):
    """The rows and columns of its input that one position of a step's output depends on, as of a convolution."""

    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)  # above and left
    dilation: Pair = (1, 1)


POINT = Window()


@dataclass(eq=False)
class Step:
    """One recorded operation.

    `inputs` are the places on the tape of the steps whose output it took, `shape` is that of its own output.
    `again(*values)` is the same operation on other values of its inputs, never in place: of any number of images and,
    where `window` has no padding and input and output are maps of the same size, of any part of the maps. None if it
    cannot be repeated like that. `window`: None where a position does not depend on a window of positions.
    """

    inputs: tuple[int, ...]
    shape: torch.Size
    again: Callable[..., torch.Tensor] | None
    window: Window | None


@dataclass(eq=False)
class Image(Step):
    """The images themselves: place 0."""


@dataclass(eq=False)
class Filter(Step):
    """A convolution with `weight` (Cout,Cin/groups,k,k); `size` (H,W) is that of the maps that went in."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    size: Pair


@dataclass(eq=False)
class Pool(Step):
    """Max pooling; `switches` (N,C,h,w) are flat positions in the maps of `size` (H,W) that went in."""

    switches: torch.Tensor
    size: Pair
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair


@dataclass(eq=False)
class AdaptivePool(Step):
    """Max pooling to a given size: its windows differ in size."""

    switches: torch.Tensor
    size: Pair


@dataclass(eq=False)
class Rectify(Step):
    """A ReLU; `mask` (N,C,h,w) bool, where its output was positive, only if the record was asked for it."""

    mask: torch.Tensor | None = None


@dataclass(eq=False)
class Scale(Step):
    """Batch normalisation in evaluation mode: `gain` (1,C,1,1) times the maps, and a shift."""

    gain: torch.Tensor


@dataclass(eq=False)
class FullyConnected(Step):
    """A fully connected layer, x @ weight + bias: `weight` (in,out), the transpose of what nn.Linear keeps."""

    weight: torch.Tensor
    bias: torch.Tensor | None


@dataclass(eq=False)
class Pass(Step):
    """What the way down leaves out: response normalisation (section 2.1), copies, and casts from `dtype`."""

    dtype: torch.dtype


@dataclass(eq=False)
class Reshape(Step):
    """The same numbers in another shape, row-major; `size` is the shape before, with the images."""

    size: torch.Size


@dataclass(eq=False)
class Add(Step):
    """A sum; each input counts `shares` times, -1 where it is subtracted."""

    shares: tuple[float, ...]


@dataclass(eq=False)
class Cat(Step):
    """Maps joined along axis `dim`, of which each input fills so many `parts`."""

    dim: int
    parts: tuple[int, ...]


@dataclass(eq=False)
class OtherLinear(Step):
    """Anything else that is linear in one input of shape `size`: autograd transposes `function` exactly.

    `adaptive`: an average whose windows differ in size, over all of the map for example.
    """

    function: Callable[[torch.Tensor], torch.Tensor]
    size: torch.Size
    name: str
    adaptive: bool = False


@dataclass(eq=False)
class Ruled(Step):
    """A whole module for which the caller has a rule of his own, with what went in (N,…) and what came out."""

    module: nn.Module
    before: torch.Tensor
    after: torch.Tensor


@dataclass(eq=False)
class Refused(Step):
    """An operation that has no way down; `where` is the module that it happened in."""

    name: str
    where: str = ""
