"""What a sceptic asks of Figure 2: do the strongest positions lie at parts, and do nine projections agree by chance?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ..data import Windows
from ..data.image_source import images_of
from ..data.scenes import Scenes
from ..deconv.receptive_boxes import receptive_fields
from ..experiments.peaks import find_peaks
from ..experiments.top_k import Peaks, suppress_overlaps
from .gallery import alive, edge_maps, mean_correlation, nearest_part, sample_channels
from .units import Units

# --- do the strongest positions lie at parts? -------------------------------------------------------------------------


@dataclass(frozen=True)
class AtParts:
    """Counts of L channels over their k strongest images, (L,) each.

    `on`: how many see the drawn object in the middle of their field; `near`: how many of these have a known part
    near the middle; `expected`: how many would, if the middle lay anywhere on the same objects.
    """

    on: torch.Tensor
    near: torch.Tensor
    expected: torch.Tensor

    def share(self) -> tuple[float, float]:
        """(`near` of all that are on an object, its standard error over the channels)."""
        return _ratio(self.near, self.on)

    def chance(self) -> tuple[float, float]:
        """The same of `expected`: a random place on the same objects."""
        return _ratio(self.expected, self.on)


def _ratio(some: torch.Tensor, all_: torch.Tensor) -> tuple[float, float]:
    """(sum of some / sum of all, its standard error over the rows, as survey samplers compute a ratio's)."""
    some, all_, count = some.double(), all_.double(), len(some)
    ratio = some.sum() / all_.sum()
    error = ((some - ratio * all_).square().sum() * count / max(count - 1, 1)).sqrt() / all_.sum()
    return float(ratio), float(error)


def at_parts(net: nn.Module, world: Scenes, peaks: Peaks, layer: str, *, within: float = 6.0) -> AtParts:
    """AtParts of the channels that are alive, for `peaks` (C,k) of `find_peaks` over `world.pixels`.

    Near is less than `within` pixels of the scene. Positions whose field is centred on the background do not count:
    there are no parts there, so a position anywhere in the picture would be too easy a chance level.
    """
    peaks = peaks.rows(alive(peaks))
    boxes = receptive_fields(net, layer, peaks.positions).float()
    margin = (net.geometry.resize - net.geometry.crop) // 2
    middles = (boxes[..., :2] + boxes[..., 2:] - 1) / 2 + margin  # (L,k,2) pixels of the scene
    _, distances = nearest_part(world, peaks.images, middles)
    row, column = middles.round().long().clamp(0, world.masks.shape[-1] - 1).unbind(-1)
    on = world.masks[peaks.images, row, column]  # (L,k)
    anywhere = share_of_object(world, within=within)[peaks.images]  # (L,k)
    return AtParts(on.sum(1), (on & (distances < within)).sum(1), (on * anywhere).sum(1))


def share_of_object(world: Scenes, *, within: float = 6.0) -> torch.Tensor:
    """(N,): the share of each scene's object, in pixels, that lies less than `within` pixels from a known part."""
    shares = []
    for mask, parts in zip(world.masks, world.parts):
        known = parts[~parts.isnan().any(dim=1)]  # (P,2)
        away = torch.cdist(mask.nonzero().float(), known).amin(dim=1)
        shares.append((away < within).float().mean())
    return torch.stack(shares)


# --- do nine projections agree because of their images? ---------------------------------------------------------------


def peaks_at_random(net: nn.Module, images, layer: str, *, k: int = 9, pool: int = 600, seed: int = 0) -> Peaks:
    """Peaks (C,k): k images drawn at random for each channel, among `pool` random ones, until k excite it.

    In each the channel's strongest position. Where fewer than k of the pool excite a channel: -inf and -1, as in Peaks.
    """
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randperm(len(images), generator=generator)[:pool]
    found = find_peaks(net, images_of(net, images, numbers), layers=[layer], k=len(numbers))[layer]
    order = torch.full((len(found.values), k), -1)
    for channel, values in enumerate(found.values):  # strongest first, so those that excite it come first
        drawn = torch.randperm(int((values > 0).sum()), generator=generator)[:k]
        order[channel, : len(drawn)] = drawn
    chosen = found.columns(order)
    return Peaks(chosen.values, numbers[chosen.images].masked_fill(chosen.images < 0, -1), chosen.positions)


def contour_agreement(units: Units, layer: str, channels) -> tuple[torch.Tensor, torch.Tensor]:
    """((L,), (L,)) how alike each channel's projections are, and their patches: `mean_correlation` of `edge_maps`."""
    found = [units.unit(layer, int(channel)) for channel in channels]
    drawn = [mean_correlation(edge_maps(unit.projections)) for unit in found]
    seen = [mean_correlation(edge_maps(unit.patches)) for unit in found]
    return torch.stack(drawn).cpu(), torch.stack(seen).cpu()


def strongest_and_random(
    net: nn.Module, windows: Windows, layer: str, *, count: int = 24, seed: int = 5
) -> dict[str, torch.Tensor]:
    """Name -> (n,) `contour_agreement` of channels drawn at random: on their nine strongest windows and on random ones.

    "projections" and "patches" are of the nine strongest that show different places, the names with "random" of
    `peaks_at_random`. A channel that fewer than nine windows of its pool excite is left out, so n may be below `count`.
    """
    found = find_peaks(net, windows.pixels, layers=[layer], k=48)[layer]
    boxes = receptive_fields(net, layer, found.positions).clamp(0, net.geometry.crop)
    places = windows.inside(found.images, boxes, crop=net.geometry.crop)
    nine = suppress_overlaps(found, windows.pictures[found.images], places)
    control = peaks_at_random(net, windows.pixels, layer)
    channels = [c for c in sample_channels(nine, count, seed=seed).tolist() if control.images[c].min() >= 0]
    strongest, random = (Units(net, windows.pixels, peaks={layer: peaks}) for peaks in (nine, control))
    drawn, seen = contour_agreement(strongest, layer, channels)
    drawn_control, seen_control = contour_agreement(random, layer, channels)
    return {"projections": drawn, "random projections": drawn_control, "patches": seen, "random patches": seen_control}


def mean_and_error(values: torch.Tensor) -> tuple[float, float]:
    """The mean of (n,) values and its standard error."""
    return float(values.mean()), float(values.std() / len(values) ** 0.5)
