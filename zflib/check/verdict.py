"""Verdicts for exercises: not attempted, wrong because of a named mistake, or right; and a picture of it."""

import base64
import html
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial, wraps

import numpy as np
import torch

from .. import show

NOT_ATTEMPTED, WRONG, RIGHT = "not attempted", "wrong", "right"
_BADGE = "padding:0 .4em;border-radius:3px;color:#ffffff;background:"  # read in light themes and in dark ones
_COLOURS = {NOT_ATTEMPTED: "#6c757d", WRONG: "#b45309", RIGHT: "#15803d"}


@dataclass
class Verdict:
    """What a check says: `state`, one sentence, and a picture of the target, beside the answer if there is one."""

    state: str
    message: str
    picture: bytes | None = None

    def __repr__(self) -> str:
        return f"{self.state}: {self.message}"

    def _repr_html_(self) -> str:
        text = f'<b style="{_BADGE}{_COLOURS[self.state]}">{self.state}</b>: {html.escape(self.message)}'
        if self.picture is None:
            return f"<p>{text}</p>"
        source, alt = base64.b64encode(self.picture).decode(), "the target, and your answer where it can be drawn"
        return f'<p>{text}</p><img alt="{alt}" src="data:image/png;base64,{source}">'


def judged(name: str, judge: Callable, *answer) -> Verdict:
    """What `judge` says of an answer, noted for `progress`; it never ends a learner's notebook."""
    from .score_sheet import keep  # it reads verdicts

    try:
        verdict = judge(*answer)
    except Exception as error:
        verdict = Verdict(WRONG, f"the check stumbled over your answer: {type(error).__name__}: {error}")
    keep(name, verdict)
    return verdict


def exercise(judge: Callable) -> Callable:
    """Decorates a function from an answer to a `Verdict`: an exercise that does not compare numbers."""

    @wraps(judge)
    def check(*answer) -> Verdict:
        return judged(judge.__name__, judge, *answer)

    check.is_exercise = True
    return check


@dataclass
class Exercise:
    """One exercise: the package's own function is the target, tried on `cases` beside the learner's.

    `mistakes` maps the sentence a learner should read to a function that makes this mistake: an attempt that gives
    the same numbers on every case has made it too. `guess` says what an answer that is no code consists of: its
    target is not drawn before there is one. `draw(case, answer, target)` gives (H,W,3) uint8 pixels of *input | yours |
    target*, `answer` is None before there is one. Calling the exercise returns a `Verdict` and never raises.
    """

    name: str
    target: Callable
    cases: Callable[[], list[tuple[tuple, dict]]]
    mistakes: dict[str, Callable] = field(default_factory=dict)
    source: object = None  # what `solution` prints, if it is not the target
    success: str = "the same numbers as the package's own"
    guess: str = ""  # "your three numbers"
    draw: Callable | None = None  # by default yours, the target and their difference are drawn, without the input

    def __call__(self, attempt: Callable) -> Verdict:
        return judged(self.name, self._judge, attempt)

    def _judge(self, attempt: Callable) -> Verdict:
        cases = self.cases()
        targets = [self.target(*args, **kwargs) for args, kwargs in cases]
        if not callable(attempt):
            state = NOT_ATTEMPTED if attempt is None or attempt is ... else WRONG
            message = f"pass your function itself: check.{self.name}({self.name})"
            return Verdict(state, message, self._preview(0, targets))
        answers = []
        for i, (args, kwargs) in enumerate(self.cases()):  # fresh cases: an attempt may write into its input
            try:
                answers.append(attempt(*args, **kwargs))
            except Exception as error:
                return Verdict(WRONG, _told(error), self._preview(i, targets))
        if all(answer is None or answer is ... for answer in answers):
            message = f"replace the ... by {self.guess or 'your code; the target is drawn here'}"
            return Verdict(NOT_ATTEMPTED, message, self._preview(0, targets))
        for i, (answer, target) in enumerate(zip(answers, targets)):
            problem = _misfit(answer, target)
            if problem:
                return Verdict(WRONG, problem, self._preview(i, targets))
        return self._compare_answers(answers, targets)

    def _preview(self, i: int, targets: list) -> bytes | None:
        """PNG of case `i` without an answer, unless its target is what the learner should guess."""
        return None if self.guess else self._picture(i, None, targets[i])

    def _picture(self, i: int, answer, target) -> bytes:
        """PNG of case `i`: what `draw` makes of it, or *yours | target | difference*."""
        return _compare(answer, target, self.draw and partial(self.draw, self.cases()[i]))

    def _compare_answers(self, answers: list, targets: list) -> Verdict:
        worst = max(range(len(targets)), key=lambda i: _distance(answers[i], targets[i]))
        picture = self._picture(worst, answers[worst], targets[worst])
        if _distance(answers[worst], targets[worst]) < 1e-4:
            return Verdict(RIGHT, self.success, picture)
        sentence = self._named_mistake(answers)
        if sentence is None:
            sentence = "the shape is right, the numbers are not yet; look where the difference is"
        return Verdict(WRONG, sentence, picture)

    def _named_mistake(self, answers: list) -> str | None:
        """The sentence of the mistake that gives the same numbers on every case."""
        for sentence, mistake in self.mistakes.items():
            wrong = [mistake(*args, **kwargs) for args, kwargs in self.cases()]
            if all(_misfit(a, w) is None and _distance(a, w) < 1e-4 for a, w in zip(answers, wrong)):
                return sentence
        return None

    def solution(self) -> None:
        """Print the package's own source: there is only one copy of the answer."""
        print(inspect.getsource(self.source or self.target))


def _told(error: Exception) -> str:
    """An attempt's error, with a way out where Python's own words give a beginner none."""
    words = f"your function raised {type(error).__name__}: {error}"
    if "Boolean value of Tensor" in str(error):
        words += "; `if` wants one True or False: multiply by (x > 0) instead, or use torch.where(x > 0, …, …)"
    return words


def _tensor(value) -> torch.Tensor:
    return torch.as_tensor(value).detach().cpu().to(torch.float64)


def _misfit(answer, target) -> str | None:
    """A sentence if the answer cannot be compared with the target at all."""
    try:
        got, wanted = _tensor(answer), _tensor(target)
    except (TypeError, ValueError, RuntimeError):
        return f"your function should return a tensor, it returned {type(answer).__name__}"
    if got.shape != wanted.shape:
        return f"your result has shape {tuple(got.shape)}, the target {tuple(wanted.shape)}"
    return None if bool(torch.isfinite(got).all()) else "your result holds NaN or infinite values"


def _distance(answer, target) -> float:
    """Largest difference, relative to the target's largest value."""
    got, wanted = _tensor(answer), _tensor(target)
    return float((got - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12))


def _plane(value) -> np.ndarray:
    """The first map of whatever shape, as a picture's (h,w)."""
    values = _tensor(value)
    while values.dim() > 2:
        values = values[0]
    return np.atleast_2d(values.numpy())


def in_numbers(inputs: dict, answer, target, *, blank: float | None = None) -> np.ndarray:
    """(H,W,3) uint8 of *inputs | yours | target*, their first maps in numbers with one size of cell; see `draw`.

    `inputs` are maps by their titles; a number equal to `blank` is not written.
    """
    maps = inputs | ({} if answer is None else {"yours": answer}) | {"target": target}
    planes = [_plane(value) for value in maps.values()]
    return show.axes_pixels(show.matrices(planes, titles=list(maps), blank=blank))


def _compare(answer, target, draw: Callable | None = None) -> bytes:
    """PNG of what `draw` makes of the answer and the target, or of *yours | target | difference*."""
    if draw is not None:
        return show.encoded(draw(answer, target), "PNG")
    return show.difference_png(None if answer is None else _plane(answer), _plane(target))
