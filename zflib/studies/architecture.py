"""What Figure 6 compares by eye, as numbers: aliasing, the frequencies of filters, dead channels, and what it pays."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import mean, stdev

import torch
from torch import nn
from torch.nn import functional as F

from .. import _files, models
from ..deconv import Deconvnet
from ..models import ImageClassifier, ZFNet
from ..record.inputs import check_images

#: Between low, middle and high, in cycles per pixel: wavelengths of 8 and of 3 pixels; the finest grating has 2.
BANDS = (1 / 8, 1 / 3)
SIZE = 64  # pixels that filters are padded to, so that those of 7 and of 11 are measured on one scale
LATTICE = 0.3  # of a filter's energy in the high band: more than that makes it a lattice of fine lines


# --- aliasing --------------------------------------------------------------------------------------------------------


def phase_energies(
    net: ImageClassifier, pixels: torch.Tensor, layer: str, *, shifts: Sequence[int] = range(8)
) -> torch.Tensor:
    """(S,N,C): each map's sum of squares as the crop moves right over (N,3,R,R) uint8 pixels, shift by shift."""
    if not isinstance(net, ImageClassifier):
        raise TypeError(f"net must be a network of zflib, whose geometry says how it crops, got {type(net).__name__}")
    crop, deconvnet = net.geometry.crop, Deconvnet(net)
    images, top = net.normalise(pixels), (pixels.shape[-2] - crop) // 2
    energies = []
    for shift in shifts:
        moved = images[..., top : top + crop, shift : shift + crop]
        maps = torch.cat([deconvnet.activations(some, layer) for some in moved.split(100)])
        energies.append(maps.square().unflatten(1, (-1, 1)).flatten(2).sum(dim=2))  # a unit is a map of one number
    return torch.stack(energies)


def flicker(energies: torch.Tensor) -> torch.Tensor:
    """(C,): the standard deviation of (S,N,C) energies over shifts (root mean square over images), over their mean.

    Channels that never fire count as 0.
    """
    spread = energies.var(dim=0, unbiased=False).mean(dim=0).sqrt()
    return spread / energies.mean(dim=(0, 1)).clamp(min=1e-12)


def aliasing(
    net: ImageClassifier, pixels: torch.Tensor, layer: str, *, shifts: Sequence[int] = range(8)
) -> torch.Tensor:
    """(C,): how much each channel's energy depends on where the stride happens to sample; 0 = not at all.

    Shifting an image by a pixel moves a finely sampled map and leaves its sum of squares as it is, but for the border.
    Where the stride is too coarse for what the filter passes, the sum depends on the shift: the `flicker` of
    `phase_energies`. See Figure 6d.
    """
    return flicker(phase_energies(net, pixels, layer, shifts=shifts))


def at_stride(net: ZFNet, stride: int) -> ZFNet:
    """The control: a copy of `net` that ends with its first layer, the same filters at another stride.

    At stride 1 nothing is skipped, so nothing aliases.
    """
    first = replace(net.geometry.convs[0], stride=stride, pool=False, norm=False)
    geometry = replace(net.geometry, convs=(first,), hidden=None)
    control = ZFNet(0, geometry=geometry, batch_norm=hasattr(net, "bn1"))
    control.load_state_dict({key: value for key, value in net.state_dict().items() if key in control.state_dict()})
    return control.to(net.mean.device).eval()


# --- frequencies -----------------------------------------------------------------------------------------------------


def band_share(weight: torch.Tensor, low: float, high: float, size: int = SIZE) -> torch.Tensor:
    """(C,): share of each (3,k,k) filter's energy at frequencies from `low` up to `high` cycles per pixel.

    `size`: pixels that the filter is padded to; more of them make a finer ruler. A filter of zeros has no share.
    """
    power = torch.fft.fft2(weight, s=(size, size)).abs().square().sum(dim=1)  # (C,size,size)
    frequency = torch.fft.fftfreq(size, device=weight.device)
    radius = (frequency[:, None] ** 2 + frequency[None, :] ** 2).sqrt()
    inside = (radius >= low) & (radius < high)
    return power[:, inside].sum(dim=1) / power.sum(dim=(1, 2)).clamp(min=1e-20)


def frequency_shares(weight: torch.Tensor) -> torch.Tensor:
    """(C,3): the shares of each (3,k,k) filter's energy at low, middle and high frequencies; every row sums to 1."""
    low, high = BANDS
    bands = ((0, low), (low, high), (high, 1))
    return torch.stack([band_share(weight.detach().float(), *band) for band in bands], dim=1)


def resized(weight: torch.Tensor, side: int, *, mode: str = "bicubic") -> torch.Tensor:
    """(C,3,side,side): the same (C,3,k,k) filters at another width: the same pattern on more or fewer pixels.

    `mode`: "bicubic" or "bilinear".
    """
    shrinks = side < weight.shape[-1]  # then smooth first, so that fine waves do not turn into slow ones
    return F.interpolate(weight.detach(), size=(side, side), mode=mode, antialias=shrinks)


def lattices(weight: torch.Tensor) -> torch.Tensor:
    """(L,): the numbers of the filters of (C,3,k,k) that have more than 30 % of their energy at high frequencies."""
    return (frequency_shares(weight)[:, 2] > LATTICE).nonzero().flatten()


def profile(projections: torch.Tensor) -> torch.Tensor:
    """(S // 2,): the mean energy of (N,3,S,S) projections at 0, 1, 2, … cycles per S pixels, across or down.

    Every projection counts the same; the shares of all frequencies, the negative ones too, sum to 1.
    """
    unit = projections / projections.flatten(1).norm(dim=1).clamp(min=1e-9)[:, None, None, None]
    power = torch.fft.fft2(unit).abs().square().sum(dim=1).mean(dim=0)  # (S,S)
    power = power / power.sum().clamp(min=1e-20)
    return ((power.sum(dim=0) + power.sum(dim=1)) / 2)[: power.shape[0] // 2]


def hump(curve: torch.Tensor) -> float:
    """How a (28,) `profile` of 56 pixels rises again: energy around 3 pixels a wave over that around 4 pixels a wave.

    A smooth picture has less and less energy towards fine detail: below 1. A grid of 4 pixels has a line at 4.
    """
    return float(curve[18:21].sum() / curve[14:17].sum())


# --- which filters draw the net of blocks? ---------------------------------------------------------------------------


def contributions(arriving: torch.Tensor, conv: nn.Conv2d, *, size: int) -> torch.Tensor:
    """(C,): the energy of what each filter draws alone, over that of all together, as a mean over N projections.

    `arriving` (N,C,h,w) are the maps that stamp the filters of `conv` into projections (N,3,size,size).
    """
    everything = list(range(conv.out_channels))
    whole = jittered(arriving, conv, everything, size=size, reach=0).flatten(1).square().sum(dim=1).clamp(min=1e-20)
    alone = [jittered(arriving, conv, [one], size=size, reach=0).flatten(1).square().sum(dim=1) for one in everything]
    return (torch.stack(alone) / whole).mean(dim=1)


def matched(contributed: torch.Tensor, filters: Sequence[int], *, count: int = 10, near: float = 0.1,
            seed: int = 0) -> list[list[int]]:  # fmt: skip
    """`count` draws of as many *other* filters that together contribute (C,) as much as `filters`, within `near`."""
    generator, filters = torch.Generator().manual_seed(seed), [int(one) for one in filters]
    others = torch.tensor([one for one in range(len(contributed)) if one not in filters])
    wanted, found = float(contributed[filters].sum()), []
    for _ in range(100_000):
        draw = others[torch.randperm(len(others), generator=generator)[: len(filters)]].tolist()
        if abs(float(contributed[draw].sum()) - wanted) <= near * wanted:
            found.append(draw)
        if len(found) == count:
            return found
    raise ValueError(f"filters must contribute what others can match: of 100000 draws {len(found)} did, not {count}")


def jittered(arriving: torch.Tensor, conv: nn.Conv2d, filters: Sequence[int], *, size: int, reach: int = 3,
             seed: int = 0) -> torch.Tensor:  # fmt: skip
    """(N,3,size,size): what some `filters` of `conv` draw, each position moved right and down by 0 to `reach` pixels.

    The move is drawn for every position of `arriving` (N,C,h,w) and is the same in all its maps. With `reach` 0 it is
    the transpose of `conv`; with stride - 1 the shapes stay and their grid goes.
    """
    (height, width), stride, filters = arriving.shape[-2:], conv.stride[0], list(map(int, filters))
    some, weight, padding = arriving[:, filters], conv.weight.detach()[filters], conv.padding[0]
    if reach == 0:
        missing = size - ((height - 1) * stride - 2 * padding + weight.shape[-1])
        return F.conv_transpose2d(some, weight, stride=stride, padding=padding, output_padding=missing)
    moves = torch.randint(0, reach + 1, (2, height, width), generator=torch.Generator().manual_seed(seed))
    rows, columns = stride * torch.arange(height)[:, None] + moves[0], stride * torch.arange(width) + moves[1]
    fine = some.new_zeros(*some.shape[:2], height * stride + reach, width * stride + reach)
    fine[..., rows, columns] = some
    return F.conv_transpose2d(fine, weight, padding=padding)[..., :size, :size]


# --- dead channels ---------------------------------------------------------------------------------------------------


def dead_channels(net: nn.Module, images: torch.Tensor, layer: str, *, share: float = 0.01) -> torch.Tensor:
    """(C,) bool: channels whose strongest activation over (N,3,H,W) images is at most `share` of the layer's strongest.

    The more images, the surer: a channel that is dead on a hundred may live on a thousand.
    """
    deconvnet, parts = Deconvnet(net), check_images(images).split(100)
    peaks = [deconvnet.activations(some, layer).transpose(0, 1).flatten(1).amax(dim=1) for some in parts]
    strongest = torch.stack(peaks).amax(dim=0)
    return strongest <= share * strongest.max()


# --- does it pay? ----------------------------------------------------------------------------------------------------

TWINS = {"alexnet56": "alexnet", "zfnet56": "full"}  # the networks, and their rows in data/ablation.json
ABLATION = _files.SHIPPED / "ablation.json"


@dataclass(frozen=True)
class Trainings:
    """Validation errors in per cent of both twins, a number for each training, and how they were trained."""

    budget: str
    top1: Mapping[str, list[float]]
    top5: Mapping[str, list[float]]

    def difference(self) -> float:
        """Points of top-1 error by which the mean of alexnet56 is above that of zfnet56."""
        coarse, fine = (mean(self.top1[name]) for name in TWINS)
        return coarse - fine

    def conclusion(self) -> str:
        """What these trainings say of the two first layers, and what they cannot say."""
        counts = [len(self.top1[name]) for name in TWINS]
        better = "zfnet56" if self.difference() > 0 else "alexnet56"
        found = f"{_times(counts[0])} of alexnet56 and {_times(counts[1])} of zfnet56: "
        found += f"{better} errs less, by {abs(self.difference()):.1f} points"
        if min(counts) < 2:
            return (
                f"{found}. How far two trainings of one network differ is not known, so nobody can say whether the "
                "gap belongs to the network."
            )
        error, chance = self.error(), self.separation()
        coarse, fine = (self.top1[name] for name in TWINS)
        apart = max(fine) < min(coarse) or max(coarse) < min(fine)
        found += f" ± {error:.1f}. Errors dealt at random into two groups differ as much in {chance:.0%} of all ways"
        found += ", the fewest that so few trainings allow." if apart else "."
        if chance > 0.1 or abs(self.difference()) < 3 * error:
            return f"{found} That may be luck."
        return f"{found} So {better} is better at this budget. Whether by its first layer or by more work stays open."

    def error(self) -> float:
        """Standard error of the difference of the two means over seeds; it takes two trainings of each."""
        return sum(stdev(self.top1[name]) ** 2 / len(self.top1[name]) for name in TWINS) ** 0.5

    def separation(self) -> float:
        """Exact permutation test: the share of all ways to deal the top-1 errors whose means differ as much or more."""
        coarse, fine = (self.top1[name] for name in TWINS)
        every, total = [*coarse, *fine], sum(coarse) + sum(fine)
        gaps = []
        for chosen in combinations(range(len(every)), len(coarse)):
            first = sum(every[i] for i in chosen)
            gaps.append(abs(first / len(coarse) - (total - first) / len(fine)))
        return sum(gap >= abs(self.difference()) - 1e-9 for gap in gaps) / len(gaps)


def multiply_adds(net: ZFNet) -> int:
    """Multiplications, each with an addition, that the convolutions do for one image."""
    deconvnet, image = Deconvnet(net), torch.zeros(1, 3, net.geometry.crop, net.geometry.crop)
    total = 0
    for name in net.conv_names:
        positions = deconvnet.activations(image, name)[0, 0].numel()
        total += positions * net.get_submodule(name).weight.numel()
    return total


def _times(count: int) -> str:
    return f"{count} training" + ("" if count == 1 else "s")


def trainings(path: Path = ABLATION) -> list[Trainings]:
    """What there is on both twins: the two shipped trainings, and those of `path`, if it holds some of either.

    `path` is what `data.make.ablation` writes: a row for each training, of which those on the short budget count.
    """
    found = [_shipped()]
    if path.is_file():
        saved = json.loads(path.read_text(encoding="utf-8"))
        rows = [row for row in saved["rows"] if row["budget"] == "short"]
        errors = {
            kind: {name: [row["validation"][kind] for row in rows if row["variant"] == variant]
                   for name, variant in TWINS.items()}
            for kind in ("top1", "top5")
        }  # fmt: skip
        if all(errors["top1"].values()):
            epochs = saved["budgets"]["short"]["epochs"]
            found.append(Trainings(f"a quarter of the channels, {epochs} epochs, centre crop", **errors))
    return found


def _shipped() -> Trainings:
    cards = {name: models.load(name).card for name in TWINS}
    tops = {
        kind: {name: [100 - card["accuracy"]["ten-crop"][kind]] for name, card in cards.items()}
        for kind in ("top1", "top5")
    }
    return Trainings(f"{cards['zfnet56']['epochs']} epochs, ten crops", **tops)
