"""Exercises of notebook 08: the stride in a flickering energy, a ruler for frequencies, and who is dead."""

from functools import partial

import numpy as np
import torch

from .. import show
from ..studies import architecture
from .cases import case, seeded
from .verdict import Exercise, in_numbers

# --- find the stride -------------------------------------------------------------------------------------------------


def best_period(energies: torch.Tensor) -> torch.Tensor:
    """() the period, 2 to S // 2 pixels, after which (S,) energies repeat best; of equally good ones the smallest."""
    misfit = [((energies[p:] - energies[:-p]) ** 2).mean() for p in range(2, len(energies) // 2 + 1)]
    return torch.stack(misfit).argmin() + 2


@seeded(275)
def _energies(generator):
    """Four strides: twice exactly, so that 8 repeats as well as 4; once with a drift, once with noise."""
    for period, count, drift, noise in ((4, 24, 0, 0), (3, 24, 0.04, 0), (2, 24, 0, 0.1), (6, 12, 0, 0)):
        wave = torch.rand(period, generator=generator).repeat(count // period)
        wave = wave + drift * torch.rand(count, generator=generator).cumsum(0)
        yield case(wave + noise * torch.rand(count, generator=generator))


def _by_period(energies, compare, stop=1):
    """(P,) `compare(later, earlier)` at every period that can be told, 2 first."""
    periods = range(2, len(energies) // 2 + stop)
    return torch.stack([compare(energies[p:], energies[:-p]) for p in periods])


def _squares(later, earlier):
    return ((later - earlier) ** 2).mean()


def _largest(energies):
    misfit = _by_period(energies, _squares)
    return (misfit <= misfit.min() + 1e-12).nonzero().max() + 2


def _folded(ax, energies: torch.Tensor, period: float) -> None:
    """The energies cut into pieces of one period, laid over each other: at the right period they coincide."""
    step = max(1, min(round(float(period)), len(energies)))
    for start in range(0, len(energies), step):
        piece = energies[start : start + step]
        ax.plot(piece.tolist(), "o-", color="#0072b2", alpha=0.6)
    ax.set(xticks=range(step), xlim=(-0.5, max(step, 4) - 0.5), xlabel="pixel of a period")


def _draw_periods(given, answer, target) -> np.ndarray:
    """The energies, and the same cut into pieces of the period that was found, and of the target's."""
    (energies,), _ = given
    periods = ({} if answer is None else {"yours": answer}) | {"target": target}
    places = [(0.05, 0.2, 0.36, 0.67), (0.47, 0.2, 0.23, 0.67), (0.76, 0.2, 0.23, 0.67)]
    axes = show.axes_at(places[: 1 + len(periods)], size=(13.5, 3.0))
    axes[0].plot(energies.tolist(), "o-", color="black", markersize=4)
    axes[0].set(title="the energies", xlabel="pixels moved", ylabel="energy")
    for ax, (name, period) in zip(axes[1:], periods.items()):
        _folded(ax, energies, float(period))
        ax.set_title(f"{name}: cut every {float(period):g} pixels")
    return show.axes_pixels(axes[0])


find_stride = Exercise(
    "find_stride", best_period, _energies,
    mistakes={
        "of equally good periods you took the largest; twice the stride repeats as well": _largest,
        "off by two: the list begins with period 2, so add 2 to the place of its smallest entry":
            lambda energies: best_period(energies) - 2,
        "this is where energies repeat worst; take the smallest difference":
            lambda energies: _by_period(energies, _squares).argmax() + 2,
        "differences of opposite signs cancel in a mean; square each of them first":
            lambda energies: _by_period(energies, lambda later, earlier: (later - earlier).mean() ** 2).argmin() + 2,
        "products are large where energies are large; compare differences, or take the mean away first":
            lambda energies: _by_period(energies, lambda later, earlier: (later * earlier).mean()).argmax() + 2,
        "long periods leave fewer pairs, so their sums are smaller; compare means":
            lambda energies: _by_period(energies, lambda later, earlier: ((later - earlier) ** 2).sum()).argmin() + 2,
        "S // 2 is a period as well; range(2, S // 2) ends before it":
            lambda energies: _by_period(energies, _squares, stop=0).argmin() + 2,
        "this is the smallest difference itself; wanted is its period":
            lambda energies: _by_period(energies, _squares).min(),
    },
    success="it repeats at the stride",
    draw=_draw_periods,
)  # fmt: skip


# --- a ruler for frequencies -----------------------------------------------------------------------------------------


def _wave(side: int, across: float, down: float, colours) -> torch.Tensor:
    """(3,side,side): a wave of so many cycles per pixel under a soft window."""
    window = torch.hann_window(side + 2, periodic=False)[1:-1]
    y, x = torch.meshgrid(torch.arange(side) - side // 2, torch.arange(side) - side // 2, indexing="ij")
    wave = torch.cos(2 * torch.pi * (across * x + down * y)) * window[:, None] * window
    return torch.tensor(colours)[:, None, None] * wave


def _filters(side: int) -> torch.Tensor:
    """(5,3,side,side): a blob, a broad wave, a slanting one of two colours that cancel, a fine one, a lattice."""
    grey = (1.0, 1.0, 1.0)
    fine = _wave(side, 0.42, 0, grey)
    return torch.stack([
        _wave(side, 0, 0, (1.0, 0.4, 0.2)), _wave(side, 0.13, 0, grey), _wave(side, 0.15, 0.15, (1.0, -0.8, -0.2)),
        fine, 3 * (_wave(side, 0.25, 0, grey) + _wave(side, 0, 0.36, grey)),
    ])  # fmt: skip


def _weights():
    return [case(_filters(7), 0.125, 0.25, 32), case(_filters(11), 0.125, 0.375, 48)]


def _share(weight, low, high, size, *, power=2, radius=torch.hypot, inside=lambda r, low, high: (r >= low) & (r < high),
           scale=1.0, together=False):  # fmt: skip
    values = (torch.fft.fft2(weight, s=(size, size)).abs() ** power).sum(dim=1)
    frequency = torch.fft.fftfreq(size).abs() * scale
    band = inside(radius(frequency[:, None], frequency[None, :]), low, high)
    total = values.sum() if together else values.sum(dim=(1, 2))
    return values[:, band].sum(dim=1) / total


def _draw_shares(given, answer, target) -> np.ndarray:
    """The filters, and under each its share by the answer and by the target."""
    (weight, low, high, _), _ = given
    lists = ({} if answer is None else {"yours": torch.as_tensor(answer).detach().cpu()}) | {"target": target}
    tiles = [show.upscale(show.signed_pixels(one), 200) for one in weight]
    titles = [", ".join(f"{name} {values[i]:.2f}" for name, values in lists.items()) for i in range(len(weight))]
    heading = f"share of the energy from {low:g} to {high:g} cycles per pixel"
    return show.caption(show.beside(tiles, titles, size=15), heading, size=15)


band_share = Exercise(
    "band_share", architecture.band_share, _weights,
    mistakes={
        "these are amplitudes; energy is the square of the absolute value": partial(_share, power=1),
        "the transform has only as many points as the filter; pad with s=(size, size), so that the ruler is finer":
            lambda weight, low, high, size: architecture.band_share(weight, low, high, weight.shape[-1]),
        "the colours were added before the transform, so that opposite ones cancel; add their energies":
            lambda weight, *band: architecture.band_share(weight.sum(dim=1, keepdim=True), *band),
        "a frequency's radius is the root of the sum of squares, not the larger of the two":
            partial(_share, radius=torch.maximum),
        "this counts waves across only; take the frequency down the filter into account as well":
            partial(_share, radius=lambda down, across: across + 0 * down),
        "a frequency of exactly `high` belongs to the next band": partial(
            _share, inside=lambda radius, low, high: (radius >= low) & (radius <= high)),
        "a frequency of exactly `low` belongs to this band": partial(
            _share, inside=lambda radius, low, high: (radius > low) & (radius < high)),
        "everything below `high` was counted; leave out what is below `low`": partial(
            _share, inside=lambda radius, low, high: radius < high),
        "each filter has an energy of its own; you divided by that of all filters": partial(_share, together=True),
        "this is the energy itself; divide by all of the filter's energy":
            lambda weight, low, high, size: (
                architecture.band_share(weight, low, high, size) * size**2 * weight.square().sum(dim=(1, 2, 3))
            ),
    },
    draw=_draw_shares,
)  # fmt: skip


# --- who is dead? ----------------------------------------------------------------------------------------------------


def silent(activations: torch.Tensor, share: float) -> torch.Tensor:
    """(C,) bool: channels of (N,C,h,w) whose strongest activation is at most `share` of the layer's strongest."""
    strongest = activations.amax(dim=(0, 2, 3))
    return strongest <= share * strongest.max()


@seeded(9)
def _activations(generator):
    for share, strength in ((0.1, 1), (0.3, 0.05)):
        maps = torch.randint(20, 40, (3, 6, 2, 2), generator=generator).float()
        maps[0, 0, 0] = torch.tensor([50.0, 0])  # the strongest of all, beside a position without any
        maps[:, 1] = 0  # dead
        maps[:, 2] = torch.randint(0, 4, (3, 2, 2), generator=generator)  # as good as dead
        maps[:, 3] = 0
        maps[2, 3, 1, 0] = 30  # choosy: one image, one place
        maps[:, 4] = torch.randint(16, 20, (3, 2, 2), generator=generator)  # weak, and it lives
        maps[1, 4], maps[0, 5] = 0, 0  # silent on one image
        yield case(strength * maps, share)


def _draw_channels(given, answer, target) -> np.ndarray:
    """All activations, a row for each channel, and beside them what is dead: 1."""
    (maps, share), _ = given
    table = maps.transpose(0, 1).flatten(1)  # (C,N*h*w)
    inputs = {f"activations, a row for each channel; share {share:g}": table}
    column = None if answer is None else torch.as_tensor(answer).detach().cpu().float()[:, None]
    return in_numbers(inputs, column, target.float()[:, None])


dead = Exercise(
    "dead", silent, _activations,
    mistakes={
        "you compared means; a channel that fires rarely is choosy, not dead: compare its maximum":
            lambda maps, share: maps.mean(dim=(0, 2, 3)) <= share * maps.mean(dim=(0, 2, 3)).max(),
        "only channels that are exactly zero are found; one far below its layer is as dead":
            lambda maps, share: maps.amax(dim=(0, 2, 3)) <= 0,
        "the threshold is the number share itself; it is a share of the layer's strongest activation":
            lambda maps, share: maps.amax(dim=(0, 2, 3)) <= share,
        "silent on one image is not dead; it has to be silent on all of them":
            lambda maps, share: (maps.amax(dim=(2, 3)) <= share * maps.max()).any(dim=0),
        "silent at one position is not dead; it has to be silent at all of them":
            lambda maps, share: maps.amin(dim=(0, 2, 3)) <= share * maps.max(),
        "this is dead over the first image only; take the maximum over all images":
            lambda maps, share: maps[0].amax(dim=(1, 2)) <= share * maps[0].max(),
        "true should mean dead; you have marked the living": lambda maps, share: ~silent(maps, share),
    },
    success="the choosy one lives, the dead are found",
    draw=_draw_channels,
)  # fmt: skip
