"""How far do the features go when the picture moves? Distances at several layers, and the true class's probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import nn

from .._arguments import check_images, check_scores
from ..record.hooks import check_layers, chunks, watched
from .transforms import Move, check_fill, moved, named_move


@dataclass(frozen=True)
class Invariance:
    """Figure 5 for N images and A amounts: `probability` (A,N) of each image's label, and by layer `distance` (A,N).

    `distance` is Euclidean, between the layer's values for the moved image and for the image itself. `norm` (N,):
    Euclidean length of the values for the image itself. `other` (N,): how far these are from those of the other N - 1
    images, the root of the mean squared distance; NaN if there is only one image.
    """

    transform: str
    amounts: tuple[float, ...]
    distance: dict[str, torch.Tensor]
    norm: dict[str, torch.Tensor]
    other: dict[str, torch.Tensor]
    probability: torch.Tensor

    @property
    def relative(self) -> dict[str, torch.Tensor]:
        """{layer: (A,N)}: the distance over the norm. Two vectors without negative values, at right angles, equally
        long, are 1.41 apart."""
        return {layer: distance / self.norm[layer] for layer, distance in self.distance.items()}

    @property
    def compared(self) -> dict[str, torch.Tensor]:
        """{layer: (A,N)}: the distance over `other`: 1 is as far as a different picture."""
        return {layer: distance / self.other[layer] for layer, distance in self.distance.items()}


def invariance(net: nn.Module, images: torch.Tensor, labels, *, transform: str, amounts: Sequence[float],
               layers=("conv1", "fc7"), fill: float | str = 0.0) -> Invariance:  # fmt: skip
    """Move N preprocessed (N,3,H,W) images by each of the amounts and measure how the network takes it. Section 4.

    `transform`: "translate" (pixels down), "translate-right", "scale" (a factor), or "rotate" (degrees
    counter-clockwise), about the centre: see `transforms.moved`, also for `fill`, what comes in (0: grey). `labels`:
    (N,) classes, or one for all. A move by nothing has distance 0, exactly. Bad input: ValueError or TypeError.
    """
    layers, images = check_layers(net, layers), check_images(images, net)
    (amounts, moves), labels = check_moves(transform, amounts), _check_labels(labels, len(images))
    check_fill(fill)
    found = _Distances(layers, len(images), _means(net, images, layers))
    with watched(net, layers, images.device) as look:
        for part in chunks(images, what=f"invariance, {transform}"):
            before, scores = look(part)
            _check_classes(labels, check_scores(scores).shape[1])
            found.start(before, scores)
            for move in moves:  # the same images in the same places of the batch: its composition changes the last bits
                after, scores = (before, found.scores) if move.identity else look(moved(part, move, fill=fill))
                found.add(after, check_scores(scores))
    return found.result(transform, amounts, labels)


class _Distances:
    """Collects, chunk by chunk and amount by amount, what the result holds."""

    def __init__(self, layers: list[str], count: int, means: dict[str, torch.Tensor]):
        self.layers, self.count, self.means = layers, count, means
        self.norms, self.spreads = ({layer: [] for layer in layers} for _ in range(2))
        self.distances, self.chances = [], []  # a chunk each, in it an amount each

    def start(self, before: dict[str, torch.Tensor], scores: torch.Tensor) -> None:
        self.before, self.scores = before, scores
        self.distances.append({layer: [] for layer in self.layers})
        self.chances.append([])
        for layer, values in before.items():
            self.norms[layer].append(_length(values))
            self.spreads[layer].append(_length(values.cpu().double() - self.means[layer]))  # MPS has no doubles

    def add(self, after: dict[str, torch.Tensor], scores: torch.Tensor) -> None:
        for layer, values in after.items():
            self.distances[-1][layer].append(_length(values - self.before[layer]))
        self.chances[-1].append(scores.softmax(-1))

    def result(self, transform: str, amounts: tuple[float, ...], labels: torch.Tensor) -> Invariance:
        chances = torch.cat([torch.stack(chunk) for chunk in self.chances], dim=1)  # (A,N,classes)
        distance = {
            layer: torch.cat([torch.stack(chunk[layer]) for chunk in self.distances], dim=1) for layer in self.layers
        }
        norm = {layer: torch.cat(parts) for layer, parts in self.norms.items()}
        other = {layer: self._other(torch.cat(parts)) for layer, parts in self.spreads.items()}
        numbers = torch.arange(self.count)
        return Invariance(transform, amounts, distance, norm, other, chances.cpu()[:, numbers, labels])

    def _other(self, spread: torch.Tensor) -> torch.Tensor:
        """Mean over j of |x_i - x_j|^2 is |x_i - mean|^2 plus the mean of the latter: no pair is ever looked at."""
        if self.count == 1:
            return torch.full_like(spread, torch.nan)
        squares = spread.double().square()
        return ((squares + squares.mean()) * self.count / (self.count - 1)).sqrt().to(spread)


def _length(values: torch.Tensor) -> torch.Tensor:
    """(B,) Euclidean lengths, on the CPU."""
    flat = values.flatten(1)
    return torch.linalg.vector_norm(flat, dim=1, dtype=torch.promote_types(flat.dtype, torch.float32)).float().cpu()


def _means(net: nn.Module, images: torch.Tensor, layers: list[str]) -> dict[str, torch.Tensor]:
    """{layer: its mean values over all images}, in double precision, on the CPU."""
    totals: dict[str, torch.Tensor] = {}
    with watched(net, layers, images.device) as look:
        for part in chunks(images, what="invariance"):
            for layer, values in look(part)[0].items():
                totals[layer] = totals.get(layer, 0) + values.cpu().double().sum(dim=0)
    return {layer: total / len(images) for layer, total in totals.items()}


def check_moves(transform: str, amounts) -> tuple[tuple[float, ...], list[Move]]:
    """The amounts, and a move for each; ValueError for none, or for amounts that are no numbers."""
    if hasattr(amounts, "tolist"):  # a tensor or an array, perhaps of a single number
        amounts = amounts.tolist()
    if isinstance(amounts, str) or not hasattr(amounts, "__iter__") or not (amounts := list(amounts)):
        raise ValueError(f"amounts must be at least one number, such as (0, 2, 4), got {amounts!r}")
    moves = [named_move(transform, amount) for amount in amounts]
    return tuple(map(float, amounts)), moves


def _check_labels(labels, count: int) -> torch.Tensor:
    """(N,) classes on the CPU."""
    if isinstance(labels, Integral) and not isinstance(labels, bool):
        labels = [int(labels)] * count
    try:
        wanted = torch.as_tensor(labels).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"labels must be {count} classes, one for each image, got {labels!r}") from error
    if wanted.shape != (count,) or wanted.dtype == torch.bool or wanted.is_floating_point() or wanted.is_complex():
        got = f"{wanted.dtype} of shape {tuple(wanted.shape)}"
        raise ValueError(f"labels must be {count} classes as integers, one for each image, got {got}")
    return wanted.long()


def _check_classes(labels: torch.Tensor, count: int) -> None:
    wrong = labels[(labels < 0) | (labels >= count)].tolist()
    if wrong:
        raise ValueError(f"labels must be classes from 0 to {count - 1}, got {wrong[0]}")
