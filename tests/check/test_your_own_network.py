"""The exercises of notebook 15 against autograd and scikit-learn."""

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from zflib import check


def by_autograd(signal, before, after):
    before = before.clone().requires_grad_()
    F.gelu(before).backward(signal)
    return before.grad


def by_roc(with_x, without_x):
    scores = {}
    for layer, (yes, no) in enumerate(zip(with_x, without_x)):
        for channel in range(yes.shape[1]):
            values = torch.cat([yes[:, channel].flatten(1).amax(1), no[:, channel].flatten(1).amax(1)])
            scores[layer, channel] = roc_auc_score([1] * len(yes) + [0] * len(no), values)
    return torch.tensor(max(scores, key=scores.get))


def test_the_rule_is_the_slope():
    assert check.hand_a_rule(by_autograd).state == check.RIGHT


def test_the_detector_has_the_largest_area_under_the_curve():
    assert check.find_detector(by_roc).state == check.RIGHT


@pytest.mark.parametrize("exercise", [check.hand_a_rule, check.find_detector], ids=lambda e: e.name)
def test_every_mistake_is_named(exercise):
    for sentence, mistake in exercise.mistakes.items():
        verdict = exercise(mistake)
        assert (verdict.state, verdict.message) == (check.WRONG, sentence)
    assert exercise(lambda *given: ...).state == check.NOT_ATTEMPTED


def test_an_answer_written_otherwise_is_right():
    """Tuples, and slopes from finite differences."""
    assert check.find_detector(lambda *given: tuple(by_roc(*given).tolist())).state == check.RIGHT

    def finite(signal, before, after):
        x = before.double()
        return signal * (F.gelu(x + 1e-5) - F.gelu(x - 1e-5)) / 2e-5

    assert check.hand_a_rule(finite).state == check.RIGHT
