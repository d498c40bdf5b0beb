"""How much of a lit patch is geometry: its light against a bell, the image's contrast, and another channel's light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..deconv import Deconvnet
from ..show import energy
from ..show.light import blurred
from .units import Unit, Units


@dataclass(frozen=True)
class Light:
    """Numbers of n lit patches, (n,) each; NaN where a patch or its light is flat.

    `middle`: correlation of the light with a bell at the middle of the field; `contrast`: with the image's own
    contrast; `brightest`: the share of the energy that lies in the brightest fifth of the pixels. Pixels beyond the
    image do not count.
    """

    middle: np.ndarray
    contrast: np.ndarray
    brightest: np.ndarray


def measure(patches: torch.Tensor, lights: np.ndarray) -> Light:
    """The numbers of (n,3,h,w) patches, exactly 0 beyond their images, and their lights (n,h,w)."""
    bell, rows = bell_of(lights.shape[1:]), []
    for patch, light in zip(patches, lights):
        inside = (patch != 0).any(dim=0).cpu().numpy()
        own = contrast(patch)
        rows.append((correlation(light, bell, inside), correlation(light, own, inside), brightest(light[inside])))
    return Light(*np.array(rows).T)


def lights(projections: torch.Tensor) -> np.ndarray:
    """(n,h,w): `show.energy` of (n,3,h,w) projections."""
    return np.stack([energy(projection) for projection in projections])


def relative(values: np.ndarray) -> np.ndarray:
    """(n,h,w): lights divided by their mean over n, at each pixel of the field, which takes away what all share.

    Where the mean is below a twentieth of its maximum, it is taken to be that.
    """
    mean = values.mean(axis=0)
    return values / np.maximum(mean, mean.max() / 20)


def other_channels(unit: Unit, other: int) -> np.ndarray:
    """(k,): the correlation of two channels' lights on each of the unit's images, whole, each at its strongest."""
    net = Deconvnet(unit.net)
    pair = [net.project(unit.images, unit.layer, channel).cpu() for channel in (unit.channel, other)]
    everywhere = np.ones(tuple(unit.images.shape[-2:]), bool)
    return np.array([correlation(energy(one), energy(two), everywhere) for one, two in zip(*pair)])


def of_channels(units: Units, layer: str, channels) -> tuple[Light, Light, np.ndarray]:
    """The numbers of the channels' lights, of their relative lights, and of each channel's with the next one's."""
    found = [units.unit(layer, channel) for channel in channels]
    patches = torch.cat([unit.patches for unit in found])
    values = lights(torch.cat([unit.projections for unit in found]))
    pairs = [other_channels(unit, other) for unit, other in zip(found, [*channels[1:], channels[0]])]
    return measure(patches, values), measure(patches, relative(values)), np.concatenate(pairs)


def bell_of(shape) -> np.ndarray:
    """(h,w): a Gaussian at the middle; its standard deviation is a quarter of the side."""
    rows, columns = (np.exp(-((np.arange(n) - (n - 1) / 2) ** 2) / (2 * (n / 4) ** 2)) for n in shape)
    return rows[:, None] * columns


def contrast(patch: torch.Tensor) -> np.ndarray:
    """(h,w): the local standard deviation of the patch's brightness, in windows of the light's own blur."""
    grey = patch.mean(dim=0).double().cpu().numpy()
    variance = blurred(grey**2, 2.0) - blurred(grey, 2.0) ** 2
    return np.sqrt(variance.clip(0))


def brightest(values: np.ndarray) -> float:
    """The share of the energy, the squared light, in the brightest fifth of the values; 0.2 if all are the same."""
    order = np.sort(values.astype(np.float64) ** 2)[::-1]
    return float(order[: round(len(order) / 5)].sum() / order.sum()) if order.sum() > 0 else float("nan")


def correlation(one: np.ndarray, other: np.ndarray, inside: np.ndarray) -> float:
    """Pearson's, over the pixels inside; NaN if one of them is flat there."""
    first, second = one[inside].astype(np.float64), other[inside].astype(np.float64)
    flat = len(first) < 2 or np.ptp(first) < 1e-9 or np.ptp(second) < 1e-9
    return float("nan") if flat else float(np.corrcoef(first, second)[0, 1])
