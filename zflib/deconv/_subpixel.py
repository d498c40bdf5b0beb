"""A transposed convolution as a plain one: faster where few channels come out, as from conv1 down to the pixels."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def subpixel(maps: torch.Tensor, weight: torch.Tensor, stride: int) -> torch.Tensor:
    """`F.conv_transpose2d(maps, weight, stride=stride)` of (N,Cout,h,w) maps and (Cout,Cin,k,k) filters: (N,Cin,H,W).

    Each of the stride x stride phases of the result is a channel of its own in one plain convolution.
    The phases fill the processor's vectors, which three channels leave empty (Shi et al. 2016, section 2.2).
    """
    cout, cin, kh, kw = weight.shape
    th, tw = -(-kh // stride), -(-kw // stride)  # taps that reach one phase
    phases = F.pad(weight, (0, tw * stride - kw, 0, th * stride - kh)).view(cout, cin, th, stride, tw, stride)
    filters = phases.permute(1, 3, 5, 0, 2, 4).reshape(cin * stride * stride, cout, th, tw).flip(-1, -2)
    pixels = F.pixel_shuffle(F.conv2d(maps, filters, padding=(th - 1, tw - 1)), stride)
    return pixels[..., : (maps.shape[-2] - 1) * stride + kh, : (maps.shape[-1] - 1) * stride + kw]
