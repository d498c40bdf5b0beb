"""Exercises of notebook 08: what Figure 6 compares by eye."""

from functools import partial

import torch

from .cases import case, seeded
from .verdict import Exercise


def share_of_band(weight: torch.Tensor, low: float, high: float, size: int) -> torch.Tensor:
    """(C,): share of each (3,k,k) filter's energy at frequencies from `low` up to `high` cycles per pixel."""
    power = torch.fft.fft2(weight, s=(size, size)).abs().square().sum(dim=1)  # (C,size,size)
    frequency = torch.fft.fftfreq(size)
    radius = (frequency[:, None] ** 2 + frequency[None, :] ** 2).sqrt()
    return power[:, (radius >= low) & (radius < high)].sum(dim=1) / power.sum(dim=(1, 2))


@seeded(8)
def _weights(generator):
    for side, size in ((7, 32), (11, 48)):
        yield case(torch.randn(5, 3, side, side, generator=generator), 0.1, 0.3, size)


def _share(weight, low, high, size, *, power=2, radius=torch.hypot):
    values = (torch.fft.fft2(weight, s=(size, size)).abs() ** power).sum(dim=1)
    frequency = torch.fft.fftfreq(size).abs()
    distance = radius(frequency[:, None], frequency[None, :])
    return values[:, (distance >= low) & (distance < high)].sum(dim=1) / values.sum(dim=(1, 2))


band_share = Exercise(
    "band_share", share_of_band, _weights,
    mistakes={
        "these are amplitudes; energy is the square of the absolute value": partial(_share, power=1),
        "the transform has only as many points as the filter; pad with s=(size, size), so that the ruler is finer":
            lambda weight, low, high, size: share_of_band(weight, low, high, weight.shape[-1]),
        "the colours were added before the transform, so that opposite ones cancel; add their energies":
            lambda weight, *band: share_of_band(weight.sum(dim=1, keepdim=True), *band),
        "a frequency's radius is the root of the sum of squares, not the larger of the two":
            partial(_share, radius=torch.maximum),
        "this is the energy itself; divide by all of the filter's energy":
            lambda weight, low, high, size: (
                share_of_band(weight, low, high, size) * size**2 * weight.square().sum(dim=(1, 2, 3))
            ),
    },
)  # fmt: skip


def silent(activations: torch.Tensor, share: float) -> torch.Tensor:
    """(C,) bool: channels of (N,C,h,w) whose strongest activation is at most `share` of the layer's strongest."""
    strongest = activations.amax(dim=(0, 2, 3))
    return strongest <= share * strongest.max()


@seeded(9)
def _activations(generator):
    for share, strength in ((0.01, 0.05), (0.05, 6.0)):
        maps = torch.rand(6, 8, 5, 5, generator=generator)
        maps[:, 1] = 0  # dead
        maps[:, 4] *= share / 2  # as good as dead
        maps[:, 6] = 0
        maps[2, 6, 3, 3] = 1.0  # choosy: one image, one place
        maps[:, 7] *= 3 * share  # weak, and it lives
        yield case(strength * maps, share)


dead = Exercise(
    "dead", silent, _activations,
    mistakes={
        "you compared means; a channel that fires rarely is choosy, not dead: compare its maximum":
            lambda maps, share: maps.mean(dim=(0, 2, 3)) <= share * maps.mean(dim=(0, 2, 3)).max(),
        "only channels that are exactly zero are found; one at a thousandth of its layer is as dead":
            lambda maps, share: maps.amax(dim=(0, 2, 3)) <= 0,
        "the threshold is the number share itself; it is a share of the layer's strongest activation":
            lambda maps, share: maps.amax(dim=(0, 2, 3)) <= share,
        "true should mean dead; you have marked the living": lambda maps, share: ~silent(maps, share),
    },
    success="the choosy one lives, the dead are found",
)  # fmt: skip


def best_period(energies: torch.Tensor) -> torch.Tensor:
    """() the period, 2 to S // 2 pixels, after which (S,) energies repeat best; of equally good ones the smallest."""
    misfit = [((energies[p:] - energies[:-p]) ** 2).mean() for p in range(2, len(energies) // 2 + 1)]
    return torch.stack(misfit).argmin() + 2


@seeded(10)
def _energies(generator):
    for period in (4, 3, 2, 5):
        wave = torch.rand(period, generator=generator).repeat(30 // period)[:24]
        drift = 0.0 if period == 4 else 0.02  # the first case repeats exactly: 8 and 12 are as good as 4
        yield case(wave + drift * torch.rand(len(wave), generator=generator).cumsum(0))


def _by_period(energies, compare):
    """(P,) `compare(later, earlier)` at every period that can be told, 2 first."""
    return torch.stack([compare(energies[p:], energies[:-p]) for p in range(2, len(energies) // 2 + 1)])


def _largest(energies):
    misfit = _by_period(energies, lambda later, earlier: ((later - earlier) ** 2).mean())
    return (misfit <= misfit.min() + 1e-12).nonzero().max() + 2


find_stride = Exercise(
    "find_stride", best_period, _energies,
    mistakes={
        "of equally good periods you took the largest; twice the stride repeats as well": _largest,
        "off by two: the list begins with period 2, so add 2 to the place of its smallest entry":
            lambda energies: best_period(energies) - 2,
        "differences of opposite signs cancel in a mean; square each of them first":
            lambda energies: _by_period(energies, lambda later, earlier: (later - earlier).mean() ** 2).argmin() + 2,
        "products are large where energies are large; compare differences, or take the mean away first":
            lambda energies: _by_period(energies, lambda later, earlier: (later * earlier).mean()).argmax() + 2,
    },
    success="it repeats at the stride",
)  # fmt: skip
