"""Exercises of notebook 11: cover a part, score how alike the changes are, and what the score would be by chance."""

import torch

from ..experiments import occluders
from .cases import case, seeded
from .verdict import Exercise


@seeded(3)
def _some_boxes(generator):
    """Bright images, so that grey (0) is not what they are anyway, with rectangles that differ and are not square."""
    for boxes in ([[1, 2, 4, 6], [0, 4, 3, 7], [3, 1, 5, 3]], [[2, 3, 5, 5], [1, 1, 2, 4]]):
        yield case(torch.rand(len(boxes), 3, 8, 8, generator=generator) + 0.5, torch.tensor(boxes))


def _mask_part(images, boxes):
    """(N,3,H,W) a copy of the images, the rectangle (top, left, bottom, right) of each covered with 0."""
    covered = images.clone()
    for image, (top, left, bottom, right) in zip(covered, boxes.tolist()):
        image[:, top:bottom, left:right] = 0.0
    return covered


def _wrongly(change):
    """The mask with other boxes: what `change` makes of one."""
    return lambda images, boxes: _mask_part(images, torch.tensor([change(*box) for box in boxes.tolist()]))


def _parts(images, boxes):
    """The rectangles alone, 0 around them."""
    return images - _mask_part(images, boxes)


mask_part = Exercise(
    "mask_part", _mask_part, _some_boxes, success="the same images as occluders.masked gives", source=occluders.masked,
    mistakes={
        "every image is covered at the first image's rectangle; the part lies elsewhere in each":
            lambda images, boxes: _mask_part(images, boxes[:1].expand(len(boxes), -1)),
        "the last two numbers are the first row and column outside, not the height and width":
            _wrongly(lambda top, left, bottom, right: (top, left, top + bottom, left + right)),
        "rows and columns are swapped: a box is (top, left, bottom, right)":
            _wrongly(lambda top, left, bottom, right: (left, top, right, bottom)),
        "one row and one column too many: bottom and right lie outside already":
            _wrongly(lambda top, left, bottom, right: (top, left, bottom + 1, right + 1)),
        "another image shines through: the rectangle holds the next image's pixels, not grey":
            lambda images, boxes: _mask_part(images, boxes) + _parts(images.roll(-1, 0), boxes),
        "this covers all but the part; cover the part": _parts,
    },
)  # fmt: skip


@seeded(8)
def _some_units(generator):
    """Rectified units before and after a mask: many unchanged, a part of the changes common to all images."""
    for count, units in ((4, 30), (5, 44)):
        before = torch.randn(count, units, generator=generator).clamp(min=0) * 3
        common, own = torch.randn(units, generator=generator), torch.randn(count, units, generator=generator)
        reached = torch.rand(count, units, generator=generator) < 0.6
        yield case(before, (before + reached * (common + 0.7 * own + 0.5)).clamp(min=0))


def _differing(signs) -> torch.Tensor:
    """(N,N) in how many units two images' signs differ."""
    return (signs[:, None] != signs[None]).sum(dim=2).double()


def _pair_mean(matrix):
    rows, columns = torch.triu_indices(*matrix.shape, offset=1)
    return matrix[rows, columns].mean()


def _sign_distance(before, after):
    """() the paper's score in [0,1]: the share of units whose signs differ, the mean over all pairs of images."""
    signs = (before - after).sign()  # (N,D) of -1, 0, 1
    scores = []
    for i in range(len(signs)):
        for j in range(i + 1, len(signs)):
            scores.append((signs[i] != signs[j]).float().mean())
    return torch.stack(scores).mean()


def _opposite_only(before, after):
    signs = (before - after).sign()
    return _pair_mean((signs[:, None] * signs[None] < 0).float().mean(dim=2))


sign_distance = Exercise(
    "sign_distance", _sign_distance, _some_units, success="the same score as zflib.correspondence gives",
    mistakes={
        "this is the sum over all units and pairs, as in the equation; the table is per unit and per pair":
            lambda before, after: _differing((before - after).sign()).sum(),
        "the mean over pairs is taken, the one over units is missing: divide by the number of units":
            lambda before, after: _pair_mean(_differing((before - after).sign())),
        "only opposite signs count here (a product below 0); a sign against a 0 differs too": _opposite_only,
        "each image is compared with itself as well, which always gives 0; take pairs of different images":
            lambda before, after: _differing((before - after).sign()).mean() / before.shape[1],
        "values are compared, not their signs; two units rarely change by exactly as much":
            lambda before, after: _pair_mean(_differing(before - after)) / before.shape[1],
        "each image is compared with the masked version of another one":
            lambda before, after: _sign_distance(before, after.roll(1, 0)),
    },
)  # fmt: skip


@seeded(11)
def _some_signs(generator):
    """Images that differ in how many of their units change, and in how many of these lose."""
    for dense, losing, units in (
        ((0.1, 0.5, 0.9), (0.9, 0.7, 0.8), 60),
        ((0.2, 0.3, 0.8, 0.6), (0.9, 0.1, 0.7, 1.0), 80),
    ):
        changed = torch.rand(len(dense), units, generator=generator) < torch.tensor(dense)[:, None]
        loses = torch.rand(len(dense), units, generator=generator) < torch.tensor(losing)[:, None]
        yield case(torch.where(loses, 1, -1) * changed)


def _chance(signs):
    """() the score to expect if every image's signs lay at random units: the mean over all pairs of images."""
    plus, zero, minus = ((signs == sign).float().mean(dim=1) for sign in (1, 0, -1))  # (N,) shares each
    scores = []
    for i in range(len(signs)):
        for j in range(i + 1, len(signs)):
            scores.append(1 - (plus[i] * plus[j] + zero[i] * zero[j] + minus[i] * minus[j]))
    return torch.stack(scores).mean()


def _both_unchanged(signs):
    shares = (signs == 0).float().mean(dim=1)
    return _pair_mean(torch.outer(shares, shares))


def _fair_coin(signs):
    q = (signs != 0).float().mean()
    return 2 * q * (1 - q) + q**2 / 2


chance = Exercise(
    "chance", _chance, _some_signs, success="the same null as zflib.correspondence gives",
    mistakes={
        "this is 2q(1-q) + q²/2, for + and - equally frequent and all images alike; use each image's own shares":
            _fair_coin,
        "the shares are taken over all images together; each image has its own":
            lambda signs: _chance(signs.flatten().expand(2, -1)),
        "two units that stay unchanged agree as well: the product of the zeros' shares is missing":
            lambda signs: _chance(signs) + _both_unchanged(signs),
        "this is how often two units agree; the score counts how often they differ": lambda signs: 1 - _chance(signs),
        "only changed against unchanged is counted; a + against a - differs too": lambda signs: _chance(signs.abs()),
    },
)  # fmt: skip
