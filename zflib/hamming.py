"""How often signs differ between images, and how often they would if they had nothing to do with each other."""

from __future__ import annotations

import torch


def distances(signs: torch.Tensor) -> torch.Tensor:
    """(N,N) normalised Hamming distances of (N,D) signs: the share of units whose signs differ; 0 is a sign too."""
    alike = sum(_product(where.float()) for where in _where(signs))  # whole numbers, exact up to 2**24 units
    return 1 - alike.double() / signs.shape[1]


def expected(signs: torch.Tensor) -> torch.Tensor:
    """(N,N) what `distances` gives on average if each image's signs are shuffled: 1 - (p-p- + p0p0 + p+p+)."""
    return 1 - sum(_product(where.double().mean(dim=1, keepdim=True)) for where in _where(signs))


def variances(signs: torch.Tensor) -> torch.Tensor:
    """(N,N) variance of `distances` if each image's signs are shuffled: that of a contingency table's diagonal."""
    counts, units = torch.stack([where.double().sum(dim=1) for where in _where(signs)], dim=1), signs.shape[1]  # (N,3)
    own = torch.diag_embed(counts) * units - counts[:, :, None] * counts[:, None, :]  # (N,3,3)
    total = torch.einsum("iab,jab->ij", own, own) / (units**2 * max(1, units - 1))
    return total / units**2


def _where(signs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(N,D) bool: where the signs are -1, 0 and 1; ValueError if they are anything else."""
    if not isinstance(signs, torch.Tensor) or signs.dim() != 2 or not signs.numel():
        got = tuple(signs.shape) if isinstance(signs, torch.Tensor) else type(signs).__name__
        raise ValueError(f"signs must be a tensor (N,D) of -1, 0 and 1, got {got}")
    minus, zero, plus = (signs == sign for sign in (-1, 0, 1))
    if not bool((minus | zero | plus).all()):
        raise ValueError("signs must be -1, 0 or 1, got other values; use changes.sign(), without NaN")
    return minus, zero, plus


def _product(values: torch.Tensor) -> torch.Tensor:
    return values @ values.T


def of_pairs(matrix: torch.Tensor) -> torch.Tensor:
    """(P,) what stands above the diagonal."""
    rows, columns = torch.triu_indices(*matrix.shape, offset=1)
    return matrix[rows, columns]
