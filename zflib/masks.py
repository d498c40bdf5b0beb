"""Rectangles of pixels to be covered: around given places, or at random beside them (section 4.3, Figure 8)."""

from __future__ import annotations

from numbers import Integral

import torch

from .checks import check_images, check_seed, check_sides, check_tensor
from .fills import blocks, check_fill


def boxes_around(positions: torch.Tensor, size, whole) -> torch.Tensor:
    """(N,4) top, left, bottom, right of rectangles around (N,2) rows and columns, moved inside the image where needed.

    `size` and `whole`, the image's, are pixels or (rows, columns); positions count from the middle of the top left
    pixel, as `Scenes.part` gives them; NaN, which it gives for a part that a scene lacks, raises ValueError.
    """
    whole = check_sides("whole", whole)
    size, positions = check_sides("size", size, whole), check_tensor("positions", positions, "(N,2) rows and columns")
    if positions.dim() != 2 or positions.shape[1] != 2:
        raise ValueError(f"positions must be (N,2) rows and columns, got shape {tuple(positions.shape)}")
    if not bool(positions.double().isfinite().all()):
        raise ValueError("positions hold NaN or infinity; choose scenes of a class that has this part")
    extent, limit = torch.tensor(size), torch.tensor(whole)
    corner = (positions.double() - (extent - 1) / 2 + 0.5).floor()  # round half up, the same at every place
    corner = torch.minimum(corner.clamp(min=0), (limit - extent).double()).long()
    return torch.cat([corner, corner + extent], dim=1)


def random_boxes(n: int, size, whole, *, avoid: torch.Tensor | None = None, seed: int = 0) -> torch.Tensor:
    """(N,4) rectangles of one size, each anywhere in its image where it overlaps none of that image's `avoid`.

    `avoid` is (N,4) or (N,K,4) rectangles, such as those around the parts; where none fits, ValueError. The same seed
    gives the same rectangles.
    """
    if not isinstance(n, Integral) or isinstance(n, bool) or n < 1:
        raise ValueError(f"n must be a number of images, at least 1, got {n!r}")
    whole, wanted = check_sides("whole", whole), f"({n},4) or ({n},K,4) rectangles"
    size = check_sides("size", size, whole)
    avoid = torch.zeros(n, 0, 4, dtype=torch.long) if avoid is None else check_tensor("avoid", avoid, wanted)
    if avoid.dim() not in (2, 3) or avoid.shape[0] != n or avoid.shape[-1] != 4:
        raise ValueError(f"avoid must be {wanted}, got shape {tuple(avoid.shape)}")
    rows, columns = (torch.arange(limit - side + 1) for side, limit in zip(size, whole))
    corners = torch.cartesian_prod(rows, columns)  # every place there is
    places = torch.cat([corners, corners + torch.tensor(size)], dim=1)
    generator, found = torch.Generator().manual_seed(check_seed(seed)), []
    for number, taken in enumerate(avoid.view(n, -1, 4)):
        free = places[~overlap(places[:, None], taken[None]).any(dim=1)]
        if len(free) == 0:
            raise ValueError(f"avoid leaves no room of {size[0]}x{size[1]} pixels in image {number}; make size smaller")
        found.append(free[torch.randint(len(free), (), generator=generator)])
    return torch.stack(found)


def overlap(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """bool (…): whether two rectangles (…,4) share a pixel."""
    return (one[..., :2] < other[..., 2:]).all(-1) & (other[..., :2] < one[..., 2:]).all(-1)


def masked(images: torch.Tensor, boxes: torch.Tensor, *, fill=0.0) -> torch.Tensor:
    """(N,3,H,W): a copy of the images with one rectangle of each covered by `fill`, as in `zflib.occlude`; 0: grey."""
    boxes = check_boxes(boxes, check_images(images))
    covered = images.clone()
    for number, (image, (top, left, bottom, right)) in enumerate(zip(images, boxes.tolist())):
        check_fill(image, fill)
        corner, size = torch.tensor([[top, left]], device=image.device), (bottom - top, right - left)
        covered[number, :, top:bottom, left:right] = blocks(image, corner, size, fill)[0]
    return covered


def check_boxes(boxes, images: torch.Tensor) -> torch.Tensor:
    """(N,4) whole numbers, one rectangle inside each of the (N,3,H,W) images; else ValueError or TypeError."""
    wanted = f"({len(images)},4) whole pixels: top, left, bottom, right, one for each image"
    given = check_tensor("boxes", boxes, wanted)
    if given.dtype == torch.bool or given.is_floating_point() or given.is_complex():
        raise ValueError(f"boxes must be {wanted}; got {given.dtype}; boxes_around makes them of positions")
    if given.shape != (len(images), 4):
        raise ValueError(f"boxes must be {wanted}; got shape {tuple(given.shape)}")
    height, width = images.shape[-2:]
    for number, (top, left, bottom, right) in enumerate(given.tolist()):
        if min(top, left) < 0 or bottom > height or right > width:
            raise ValueError(
                f"boxes: number {number}, {(top, left, bottom, right)}, is not inside the image of {height}x{width} "
                "pixels; boxes_around moves it inside"
            )
        if top >= bottom or left >= right:
            raise ValueError(
                f"boxes: number {number}, {(top, left, bottom, right)}, is empty; bottom and right are the first row "
                "and column outside"
            )
    return given.long()
