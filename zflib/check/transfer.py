"""Exercises of notebook 13: nearest neighbours in feature space, and choosing a layer without the test images."""

from functools import partial

import torch

from ..studies import transfer
from .cases import case, seeded
from .verdict import Exercise


@seeded(31)
def _spaces(generator):
    """Features of different lengths, in which the nearest by angle are not the nearest by distance."""
    for count, width, query, k in ((10, 3, 2, 3), (14, 4, 7, 4), (12, 6, 5, 5)):
        directions = torch.randn(count, width, generator=generator)
        lengths = 0.2 + 4 * torch.rand(count, 1, generator=generator)
        yield case(directions / directions.norm(dim=1, keepdim=True) * lengths, query, k)


def _ranked(features, query, k, *, alike, itself=False) -> torch.Tensor:
    """(k,) the rows most alike to the query by `alike`(features, row), with or without the query."""
    scores = alike(features, features[query])
    if not itself:
        scores[query] = -torch.inf
    return scores.topk(k).indices


def _cosine(features, row) -> torch.Tensor:
    return torch.nn.functional.cosine_similarity(features, row[None], dim=1)


neighbours = Exercise(
    "neighbours", transfer.nearest, _spaces,
    mistakes={
        "the query is its own nearest neighbour; leave it out": partial(_ranked, alike=_cosine, itself=True),
        "these are the nearest by distance; the cosine compares directions, so divide each row by its length":
            partial(_ranked, alike=lambda features, row: -(features - row).norm(dim=1)),
        "long rows win: these are products, not cosines; divide each row by its length":
            partial(_ranked, alike=lambda features, row: features @ row),
        "these are the farthest; the largest cosine is the nearest":
            partial(_ranked, alike=lambda features, row: -_cosine(features, row)),
        "the right ones in the wrong order; the nearest comes first":
            lambda features, query, k: transfer.nearest(features, query, k).flip(0),
        "these are cosines; return the numbers of the rows":
            lambda features, query, k: _cosine(features, features[query])[transfer.nearest(features, query, k)],
    },
    success="the k nearest by angle, the query left out",
)  # fmt: skip


@seeded(32)
def _labelled(generator):
    """Sorted labels; of three layers one says little, one the class, and one is wide enough to know each image."""
    for classes, each in ((3, 12), (4, 8)):
        labels = torch.arange(classes).repeat_interleave(each)
        labels = labels[: -2 if each > 8 else None]  # classes of different sizes
        means = torch.randn(classes, 6, generator=generator)
        good = means[labels] + 0.9 * torch.randn(len(labels), 6, generator=generator)
        vague = 0.4 * means[labels] + torch.randn(len(labels), 6, generator=generator)
        wide = torch.randn(len(labels), 60, generator=generator)
        features = {"conv1": vague, "conv5": good, "fc7": wide}
        yield case(features, labels, transfer.by_means)


def _with(split):
    """Accuracies with another choice of training and test images: split(N) gives both."""

    def scores(features, labels, accuracy):
        train, test = split(len(labels))
        return torch.tensor([accuracy(x[train], labels[train], x[test], labels[test]) for x in features.values()])

    return scores


def _halves(count: int) -> tuple[slice, slice]:
    return slice(0, count // 2), slice(count // 2, count)


layer_scores = Exercise(
    "layer_scores", transfer.validated, _labelled,
    mistakes={
        "you tested on the images that the classifier was trained on, which it may know by heart; test on the others":
            _with(lambda count: (slice(0, count), slice(0, count))),
        "the test images were among the training images; train on images 0, 2, 4, … alone":
            _with(lambda count: (slice(0, count), slice(1, count, 2))),
        "you tested on the training images, 0, 2, 4, …; test on 1, 3, 5, …":
            _with(lambda count: (slice(0, count, 2), slice(0, count, 2))),
        "labels are sorted, so the second half shows classes that the first has never seen; take every other image":
            _with(_halves),
        "training and test are exchanged: train on images 0, 2, 4, …, test on 1, 3, 5, …":
            _with(lambda count: (slice(1, count, 2), slice(0, count, 2))),
        "this is the number of the best layer; return the accuracy of each":
            lambda *given: torch.full((len(given[0]),), float(transfer.validated(*given).argmax())),
    },
    success="an honest score for each layer; the largest one chooses it",
)  # fmt: skip
