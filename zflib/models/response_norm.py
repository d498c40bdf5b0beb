"""Krizhevsky's response normalisation, as fast as a CPU allows."""

import torch
from torch import nn
from torch.nn import functional as F


class ResponseNorm(nn.Module):
    """Krizhevsky's local response normalisation; computes what `nn.LocalResponseNorm` does, faster.

    Each value is divided by (k + alpha/size * sum of squares over `size` neighbouring channels) ** beta.
    """

    def __init__(self, size: int = 5, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0):
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        with torch.autocast(maps.device.type, enabled=False):  # squares overflow in half precision
            wide = maps.float() if maps.dtype == torch.float16 else maps
            return _ResponseNorm.apply(wide, self.size, self.alpha, self.beta, self.k).to(maps.dtype)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


def _neighbours(values: torch.Tensor, before: int, after: int) -> torch.Tensor:
    """Sum over each channel's neighbours: `before` channels below it to `after` above it."""
    channels = values.shape[1]
    padded = F.pad(values, (0, 0) * (values.dim() - 2) + (before, after))
    total = padded[:, :channels].clone()
    for shift in range(1, before + after + 1):
        total += padded[:, shift : shift + channels]
    return total


def _base(maps: torch.Tensor, size: int, alpha: float, k: float) -> torch.Tensor:
    """What each value is divided by the power of."""
    return _neighbours(maps * maps, size // 2, (size - 1) // 2) * (alpha / size) + k


def _factor(base: torch.Tensor, beta: float) -> torch.Tensor:
    return base.rsqrt() * base.rsqrt().sqrt() if beta == 0.75 else base.pow(-beta)


class _ResponseNorm(torch.autograd.Function):
    """The closed-form derivative, so that a training step keeps one tensor instead of a dozen.

    It is computed anew from the maps, and so has a derivative itself: curvature needs the second one.
    """

    @staticmethod
    def forward(maps, size, alpha, beta, k):
        return maps * _factor(_base(maps, size, alpha, k), beta)

    @staticmethod
    def setup_context(ctx, inputs, output):
        maps, *ctx.settings = inputs
        ctx.save_for_backward(maps)
        ctx.save_for_forward(maps)

    @staticmethod
    def backward(ctx, grad):
        maps, (size, alpha, beta, k) = *ctx.saved_tensors, ctx.settings
        base = _base(maps, size, alpha, k)
        factor = _factor(base, beta)
        shared = _neighbours(grad * maps * factor / base, (size - 1) // 2, size // 2)
        return torch.addcmul(grad * factor, maps, shared, value=-2 * alpha * beta / size), None, None, None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        maps, (size, alpha, beta, k) = *ctx.saved_tensors, ctx.settings
        base = _base(maps, size, alpha, k)
        factor = _factor(base, beta)
        shared = _neighbours(tangent * maps, size // 2, (size - 1) // 2)
        return torch.addcmul(tangent * factor, maps * factor / base, shared, value=-2 * alpha * beta / size)
