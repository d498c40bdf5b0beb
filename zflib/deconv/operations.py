"""The three operations of a deconvnet (section 2.1): unpool with switches, rectify, filter with the transpose."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from .._arguments import check_choice
from ..record.steps import Filter
from ._subpixel import subpixel

OVERLAPS = ("sum", "max", "last")


def unpool(pooled: torch.Tensor, switches: torch.Tensor, *, size, overlap: str = "sum") -> torch.Tensor:
    """(N,C,H,W) maps with each value of (N,C,h,w) `pooled` where its switch recorded the maximum (section 2.1).

    `switches` are the flat positions in the H x W map that `F.max_pool2d(..., return_indices=True)` gives;
    `size` is (H, W). Where windows overlap one position can win several times: `overlap` "sum" adds the values
    (the exact transpose of the pool), "max" keeps the largest, "last" the last in reading order.
    """
    check_choice("overlap", overlap, OVERLAPS)
    height, width = size = _two(size)
    if pooled.shape != switches.shape:
        raise ValueError(f"switches must be one per value, {tuple(pooled.shape)}, got {tuple(switches.shape)}")
    if switches.numel() and not 0 <= int(switches.min()) <= int(switches.max()) < height * width:
        raise ValueError(f"switches point outside a {height}x{width} map; size is that of the map before pooling")
    values, positions = pooled.flatten(-2), switches.flatten(-2)
    maps = values.new_zeros(*values.shape[:-1], height * width)
    if overlap == "max":
        maps.scatter_reduce_(-1, positions, values, "amax", include_self=False)
    elif overlap == "last":  # only the last of a position's windows writes its value
        order = torch.arange(values.shape[-1], device=values.device).expand_as(positions)
        latest = torch.zeros_like(maps, dtype=torch.int64).scatter_reduce_(-1, positions, order, "amax")
        maps.scatter_add_(-1, positions, values.where(latest.gather(-1, positions) == order, 0))
    else:
        maps.scatter_add_(-1, positions, values)
    return maps.unflatten(-1, size)


def rectify(maps: torch.Tensor) -> torch.Tensor:
    """Negative values of the reconstruction become 0, whatever the forward ReLU did (section 2.1); any shape."""
    return maps.clamp(min=0)


def transposed_filter(maps: torch.Tensor, conv: nn.Conv2d | Filter, *, size) -> torch.Tensor:
    """(N,Cin,H,W) from (N,Cout,h,w): `conv`'s filters transposed, without its bias (section 2.1).

    `size` is (H, W), the size of the maps that went into `conv` (a stride leaves it open: 224 and 223 both give 110).
    `conv` is an nn.Conv2d, or a convolution as a record holds it.
    """
    if not isinstance(conv, nn.Conv2d | Filter):
        raise TypeError(f"conv must be an nn.Conv2d, got {type(conv).__name__}")
    if getattr(conv, "padding_mode", "zeros") != "zeros":
        raise ValueError(f"conv pads with {conv.padding_mode!r}; the transpose is defined here for zero padding")
    size, weight, stride, dilation = _two(size), conv.weight.detach(), conv.stride, conv.dilation
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:])]  # rows and columns that a filter spans
    before, both = _padding(conv, reach)
    expected = [(n + p - r) // s + 1 for n, p, r, s in zip(size, both, reach, stride)]
    if maps.dim() != 4 or maps.shape[1:] != (len(weight), *expected):
        given = ", ".join(map(str, (len(weight), *expected)))
        raise ValueError(f"maps must be (N, {given}) for size {size[0]}x{size[1]}, got {tuple(maps.shape)}")
    # where the stride does not divide exactly, no filter reached the last rows and columns: they stay 0
    missing = [n + 2 * p - (m - 1) * s - r for n, p, m, s, r in zip(size, before, maps.shape[2:], stride, reach)]
    to_pixels = weight.shape[1] == 3 and conv.groups == 1 and tuple(dilation) == (1, 1) and stride[0] == stride[1] > 1
    within = all(0 <= m < max(s, d) for m, s, d in zip(missing, stride, dilation))  # as torch's output_padding needs
    if within and not to_pixels:
        return F.conv_transpose2d(maps, weight, None, stride, before, missing, conv.groups, dilation)
    if to_pixels:
        whole = subpixel(maps, weight, stride[0])  # the same, faster where only three channels come out
    else:  # "same" may pad unevenly
        whole = F.conv_transpose2d(maps, weight, None, stride, 0, 0, conv.groups, dilation)
    whole = F.pad(whole, (0, max(0, missing[1]), 0, max(0, missing[0])))
    return whole[..., before[0] : before[0] + size[0], before[1] : before[1] + size[1]]


def _two(size) -> tuple[int, int]:
    """(H, W) from one side or from any shape that ends in them."""
    return (size, size) if isinstance(size, int) else tuple(size)[-2:]


def _padding(conv: nn.Conv2d | Filter, reach) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Zeros before the map, above and left, and on both of its sides together."""
    if conv.padding == "same":
        return tuple((r - 1) // 2 for r in reach), tuple(r - 1 for r in reach)
    before = (0, 0) if conv.padding == "valid" else conv.padding
    return before, tuple(2 * p for p in before)
