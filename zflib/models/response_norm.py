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


class _ResponseNorm(torch.autograd.Function):
    """The closed-form derivative, so that a training step keeps two tensors instead of a dozen."""

    @staticmethod
    def forward(ctx, maps, size, alpha, beta, k):
        before, after = size // 2, (size - 1) // 2
        base = _neighbours(maps * maps, before, after).mul_(alpha / size).add_(k)
        factor = base.rsqrt().mul_(base.rsqrt().sqrt_()) if beta == 0.75 else base.pow(-beta)
        ctx.save_for_backward(maps, base, factor)
        ctx.settings = before, after, 2 * alpha * beta / size
        return maps * factor

    @staticmethod
    def backward(ctx, grad):
        maps, base, factor = ctx.saved_tensors
        before, after, scale = ctx.settings
        shared = _neighbours(grad * maps * factor / base, after, before)
        return torch.addcmul(grad * factor, maps, shared, value=-scale), None, None, None, None
