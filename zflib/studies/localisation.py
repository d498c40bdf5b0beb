"""Where does the drop lie? From squares to pixels, the share of the drop on the object, and Figure 7 drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .. import show
from .._arguments import check_sides, conv_layers
from ..deconv import Deconvnet
from ..experiments.occlusion import OcclusionMaps, occlude
from .units import Units, projection_pixels

PANELS = ("(a) image", "(b) activity", "(c) projections", "their images", "(d) probability", "(e) class")
#: Blue, orange, green, pink, told apart by the colour-blind; grey is for all others.
COLOURS = np.array([[0, 114, 178], [230, 159, 0], [0, 158, 115], [204, 121, 167], [190, 190, 190]], np.uint8)


# --- one number for each pixel, and for each image -------------------------------------------------------------------


def to_pixels(values: torch.Tensor, corners: torch.Tensor, *, size, shape) -> torch.Tensor:
    """(H,W): every pixel is the mean of `values` (rows,cols) over the squares that cover it, 0 where none does.

    `corners` (rows,cols,2) and `size`, pixels or (rows, columns), as in `zflib.occlude`; `shape` is (H,W). Of a drop,
    it is captum's Occlusion map, except that captum's last squares hang over the edge where a stride does not fit.
    """
    height, width = check_sides("size", size, shape)
    if corners.shape != (*values.shape, 2):
        raise ValueError(f"corners must be {(*values.shape, 2)} for values {tuple(values.shape)}, "
                         f"got {tuple(corners.shape)}; both come from one `occlude`")  # fmt: skip
    total, count = torch.zeros(2, *shape, dtype=torch.float64)  # on the CPU: MPS has no doubles
    for value, (top, left) in zip(values.flatten().tolist(), corners.flatten(0, -2).tolist()):
        total[top : top + height, left : left + width] += value
        count[top : top + height, left : left + width] += 1
    return (total / count.clamp(min=1)).float().to(values.device)


def energy_in_mask(drop: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(…,): the share of all that was taken away in `drop` (…,H,W) that lies inside `mask` (…,H,W) bool.

    Where a square raised the value, the drop is negative and counts as none; NaN if there is no drop at all. A drop
    that is everywhere the same has the mask's share of the picture. The energy-based pointing game of Wang and others,
    "Score-CAM" (2020).
    """
    taken = drop.clamp(min=0)
    return (taken * mask).sum(dim=(-2, -1)) / taken.sum(dim=(-2, -1))


def shuffled_masks(drops: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """(N,): `energy_in_mask` of each of N >= 2 drops (N,H,W), mean over the masks (N,H,W) of the other images.

    What a map gets that knows where objects usually stand, but not where this one does.
    """
    table = energy_in_mask(drops[:, None], masks[None])  # (N,N): row i is drop i against every mask
    return (table.sum(dim=1) - table.diagonal()) / (len(drops) - 1)


def rank_correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    """Spearman's correlation of two maps of one shape: 1 if they put the positions in the same order; NaN if flat."""
    from scipy.stats import spearmanr  # it takes a second to import

    pair = [values.flatten().cpu().numpy() for values in (one, other)]
    flat = any(np.ptp(values) == 0 for values in pair)
    return float("nan") if flat else float(spearmanr(*pair).statistic)


# --- many images -----------------------------------------------------------------------------------------------------


@dataclass
class Drops:
    """N occluded images: `looks`, their maps; what the squares took of probability and activity by pixel, (N,H,W)."""

    looks: list[OcclusionMaps]
    probability: torch.Tensor
    activity: torch.Tensor

    @property
    def largest(self) -> torch.Tensor:
        """(N,) the most probability that one square took."""
        return torch.stack([(look.before[0] - look.probability).max().cpu() for look in self.looks])


def study(net: nn.Module, images: torch.Tensor, labels, *, size, stride, **settings) -> Drops:
    """`occlude` every one of (N,3,H,W) preprocessed images, watching its class in `labels` (N,), then `to_pixels`.

    `settings`: `layer` and `fill` as `occlude` takes them.
    """
    pairs = zip(images, labels, strict=True)
    looks = [occlude(net, image, size=size, stride=stride, label=label, **settings) for image, label in pairs]
    where = {"size": size, "shape": tuple(images.shape[-2:])}
    probability = [to_pixels(look.before[0] - look.probability, look.corners, **where) for look in looks]
    activity = [to_pixels(look.before[1] - look.activity, look.corners, **where) for look in looks]
    return Drops(looks, torch.stack(probability).cpu(), torch.stack(activity).cpu())


def under_square(projections: torch.Tensor, size: int, stride: int) -> torch.Tensor:
    """(N,rows,cols): the energy (sum of squares) of (N,3,H,W) projections under the square at every position."""
    energy = projections.square().sum(dim=1, keepdim=True)
    return F.avg_pool2d(energy, size, stride)[:, 0] * size**2


def stories(net: nn.Module, images: torch.Tensor, looks: Sequence[OcclusionMaps], *, size: int, stride: int,
            layer: str | None = None) -> torch.Tensor:  # fmt: skip
    """(N,3), N >= 2: rank correlations of lost activity: with the projection under the square, another's, and lost p.

    "Another's" is the mean over the projections of the other images: what is due to the middle being the middle.
    """
    layer = layer or conv_layers(net)[-1]
    channels = torch.tensor([look.channel for look in looks], device=images.device)
    energy, rows = under_square(Deconvnet(net).project(images, layer, channels), size, stride), []
    for i, look in enumerate(looks):
        lost, sunk = look.before[1] - look.activity, look.before[0] - look.probability
        others = [rank_correlation(energy[j], lost) for j in range(len(looks)) if j != i]
        rows.append([rank_correlation(energy[i], lost), sum(others) / len(others), rank_correlation(sunk, lost)])
    return torch.tensor(rows)


# --- the drawing -----------------------------------------------------------------------------------------------------


def plot(net: nn.Module, images: torch.Tensor, looks: Sequence[OcclusionMaps], tops: Units, *, size: int) -> np.ndarray:
    """Figure 7 for (N,3,H,W) images: (N,6) Axes, a row for each; dark is what the square took away."""
    blank = [np.full((4, 4, 3), 255, np.uint8)] * (6 * len(images))
    axes = show.panels(blank, columns=6, size=2.15)
    for image, look, row in zip(images, looks, axes):
        for ax in row:
            ax.clear()
        given = {"size": size, "side": image.shape[-1]}
        show.photo(image, row[0], net=net)
        heat(look.activity, look, row[1], vmin=0, vmax=look.before[1], **given).set_axis_on()
        for ax, pixels in zip(row[2:4], tiles(net, image, look.channel, tops)):
            show.photo(pixels, ax)
        heat(look.probability, look, row[4], vmin=0, vmax=look.before[0], **given).set_axis_on()
        row[4].set_xlabel(f"{net.classes[look.label]}: {look.before[0]:.2f}", fontsize=10)
        class_map(look, net.classes, row[5], **given).set_axis_on()
    for ax, title in zip(axes[0], PANELS):
        ax.set_title(title)
    return axes


def heat(values, look: OcclusionMaps, ax: show.Axes, *, size: int, side: int = 56, **colours) -> show.Axes:
    """A map (rows,cols) or (rows,cols,3) over positions, each drawn where its square's middle lies in side x side.

    `size` is the square's; `colours` go to matplotlib's imshow (cmap, vmin, vmax).
    """
    corners, rows, columns = look.corners.double(), *look.corners.shape[:2]
    first, last = corners[0, 0] + (size - 1) / 2, corners[-1, -1] + (size - 1) / 2
    down = (corners[1, 0, 0] - corners[0, 0, 0]) / 2 if rows > 1 else side / 2  # half a stride
    right = (corners[0, 1, 1] - corners[0, 0, 1]) / 2 if columns > 1 else side / 2
    edges = (first[1] - right, last[1] + right, last[0] + down, first[0] - down)
    values = values.cpu().numpy() if isinstance(values, torch.Tensor) else values
    ax.imshow(values, extent=[float(edge) for edge in edges], **colours)
    ax.set(xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5), xticks=[], yticks=[], facecolor="0.93")
    ax.spines[:].set_visible(False)
    return ax


def class_map(look: OcclusionMaps, classes: Sequence[str], ax: show.Axes, *, size: int, side: int = 56) -> show.Axes:
    """Panel (e): the most probable class at each position; the four most frequent in colours and words, others grey."""
    kinds, counts = look.prediction.cpu().unique(return_counts=True)
    order = kinds[counts.argsort(descending=True, stable=True)][:4].tolist()
    index = np.full(look.prediction.shape, 4)
    for rank, kind in enumerate(order):
        index[look.prediction.cpu().numpy() == kind] = rank
        place = {"transform": ax.transAxes, "fontsize": 10, "va": "top"}
        ax.text(1.04, 0.98 - 0.2 * rank, classes[kind], color=tuple(COLOURS[rank] / 255), **place)
    return heat(COLOURS[index], look, ax, size=size, side=side)


def tiles(
    net: nn.Module, image: torch.Tensor, channel: int, tops: Units, *, layer: str | None = None, side: int = 66
) -> list:
    """Panel (c) and its neighbour, uint8: four projections of a channel, and their images; `image`'s own are framed.

    `tops`: the channel's strongest images, of which the first three are shown.
    """
    layer = layer or conv_layers(net)[-1]
    unit = tops.unit(layer, channel)
    images = torch.cat([image[None], unit.images[:3].to(image)])
    views = [projection_pixels(view, side) for view in Deconvnet(net).project(images, layer, channel)]
    pixels = [show.fit(show.image_pixels(picture, net), side, smooth=True) for picture in images]
    box = (2, 2, side - 2, side - 2)
    return [show.mosaic([show.framed(first, box), *others], columns=2) for first, *others in (views, pixels)]


def drop_map(drop: torch.Tensor, mask: torch.Tensor, ax: show.Axes) -> show.Axes:
    """A drop (H,W) by pixel, red where something was taken away and blue where it rose, and the mask's outline."""
    full = float(drop.abs().max()) or 1.0
    ax.imshow(drop.cpu().numpy(), cmap=show.DIVERGING, vmin=-full, vmax=full)
    ax.contour(mask.cpu().float().numpy(), levels=[0.5], colors="black", linewidths=1)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax
