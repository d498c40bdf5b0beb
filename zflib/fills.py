"""What a square is covered with: grey, the image's mean colour, a blurred copy, noise, or what its border suggests."""

from __future__ import annotations

from numbers import Real

import torch
from torchvision.transforms.functional import gaussian_blur

from .checks import is_number

FILLS = ("grey", "mean", "blur", "noise", "border")


def blocks(image: torch.Tensor, corners: torch.Tensor, size: tuple[int, int], fill) -> torch.Tensor:
    """(P,C,h,w): what covers the squares of (C,H,W) that begin at `corners` (P,2).

    `fill`: a number in the image's units (0 is the mean of the training images: grey), one of FILLS, or a (C,H,W) image
    to take the squares from.
    """
    height, width = size
    if isinstance(fill, str) and fill == "border":
        return torch.stack([_from_border(image, *corner, *size) for corner in corners.tolist()])
    source = _source(image, size, fill)
    windows = source.unfold(1, height, 1).unfold(2, width, 1)
    return windows[:, corners[:, 0], corners[:, 1]].transpose(0, 1).contiguous()


def check_fill(image: torch.Tensor, fill) -> None:
    """ValueError unless `fill` is a number that the image can hold, one of FILLS, or an image of the same shape."""
    picture = isinstance(fill, torch.Tensor) and fill.shape == image.shape and bool(fill.isfinite().all())
    if not (is_number(fill, image.dtype) or picture or (isinstance(fill, str) and fill in FILLS)):
        got = f"a tensor {tuple(fill.shape)}" if isinstance(fill, torch.Tensor) else repr(fill)
        raise ValueError(f"fill must be a number, {', '.join(FILLS)}, or an image {tuple(image.shape)}, got {got}")


def _source(image: torch.Tensor, size: tuple[int, int], fill) -> torch.Tensor:
    """(C,H,W): the covered image, if everything of it were covered."""
    if isinstance(fill, torch.Tensor):
        return fill.to(image)
    if isinstance(fill, Real) or fill == "grey":
        return torch.full_like(image, 0.0 if fill == "grey" else float(fill))
    if fill == "mean":
        return image.mean(dim=(1, 2), keepdim=True).expand_as(image)
    if fill == "noise":  # as strong as the image's own contrast; always the same noise
        noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0)).to(image)
        return image.mean(dim=(1, 2), keepdim=True) + noise * image.std(dim=(1, 2), keepdim=True)
    sigma = max(size) / 4  # wide enough to blur away what a square holds
    side = 2 * min(round(2 * sigma), min(image.shape[1:]) - 1) + 1
    return gaussian_blur(image[None], [side, side], [sigma, sigma])[0]


def _from_border(image: torch.Tensor, top: int, left: int, height: int, width: int) -> torch.Tensor:
    """(C,h,w): every pixel is the mean of the four border pixels in its row and column, the nearer the heavier.

    Where a square touches the image's edge, the pixels outside it do not exist; the others decide, and a square that
    is the whole image is grey.
    """
    down, right = torch.arange(1.0, height + 1, device=image.device), torch.arange(1.0, width + 1, device=image.device)
    total, weights = image.new_zeros(image.shape[0], height, width), image.new_zeros(height, width)
    rows, columns = slice(top, top + height), slice(left, left + width)
    sides = [
        (top > 0, lambda: image[:, top - 1, columns][:, None, :], (1 / down)[:, None]),
        (
            top + height < image.shape[1],
            lambda: image[:, top + height, columns][:, None, :],
            (1 / down.flip(0))[:, None],
        ),
        (left > 0, lambda: image[:, rows, left - 1][:, :, None], (1 / right)[None, :]),
        (left + width < image.shape[2], lambda: image[:, rows, left + width][:, :, None], (1 / right.flip(0))[None, :]),
    ]
    for there, pixels, weight in sides:
        if there:
            total += pixels() * weight
            weights += weight
    return total / weights.clamp(min=1e-12)
