"""What notebook 08 draws: a bar that moves over two grids, flicker by stride, shares, profiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn
from torch.nn import functional as F

from .. import show
from ..show import Axes

COLOURS = {"alexnet56": "#d55e00", "zfnet56": "#0072b2"}  # told apart by the colour-blind
BANDS = {"low": "#3b6fb6", "middle": "#e69f00", "high": "#9aa5b1"}
SILENT, PALE = "#555555", "#9aa5b1"
TALL, WIDE, STEPS = 27, 46, 12  # pixels of the picture with the bar, and its places, each a pixel further right


# --- a moving bar ----------------------------------------------------------------------------------------------------


def moving_bar(*, width: int = 1, strength: float = 1.5, tall: int = TALL, wide: int = WIDE) -> torch.Tensor:
    """(12,3,tall,wide): a bright upright bar on grey in the units of a network, one pixel further right in each."""
    images = torch.zeros(STEPS, 3, tall, wide)
    first = (wide - width - STEPS + 1) // 2
    for shift in range(STEPS):
        images[shift, :, :, first + shift : first + shift + width] = strength
    return images


def seen(conv: nn.Conv2d, channel: int, images: torch.Tensor, stride: int) -> torch.Tensor:
    """(S,h,w): one filter's maps of (S,3,H,W) images at any stride, after the ReLU, inside the images only."""
    weight, bias = conv.weight.detach()[[channel]], conv.bias.detach()[[channel]]
    return F.conv2d(images.to(weight), weight, bias, stride=stride).relu()[:, 0].cpu()


def moving_frames(conv: nn.Conv2d, channel: int, *, strides: tuple[int, int] = (4, 2)) -> list[np.ndarray]:
    """(H,1000,3) uint8 frames: the bar moves under one filter at two strides; below, the energy of each map so far."""
    images = moving_bar()
    maps = {stride: seen(conv, channel, images, stride) for stride in strides}
    frames = []
    for shift in range(len(images)):
        places = [(left, *rest) for left in (0.06, 0.55) for rest in ((0.42, 0.44, 0.51), (0.12, 0.44, 0.27))]
        axes = show.axes_at(places, size=(12.5, 5.5))  # above, below, above, below: the same places in every frame
        for above, below, (stride, values) in zip(axes[::2], axes[1::2], maps.items()):
            draw_grid(above, images[shift], values[shift], conv.kernel_size[0], stride, full=float(values.max()))
            above.set_title(f"stride {stride}: one dot every {stride} pixels", fontsize=15)
            draw_energy(below, values.square().sum(dim=(1, 2)), shift)
        frames.append(show.axes_pixels(axes[0]))
    return frames


def draw_grid(ax: Axes, image: torch.Tensor, values: torch.Tensor, side: int, stride: int, *, full: float) -> Axes:
    """A (3,H,W) picture, and a dot where each position of the map (h,w) looks: orange and large where it is active."""
    ax.imshow((128 + image[0] * 60).clip(0, 255).numpy(), cmap="gray", vmin=0, vmax=255)
    rows, columns = (side // 2 + stride * np.arange(count) for count in values.shape)
    x, y = (grid.flatten() for grid in np.meshgrid(columns, rows))
    size = (values.flatten() / max(full, 1e-9)).clamp(0, 1).numpy()
    ax.scatter(x, y, s=10, color=SILENT)
    active = size > 0.02
    ax.scatter(x[active], y[active], s=25 + 220 * size[active], color=show.ORANGE, edgecolors="black", linewidths=0.8)
    margin = side // 2 - 2  # where no filter fits there is no dot
    ax.set(xlim=(margin, image.shape[-1] - 1 - margin), ylim=(image.shape[-2] - 1 - margin, margin))
    ax.set_axis_off()
    return ax


def draw_energy(ax: Axes, energies: torch.Tensor, shift: int) -> Axes:
    """Energies (S,) by shift, over their mean, drawn up to `shift`; the rest pale."""
    relative = (energies / energies.mean().clamp(min=1e-12)).tolist()
    ax.axhline(1, color=PALE, lw=1, ls=":")
    ax.plot(relative, color="#cccccc", lw=1.5)
    ax.plot(relative[: shift + 1], "o-", color="black", lw=2.5, markersize=5)
    ax.plot(shift, relative[shift], "o", color="white", markeredgecolor="black", markeredgewidth=2.5, markersize=12)
    ax.set(ylim=(-0.25, max(2.5, 1.1 * max(relative))), xlim=(-0.5, len(relative) - 0.5))
    ax.set_xlabel("pixels that the bar has moved", fontsize=12)
    ax.set_ylabel("energy, mean = 1", fontsize=12)
    return ax


# --- flicker by stride -----------------------------------------------------------------------------------------------


def draw_strides(ax: Axes, scores: Mapping[str, Mapping[int, torch.Tensor]]) -> Axes:
    """A dot for each filter of `scores` {network: {stride: (C,)}}, their mean as a line with its number beside it."""
    strides = list(next(iter(scores.values())))
    for place, (name, by_stride) in enumerate(scores.items()):
        for at, stride in enumerate(strides):
            values, x = by_stride[stride].cpu(), at + 0.48 * place - 0.32
            spread = 0.16 * (torch.rand(len(values), generator=torch.Generator().manual_seed(at)) - 0.5)
            ax.scatter((x + spread).tolist(), values.tolist(), s=14, color=COLOURS[name], alpha=0.45, linewidths=0)
            mean, error = float(values.mean()), float(values.std()) / len(values) ** 0.5
            ax.plot([x - 0.11, x + 0.11], [mean, mean], color="black", lw=2.5)
            ax.text(x + 0.125, mean, f"{mean:.3f}\n± {error:.3f}", va="center", fontsize=11)
        ink = show.ink(COLOURS[name])
        ax.text(0.48 * place - 0.32, 0.35, f"filters of\n{name}", color=ink, ha="center", fontsize=12)
    ticks = (0.02, 0.05, 0.1, 0.2, 0.5)
    ax.set(yscale="log", ylabel="flicker of a filter", xlim=(-0.5, len(strides) - 0.5))
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set_xticks([at - 0.08 for at in range(len(strides))], [f"stride {stride}" for stride in strides], fontsize=12)
    return ax


# --- frequencies -----------------------------------------------------------------------------------------------------


def draw_shares(ax: Axes, groups: Sequence[Mapping[str, torch.Tensor]]) -> Axes:
    """A bar for each {words: (C,3) shares}, group by group: the mean low, middle and high share with their errors."""
    places, labels = [], []
    for number, group in enumerate(groups):
        for words, shares in group.items():
            places.append(len(places) + 0.6 * number)
            labels.append(words)
            _share_bar(ax, places[-1], shares)
    left = 0.0
    for band, share in zip(BANDS, next(iter(groups[0].values())).mean(dim=0).tolist()):
        ax.text(left + share / 2, -0.45, band, ha="center", va="bottom", fontsize=13, weight="bold")
        left += share
    ax.set_yticks(places, labels, fontsize=12)
    ax.set(xlim=(0, 1), ylim=(places[-1] + 0.5, -0.9), xlabel="share of the filters' energy")
    return ax


def _share_bar(ax: Axes, at: float, shares: torch.Tensor) -> None:
    """One bar of three pieces, each with its number; those of less than 4 % have no room for one."""
    left, errors = 0.0, shares.std(dim=0) / len(shares) ** 0.5
    for band, share, error in zip(BANDS, shares.mean(dim=0).tolist(), errors.tolist()):
        ax.barh(at, share, left=left, color=BANDS[band], height=0.8)
        ink = show.black_or_white(BANDS[band])
        if share >= 0.04:
            ax.text(
                left + share / 2, at, f"{share:.2f} ± {error:.2f}", ha="center", va="center", color=ink, fontsize=12
            )
        left += share


def net_of_blocks(
    whole: torch.Tensor, thinned: torch.Tensor, channels: Sequence[int], captions: Sequence[str]
) -> np.ndarray:
    """(H,2000,3) uint8: some projections of (C,3,H,W) above, the same without some filters below, one contrast each."""
    tiles = []
    for sheet in (whole, thinned):
        for channel in channels:
            rows, columns = whole[channel].abs().sum(dim=0).nonzero().T  # what its field covers
            box = (int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1)
            full = show.limit(show.crop_box(whole[channel], box), 99)
            pixels = show.signed_pixels(show.crop_box(sheet[channel], box), full=full)
            tiles.append(show.fit(pixels, 488, smooth=True))
    return show.poster(tiles, captions, columns=len(channels))


def draw_profiles(ax: Axes, curves: Mapping[str, torch.Tensor], *, size: int = 56) -> Axes:
    """`architecture.profile` of several sheets of projections, each named on its line; waves of 3 pixels are shaded."""
    styles = (("#d55e00", "-", 19, 0.5), ("#d55e00", ":", 15, 0.27), ("#666666", "--", 14, 1.12))
    ax.axvspan(17.5 / size, 20.5 / size, color="#f3e6d8", zorder=0)
    for (name, curve), (colour, line, at, factor) in zip(curves.items(), styles):
        ax.semilogy(np.arange(len(curve)) / size, curve.tolist(), line, color=colour, lw=2.5)
        spot, ink = (at / size, float(curve[at]) * factor), show.ink(colour)
        ax.text(*spot, name, color=ink, ha="center", va="bottom", fontsize=13)
    waves = (28, 14, 8, 6, 5, 4, 3, 2.2)
    ax.set_xticks([1 / wave for wave in waves], [f"{wave:g}" for wave in waves])
    ax.set(xlim=(1 / size, 0.5), xlabel="pixels a wave", ylabel="share of the energy")
    return ax


# --- one filter, seen from all sides ---------------------------------------------------------------------------------


def shifted_view(net, channel: int, stride: int, shift: int, square: torch.Tensor, *, side: int = 190) -> np.ndarray:
    """(H,W,3) uint8: a filter, its spectrum, a (3,R,R) photograph moved by `shift`, its map, and the energies."""
    conv, crop = net.conv1, net.geometry.crop
    weight, bias = conv.weight.detach()[[channel]], conv.bias.detach()[[channel]]
    crops = torch.stack([net.normalise(square)[:, :crop, s : s + crop] for s in range(8)])  # (8,3,56,56)
    maps = F.conv2d(crops, weight, bias, stride=stride, padding=conv.padding).relu()[:, 0].cpu()
    spectrum = torch.fft.fftshift(torch.fft.fft2(weight[0].cpu(), s=(64, 64)).abs().square().sum(dim=0)).sqrt()
    tiles = {
        "the filter": show.signed_pixels(weight[0]),
        "its spectrum": show.map_pixels(spectrum),
        f"moved by {shift} pixels": show.image_pixels(crops[shift], net),
        f"its map, stride {stride}": show.map_pixels(maps[shift], full=float(maps.max())),
    }
    pictures = [show.fit(tile, side) for tile in tiles.values()]
    pictures.append(energy_bars(maps.square().sum(dim=(1, 2)), shift, side))
    return show.beside(pictures, [*tiles, "energy at each shift"], size=15)


def energy_bars(energies: torch.Tensor, now: int, side: int) -> np.ndarray:
    """(side,side,3) uint8: a bar for each of (S,) energies over their mean, up to 4; the one at `now` is black."""
    picture, wide = Image.new("RGB", (side, side), "white"), side / len(energies)
    draw = ImageDraw.Draw(picture)
    for at, value in enumerate((energies / energies.mean().clamp(min=1e-12)).tolist()):
        top = side - 1 - min(value / 4, 1) * (side - 1)
        draw.rectangle((at * wide + 2, top, (at + 1) * wide - 3, side - 1), fill="black" if at == now else PALE)
    draw.line((0, side * 3 / 4, side, side * 3 / 4), fill=SILENT)  # the mean
    return np.asarray(picture)
