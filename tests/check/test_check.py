"""Every exercise of every notebook: what its check says to no answer, the right one, named mistakes and nonsense."""

import io
import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

import zflib
from zflib import check
from zflib.check import verdict

EXERCISES = {name: value for name, value in vars(check).items() if isinstance(value, check.Exercise)}


@pytest.fixture(params=EXERCISES.values(), ids=EXERCISES.keys())
def exercise(request):
    return request.param


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures take most of the time and have tests of their own; elsewhere their names will do."""
    monkeypatch.setattr(verdict, "_compare", lambda answer, *_: b"target" if answer is None else b"both")


def right(exercise):
    """The target as an attempt that always gives a tensor."""
    return lambda *args, **kwargs: torch.as_tensor(exercise.target(*args, **kwargs))


def answers(exercise, function):
    return [torch.as_tensor(function(*args, **kwargs)) for args, kwargs in exercise.cases()]


def tell_apart(ones, others):
    """Whether the check would not take one for the other: another shape, or values that differ clearly in some case."""
    return any(a.shape != b.shape or verdict._distance(a, b) > 1e-2 for a, b in zip(ones, others))


def drawn(content, pictures):
    """Whether this PNG holds so many pictures side by side: 1 for the target alone, 3 once there is an answer."""
    width, height = Image.open(io.BytesIO(content)).size
    return 200 * pictures <= width < 210 * pictures and height > 40


def assert_wrong(verdict):
    assert verdict.state == check.WRONG and "stumbled" not in verdict.message
    assert verdict.message and "\n" not in verdict.message


def test_every_exercise_is_called_what_the_learner_types(exercise):
    assert getattr(check, exercise.name) is exercise and exercise.name in check.__all__


# --- the three states ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempt", [None, ..., lambda *a, **k: ..., lambda *a, **k: None], ids=range(4))
def test_no_answer_yet(exercise, attempt, undrawn):
    found = exercise(attempt)
    assert found.state == check.NOT_ATTEMPTED
    assert found.picture == (None if exercise.guess else b"target")
    if callable(attempt):
        assert found.message.endswith(exercise.guess or "the target is drawn here")


def test_the_targets_own_answer_is_right_and_drawn(exercise):
    figures = plt.get_fignums()
    found = exercise(exercise.target)
    assert (found.state, found.message) == (check.RIGHT, exercise.success)
    assert (exercise.draw or drawn(found.picture, 3)) and plt.get_fignums() == figures


def test_the_target_alone_is_drawn_until_there_is_an_answer():
    plain = check.Exercise("plain", lambda: torch.eye(3), lambda: [((), {})])  # a map in numbers, without a drawing
    assert drawn(plain(...).picture, 1)


def test_a_right_answer_in_another_type_is_right(exercise, undrawn):
    for change in (torch.Tensor.double, torch.Tensor.numpy, lambda value: value.float().requires_grad_()):
        found = exercise(lambda *a, change=change, **k: change(right(exercise)(*a, **k)))
        assert (found.state, found.picture) == (check.RIGHT, b"both")


def test_a_named_mistake_gets_exactly_its_sentence(exercise, undrawn):
    for sentence, mistake in exercise.mistakes.items():
        found = exercise(mistake)
        assert (found.state, found.message, found.picture) == (check.WRONG, sentence, b"both")


def test_mistakes_are_told_apart(exercise):
    results = {"the target": answers(exercise, exercise.target)}
    results |= {sentence: answers(exercise, mistake) for sentence, mistake in exercise.mistakes.items()}
    assert len(exercise.mistakes) >= 2
    for one, other in itertools.combinations(results, 2):
        assert tell_apart(results[one], results[other]), f"{one} = {other}"


def test_cases_are_the_same_every_time_and_fresh(exercise):
    assert not tell_apart(answers(exercise, exercise.target), answers(exercise, exercise.target))
    for (args, _), (others, _) in zip(exercise.cases(), exercise.cases()):
        for one, other in zip(args, others):
            if isinstance(one, torch.Tensor):
                assert one.data_ptr() != other.data_ptr()


# --- wrong without a name --------------------------------------------------------------------------------------------


def test_an_answer_that_is_right_once_and_wrong_later_is_wrong(exercise, undrawn):
    calls = itertools.count()
    if len(exercise.cases()) > 1:
        assert_wrong(exercise(lambda *a, **k: right(exercise)(*a, **k) + (next(calls) > 0)))


def test_other_numbers_are_wrong_without_a_name(exercise, undrawn):
    found = exercise(lambda *a, **k: right(exercise)(*a, **k) * 1.7 + 0.3)
    assert_wrong(found)
    assert found.message not in exercise.mistakes


def test_a_wrong_shape_says_both(exercise, undrawn):
    if exercise in (check.stamp_test, check.adjoint_test):
        return  # they ask for two sides, each of a shape: test_bug_museum_check.py
    found = exercise(lambda *a, **k: right(exercise)(*a, **k)[None])
    assert_wrong(found)
    shape = tuple(answers(exercise, exercise.target)[0].shape)
    assert str(shape) in found.message and str((1, *shape)) in found.message


def test_nan_and_infinity(exercise, undrawn):
    for value in (float("nan"), float("inf")):
        found = exercise(lambda *a, value=value, **k: right(exercise)(*a, **k) * value)
        assert_wrong(found)
        assert "NaN" in found.message


def test_an_answer_may_write_into_its_input(exercise, undrawn):
    def attempt(*args, **kwargs):
        result = right(exercise)(*args, **kwargs).clone()
        for value in args:
            if isinstance(value, torch.Tensor):
                value.zero_()
        return result

    untouched = exercise is check.single_activation  # asks to leave its input as it is
    assert exercise(attempt).state == (check.WRONG if untouched else check.RIGHT)


NONSENSE = [
    "seven", b"7", 7, True, [], [1, 2], [[1], [2, 3]], [None], {"a": 1}, object(), torch, float,
    (torch.zeros(2), torch.zeros(3)), np.array(["a"]), np.array([None]), torch.tensor([]), torch.tensor(1.0),
    torch.zeros(1, 1, 1, 1, 1), torch.tensor([True]), torch.tensor([1 + 2j]),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Casting complex")
def test_nonsense_never_raises(exercise, undrawn):
    for value in NONSENSE:
        assert_wrong(exercise(lambda *args, value=value, **kwargs: value))
    for value in ("seven", 7, torch, float):
        assert_wrong(exercise(value))


def test_an_error_or_a_wrong_signature_is_told(exercise, undrawn):
    for attempt in (lambda *a, **k: {}["channel"], lambda one, two, three, four, five, six, seven: one):
        found = exercise(attempt)
        assert_wrong(found)
        assert "KeyError: 'channel'" in found.message or "TypeError" in found.message


def test_an_if_over_a_tensor_is_told_with_a_way_out():
    found = check.rectify(lambda signal, before, rule: signal if before > 0 else 0 * signal)
    assert_wrong(found)
    assert "torch.where" in found.message


def test_a_guess_is_not_given_away_by_an_answer_that_is_none(exercise, undrawn):
    assert bool(exercise.guess) == (exercise.cases() == [((), {})])
    for attempt in ("text", lambda *a, **k: 1 / 0, lambda *a, **k: torch.zeros(9, 9), lambda *a, **k: "text"):
        found = exercise(attempt)
        assert_wrong(found)
        assert (found.picture is None) == ("<img" not in found._repr_html_()) == bool(exercise.guess)


# --- what is shown ---------------------------------------------------------------------------------------------------


def test_a_verdict_is_text_and_a_page_without_the_learners_tags(undrawn):
    found = check.unpool(lambda *a, **k: {}["<script>"])
    assert repr(found) == f"wrong: {found.message}" and "<script>" in found.message
    assert "data:image/png;base64," in found._repr_html_() and "<script>" not in found._repr_html_()


def test_the_solution_is_the_packages_source(exercise, capsys):
    exercise.solution()
    source = capsys.readouterr().out
    assert source.lstrip().startswith("def ") and len(source.splitlines()) <= 30


@pytest.mark.parametrize("name", ["cheater", "project", "transposed_filter"])
def test_a_solution_that_is_not_the_target_is_right(name, undrawn):
    assert EXERCISES[name](EXERCISES[name].source).state == check.RIGHT


# --- targets that are not the package's own function: the same numbers ------------------------------------------------


def package_slide(net, image, size, stride, label):
    return zflib.occlude(net, image, size=size, stride=stride, label=label, layer="0").probability


def package_sign_distance(before, after):
    return zflib.experiments.Correspondence(before - after).delta


def package_chance(signs):
    return zflib.experiments.Correspondence(signs.float()).null


@pytest.mark.parametrize("package", [package_slide, package_sign_distance, package_chance])
def test_the_target_is_what_the_package_gives(package, undrawn):
    assert EXERCISES[package.__name__.removeprefix("package_")](package).state == check.RIGHT


def test_the_box_is_the_receptive_field():
    position, layers = check.field_box.cases()[0][0]
    field = zflib.receptive_field(zflib.load("zfnet56"), "conv3", position)
    assert check.field_box.target(position, layers).tolist() == list(field)
