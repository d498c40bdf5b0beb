"""How often signs differ between images, and how often they would if they had nothing to do with each other."""

from __future__ import annotations

import torch


def distances(signs: torch.Tensor) -> torch.Tensor:
    """(N,N) normalised Hamming distances of (N,D) signs: the share of units whose signs differ; 0 is a sign too."""
    alike = sum(_product((signs == sign).float()) for sign in (-1, 0, 1))  # whole numbers, exact up to 2**24 units
    return 1 - alike.double() / signs.shape[1]


def expected(signs: torch.Tensor) -> torch.Tensor:
    """(N,N) what `distances` gives on average if each image's signs are shuffled: 1 - (p-p- + p0p0 + p+p+)."""
    return 1 - sum(_product((signs == sign).double().mean(dim=1, keepdim=True)) for sign in (-1, 0, 1))


def variances(signs: torch.Tensor) -> torch.Tensor:
    """(N,N) variance of `distances` if each image's signs are shuffled: that of a contingency table's diagonal."""
    units = signs.shape[1]
    counts = torch.stack([(signs == sign).double().sum(dim=1) for sign in (-1, 0, 1)], dim=1)  # (N,3)
    own = torch.diag_embed(counts) * units - counts[:, :, None] * counts[:, None, :]  # (N,3,3)
    total = torch.einsum("iab,jab->ij", own, own) / (units**2 * max(1, units - 1))
    return total / units**2


def _product(values: torch.Tensor) -> torch.Tensor:
    return values @ values.T


def of_pairs(matrix: torch.Tensor) -> torch.Tensor:
    """(P,) what stands above the diagonal."""
    rows, columns = torch.triu_indices(*matrix.shape, offset=1)
    return matrix[rows, columns]
