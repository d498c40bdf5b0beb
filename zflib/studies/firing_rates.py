"""Is a unit invariant? It must be selective and keep firing: local over global firing rate (Goodfellow and others)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from .._arguments import check_choice
from ..experiments.invariance_curves import check_moves
from ..experiments.transforms import check_fill, moved
from ..record.hooks import check_layers, chunks, watched
from ..record.inputs import check_images

PLACES = ("maximum", "centre")


@dataclass(frozen=True)
class FiringRates:
    """The invariance of U units of one layer under a transform with A amounts, all on the CPU.

    `threshold` (U,): a unit fires above it, NaN for a silent one; `silent` (U,) bool: it has no threshold, see
    `silent`; `overall` (U,): the share of all images on which it fires, the global rate; `local` (A,U): the share
    that still fires of the images on which it fired unmoved, the local rate, NaN for silent units; `local_of_all`
    (A,U): the same with the silent units, which fire above their own floor; NaN for those that never do.
    """

    amounts: tuple[float, ...]
    threshold: torch.Tensor
    silent: torch.Tensor
    overall: torch.Tensor
    local: torch.Tensor
    local_of_all: torch.Tensor

    @property
    def score(self) -> torch.Tensor:
        """(U,) local rate, the mean over all amounts, over global rate; NaN for silent units. 1 is chance."""
        return self.local.mean(dim=0) / self.overall

    def best(self, share: float = 0.2) -> float:
        """The layer's score: the mean over the best `share` of the units that are not silent; NaN if all are."""
        scores = self.score[~self.silent].sort(descending=True).values
        return float(scores[: math.ceil(share * len(scores))].mean())


def thresholds(values: torch.Tensor, rate: float = 0.01) -> torch.Tensor:
    """(U,) from (N,U) values on N images: above it lies the given share of a unit's values, fewer where values tie."""
    count = math.floor(rate * len(values) + 1e-9)  # images on which a unit may fire
    return values.topk(count + 1, dim=0).values[-1]


def silent(values: torch.Tensor, threshold: torch.Tensor, rate: float = 0.01) -> torch.Tensor:
    """(U,) bool: a unit that cannot fire on this share of the images, for its threshold lies at its own floor.

    That is what a ReLU does to a unit which gives 0 on more than 99 % of the images. A unit that never fires, because
    too many images share its largest value, is silent too.
    """
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
                    rate: float = 0.01, where: str = "maximum", fill=0.0) -> dict[str, FiringRates]:  # fmt: skip
    """{layer: FiringRates}: every unit's firing rates on (N,3,H,W) images and on those that excite it, moved.

    A unit's threshold lets it fire on the share `rate` of the images; where a layer has maps, a channel's unit is its
    "maximum" over the map (which a shift leaves alone as long as it stays inside) or the unit at the map's "centre".
    `transform`, `amounts`, `fill`: as in `invariance`. Goodfellow, Le, Saxe, Lee and Ng, "Measuring invariances in
    deep networks" (2009), with ReLUs.
    """
    layers, images = check_layers(net, layers), check_images(images, net)
    amounts, moves = check_moves(transform, amounts)
    check_choice("where", where, PLACES)
    check_fill(fill)
    if not 1 <= math.floor(rate * len(images) + 1e-9) < len(images):
        raise ValueError(f"rate must let a unit fire on 1 to {len(images) - 1} of {len(images)} images, got {rate!r}")
    with watched(net, layers) as look:
        values = _all_values(look, images, layers, where)
        limits = {layer: thresholds(v, rate) for layer, v in values.items()}
        still = {layer: torch.zeros(len(moves), v.shape[1], device=v.device) for layer, v in values.items()}
        first = 0
        for part in chunks(images, what=f"firing rates, {transform}"):
            some = {layer: v[first : first + len(part)] for layer, v in values.items()}  # (B,U) unmoved
            for row, move in enumerate(moves):
                after = some if move.identity else _values(look, moved(part, move, fill=fill), where)
                for layer, before in some.items():
                    still[layer][row] += ((before > limits[layer]) & (after[layer] > limits[layer])).sum(dim=0)
            first += len(part)
    return {layer: _rates(amounts, values[layer], limits[layer], still[layer], rate) for layer in layers}


def _all_values(look, images: torch.Tensor, layers: list[str], where: str) -> dict[str, torch.Tensor]:
    """{layer: (N,U)}."""
    parts = [_values(look, part, where) for part in chunks(images, what="firing rates")]
    return {layer: torch.cat([values[layer] for values in parts]) for layer in layers}


def _values(look, images: torch.Tensor, where: str) -> dict[str, torch.Tensor]:
    """{layer: (B,U)}: one number for each channel."""
    return {layer: _units(out, where) for layer, out in look(images)[0].items()}


def _units(out: torch.Tensor, where: str) -> torch.Tensor:
    if out.dim() == 2:
        return out
    return out.flatten(2).amax(dim=2) if where == "maximum" else out[:, :, out.shape[2] // 2, out.shape[3] // 2]


def _rates(amounts, values: torch.Tensor, limit: torch.Tensor, still: torch.Tensor, rate: float) -> FiringRates:
    quiet, fires = silent(values, limit, rate), (values > limit).sum(dim=0)
    local = (still / fires).cpu()  # 0 / 0 is NaN
    return FiringRates(amounts, limit.masked_fill(quiet, torch.nan).cpu(), quiet.cpu(), (fires / len(values)).cpu(),
                       local.masked_fill(quiet.cpu(), torch.nan), local)  # fmt: skip
