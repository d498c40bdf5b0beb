"""Occluders: which rectangles of an image are covered, and with what."""

from __future__ import annotations

from numbers import Integral, Real

import torch
from torch.nn import functional as F

from .._arguments import check_seed, check_sides, check_tensor, is_number
from ..record.inputs import check_images

#: What may cover a square, besides a number or an image: grey, the image's mean colour, a blurred copy of it, noise, or
#: what is around the square.
FILLS = ("grey", "mean", "blur", "noise", "border")


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
    extent, limit = (torch.tensor(sides, device=positions.device) for sides in (size, whole))
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
    nothing = torch.zeros(n, 0, 4, dtype=torch.long, device="cpu")
    avoid = nothing if avoid is None else check_tensor("avoid", avoid, wanted)
    if avoid.dim() not in (2, 3) or avoid.shape[0] != n or avoid.shape[-1] != 4:
        raise ValueError(f"avoid must be {wanted}, got shape {tuple(avoid.shape)}")
    rows, columns = (torch.arange(limit - side + 1, device=avoid.device) for side, limit in zip(size, whole))
    corners = torch.cartesian_prod(rows, columns)  # every place there is
    places = torch.cat([corners, corners + corners.new_tensor(size)], dim=1)
    generator, found = torch.Generator().manual_seed(check_seed(seed)), []
    for number, taken in enumerate(avoid.view(n, -1, 4)):
        free = places[~overlap(places[:, None], taken[None]).any(dim=1)]
        if len(free) == 0:
            raise ValueError(f"avoid leaves no room of {size[0]}x{size[1]} pixels in image {number}; make size smaller")
        found.append(free[torch.randint(len(free), (), generator=generator, device="cpu")])
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


def blocks(image: torch.Tensor, corners: torch.Tensor, size: tuple[int, int], fill) -> torch.Tensor:
    """(P,C,h,w): what covers the squares of (C,H,W) that begin at `corners` (P,2).

    `fill`: a number in the image's units (0 is the mean of the training images: grey), one of FILLS, or a (C,H,W) image
    to take the squares from.
    """
    height, width = size
    if isinstance(fill, str) and fill == "border":
        return torch.stack([_from_border(image, *corner, *size) for corner in corners.tolist()])
    source = _source(image, size, fill)
    windows = source.unfold(1, height, 1).unfold(2, width, 1)
    return windows[:, corners[:, 0], corners[:, 1]].transpose(0, 1).contiguous()


def check_fill(image: torch.Tensor, fill) -> None:
    """ValueError unless `fill` is a number that the image can hold, one of FILLS, or an image of the same shape."""
    picture = isinstance(fill, torch.Tensor) and fill.shape == image.shape and bool(fill.isfinite().all())
    if not (is_number(fill, image.dtype) or picture or (isinstance(fill, str) and fill in FILLS)):
        got = f"a tensor {tuple(fill.shape)}" if isinstance(fill, torch.Tensor) else repr(fill)
        raise ValueError(f"fill must be a number, {', '.join(FILLS)}, or an image {tuple(image.shape)}, got {got}")


def _source(image: torch.Tensor, size: tuple[int, int], fill) -> torch.Tensor:
    """(C,H,W): the covered image, if everything of it were covered."""
    if isinstance(fill, torch.Tensor):
        return fill.to(image)
    if isinstance(fill, Real) or fill == "grey":
        return torch.full_like(image, 0.0 if fill == "grey" else float(fill))
    if fill == "mean":
        return image.mean(dim=(1, 2), keepdim=True).expand_as(image)
    if fill == "noise":  # as strong as the image's own contrast; always the same noise
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(image.shape, generator=generator, dtype=torch.float32, device="cpu").to(image)
        return image.mean(dim=(1, 2), keepdim=True) + noise * image.std(dim=(1, 2), keepdim=True)
    from torchvision.transforms.functional import gaussian_blur  # takes as long to import as all of zflib

    sigma = max(size) / 4  # wide enough to blur away what a square holds
    side = 2 * min(round(2 * sigma), min(image.shape[1:]) - 1) + 1
    return gaussian_blur(image[None], [side, side], [sigma, sigma])[0]


def _from_border(image: torch.Tensor, top: int, left: int, height: int, width: int) -> torch.Tensor:
    """(C,h,w): every pixel is the mean of the four border pixels in its row and column, the nearer the heavier.

    Where a square touches the image's edge, the pixels outside it do not exist; the others decide, and a square that
    is the whole image is grey.
    """
    framed = F.pad(torch.cat([image, torch.ones_like(image[:1])]), (1, 1, 1, 1))  # the last map: which pixels exist
    rows, columns = slice(top + 1, top + height + 1), slice(left + 1, left + width + 1)
    down, right = (1 / torch.arange(1, side + 1, device=image.device).to(image) for side in (height, width))
    total = (
        framed[:, top, None, columns] * down[:, None]
        + framed[:, top + height + 1, None, columns] * down.flip(0)[:, None]
    )
    total += framed[:, rows, left, None] * right + framed[:, rows, left + width + 1, None] * right.flip(0)
    return total[:-1] / total[-1:].clamp(min=1e-12)
