"""The exercises of notebook 12."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from zflib import check
from zflib.check import ablation as exercises
from zflib.studies import ablation
from zflib.studies.ablation import FIVE


def by_hand(geometry, *layers):
    """Lists, and one layer after the other: not the package's way."""
    convs, hidden = list(geometry.convs), list(geometry.hidden)
    for layer in sorted(layers, reverse=True):
        del (convs if layer < 6 else hidden)[layer - 1 if layer < 6 else layer - 6]
    return replace(geometry, convs=convs, hidden=hidden)


def test_layers_are_taken_out_in_any_way_that_gives_the_same_lists():
    assert check.without(by_hand).state == check.without(ablation.without).state == check.RIGHT
    assert check.without(...).state == check.without(lambda geometry, *layers: ...).state == check.NOT_ATTEMPTED
    assert "returned tuple" in check.without(lambda geometry, *layers: geometry.convs).message
    assert "raised KeyError" in check.without(lambda geometry, *layers: {}[3]).message
    backwards = check.without(lambda geometry, *layers: replace(geometry, convs=by_hand(geometry, *layers).convs[::-1]))
    assert backwards.state == check.WRONG and backwards.picture


@pytest.mark.parametrize("sentence", exercises._MISTAKES)
def test_each_way_to_take_out_the_wrong_layers_is_named(sentence):
    verdict = check.without(exercises._MISTAKES[sentence])
    assert (verdict.state, verdict.message) == (check.WRONG, sentence)


def test_the_solution_is_the_packages_own(capsys):
    check.without.solution()
    assert capsys.readouterr().out.startswith("def without(geometry")


def test_an_order_is_scored_by_its_pairs():
    best = ["without fc7", "full", "without fc6, fc7", "without conv3, conv4", "without all four"]
    assert check.order(best).state == check.RIGHT and "top-1" in check.order(best).message  # by top-5, fc7 helps
    assert check.order(best[::-1]).message.startswith("0 of 10")
    assert check.order([best[1], best[0], *best[2:]]).message.startswith("9 of 10")
    assert check.order(...).state == check.order([]).state == check.NOT_ATTEMPTED
    for wrong in (FIVE[:4], [*FIVE[:4], "fc7"], 3, [1, 2, 3, 4, 5], "full"):
        assert check.order(wrong).state == check.WRONG and "each of these once" in check.order(wrong).message
    assert "once: 'full', 'without conv3, conv4', " in check.order("full").message, "names hold commas: quoted"


def test_networks_together_by_counting():
    def by_hand(probabilities, labels):
        wrong = 0
        for i, label in enumerate(labels.tolist()):
            mean = np.mean([network[i].numpy() for network in probabilities], axis=0)
            wrong += label not in np.argsort(-mean)[:5]
        return torch.tensor(100 * wrong / len(labels))

    assert check.together(by_hand).state == check.RIGHT
