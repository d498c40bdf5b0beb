"""Exercises of notebook 02: rectification, and the rules that are mistaken for it."""

from collections.abc import Callable

import numpy as np
import torch

from .. import deconv, show
from .cases import case, seeded
from .verdict import Exercise, in_numbers

# --- three rules at one ReLU -----------------------------------------------------------------------------------------

BEFORE = ((2, 1, -1, -3, 4, -2), (-1, 3, 2, -2, -4, 1))
SIGNAL = ((3, -2, 5, -1, 1, 2), (4, -3, 1, -2, 2, -5))  # both kinds of position on which two rules differ, twice


def three_rules(signal: torch.Tensor, before: torch.Tensor, rule: str) -> torch.Tensor:
    """The signal below a ReLU: from the `signal` above it and what was there `before` the forward ReLU."""
    if rule == "deconvnet":
        return signal.clamp(min=0)
    if rule == "gradient":
        return signal * (before > 0)
    if rule == "guided":
        return signal.clamp(min=0) * (before > 0)


def _rules():
    return [case(torch.tensor(SIGNAL).float(), torch.tensor(BEFORE).float(), rule) for rule in deconv.RULES]


def _instead(rule: str, wrong: Callable) -> Callable:
    """The three rules with one mistake: `wrong(signal, before)` under `rule`."""
    return lambda signal, before, asked: wrong(signal, before) if asked == rule else three_rules(signal, before, asked)


def _taken_for(other: str) -> Callable:
    return lambda signal, before: three_rules(signal, before, other)


_TAKEN_FOR = {
    ("deconvnet", "gradient"): "you asked what the forward ReLU let through, as the gradient does; ask for the sign of "
        "the signal",
    ("deconvnet", "guided"): "you asked for the forward sign as well, as guided does; the deconvnet does not look at "
        "it",
    ("gradient", "deconvnet"): "you clamped the signal, as the deconvnet does; ask what the forward ReLU let through",
    ("gradient", "guided"): "you clamped the signal as well, as guided does; the gradient keeps negative signals",
    ("guided", "deconvnet"): "you only clamped the signal; guided also stops what the forward ReLU stopped",
    ("guided", "gradient"): "you only asked what the forward ReLU let through; guided also stops negative signals",
}  # fmt: skip
_ANY_RULE = {
    "everything passes: nothing was stopped": lambda signal, before: signal,
    "you gave back the forward map; the rule changes the signal that comes down":
        lambda signal, before: before.clamp(min=0),
    "the absolute value makes negative signals positive; they should become 0": lambda signal, before: signal.abs(),
    "you multiplied by the forward activation; only ask whether it was positive":
        lambda signal, before: signal * before.clamp(min=0),
    "you multiplied by what was there before the ReLU; only ask whether it was positive":
        lambda signal, before: signal * before,
    "`*` is computed before `>`: put brackets around the comparison":
        lambda signal, before: (signal * before > 0).float(),
    "you gave back True and False; give back the signal where it passes, 0 elsewhere":
        lambda signal, before: (before > 0).float(),
}  # fmt: skip


def _mistakes() -> dict:
    """Every mistake under every rule, by its sentence."""
    found = {f"{rule}: {words}": _instead(rule, _taken_for(other)) for (rule, other), words in _TAKEN_FOR.items()}
    for rule in deconv.RULES:
        found |= {f"{rule}: {words}": _instead(rule, wrong) for words, wrong in _ANY_RULE.items()}
    return found


class _Rules(Exercise):
    """Names the mistake of the first rule that is wrong, whatever the other rules are."""

    def _named_mistake(self, answers: list) -> str | None:
        for answer, (given, named) in zip(answers, self.cases()):
            if torch.equal(_as_floats(answer), self.target(*given, **named)):
                continue
            wrong = (s for s, m in self.mistakes.items() if torch.equal(_as_floats(answer), m(*given, **named)))
            return next(wrong, None)
        return None


def _as_floats(answer) -> torch.Tensor:
    return torch.as_tensor(answer).detach().cpu().float()


def _draw_rules(given, answer, target) -> np.ndarray:
    (signal, before, rule), _ = given
    return in_numbers({"before the ReLU": before, f"signal ({rule})": signal}, answer, target)


rectify = _Rules("rectify", three_rules, _rules, mistakes=_mistakes(), draw=_draw_rules)


# --- two layers, by hand ---------------------------------------------------------------------------------------------


def two_layers_down(top, second, first, hidden) -> torch.Tensor:
    """(N,P) pixels from (N,K) `top`: transpose `second` (K,M), rectify, transpose `first` (M,P); pixels stay signed."""
    return deconv.rectify(top @ second) @ first


@seeded(3498)  # the largest number is 4, and no two mistakes give the same
def _two_layers(generator):
    for shapes in (((2, 4), (4, 4), (2, 4)), ((3, 5), (4, 5), (2, 4))):  # square filters first: they can be transposed
        image, first, second = (torch.randint(-1, 2, shape, generator=generator).float() for shape in shapes)
        hidden = (image @ first.T).clamp(min=0)
        yield case((hidden @ second.T).clamp(min=0), second, first, hidden)


def _draw_walk(given, answer, target) -> np.ndarray:
    (top, second, first, _), _ = given
    return in_numbers({"top": top, "second": second, "first": first}, answer, target)


walk_down = Exercise(
    "walk_down", two_layers_down, _two_layers,
    mistakes={
        "a ReLU is missing: rectify the reconstruction of the hidden layer before you filter it":
            lambda top, second, first, hidden: top @ second @ first,
        "the pixels were rectified too; after the last filtering they may be negative":
            lambda *given: two_layers_down(*given).clamp(min=0),
        "only the pixels were rectified; the ReLU belongs to the hidden layer":
            lambda top, second, first, hidden: (top @ second @ first).clamp(min=0),
        "masked by the hidden activations: that is the gradient":
            lambda top, second, first, hidden: (top @ second * (hidden > 0)) @ first,
        "clamped and masked by the hidden activations: that is guided backpropagation":
            lambda top, second, first, hidden: ((top @ second).clamp(min=0) * (hidden > 0)) @ first,
        "you projected the hidden activations; project what comes down from the top":
            lambda top, second, first, hidden: hidden @ first,
        "you rectified the filters; rectify the signal":
            lambda top, second, first, hidden: top @ second.clamp(min=0) @ first,
    },
    draw=_draw_walk,
)  # fmt: skip


# --- which rule is this? ---------------------------------------------------------------------------------------------

HOOKS = ("hook_a", "hook_b", "hook_c")
NAMES = ("gradient", "deconvnet", "guided")  # by the number that stands for each
UNKNOWN = -1


def rules_of_the_hooks() -> torch.Tensor:
    """grad_in has been through the forward mask, grad_out has not: guided clamps one, the deconvnet the other."""
    gradient, deconvnet, guided = 0, 1, 2
    return torch.tensor([guided, deconvnet, gradient])  # hook_a, hook_b, hook_c


_WHY = {
    ("hook_a", 1): "hook_a is not the deconvnet: torch's ReLU has already stopped part of grad_in; test a position "
        "that was shut",
    ("hook_a", 0): "hook_a is not the gradient: it changes grad_in; test a negative signal at an open position",
    ("hook_b", 0): "hook_b is not the gradient: what it returns does not depend on grad_in; test a position that was "
        "shut",
    ("hook_b", 2): "hook_b is not guided: what it returns does not depend on grad_in; test a position that was shut",
    ("hook_c", 1): "hook_c is not the deconvnet, whatever its name says; test a negative signal",
    ("hook_c", 2): "hook_c is not guided: it clamps nothing; test a negative signal at an open position",
}  # fmt: skip
NOT_THE_NAMES = "you believed all three names; not one of them is true. Send two numbers through each hook"
BELIEVED = (1, 2, 1)


def _said(numbers) -> Callable:
    answer = list(numbers)
    return lambda: answer


class _WhichRule(Exercise):
    """Takes words for numbers, too, and names the first hook that is wrong; the answer itself is never drawn."""

    def __call__(self, attempt):
        return super().__call__(_in_numbers(attempt) if callable(attempt) else attempt)

    def _named_mistake(self, answers: list) -> str | None:
        numbers = _as_floats(answers[0]).tolist()
        if numbers == list(BELIEVED):
            return NOT_THE_NAMES
        if any(number not in range(len(NAMES)) for number in numbers):
            return "each answer is 0 for gradient, 1 for deconvnet or 2 for guided"
        wrong = ((hook, int(n)) for hook, n, right in zip(HOOKS, numbers, self.target().tolist()) if n != right)
        return _WHY[next(wrong)]


def _in_numbers(attempt: Callable) -> Callable:
    """The attempt, with names of rules replaced by their numbers."""

    def answered(*args, **kwargs):
        answer = attempt(*args, **kwargs)
        if not isinstance(answer, list | tuple) or not answer or not all(isinstance(word, str) for word in answer):
            return answer
        return [NAMES.index(word.lower()) if word.lower() in NAMES else UNKNOWN for word in answer]

    return answered


def _draw_hooks(given, answer, target) -> np.ndarray:
    """What each hook makes of four positions, and what the rule does that was given as the answer: no target."""
    signal, before = torch.tensor([[2.0, -2, 2, -2]]), torch.tensor([[1.0, 1, -1, -1]])
    made = [three_rules(signal, before, NAMES[int(rule)])[0] for rule in target]
    chosen = [NAMES[int(n)] if n in range(len(NAMES)) else None for n in _as_floats(answer).tolist()]
    yours = [three_rules(signal, before, rule)[0] if rule else torch.zeros(4) for rule in chosen]
    values = [torch.cat([before, signal]), torch.stack(made), torch.stack(yours)]
    titles = ["before the ReLU, and signal", "hooks a, b, c give", "the rules you named give"]
    return show.axes_pixels(show.matrices(values, titles=titles))


which_rule = _WhichRule(
    "which_rule", rules_of_the_hooks, lambda: [case()],
    mistakes={NOT_THE_NAMES: _said(BELIEVED)} | {
        words: _said(number if hook == name else right for name, right in zip(HOOKS, rules_of_the_hooks().tolist()))
        for (hook, number), words in _WHY.items()
    },
    success="clamping grad_in is guided backpropagation, clamping grad_out is the deconvnet",
    guess="your three numbers",
    draw=_draw_hooks,
)  # fmt: skip
