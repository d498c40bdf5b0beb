"""How far do the features go when the picture moves? Distances at several layers, and the true class's probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from .._arguments import check_integers, layer_path, outer_layers
from ..record.endings import ending, probabilities
from ..record.hooks import check_layers, check_steady, chunks, watched
from ..record.inputs import check_images
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
               layers=None, fill: float | str = 0.0) -> Invariance:  # fmt: skip
    """Move N preprocessed (N,3,H,W) images by each of the amounts and measure how the network takes it. Section 4.

    `transform`: "translate" (pixels down), "translate-right", "scale" (a factor), or "rotate" (degrees
    counter-clockwise), about the centre: see `transforms.moved`, also for `fill`, what comes in (0: grey). `labels`:
    (N,) classes, or one for all. `layers`: by default the first and the last before the classes, such as conv1 and fc7.
    A move by nothing has distance 0, exactly. A network that ends in a softmax, or a sigmoid for each class, gives its
    probabilities itself. Bad input: ValueError or TypeError.
    """
    layers = check_layers(net, outer_layers(net) if layers is None else layers)
    images = check_images(images, net)
    (amounts, moves), labels = check_moves(transform, amounts), _check_labels(labels, len(images))
    check_fill(fill)
    means, parts, first = _means(net, images, layers), [], 0
    scale = ending(net, images[:1])
    check_steady(net, images, {layer_path(net, layer) for layer in layers})
    with watched(net, layers) as look:
        for part in chunks(images, what=f"invariance, {transform}"):
            parts.append(_measured(look, part, labels[first : first + len(part)], moves, fill, means, scale))
            first += len(part)
    found = {name: torch.cat([part[name] for part in parts], dim=-1) for name in parts[0]}
    return Invariance(
        transform,
        amounts,
        distance={layer: found["distance", layer] for layer in layers},
        norm={layer: found["norm", layer] for layer in layers},
        other={layer: _other(found["from mean", layer]) for layer in layers},
        probability=found["probability", ""],
    )


def _measured(look, images, labels: torch.Tensor, moves: list[Move], fill, means: dict, scale: str) -> dict:
    """(what, layer) -> (A,B), or (B,) for what does not depend on the amount, of B images."""
    before, scores = look(images)
    known = probabilities(scores, scale)
    _check_classes(labels, known.shape[1])
    found = {("norm", layer): _length(values) for layer, values in before.items()}
    for layer, values in before.items():
        found["from mean", layer] = _length(values.cpu().double() - means[layer])  # MPS has no doubles
    distance, probability = {layer: [] for layer in before}, []
    for move in moves:  # the same images in the same places of the batch: its composition changes the last bits
        after, chances = before, known
        if not move.identity:
            after, scores = look(moved(images, move, fill=fill))
            chances = probabilities(scores, scale)
        for layer in before:
            distance[layer].append(_length(after[layer] - before[layer]))
        probability.append(chances.cpu()[range(len(labels)), labels])
    found |= {("distance", layer): torch.stack(rows) for layer, rows in distance.items()}
    return found | {("probability", ""): torch.stack(probability)}


def _means(net: nn.Module, images: torch.Tensor, layers: list[str]) -> dict[str, torch.Tensor]:
    """{layer: its mean values over all images}, in double precision, on the CPU."""
    totals: dict[str, torch.Tensor] = {}
    with watched(net, layers) as look:
        for part in chunks(images, what="invariance"):
            for layer, values in look(part)[0].items():
                totals[layer] = totals.get(layer, 0) + values.cpu().double().sum(dim=0)
    return {layer: total / len(images) for layer, total in totals.items()}


def _other(from_mean: torch.Tensor) -> torch.Tensor:
    """(N,): the mean over j of |x_i - x_j|^2 is |x_i - mean|^2 plus the mean of the latter, so no pair is looked at."""
    count, squares = len(from_mean), from_mean.double().square()
    if count == 1:
        return torch.full_like(from_mean, torch.nan)
    return ((squares + squares.mean()) * count / (count - 1)).sqrt().to(from_mean)


def _length(values: torch.Tensor) -> torch.Tensor:
    """(B,) Euclidean lengths, on the CPU."""
    flat = values.flatten(1)
    return torch.linalg.vector_norm(flat, dim=1, dtype=torch.promote_types(flat.dtype, torch.float32)).float().cpu()


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
    expected = f"{count} classes, one for each image, or one for all"
    wanted = check_integers("labels", labels, expected).cpu()
    if wanted.shape not in ((), (count,)):
        raise ValueError(f"labels must be {expected}, got shape {tuple(wanted.shape)}")
    return wanted.expand(count)


def _check_classes(labels: torch.Tensor, count: int) -> None:
    wrong = labels[(labels < 0) | (labels >= count)].tolist()
    if wrong:
        raise ValueError(f"labels must be classes from 0 to {count - 1}, got {wrong[0]}")
