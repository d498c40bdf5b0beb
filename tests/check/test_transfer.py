"""The exercises of notebook 13: their targets are scikit-learn's own."""

from __future__ import annotations

import torch
from sklearn.metrics import recall_score
from sklearn.neighbors import NearestCentroid, NearestNeighbors

from zflib import check


def by_sklearn(features, query, k):
    found = NearestNeighbors(n_neighbors=k + 1, metric="cosine").fit(features).kneighbors(features[query][None])[1][0]
    return torch.tensor([number for number in found if number != query])


def test_neighbours_are_those_of_scikit_learn():
    assert check.neighbours(by_sklearn).state == check.RIGHT


def scores_by_sklearn(features, labels, accuracy):
    found = []
    for values in features.values():
        guesses = NearestCentroid().fit(values[::2], labels[::2]).predict(values[1::2])
        found.append(recall_score(labels[1::2], guesses, average="macro"))
    return torch.tensor(found)


def test_scores_are_those_of_scikit_learn():
    assert check.layer_scores(scores_by_sklearn).state == check.RIGHT


def test_the_honest_choice_differs_from_the_one_by_training_images():
    for (features, labels, accuracy), _ in check.layer_scores.cases():
        honest = check.layer_scores.target(features, labels, accuracy)
        by_heart = torch.tensor([accuracy(x[::2], labels[::2], x[::2], labels[::2]) for x in features.values()])
        assert int(honest.argmax()) == 1 and int(by_heart.argmax()) == 2
