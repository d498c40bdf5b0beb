"""The exercises of notebook 02: mistakes under each rule, answers in words, and a picture that does not tell."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from zflib import check
from zflib.check import rectification


def test_two_rules_differ_at_two_kinds_of_positions():
    (signal, before, _), _ = rectification.rectify.cases()[0]
    kinds = {(bool(b > 0), bool(s > 0)) for b, s in zip(before.flatten(), signal.flatten())}
    assert len(kinds) == 4 and signal.equal(signal.round()) and (signal != 0).all() and (before != 0).all()


def test_each_rule_that_is_wrong_is_named_whatever_the_others_are():
    def attempt(signal, before, rule):
        return signal.clamp(min=0)  # the deconvnet's, always

    found = check.rectify(attempt)
    assert found.state == check.WRONG and found.message.startswith("gradient: you clamped the signal")


def test_two_rules_exchanged_are_named_by_the_first():
    swapped = {"deconvnet": "gradient", "gradient": "deconvnet", "guided": "guided"}
    found = check.rectify(lambda signal, before, rule: rectification.three_rules(signal, before, swapped[rule]))
    assert found.message.startswith("deconvnet: you asked what the forward ReLU let through")


def test_one_rule_that_is_left_out_is_told():
    def attempt(signal, before, rule):
        return None if rule == "guided" else rectification.three_rules(signal, before, rule)

    assert check.rectify(attempt).state == check.WRONG


def test_the_rules_of_the_hooks_are_what_torch_does():
    """By experiment: each hook of the notebook on a real ReLU."""
    hooks = (
        lambda module, grad_in, grad_out: (grad_in[0].clamp(min=0),),
        lambda module, grad_in, grad_out: (grad_out[0].clamp(min=0),),
        lambda module, grad_in, grad_out: (grad_in[0],),
    )
    signal, before = torch.randn(2, 100, generator=torch.Generator().manual_seed(0))
    for hook, number in zip(hooks, rectification.rules_of_the_hooks().tolist()):
        relu, leaf = nn.ReLU(), before.clone().requires_grad_()
        relu.register_full_backward_hook(hook)
        (got,) = torch.autograd.grad(relu(leaf), leaf, signal)
        assert torch.equal(got, rectification.three_rules(signal, before, rectification.NAMES[number]))


def test_believing_the_names_is_named_first():
    assert check.which_rule(lambda: [1, 2, 1]).message == rectification.NOT_THE_NAMES


@pytest.mark.parametrize("numbers", [(a, b, c) for a in range(3) for b in range(3) for c in range(3)])
def test_every_triple_is_right_or_named_and_no_sentence_gives_the_answer(numbers):
    found = check.which_rule(lambda: list(numbers))
    if list(numbers) == rectification.rules_of_the_hooks().tolist():
        assert found.state == check.RIGHT
        return
    assert found.message in check.which_rule.mistakes
    wrong = [i for i in range(3) if numbers[i] != rectification.rules_of_the_hooks()[i]]
    answers = {hook: rectification.NAMES[n] for hook, n in zip(rectification.HOOKS, check.which_rule.target().tolist())}
    assert not any(f"{hook} is {name}" in found.message for hook, name in answers.items())
    assert numbers == rectification.BELIEVED or found.message.startswith(rectification.HOOKS[wrong[0]])


@pytest.mark.parametrize("words", [["guided", "deconvnet", "gradient"], ("Guided", "DECONVNET", "gradient")])
def test_an_answer_in_words_is_right(words):
    assert check.which_rule(lambda: words).state == check.RIGHT


def test_a_wrong_answer_in_words_is_named_and_an_unknown_word_is_told_what_to_write():
    assert check.which_rule(lambda: ["deconvnet", "guided", "deconvnet"]).message == rectification.NOT_THE_NAMES
    for answer in (["guided", "deconv", "gradient"], [0, 3, 1]):
        found = check.which_rule(lambda answer=answer: answer)
        assert found.state == check.WRONG and "0 for gradient" in found.message


def test_the_picture_of_a_guess_is_the_experiment_not_the_target():
    drawn = rectification._draw_hooks(((), {}), [0, 0, 0], rectification.rules_of_the_hooks())
    other = rectification._draw_hooks(((), {}), [0, 0, 1], rectification.rules_of_the_hooks())
    assert drawn.shape == other.shape and not np.array_equal(drawn, other)


@pytest.mark.parametrize("exercise", [check.rectify, check.walk_down], ids=lambda e: e.name)
def test_the_picture_has_the_input_and_grows_by_the_answer(exercise):
    pictures = [Image.open(io.BytesIO(exercise(attempt).picture)) for attempt in (..., exercise.target)]
    assert pictures[0].width <= pictures[1].width <= 1300
    assert np.asarray(pictures[0]).std() > 0


def test_a_walk_with_transposed_square_filters_is_wrong():
    found = check.walk_down(lambda top, second, first, hidden: (top @ second).clamp(min=0) @ first.T)
    assert found.state == check.WRONG
