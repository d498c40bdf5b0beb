"""The exercises of notebook 12."""

import numpy as np
import torch

from zflib import check
from zflib.studies.ablation import FIVE


def test_an_order_is_scored_by_its_pairs():
    best = ["without fc7", "full", "without fc6, fc7", "without conv3, conv4", "without all four"]
    assert check.order(best).state == check.RIGHT
    assert check.order(best[::-1]).message.startswith("0 of 10")
    assert check.order([best[1], best[0], *best[2:]]).message.startswith("9 of 10")
    assert check.order(...).state == check.order([]).state == check.NOT_ATTEMPTED
    for wrong in (FIVE[:4], [*FIVE[:4], "fc7"], 3, [1, 2, 3, 4, 5], "full"):
        assert check.order(wrong).state == check.WRONG and "each of these once" in check.order(wrong).message


def test_networks_together_by_counting():
    def by_hand(probabilities, labels):
        wrong = 0
        for i, label in enumerate(labels.tolist()):
            mean = np.mean([network[i].numpy() for network in probabilities], axis=0)
            wrong += label not in np.argsort(-mean)[:5]
        return torch.tensor(100 * wrong / len(labels))

    assert check.together(by_hand).state == check.RIGHT
