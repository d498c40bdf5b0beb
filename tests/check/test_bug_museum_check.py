"""The exercises of the bug museum: sides by hand, what a learner may hand in, and labels that are counted."""

from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest
import torch
from torch.nn import functional as F

from zflib import check
from zflib.check import bug_museum
from zflib.studies.bug_museum import _HUNG, EXHIBITS, LETTERS

# --- a stamp and the adjoint, written otherwise -----------------------------------------------------------------------


def stamp_by_autograd(deconvnet, conv, channel, row, column):
    """One activation depends on the pixels by its filter: the gradient of the convolution."""
    signal = torch.zeros_like(deconvnet.activations)
    signal[0, channel, row, column] = 1
    drawn = deconvnet.down(signal)
    pixels = torch.zeros_like(drawn).requires_grad_()
    with torch.enable_grad():
        value = conv(pixels)[0, channel, row, column]
    return drawn, torch.autograd.grad(value, pixels)[0]


def adjoint_by_loops(deconvnet, conv, switches, y, x):
    maps = F.conv2d(x, conv.weight, None, conv.stride, conv.padding)[0]
    right = 0.0
    for channel, row, column in (y[0] > 0).nonzero().tolist():
        value = maps[channel, row, column] if switches is None else None
        if switches is not None:
            value = maps[channel].flatten()[switches[0, channel, row, column]]
        right += float(y[0, channel, row, column] * value)
    return torch.vdot(deconvnet.down(y).flatten(), x.flatten()), torch.tensor(right)


def test_a_stamp_by_autograd_is_right():
    assert check.stamp_test(stamp_by_autograd).state == check.RIGHT


def test_an_adjoint_by_loops_is_right():
    assert check.adjoint_test(adjoint_by_loops).state == check.RIGHT


@pytest.mark.parametrize("exercise", [check.stamp_test, check.adjoint_test], ids=lambda exercise: exercise.name)
@pytest.mark.parametrize("answer", [True, [1], (1, 2, 3), torch.zeros(1, 3, 9, 9)], ids=range(4))
def test_two_sides_are_asked_for(exercise, answer):
    found = exercise(lambda *given: answer)
    assert found.state == check.WRONG and found.message.startswith("return two things, the left and the right side")


@pytest.mark.parametrize("exercise", [check.stamp_test, check.adjoint_test], ids=lambda exercise: exercise.name)
def test_two_sides_in_a_list_are_right(exercise):
    assert exercise(lambda *given: list(exercise.source(*given))).state == check.RIGHT


def test_sides_of_another_shape_are_told():
    def unsummed(deconvnet, conv, switches, y, x):
        return deconvnet.down(y) * x, y

    assert check.adjoint_test(unsummed).message.startswith("your two sides have shapes (1, 3, 7, 7) and (1, 2, 3, 3)")
    single = check.stamp_test(lambda *given: [side[0] for side in check.stamp_test.source(*given)])
    assert single.message.startswith("your two sides, stacked, have shape (2, 3, 9, 9)")


@pytest.mark.parametrize("exercise", [check.stamp_test, check.adjoint_test], ids=lambda exercise: exercise.name)
def test_other_sides_are_told_what_they_are_worth_as_a_test(exercise):
    def same_twice(*given):
        return (exercise.source(*given)[0],) * 2

    def doubled(*given):
        left, right = exercise.source(*given)
        return 2 * left, 2 * right

    def wrong(*given):
        return exercise.source(*given)[0], 7

    assert "no exhibit could fail this test" in exercise(same_twice).message
    assert "does tell the real one from a broken one" in exercise(doubled).message
    assert exercise(wrong).message.startswith("the real deconvnet fails this test")


def test_an_unpooling_that_overwrites_is_told():
    def unpooled(deconvnet, conv, switches, y, x):
        maps = F.conv2d(x, conv.weight, None, conv.stride, conv.padding)
        back = y if switches is None else F.max_unpool2d(y, switches, 3, 2, output_size=maps.shape)
        return (deconvnet.down(y) * x).sum(), (back * maps).sum()

    assert check.adjoint_test(unpooled).message.startswith("windows share winners")


def test_cases_hold_a_broken_deconvnet_whose_sides_differ():
    for exercise in (check.stamp_test, check.adjoint_test):
        differ = [not torch.equal(*exercise.target(*given)) for given, _ in exercise.cases()]
        assert any(differ) and not all(differ)


# --- a property of one's own ------------------------------------------------------------------------------------------

RIGHT_PROPERTIES = [
    lambda deconvnet, y: (deconvnet.down(-y), 0),
    lambda deconvnet, y: (deconvnet.down(y - 9), torch.zeros(1)),
    lambda deconvnet, y: (deconvnet.down(y - 1), deconvnet.down((y - 1).clamp(min=0))),
]
WRONG_PROPERTIES = {
    "that is D(0) = 0": lambda deconvnet, y: (deconvnet.down(torch.zeros_like(y)), 0),
    "that is homogeneity": lambda deconvnet, y: (deconvnet.down(3 * y), 3 * deconvnet.down(y)),
    "both pass": lambda deconvnet, y: (deconvnet.down(y + y), deconvnet.down(y) + deconvnet.down(y)),
    "D(-y) = -D(y) holds": lambda deconvnet, y: (deconvnet.down(-y), -deconvnet.down(y)),
    "the wrong way round": lambda deconvnet, y: (deconvnet.down(y - 1), deconvnet.down(y) - deconvnet.down(y**0)),
    "the real one fails as well": lambda deconvnet, y: (deconvnet.down(y), 0),
    "return both sides": lambda deconvnet, y: True,
}  # fmt: skip


@pytest.mark.parametrize("test", RIGHT_PROPERTIES, ids=range(len(RIGHT_PROPERTIES)))
def test_any_property_that_separates_the_two_is_right(test):
    assert check.new_property(test).state == check.RIGHT


@pytest.mark.parametrize("words", WRONG_PROPERTIES)
def test_a_property_that_does_not_separate_them_is_told_why(words):
    found = check.new_property(WRONG_PROPERTIES[words])
    assert found.state == check.WRONG and found.message.startswith(words)


@pytest.mark.parametrize("answer", [None, ..., lambda deconvnet, y: ..., lambda deconvnet, y: None], ids=range(4))
def test_no_property_yet(answer):
    assert check.new_property(answer).state == check.NOT_ATTEMPTED


def test_a_property_that_raises_ends_nothing():
    assert "ZeroDivisionError" in check.new_property(lambda deconvnet, y: 1 / 0).message
    assert check.new_property(3).state == check.WRONG


def test_sides_that_cannot_be_compared_are_told():
    assert check.new_property(lambda deconvnet, y: 1 / 0).message.startswith("your function raised ZeroDivisionError")
    for right in (None, torch.zeros(9)):
        found = check.new_property(lambda deconvnet, y, right=right: (deconvnet.down(-y), right))
        assert found.state == check.WRONG and found.message.startswith("your two sides cannot be compared")


# --- labels -----------------------------------------------------------------------------------------------------------


def test_labels_are_counted():
    assert check.labels(_HUNG).state == check.RIGHT
    swapped = _HUNG | {"A": _HUNG["B"], "B": _HUNG["A"]}
    assert check.labels(swapped).message.startswith("7 of 9 labels hang where they belong; at random it is 1")
    ring = dict(zip(LETTERS, [*list(_HUNG.values())[1:], _HUNG["A"]]))
    assert check.labels(ring).message.startswith("0 of 9")


def test_a_guess_for_one_exhibit_tells_nothing():
    """Right or wrong, the sentence is the same until all nine hang."""
    empty = dict.fromkeys(LETTERS, ...)
    assert check.labels(empty).state == check.NOT_ATTEMPTED
    said = {check.labels(empty | {"A": label}).message for label in EXHIBITS}
    said |= {check.labels(dict.fromkeys(LETTERS, label)).message for label in EXHIBITS}
    said |= {check.labels(_HUNG | {letter: ...}).message for letter in LETTERS}
    assert said == {"hang every label once; the labels are counted when all nine hang"}


@pytest.mark.parametrize("names", [None, 3, ["guided"] * 9, {"A": "guided"}], ids=range(4))
def test_what_are_no_labels_is_told(names):
    assert check.labels(names).state == check.WRONG


def test_an_unknown_label_is_named():
    found = check.labels(_HUNG | {"A": "smooth"})
    assert found.state == check.WRONG and "no label 'smooth'; the labels are the real one" in found.message


def test_no_verdict_names_an_exhibits_bug():
    names = set(EXHIBITS) - {"the real one"}
    for exercise in (bug_museum.stamp_test, bug_museum.adjoint_test):
        assert not any(name in sentence for sentence in exercise.mistakes for name in names)


# --- the notebook, solved ---------------------------------------------------------------------------------------------

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "deeper" / "bug_museum.ipynb"
SOLVED = {
    "my_stamp": check.stamp_test.source,
    "my_adjoint": check.adjoint_test.source,
    "my_property": lambda deconvnet, y: (deconvnet.down(-y), torch.zeros(1)),
}


@pytest.mark.nightly
def test_with_every_exercise_solved_the_sheet_is_the_museums():
    """The notebook's cells as they stand, but for the three answers."""
    names, said = {}, []
    with plt.rc_context():
        for cell in nbformat.read(NOTEBOOK, 4).cells:
            if cell.cell_type == "code":
                exec(compile(cell.source, cell.id, "exec"), names)
                names |= {name: answer for name, answer in SOLVED.items() if name in names}
                said += [names["sheet"]] if "bug_museum.score(" in cell.source else []
    plt.close("all")
    museums = names["bug_museum"].score(
        dict.fromkeys(said[1].passed, lambda letter: None), names["net"], names["coffee"]
    )
    assert len(said) == 2 and said[0].museums == said[1].museums == []
    assert said[1].passed == museums.passed and len(museums.museums) == 9
    assert [len(sheet.not_told_apart()) for sheet in said] == [2, 0]
