"""Does masking the same part of different images change a layer in the same way? Section 4.3, Figure 8, Table 1."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from numbers import Real

import torch
from torch import nn

from .._arguments import check_finite, check_integer, check_layer, check_seed, layer_path
from ..record.hooks import check_steady, watched
from ..record.inputs import check_images
from .occluders import check_boxes, masked

#: Images in one forward pass. Originals and masked images pass in batches of the same size, each image at the same
#: place: the last bits of a convolution depend on both, and a unit that the mask cannot reach must not seem changed.
BATCH = 64


@dataclass(frozen=True)
class Correspondence:
    """How alike N images change at one layer, where P = N(N-1)/2 pairs of them are compared. Section 4.3.

    `changes` (N,D): the layer's units without the mask minus those with it, the paper's eps_i = x_i - x~_i.
    """

    changes: torch.Tensor
    layer: str = ""

    @cached_property
    def signs(self) -> torch.Tensor:
        """(N,D) int8: -1, 0 or 1, what becomes of each unit of each image; 0 is exactly unchanged."""
        return self.changes.sign().to(torch.int8).cpu()

    @cached_property
    def pairs(self) -> torch.Tensor:
        """(P,) the score of each pair (0,1), (0,2), … (N-2,N-1): the share of units whose signs differ."""
        return _of_pairs(hamming_distances(self.signs))

    @cached_property
    def nulls(self) -> torch.Tensor:
        """(P,) what each pair would score if the same numbers of + and - of each image lay at random units."""
        return _of_pairs(expected_distances(self.signs))

    @property
    def delta(self) -> float:
        """The paper's score over all pairs, from 0 (the same change in every image) to 1. Section 4.3."""
        return float(self.pairs.mean())

    @property
    def std(self) -> float:
        """Standard deviation of the pairs' scores; pairs share images, so it is no standard error."""
        return float(self.pairs.std(unbiased=False))

    @property
    def null(self) -> float:
        """The score to expect of changes as dense as these that have nothing to do with each other."""
        return float(self.nulls.mean())

    @property
    def ratio(self) -> float:
        """delta / null: below 1 if the changes agree more than chance; NaN if nothing changes."""
        return self.delta / self.null if self.null > 0 else float("nan")

    @property
    def changed_fraction(self) -> float:
        """The share of units that change at all, over all images."""
        return float((self.signs != 0).double().mean())

    @property
    def z(self) -> float:
        """Standard deviations from the null to delta, exact for shuffled units; NaN if nothing changes."""
        variances = _of_pairs(distance_variances(self.signs))
        deviation = float(variances.sum().sqrt()) / len(variances)  # pairs are uncorrelated under shuffling
        return (self.delta - self.null) / deviation if deviation > 0 else float("nan")

    def strongest(self, share: float) -> Correspondence:
        """The same with only this share of every image's units changed, those that change most; the others count as 0.

        So scores of different masks, layers and networks can be compared at one density. Of equals, the first.
        """
        if not isinstance(share, Real) or not 0 < share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, got {share!r}")
        order = self.changes.abs().argsort(dim=1, descending=True, stable=True)
        others = order[:, max(1, round(share * order.shape[1])) :]
        return Correspondence(self.changes.scatter(1, others, 0), self.layer)

    def shuffled(self, rounds: int = 200, *, seed: int = 0) -> torch.Tensor:
        """(rounds,) scores with each image's units shuffled, which leaves the numbers of + and - as they are."""
        generator, found = torch.Generator().manual_seed(check_seed(seed)), []
        for _ in range(_check_rounds(rounds)):
            mixed = [image[torch.randperm(len(image), generator=generator, device="cpu")] for image in self.signs]
            found.append(_of_pairs(hamming_distances(torch.stack(mixed))).mean())
        return torch.stack(found)

    def p_value(self, rounds: int = 200, *, seed: int = 0) -> float:
        """How often shuffled units agree as well as these: a one-sided permutation test, 1/(rounds+1) at best."""
        return _permutation_p(self.shuffled(rounds, seed=seed) <= self.delta + 1e-12)


def correspondence(net: nn.Module, images: torch.Tensor, boxes, *, layer: str, fill=0.0) -> Correspondence:
    """Cover one rectangle of each preprocessed (N,3,H,W) image and compare what changes at `layer`. Section 4.3.

    `boxes` (N,4): top, left, bottom, right in pixels, the last two outside; see `occluders.boxes_around`. `fill` as in
    `zflib.occlude`, 0 is grey. The paper's layer 5 is "conv5", layer 7 "fc7". Fewer than two images, boxes that are
    empty or leave the image, or NaN raise ValueError.
    """
    images = check_images(images, net)
    layer = check_layer(net, layer)
    if len(images) < 2:
        raise ValueError("images must be at least two, whose changes are compared, got 1")
    boxes, found = check_boxes(boxes, images), []
    with watched(net, [layer]) as look:
        for some, places in zip(images.split(BATCH), boxes.split(BATCH)):
            before, after = (look(batch)[0][layer] for batch in (some, masked(some, places, fill=fill)))
            found.append((before - after).flatten(1))
    check_steady(net, images, [layer_path(net, layer)])
    changes = torch.cat(found)
    check_finite(changes, f"layer {layer!r}")  # the difference of large numbers may overflow
    return Correspondence(changes, str(layer))


# --- two masks -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """Two masks in the same images. The p values are one-sided, from swapping the two masks in some of the images.

    `difference` and `ratio_difference`: delta, and delta/null, of the first minus the second; `p` and `ratio_p`: how
    often a swap gives as low a value. `matched`: the score of pairs with the same mask, over both; `crossed`: of pairs
    with different masks, made of the very same changes; `same_p`: how often a swap gives as high a crossed - matched.
    """

    difference: float
    p: float
    ratio_difference: float
    ratio_p: float
    matched: float
    crossed: float
    same_p: float


def compare(first: Correspondence, second: Correspondence, *, rounds: int = 1000, seed: int = 0) -> Comparison:
    """Two masks in the same N images: is the first's score lower, and does it matter that the mask is the same?

    With few images all 2^N swaps are tried, otherwise `rounds` random ones; with N = 5 no p is below 1/32,
    and no `same_p` below 2/32, since a swap in all images changes nothing there.
    """
    if first.signs.shape != second.signs.shape or first.layer != second.layer:
        raise ValueError("second must hold the same images and layer as first, with another mask")
    signs, count = torch.cat([first.signs, second.signs]), len(first.signs)
    scores, nulls = hamming_distances(signs), expected_distances(signs)
    swaps = _swaps(count, _check_rounds(rounds), seed)
    rows = torch.arange(count, device="cpu")
    ones = rows + count * swaps.long()  # (S,N) the rows of `signs` that are called the first's
    twos = rows + count * (~swaps).long()
    one, two, crossed = _mean_of(scores, ones, ones), _mean_of(scores, twos, twos), _mean_of(scores, ones, twos)
    difference, matched = one - two, (one + two) / 2
    ratio = one / _mean_of(nulls, ones, ones) - two / _mean_of(nulls, twos, twos)
    gain = crossed - matched
    return Comparison(
        difference=float(difference[0]),
        p=_permutation_p(~(difference[1:] > difference[0] + 1e-12)),
        ratio_difference=float(ratio[0]),
        ratio_p=_permutation_p(~(ratio[1:] > ratio[0] + 1e-12)),  # no ratio, NaN, is no evidence: it counts
        matched=float(matched[0]),
        crossed=float(crossed[0]),
        same_p=_permutation_p(gain[1:] >= gain[0] - 1e-12),
    )


def _mean_of(matrix: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """(S,) mean over all pairs of different images of matrix[rows, columns], for (S,N) rows and columns."""
    table = matrix[rows[:, :, None], columns[:, None, :]]  # (S,N,N)
    return table[:, ~torch.eye(rows.shape[1], dtype=torch.bool, device="cpu")].mean(dim=1)


def _swaps(count: int, rounds: int, seed: int) -> torch.Tensor:
    """(S,N) bool, in which images the masks are swapped: nowhere in the first row; then all others, or `rounds`."""
    if 2**count <= rounds + 1:
        numbers = torch.arange(2**count, device="cpu")[:, None]
        return (numbers >> torch.arange(count, device="cpu")).bitwise_and(1).bool()
    generator = torch.Generator().manual_seed(check_seed(seed))
    drawn = torch.rand(rounds, count, generator=generator, dtype=torch.float32, device="cpu") < 0.5
    return torch.cat([torch.zeros_like(drawn[:1]), drawn])


def _permutation_p(as_extreme: torch.Tensor) -> float:
    """A permutation test's p: what was found counts as one of the possibilities."""
    return (1 + int(as_extreme.sum())) / (1 + len(as_extreme))


def _check_rounds(rounds) -> int:
    return check_integer("rounds", rounds, "a number of shuffles, at least 1", low=1)


# --- Hamming distances -----------------------------------------------------------------------------------------------


def hamming_distances(signs: torch.Tensor) -> torch.Tensor:
    """(N,N) normalised Hamming distances of (N,D) signs: the share of units whose signs differ; 0 is a sign too."""
    alike = sum(_inner_products(where.float()) for where in _where(signs))  # whole numbers, exact up to 2**24 units
    return 1 - alike.double() / signs.shape[1]


def expected_distances(signs: torch.Tensor) -> torch.Tensor:
    """(N,N) `hamming_distances` on average if each image's signs are shuffled: 1 - (p-p- + p0p0 + p+p+)."""
    return 1 - sum(_inner_products(where.double().mean(dim=1, keepdim=True)) for where in _where(signs))


def distance_variances(signs: torch.Tensor) -> torch.Tensor:
    """(N,N) variance of `hamming_distances` if each image's signs are shuffled: of a contingency table's diagonal."""
    counts, units = torch.stack([where.double().sum(dim=1) for where in _where(signs)], dim=1), signs.shape[1]  # (N,3)
    own = torch.diag_embed(counts) * units - counts[:, :, None] * counts[:, None, :]  # (N,3,3)
    total = torch.einsum("iab,jab->ij", own, own) / (units**2 * max(1, units - 1))
    return total / units**2


def _where(signs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(N,D) bool: where the signs are -1, 0 and 1; ValueError if they are anything else, NaN for example."""
    minus, zero, plus = signs == -1, signs == 0, signs == 1
    if signs.dim() != 2 or not signs.numel() or not bool((minus | zero | plus).all()):
        raise ValueError(f"signs must be (N,D) of -1, 0 and 1, got {tuple(signs.shape)}; use changes.sign(), no NaN")
    return minus, zero, plus


def _inner_products(values: torch.Tensor) -> torch.Tensor:
    return values @ values.T


def _of_pairs(matrix: torch.Tensor) -> torch.Tensor:
    """(P,) what stands above the diagonal."""
    rows, columns = torch.triu_indices(*matrix.shape, offset=1, device=matrix.device)
    return matrix[rows, columns]
