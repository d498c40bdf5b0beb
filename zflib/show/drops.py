"""What an occluder takes, as red over a pale photograph."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.patches import Rectangle
from torch import nn

from .._arguments import check_sides
from .pixels import as_array, image_pixels, upscale

LOSS = LinearSegmentedColormap.from_list("loss", ["#ffffff", "#fcbba1", "#ef3b2c", "#67000d"])
SIDE = 600  # pixels of the picture that is drawn
PALE = 0.5  # of the photograph's contrast


def drop(image, before: float, values, *, corners, size, ax: Axes | None = None, net: nn.Module | None = None,
         title: str | None = None, full: float | None = None, what: str = "probability lost") -> Axes:  # fmt: skip
    """How much a value drops under a square, white to red over the pale image; `full` (default: `before`) is dark red.

    `before` is the value without a square, `values` and `corners` are maps of an `OcclusionMaps`, `size` is the
    square's (pixels or rows and columns). Each position is drawn where its square's middle lies; a gain is white. The
    frame is the square that takes most; `what` labels the colour bar, and `title` is followed by "0.59 → 0.02".
    """
    picture, lost = image_pixels(image, net), float(before) - torch.as_tensor(as_array(values))
    full = float(full or before)
    pixels = drop_pixels(picture, lost, corners=corners, size=size, full=full)
    ax = plt.subplots(figsize=(4.6, 3.9))[1] if ax is None else ax
    height, width = picture.shape[:2]
    ax.imshow(pixels, extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="bilinear")
    ax.set_axis_off()
    _frame(ax, corners.flatten(0, 1)[lost.argmax()].tolist(), check_sides("size", size))
    ax.figure.colorbar(ScalarMappable(Normalize(0, full), LOSS), ax=ax, label=what, shrink=0.86)
    change = f"{before:.2f} → {before - float(lost.max()):.2f}"
    ax.set_title(f"{title}: {change}" if title else change)
    return ax


def drop_pixels(image, lost, *, corners, size, full: float, net: nn.Module | None = None) -> np.ndarray:
    """(H,W,3) uint8, SIDE pixels on the longer side: what is lost at each place, 0 white to `full` dark red.

    `lost` and `corners` are maps as in `drop`, over the pale image.
    """
    picture, lost = image_pixels(image, net), torch.as_tensor(as_array(lost))
    if tuple(corners.shape) != (*lost.shape, 2):
        raise ValueError(
            f"corners must be {(*lost.shape, 2)} for values {tuple(lost.shape)}, got {tuple(corners.shape)}"
        )
    size = check_sides("size", size, picture.shape[:2])
    colours = LOSS((_spread(lost, corners.cpu(), size, picture.shape[:2]) / full).clip(0, 1))[..., :3]
    return (_pale(picture)[..., None] * colours * 255).round().astype(np.uint8)


def _pale(picture: np.ndarray) -> np.ndarray:
    """(H,W): the (h,w,3) uint8 picture in light greys, from 0.5 to 1, SIDE pixels on its longer side."""
    grey = upscale(picture, SIDE, smooth=True) @ np.array([0.299, 0.587, 0.114]) / 255
    return 1 - PALE + PALE * grey


def _spread(values: torch.Tensor, corners: torch.Tensor, size, shape) -> np.ndarray:
    """The map as large as the enlarged picture, each value half a stride around its square's middle, else 0."""
    factor = SIDE / max(shape)
    index = []
    for axis, starts in enumerate((corners[:, 0, 0], corners[0, :, 1])):
        middles = starts.double() + size[axis] / 2
        at = (torch.arange(round(shape[axis] * factor)) + 0.5) / factor
        reach = float(middles[1] - middles[0]) / 2 if len(middles) > 1 else shape[axis]
        distance, nearest = (at[:, None] - middles).abs().min(dim=1)
        index.append((nearest, distance <= reach))
    (rows, in_rows), (columns, in_columns) = index
    return (values[rows][:, columns] * in_rows[:, None] * in_columns).numpy()


def _frame(ax: Axes, corner, size) -> None:
    """A thin dark frame around one square."""
    (top, left), (height, width) = corner, size
    ax.add_patch(Rectangle((left - 0.5, top - 0.5), width, height, fill=False, ec="#222222", lw=1.5, ls=(0, (4, 2))))
