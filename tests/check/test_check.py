"""Every exercise of every notebook: what its check says to no answer, the right one, named mistakes and nonsense."""

import io
import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from zflib import check, data
from zflib.check import verdict

EXERCISES = {name: value for name, value in vars(check).items() if isinstance(value, check.Exercise)}
MISTAKES = [(name, sentence) for name, exercise in EXERCISES.items() for sentence in exercise.mistakes]


@pytest.fixture(params=EXERCISES.values(), ids=EXERCISES.keys())
def exercise(request):
    return request.param


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures take most of the time and have tests of their own; elsewhere an empty one will do."""
    monkeypatch.setattr(verdict, "_compare", lambda answer, target: b"\x89PNG")


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
    assert content.startswith(b"\x89PNG")
    width, height = Image.open(io.BytesIO(content)).size
    return 200 * pictures <= width < 210 * pictures and height > 40


def assert_wrong(verdict):
    assert verdict.state == check.WRONG and "stumbled" not in verdict.message
    assert verdict.message and "\n" not in verdict.message


def test_there_are_exercises():
    assert len(EXERCISES) >= 10


def test_is_called_what_the_learner_types(exercise):
    assert getattr(check, exercise.name) is exercise


def test_no_answer_yet(exercise):
    for found in (exercise(lambda *args, **kwargs: ...), exercise(lambda *args, **kwargs: None)):
        assert found.state == check.NOT_ATTEMPTED
        assert found.picture is None if exercise.guess else drawn(found.picture, 1)
        assert verdict.message.endswith(exercise.guess or "the target is drawn here")


@pytest.mark.parametrize("nothing", [None, ...])
def test_no_function_yet(exercise, nothing):
    verdict = exercise(nothing)
    assert verdict.state == check.NOT_ATTEMPTED
    assert verdict.picture is None if exercise.guess else drawn(verdict.picture, 1)


def test_an_exercise_without_arguments_is_a_guess(exercise):
    assert bool(exercise.guess) == (exercise.cases() == [((), {})])


def test_a_guess_is_not_given_away_by_an_answer_that_is_none(exercise, undrawn):
    for attempt in ("text", lambda *a, **k: 1 / 0, lambda *a, **k: torch.zeros(9, 9), lambda *a, **k: "text"):
        verdict = exercise(attempt)
        assert_wrong(verdict)
        assert (verdict.picture is None) == bool(exercise.guess)
        assert ("<img" in verdict._repr_html_()) == (not exercise.guess)


def test_the_targets_own_answer_is_right(exercise):
    verdict = exercise(exercise.target)
    assert (verdict.state, verdict.message) == (check.RIGHT, exercise.success)
    assert drawn(verdict.picture, 3)


def test_a_right_answer_in_another_type_is_right(exercise, undrawn):
    assert exercise(lambda *a, **k: right(exercise)(*a, **k).double()).state == check.RIGHT
    assert exercise(lambda *a, **k: right(exercise)(*a, **k).numpy()).state == check.RIGHT
    assert exercise(lambda *a, **k: right(exercise)(*a, **k).float().requires_grad_()).state == check.RIGHT


@pytest.mark.parametrize("name, sentence", MISTAKES, ids=[f"{name}-{i}" for i, (name, _) in enumerate(MISTAKES)])
def test_a_named_mistake_gets_exactly_its_sentence(name, sentence):
    verdict = EXERCISES[name](EXERCISES[name].mistakes[sentence])
    assert (verdict.state, verdict.message) == (check.WRONG, sentence)
    assert drawn(verdict.picture, 3)


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


def test_an_answer_that_is_right_once_and_wrong_later_is_wrong(exercise, undrawn):
    calls = itertools.count()
    if len(exercise.cases()) > 1:
        assert_wrong(exercise(lambda *a, **k: right(exercise)(*a, **k) + (next(calls) > 0)))


def test_other_numbers_are_wrong_without_a_name(exercise, undrawn):
    verdict = exercise(lambda *a, **k: right(exercise)(*a, **k) * 1.7 + 0.3)
    assert_wrong(verdict)
    assert verdict.message not in exercise.mistakes


def test_a_wrong_shape_says_both(exercise, undrawn):
    verdict = exercise(lambda *a, **k: right(exercise)(*a, **k)[None])
    assert_wrong(verdict)
    args, kwargs = exercise.cases()[0]
    shape = tuple(right(exercise)(*args, **kwargs).shape)
    assert str(shape) in verdict.message and str((1, *shape)) in verdict.message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity(exercise, value, undrawn):
    verdict = exercise(lambda *a, **k: right(exercise)(*a, **k) * value)
    assert_wrong(verdict)
    assert "NaN" in verdict.message


def test_an_error_in_the_answer_is_told(exercise, undrawn):
    def attempt(*args, **kwargs):
        raise KeyError("channel")

    verdict = exercise(attempt)
    assert_wrong(verdict)
    assert "KeyError" in verdict.message


def test_an_answer_may_write_into_its_input(exercise, undrawn):
    def attempt(*args, **kwargs):
        result = right(exercise)(*args, **kwargs).clone()
        for value in args:
            if isinstance(value, torch.Tensor):
                value.zero_()
        return result

    assert exercise(attempt).state == check.RIGHT


NONSENSE = [
    "seven", b"7", 7, 7.5, True, [], [1, 2], [[1], [2, 3]], [None], [...], {}, {"a": 1}, object(), torch, float,
    (torch.zeros(2), torch.zeros(3)), np.zeros(3), np.array(["a"]), np.array([None]), torch.tensor([]),
    torch.tensor(1.0),
    torch.zeros(2, 3), torch.zeros(1, 1, 1, 1, 1), torch.tensor([True]), torch.tensor([1 + 2j]),
]  # fmt: skip


@pytest.mark.parametrize("value", NONSENSE, ids=range(len(NONSENSE)))
@pytest.mark.filterwarnings("ignore:Casting complex")
def test_nonsense_never_raises(exercise, value, undrawn):
    assert_wrong(exercise(lambda *args, **kwargs: value))
    verdict = exercise(value)
    assert verdict.state != check.RIGHT
    assert verdict._repr_html_() and repr(verdict)


@pytest.mark.parametrize(
    "attempt", [lambda: 1, lambda pooled: pooled, lambda *a, **k: 1 / 0], ids=["none", "one", "zero"]
)
def test_a_wrong_signature_never_raises(exercise, attempt, undrawn):
    assert exercise(attempt).state in (check.WRONG, check.NOT_ATTEMPTED)


def test_the_solution_is_the_packages_source(exercise, capsys):
    exercise.solution()
    source = capsys.readouterr().out
    assert source.lstrip().startswith("def ") and len(source.splitlines()) <= 30


def test_a_verdict_is_text_and_a_page(exercise, undrawn):
    for attempt in (exercise.target, *exercise.mistakes.values(), lambda *a, **k: ...):
        verdict = exercise(attempt)
        assert repr(verdict) == f"{verdict.state}: {verdict.message}"
        assert verdict.state in verdict._repr_html_()
        assert ("data:image/png;base64," in verdict._repr_html_()) == (verdict.picture is not None)


def test_messages_are_escaped_on_the_page(undrawn):
    def attempt(*args, **kwargs):
        raise ValueError("<script>")

    assert "<script>" not in EXERCISES["unpool"](attempt)._repr_html_()


def test_no_figure_stays_open(exercise):
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    exercise(exercise.target)
    assert plt.get_fignums() == before


def test_more_than_one_bug_is_counted_and_only_its_place_is_told():
    counted = [sentence for sentence in check.project.mistakes if sentence[0].isdigit()]
    assert [sentence[:10] for sentence in counted] == ["2 mistakes"] * 3 + ["3 mistakes"]
    for hint in ("strongest", "clamp", "max_unpool2d", "gradient"):
        assert not any(hint in sentence for sentence in counted)
        assert sum(hint in sentence for sentence in check.project.mistakes) == 1


def test_the_ten_places_are_those_of_ten_crop():
    pixels = torch.arange(40 * 62).view(1, 1, 40, 62)
    places = check.ten_corners.target(40, 62, 30).tolist()
    for crop, (top, left, mirrored) in zip(data.ten_crop(pixels, 30)[0], places):
        part = pixels[0, :, top : top + 30, left : left + 30]
        assert torch.equal(crop, part.flip(-1) if mirrored else part)
