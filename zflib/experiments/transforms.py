"""Moving images: shifted, enlarged, turned, and what comes in where the picture ends."""

from __future__ import annotations

import math
from numbers import Real
from typing import NamedTuple

import torch
from torch.nn import functional as F

from .._arguments import check_choice, is_number
from ..record.inputs import check_images

#: The transforms of Figure 5, and a shift to the right, by the part of a `Move` that each changes.
TRANSFORMS = {"translate": "down", "translate-right": "right", "scale": "scale", "rotate": "angle"}
FILLS = ("edge", "reflect")
SCALES = 0.25, 4.0  # the smallest and the largest that make sense for pictures of this size


class Move(NamedTuple):
    """Scaled and turned about the picture's centre, then shifted: pixels `down` and `right`, a factor, degrees.

    Degrees are counter-clockwise as one sees it, like those of `scenes.Pose`.
    """

    down: float = 0.0
    right: float = 0.0
    scale: float = 1.0
    angle: float = 0.0

    @property
    def identity(self) -> bool:
        """Whether nothing moves."""
        return self.down == self.right == 0 and self.scale == 1 and self.angle % 360 == 0


def named_move(transform: str, amount: float) -> Move:
    """One transform as a Move: "translate" (pixels down), "translate-right", "scale" (a factor), "rotate" (degrees)."""
    check_choice("transform", transform, TRANSFORMS)
    return check_move(Move(**{TRANSFORMS[transform]: amount}))


def check_move(move) -> Move:
    """ValueError unless all parts are finite numbers and the scale is one that `moved` can do."""
    if not isinstance(move, Move):
        raise TypeError(f"move must be a transforms.Move, such as Move(down=3), got {move!r}")
    for name, value in zip(move._fields, move):
        if not isinstance(value, Real) or not abs(value) <= 1e6:
            raise ValueError(f"{name} must be a finite number, got {value!r}; amounts are pixels, factors or degrees")
    if not SCALES[0] <= move.scale <= SCALES[1]:
        raise ValueError(f"scale must be a factor from {SCALES[0]:g} to {SCALES[1]:g}, got {move.scale!r}; 1 is as is")
    return Move(*map(float, move))


def check_fill(fill, dtype: torch.dtype = torch.float32) -> None:
    """ValueError unless `fill` is a finite number that this type can hold, or one of FILLS."""
    if not is_number(fill, dtype) and not (isinstance(fill, str) and fill in FILLS):
        raise ValueError(f"fill must be a number in the images' units, 'edge' or 'reflect', got {fill!r}")


def moved(images: torch.Tensor, move: Move, *, fill: float | str = 0.0) -> torch.Tensor:
    """(N,C,H,W): the images moved inside their frame, in a tensor of its own; what leaves it is lost. Section 4.

    `fill` is what comes in: a number in the images' units (0 is grey for a network's input), "edge" repeats the border,
    "reflect" mirrors the picture there. Whole pixels are copied, and so are turns by 90 degrees of square images (by
    180 of any): no value changes. All else is bilinear (torch's grid_sample); before shrinking to a factor s the
    picture is blurred by a Gaussian of (1/s - 1)/2 pixels, scikit-image's rule against aliasing.
    """
    check_images(images)
    check_fill(fill, images.dtype)
    move = check_move(move)
    quarters, odd = divmod(move.angle % 360, 90)
    fits = quarters % 2 == 0 or images.shape[2] == images.shape[3]
    if move.scale == 1 and not odd and fits and move.down.is_integer() and move.right.is_integer():
        turned = images.rot90(int(quarters), (2, 3))
        return _shifted(_shifted(turned, 2, int(move.down), fill), 3, int(move.right), fill)
    return _resampled(images, move, fill)


def _shifted(images: torch.Tensor, dim: int, pixels: int, fill) -> torch.Tensor:
    return _take(images, torch.arange(images.shape[dim], device=images.device) - pixels, dim, fill)


def _take(images: torch.Tensor, places: torch.Tensor, dim: int, fill) -> torch.Tensor:
    """The rows or columns at these places of a picture that goes on for ever."""
    last = images.shape[dim] - 1
    if fill == "reflect":
        places = places % max(1, 2 * last)
        places = torch.minimum(places, (2 * last - places).abs())
    inside = places.clamp(0, last)
    taken = images.index_select(dim, inside)
    if not isinstance(fill, str):
        taken.index_fill_(dim, (places != inside).nonzero().flatten(), float(fill))
    return taken


def _padded(images: torch.Tensor, margin: int, fill) -> torch.Tensor:
    for dim in (2, 3):
        places = torch.arange(-margin, images.shape[dim] + margin, device=images.device)
        images = _take(images, places, dim, fill)
    return images


def _resampled(images: torch.Tensor, move: Move, fill) -> torch.Tensor:
    """Bilinear; the plane beyond the picture is grid_sample's own, beyond one row of the number if it is a number."""
    height, width = images.shape[2:]
    source = images.float() if images.dtype in (torch.float16, torch.bfloat16) else images
    source = _blurred(source, move.scale, fill) if move.scale < 1 else source
    source = source if isinstance(fill, str) else _padded(source, 1, fill)
    grid = _places(height, width, move)
    grid = grid / (torch.tensor([source.shape[3] - 1, source.shape[2] - 1], device="cpu").clamp(min=1) / 2)  # x first
    grid = grid.to(source).expand(len(source), -1, -1, -1)
    beyond = "reflection" if fill == "reflect" else "border"
    return F.grid_sample(source, grid, padding_mode=beyond, align_corners=True).to(images.dtype)


def _places(height: int, width: int, move: Move) -> torch.Tensor:
    """(H,W,2) x and y in the unmoved picture, in pixels from its centre, of every pixel of the moved one."""
    y = torch.arange(height, dtype=torch.float64, device="cpu") - (height - 1) / 2 - move.down
    x = torch.arange(width, dtype=torch.float64, device="cpu") - (width - 1) / 2 - move.right
    y, x = torch.meshgrid(y, x, indexing="ij")
    cos, sin = (f(math.radians(move.angle)) / move.scale for f in (math.cos, math.sin))
    return torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)


def _blurred(images: torch.Tensor, scale: float, fill) -> torch.Tensor:
    """Blurred as shrinking needs it; with a number around it, the blurred rim outside is kept."""
    from torchvision.transforms.functional import gaussian_blur  # slow to import

    sigma = (1 / scale - 1) / 2
    radius = math.ceil(3 * sigma)

    around = gaussian_blur(_padded(images, 2 * radius, fill), [2 * radius + 1] * 2, [sigma] * 2)
    inside = slice(2 * radius, -2 * radius)
    return around[..., inside, inside] if isinstance(fill, str) else around
