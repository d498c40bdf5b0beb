"""Figure 7 on axes: an image, what a square at every position does to it, and what the strongest map looks at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from . import show
from .deconv import Deconvnet
from .occlusion import OcclusionMaps
from .show import Axes
from .units import Units, projection_pixels

PANELS = ("(a) image", "(b) activity", "(c) projections", "their images", "(d) probability", "(e) class")
#: Blue, orange, green, pink, told apart by the colour-blind; grey is for all others.
COLOURS = np.array([[0, 114, 178], [230, 159, 0], [0, 158, 115], [204, 121, 167], [190, 190, 190]], np.uint8)


def heat(values, look: OcclusionMaps, ax: Axes, *, size: int, side: int = 56, **colours) -> Axes:
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


def class_map(look: OcclusionMaps, classes: Sequence[str], ax: Axes, *, size: int, side: int = 56) -> Axes:
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
    net: nn.Module, image: torch.Tensor, channel: int, tops: Units, *, layer: str = "conv5", side: int = 66
) -> list:
    """Panel (c) and its neighbour, uint8: four projections of a channel, and their images; `image`'s own are framed.

    `tops`: the channel's strongest images, of which the first three are shown.
    """
    unit = tops.unit(layer, channel)
    images = torch.cat([image[None], unit.images[:3].to(image)])
    views = [projection_pixels(view, side) for view in Deconvnet(net).project(images, layer, channel)]
    pixels = [show.fit(show.image_pixels(picture, net), side, smooth=True) for picture in images]
    box = (2, 2, side - 2, side - 2)
    return [show.mosaic([show.framed(first, box), *others], columns=2) for first, *others in (views, pixels)]


def draw(net: nn.Module, images: torch.Tensor, looks: Sequence[OcclusionMaps], tops: Units, *, size: int) -> np.ndarray:
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


def drop_map(drop: torch.Tensor, mask: torch.Tensor, ax: Axes) -> Axes:
    """A drop (H,W) by pixel, red where something was taken away and blue where it rose, and the mask's outline."""
    full = float(drop.abs().max()) or 1.0
    ax.imshow(drop.cpu().numpy(), cmap=show.DIVERGING, vmin=-full, vmax=full)
    ax.contour(mask.cpu().float().numpy(), levels=[0.5], colors="black", linewidths=1)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax
