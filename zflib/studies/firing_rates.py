"""Is a unit invariant? It must be selective and keep firing: local over global firing rate (Goodfellow and others)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import torch
from torch import nn

from .._arguments import check_choice, check_images, shape_or_type
from ..experiments.invariance_curves import check_moves
from ..experiments.transforms import Move, check_fill, moved
from ..record.hooks import check_layers, chunks, watched

PLACES = ("maximum", "centre")


@dataclass(frozen=True)
class Firing:
    """The invariance of U units of one layer under a transform with A amounts, all on the CPU.

    `threshold` (U,): a unit fires above it, NaN for a silent one; `silent` (U,) bool: it has no threshold, see
    `silent`; `overall` (U,): the share of all images on which it fires, the global rate; `local` (A,U): the share
    that still fires of the images on which it fired unmoved, the local rate.
    """

    amounts: tuple[float, ...]
    threshold: torch.Tensor
    silent: torch.Tensor
    overall: torch.Tensor
    local: torch.Tensor

    @property
    def score(self) -> torch.Tensor:
        """(U,) local rate, the mean over all amounts, over global rate; NaN for silent units. 1 is chance."""
        return self.local.mean(dim=0) / self.overall

    def best(self, share: float = 0.2) -> float:
        """The layer's score: the mean over the best `share` of the units that are not silent; NaN if all are."""
        if not isinstance(share, Real) or not 0 < share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, got {share!r}; the paper takes 0.2")
        scores = self.score[~self.silent].sort(descending=True).values
        return float(scores[: math.ceil(share * len(scores))].mean())


def thresholds(values: torch.Tensor, rate: float = 0.01) -> torch.Tensor:
    """(U,) from (N,U) values on N images: above it lies the given share of a unit's values, fewer where values tie."""
    _check_values(values, rate)
    count = math.floor(rate * len(values) + 1e-9)  # images on which a unit may fire
    return values.topk(count + 1, dim=0).values[-1]


def silent(values: torch.Tensor, threshold: torch.Tensor, rate: float = 0.01) -> torch.Tensor:
    """(U,) bool: a unit that cannot fire on this share of the images, for its threshold lies at its own floor.

    That is what a ReLU does to a unit which gives 0 on more than 99 % of the images. A unit that never fires, because
    too many images share its largest value, is silent too.
    """
    _check_values(values, rate)
    fires = (values > threshold).sum(dim=0)
    fewer = fires < math.floor(rate * len(values) + 1e-9)
    return (fewer & (threshold <= values.amin(dim=0))) | (fires == 0)


def score(values: torch.Tensor, after: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
    """(U,) local over global firing rate, from (N,U) values, (A,N,U) values after each move, (U,) thresholds."""
    if after.dim() != 3 or after.shape[1:] != values.shape:
        raise ValueError(f"after must be (A,{len(values)},{values.shape[1]}), values by move, got {tuple(after.shape)}")
    fires = values > threshold  # (N,U)
    still = (after > threshold) & fires  # of those that fired unmoved
    local = still.sum(dim=1) / fires.sum(dim=0)  # (A,U)
    return local.mean(dim=0) / fires.float().mean(dim=0)


def unit_invariance(net: nn.Module, images: torch.Tensor, *, transform: str, amounts: Sequence[float], layers,
                    rate: float = 0.01, where: str = "maximum", fill=0.0) -> dict[str, Firing]:  # fmt: skip
    """{layer: Firing}: every unit's firing rates on (N,3,H,W) images and on those that excite it, moved.

    A unit's threshold lets it fire on the share `rate` of the images; where a layer has maps, a channel's unit is its
    "maximum" over the map (which a shift leaves alone as long as it stays inside) or the unit at the map's "centre".
    `transform`, `amounts`, `fill`: as in `invariance`. Goodfellow, Le, Saxe, Lee and Ng, "Measuring invariances in
    deep networks" (2009), with ReLUs. Too few images for the rate: ValueError.
    """
    layers, images = check_layers(net, layers), check_images(images, net)
    amounts, moves = check_moves(transform, amounts)
    check_choice("where", where, PLACES)
    check_fill(fill)
    _check_rate(rate)
    if math.floor(rate * (count := len(images)) + 1e-9) < 1:
        raise ValueError(f"images: {count} are too few for a rate of {rate:g}; give at least {math.ceil(1 / rate)}")
    with watched(net, layers, images.device) as look:
        values = _all_values(look, images, layers, where)
        limits = {layer: thresholds(v, rate) for layer, v in values.items()}
        fires = {layer: v > limits[layer] for layer, v in values.items()}  # (N,U)
        tally = {layer: torch.zeros(len(moves), v.shape[1], device=v.device) for layer, v in values.items()}
        needed = torch.stack([f.any(dim=1) for f in fires.values()]).any(dim=0).nonzero().flatten()
        for numbers in chunks(_Some(images, needed), what=f"firing, {transform}"):
            some = {layer: f[numbers] for layer, f in fires.items()}
            for row, move in enumerate(moves):
                _count(tally, row, some, limits, _after(look, images[numbers], (move, fill, where), some))
    return {layer: _firing(amounts, values[layer], limits[layer], tally[layer], rate) for layer in layers}


class _Some:
    """Numbers of some images, split as the images themselves would be."""

    def __init__(self, images: torch.Tensor, numbers: torch.Tensor):
        self.images, self.numbers = images, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.images[index]

    def split(self, size: int) -> tuple[torch.Tensor, ...]:
        return self.numbers.split(size) if len(self) else ()  # all units may be silent


def _all_values(look, images: torch.Tensor, layers: list[str], where: str) -> dict[str, torch.Tensor]:
    """{layer: (N,U)}."""
    found = {layer: [] for layer in layers}
    for part in chunks(images, what="firing"):
        for layer, out in look(part)[0].items():
            found[layer].append(_units(out, where))
    return {layer: torch.cat(parts) for layer, parts in found.items()}


def _units(out: torch.Tensor, where: str) -> torch.Tensor:
    """(B,U): one number for each channel."""
    if out.dim() == 2:
        return out
    return out.flatten(2).amax(dim=2) if where == "maximum" else out[:, :, out.shape[2] // 2, out.shape[3] // 2]


def _after(look, images: torch.Tensor, how: tuple[Move, object, str], fires: dict) -> dict[str, torch.Tensor] | None:
    """{layer: (B,U)} for the moved images, None for those that did not move: they fire as before."""
    move, fill, where = how
    if move.identity:
        return None
    return {layer: _units(out, where) for layer, out in look(moved(images, move, fill=fill))[0].items()}


def _count(tally: dict, row: int, fires: dict, limits: dict, after: dict | None) -> None:
    for layer, fired in fires.items():
        still = fired if after is None else fired & (after[layer] > limits[layer])
        tally[layer][row] += still.sum(dim=0)


def _firing(amounts, values: torch.Tensor, limit: torch.Tensor, tally: torch.Tensor, rate: float) -> Firing:
    quiet, fires = silent(values, limit, rate), (values > limit).sum(dim=0)
    local = (tally / fires).masked_fill(quiet, torch.nan)  # 0 / 0 is NaN as well
    return Firing(amounts, limit.masked_fill(quiet, torch.nan).cpu(), quiet.cpu(), (fires / len(values)).cpu(),
                  local.cpu())  # fmt: skip


def _check_values(values, rate) -> None:
    if not isinstance(values, torch.Tensor) or values.dim() != 2 or not len(values):
        raise ValueError(f"values must be a tensor (N,U), of N images and U units, got {shape_or_type(values)}")
    _check_rate(rate)


def _check_rate(rate) -> None:
    if not isinstance(rate, Real) or isinstance(rate, bool) or not 0 < rate < 1:
        raise ValueError(f"rate must be a share of the images between 0 and 1, got {rate!r}; the paper takes 0.01")
