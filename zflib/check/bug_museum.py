"""Exercises of notebook 04's bug museum: three property tests, and the label of each exhibit."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..studies.bug_museum import EXHIBITS, LETTERS, adjoint, agree, rightly_labelled, stamp
from .cases import case, seeded
from .verdict import NOT_ATTEMPTED, RIGHT, WRONG, Exercise, Verdict, exercise, in_numbers


class _NotTwoSides(Exception):
    """What was returned is no left and right side; its sentence is all that a learner reads."""


class _TwoSides(Exercise):
    """Takes a function that gives two things, the left and the right side of an equation."""

    def _judge(self, attempt: Callable) -> Verdict:
        verdict = super()._judge(_stacked(attempt) if callable(attempt) else attempt)
        verdict.message = verdict.message.removeprefix(f"your function raised {_NotTwoSides.__name__}: ")
        verdict.message = verdict.message.replace("your result has shape", "your two sides, stacked, have shape")
        return verdict

    def _named_mistake(self, answers: list) -> str:
        """The sentence of the mistake, or else what the sides are worth as a test."""
        targets = [self.target(*args, **kwargs) for args, kwargs in self.cases()]
        wanted, found = ([agree(*sides) for sides in both] for both in (targets, answers))
        if found == wanted:
            worth = "this does tell the real one from a broken one, but not by the two sides that are asked for"
        elif all(found):
            worth = "the two sides are equal for a broken deconvnet, too: no exhibit could fail this test"
        else:
            worth = "the real deconvnet fails this test, and it should pass; compare your numbers with the target's"
        return super()._named_mistake(answers) or worth


def _stacked(sides: Callable) -> Callable:
    """The function with both sides as one tensor (2,…); what is not written yet stays what it is."""

    def both(*args, **kwargs):
        found = sides(*args, **kwargs)
        if found is None or found is ...:
            return found
        if isinstance(found, torch.Tensor | np.ndarray) and found.shape[:1] == (2,):
            return found  # stacked already
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise _NotTwoSides("return two things, the left and the right side; the museum compares them")
        left, right = map(torch.as_tensor, found)
        try:
            return torch.stack(torch.broadcast_tensors(left, right))
        except RuntimeError:
            shapes = f"{tuple(left.shape)} and {tuple(right.shape)}"
            raise _NotTwoSides(f"your two sides have shapes {shapes}, so they cannot be equal") from None

    return both


def _whole(generator, *shape, least=-2, most=3) -> torch.Tensor:
    """Whole numbers from `least` to `most`, small enough to add up by hand."""
    return torch.randint(least, most + 1, shape, generator=generator).float()


def _conv(generator, *args, **kwargs) -> nn.Conv2d:
    """A convolution of three colours whose filters and biases are small whole numbers; no bias is 0."""
    conv = nn.Conv2d(3, *args, **kwargs).requires_grad_(False)
    conv.weight.copy_(_whole(generator, *conv.weight.shape))
    conv.bias.copy_(_whole(generator, *conv.bias.shape, least=1))
    return conv


# --- a stamp ----------------------------------------------------------------------------------------------------------


@seeded(1)
def _stamps(generator):
    for conv, exhibit in (
        (_conv(generator, 2, 3, stride=2, padding=1), "the real one"),
        (_conv(generator, 3, (3, 4), stride=(3, 2), padding=(2, 1)), "the real one"),
        (_conv(generator, 2, 3, stride=2, padding=1), "unflipped"),
    ):
        net = nn.Sequential(conv, nn.ReLU())
        yield case(EXHIBITS[exhibit](net, _whole(generator, 1, 3, 9, 9), "1"), conv, 1, 2, 1)


def _stamp_with(draw: Callable) -> Callable:
    """The museum's test with another right side: draw(drawn, conv, channel, row, column)."""

    def sides(deconvnet, conv, channel, row, column):
        drawn, _ = stamp(deconvnet, conv, channel, row, column)
        return drawn, draw(torch.zeros_like(drawn), conv, channel, row, column)

    return _stacked(sides)


def _stamped(kernel: Callable, *, stride: bool = True, padding: bool = True) -> Callable:
    """The right side with kernel(conv, channel) (3,h,w) instead of the filter, or at another position."""

    def draw(pixels, conv, channel, row, column):
        (down, across), (above, before) = conv.stride if stride else (1, 1), conv.padding if padding else (0, 0)
        wide, tall = kernel(conv, channel).shape[-1], kernel(conv, channel).shape[-2]
        top, left = max(row * down - above, 0), max(column * across - before, 0)
        pixels[0, :, top : top + tall, left : left + wide] = kernel(conv, channel)
        return pixels

    return draw


def _filter(conv, channel):
    return conv.weight[channel]


def _with_activation(deconvnet, conv, channel, row, column):
    """The seed holds the photograph's activation instead of 1."""
    value = deconvnet.activations[0, channel, row, column]
    drawn, expected = stamp(deconvnet, conv, channel, row, column)
    return value * drawn, expected


def _channel_of_ones(deconvnet, conv, channel, row, column):
    signal = torch.zeros_like(deconvnet.activations)
    signal[0, channel] = 1
    return deconvnet.down(signal), stamp(deconvnet, conv, channel, row, column)[1]


def _draw_stamp(given, answer, target) -> np.ndarray:
    (_, conv, channel, _, _), _ = given
    maps = {"the filter, its first colour": conv.weight[channel, 0]}
    if answer is not None:
        maps["yours, left side"], maps["yours, right side"] = torch.as_tensor(answer)[:, 0, 0]
    return in_numbers(maps, None, target[1, 0, 0], blank=0)


stamp_test = _TwoSides(
    "stamp_test", _stacked(stamp), _stamps, source=stamp,
    mistakes={
        "the right side is the filter turned by 180 degrees; going down, an activation stamps it as it is":
            _stamp_with(_stamped(lambda conv, channel: _filter(conv, channel).flip(-1, -2))),
        "the stride is missing: one step in the maps is `stride` pixels": _stamp_with(_stamped(_filter, stride=False)),
        "the padding is missing: the first filter begins `padding` pixels before the image":
            _stamp_with(_stamped(_filter, padding=False)),
        "stride and padding are missing: one step in the maps is `stride` pixels, and the first filter begins outside":
            _stamp_with(_stamped(_filter, stride=False, padding=False)),
        "the bias is in the right side; a stamp is the filter alone":
            _stamp_with(_stamped(lambda conv, channel: _filter(conv, channel) + conv.bias[channel])),
        "the right side is the first channel's filter; stamp that of `channel`":
            _stamp_with(_stamped(lambda conv, channel: _filter(conv, 0))),
        "the seed holds the photograph's activation; make it 1, so that the filter is drawn at its own strength":
            _stacked(_with_activation),
        "the seed fills the channel; it is 1 at one position, 0 at all others": _stacked(_channel_of_ones),
        "the two sides are exchanged; what was drawn comes first":
            lambda *given: _stacked(stamp)(*given).flip(0),
    },
    success="one activation, one filter, in the right position and the right way up",
    draw=_draw_stamp,
)  # fmt: skip


# --- the adjoint ------------------------------------------------------------------------------------------------------


@seeded(2)
def _adjoints(generator):
    for pooled, exhibit in ((True, "the real one"), (False, "the real one"), (True, "overwritten")):
        conv = _conv(generator, 2, 3, padding=1)
        net = nn.Sequential(conv, nn.ReLU(), *([nn.MaxPool2d(3, 2, ceil_mode=True)] if pooled else []))
        image, x = (_whole(generator, 1, 3, 7, 7) for _ in range(2))
        deconvnet = EXHIBITS[exhibit](net, image, str(len(net) - 1))
        switches = F.max_pool2d(conv(image).clamp(min=0), 3, 2, ceil_mode=True, return_indices=True)[1]
        y = _whole(generator, *deconvnet.activations.shape, least=0)
        yield case(deconvnet, conv, switches if pooled else None, y, x)


def _up(conv, switches, x, *, bias: bool = False, clamped: bool = False, own: bool = False) -> torch.Tensor:
    """F(x), and what may be wrong with it."""
    maps = F.conv2d(x, conv.weight, conv.bias if bias else None, conv.stride, conv.padding)
    maps = maps.clamp(min=0) if clamped else maps
    if switches is None:
        return maps
    if own:
        return F.max_pool2d(maps, 3, 2, ceil_mode=True)
    return maps.flatten(2).gather(2, switches.flatten(2)).view_as(switches)


def _adjoint_with(**wrong) -> Callable:
    return _stacked(
        lambda deconvnet, conv, switches, y, x:
            ((deconvnet.down(y) * x).sum(), (y * _up(conv, switches, x, **wrong)).sum())
    )  # fmt: skip


def _of_its_own(deconvnet, conv, switches, y, x):
    """y is F(x): one pair out of all."""
    return adjoint(deconvnet, conv, switches, _up(conv, switches, x), x)


def _unweighted(deconvnet, conv, switches, y, x):
    return deconvnet.down(y).sum(), _up(conv, switches, x).sum()


def _overwritten(deconvnet, conv, switches, y, x):
    """The right side with y unpooled, where one value is kept of windows that share a winner."""
    left, right = adjoint(deconvnet, conv, switches, y, x)
    if switches is None:
        return left, right
    maps = _up(conv, None, x)
    return left, (F.max_unpool2d(y, switches, 3, 2, output_size=maps.shape) * maps).sum()


def _means(deconvnet, conv, switches, y, x):
    return (deconvnet.down(y) * x).mean(), (y * _up(conv, switches, x)).mean()


def _draw_adjoint(given, answer, target) -> np.ndarray:
    (_, _, _, y, x), _ = given
    mine = None if answer is None else torch.as_tensor(answer).reshape(1, -1)
    return in_numbers({"y, its first map": y[0, 0], "x, its first colour": x[0, 0]}, mine, target.reshape(1, -1))


adjoint_test = _TwoSides(
    "adjoint_test", _stacked(adjoint), _adjoints, source=adjoint,
    mistakes={
        "the bias is in F(x); the way down has none, so leave it out": _adjoint_with(bias=True),
        "x chose its own winners; read its maps at the given switches": _adjoint_with(own=True),
        "x chose its own winners, and the bias is in F(x); read the maps without bias at the given switches":
            _adjoint_with(own=True, bias=True),
        "you rectified F(x); the ReLU is set aside, F(x) may be negative": _adjoint_with(clamped=True),
        "F(x) is the network's own: without its bias, its ReLU and its own choice of winners it is linear":
            _adjoint_with(bias=True, clamped=True, own=True),
        "you took F(x) for y; the equation must hold for any y, so bring down the one that is given":
            _stacked(_of_its_own),
        "multiply before you sum: D(y) by x, and y by F(x), number by number": _stacked(_unweighted),
        "windows share winners, and F.max_unpool2d keeps one value of each; read F(x) at the switches, or add them up":
            _stacked(_overwritten),
        "means over different numbers of values cannot be equal; sum": _stacked(_means),
        "the two sides are exchanged; what D gives comes first": lambda *given: _stacked(adjoint)(*given).flip(0),
    },
    success="two numbers, which are equal where the way down is the transpose of the way up",
    draw=_draw_adjoint,
)  # fmt: skip


# --- the missing property ---------------------------------------------------------------------------------------------

#: Properties that do not separate the two, and why. A deconvnet without ReLUs is linear.
_TRIED = {
    "that is D(0) = 0; both have this property": lambda deconvnet, y: (deconvnet.down(0 * y), 0 * deconvnet.down(y)),
    "that is homogeneity for a factor that is not negative; both have it":
        lambda deconvnet, y: (deconvnet.down(3 * y), 3 * deconvnet.down(y)),
}  # fmt: skip


def _linear(deconvnet, y):
    return deconvnet.down(-y), -deconvnet.down(y)


@seeded(3)
def _pairs(generator):
    """The real one and the one without ReLUs on the way down, attached to the same network, and a signal >= 0."""
    for _ in range(2):
        net = nn.Sequential(_conv(generator, 4, 3, padding=1), nn.ReLU())
        image = _whole(generator, 1, 3, 7, 7)
        real, broken = (EXHIBITS[name](net, image, "1") for name in ("the real one", "no ReLU"))
        yield real, broken, _whole(generator, *real.activations.shape, least=0)


@exercise
def new_property(test: Callable) -> Verdict:
    """Whether `test(deconvnet, y)` gives two things that are equal for the real one alone, and not without ReLUs."""
    if not callable(test):
        state = NOT_ATTEMPTED if test is None or test is ... else WRONG
        return Verdict(state, "pass your function itself: check.new_property(my_property)")
    found = []
    for real, broken, y in _pairs():
        for deconvnet in (real, broken):
            try:
                sides = test(deconvnet, y.clone())
            except Exception as error:
                return Verdict(WRONG, f"your function raised {type(error).__name__}: {error}")
            if sides is None or sides is ...:
                return Verdict(NOT_ATTEMPTED, "replace the ... by the two sides of a property of your own")
            if not isinstance(sides, tuple | list) or len(sides) != 2:
                return Verdict(WRONG, f"return both sides, left and right, not {type(sides).__name__}")
            try:
                found.append(agree(*sides))
            except (TypeError, ValueError, RuntimeError) as error:
                return Verdict(WRONG, f"your two sides cannot be compared: {error}")
    return _separates(test, all(found[::2]), any(found[1::2]))


def _separates(test: Callable, real_passes: bool, broken_passes: bool) -> Verdict:
    """What to say of a test that the real deconvnet passes or not, and the one without ReLUs, too."""
    if real_passes and not broken_passes:
        return Verdict(RIGHT, "the real one passes, and without ReLUs it fails: this property tells them apart")
    if real_passes:
        said = next((words for words, tried in _TRIED.items() if _same(test, tried)), "both pass")
        return Verdict(WRONG, f"{said}; what happens at a ReLU that does not happen without it?")
    if broken_passes:
        if _same(test, _linear):
            return Verdict(WRONG, "D(-y) = -D(y) holds without ReLUs, where D is linear; what is D(-y) with them?")
        return Verdict(WRONG, "the wrong way round: the real one fails, and without ReLUs it passes")
    return Verdict(WRONG, "the real one fails as well: this is no property of a deconvnet")


def _same(test: Callable, other: Callable) -> bool:
    """Whether both give the same two sides, for each deconvnet."""
    for real, broken, y in _pairs():
        for deconvnet in (real, broken):
            if not all(agree(a, b) for a, b in zip(test(deconvnet, y), other(deconvnet, y))):
                return False
    return True


# --- the labels -------------------------------------------------------------------------------------------------------


@exercise
def labels(names: Mapping[str, str]) -> Verdict:
    """How many of the nine exhibits have their label; `names` is {"A": label, …, "I": label}, each label once."""
    if not isinstance(names, Mapping) or sorted(names) != list(LETTERS):
        return Verdict(WRONG, f"give a dictionary with a label for each of {', '.join(LETTERS)}")
    empty = [letter for letter in LETTERS if names[letter] is ... or names[letter] is None]
    if len(empty) == len(LETTERS):
        return Verdict(NOT_ATTEMPTED, "replace each ... by a label")
    unknown = [names[letter] for letter in LETTERS if letter not in empty and names[letter] not in EXHIBITS]
    if unknown:
        return Verdict(WRONG, f"there is no label {unknown[0]!r}; the labels are {', '.join(EXHIBITS)}")
    if empty or len(set(names.values())) < len(LETTERS):
        return Verdict(WRONG, "hang every label once; the labels are counted when all nine hang")
    right = rightly_labelled(names)
    if right == len(LETTERS):
        return Verdict(RIGHT, "all nine labels hang where they belong")
    verb = "hangs" if right == 1 else "hang"
    return Verdict(WRONG, f"{right} of 9 labels {verb} where they belong; at random it is 1 on average")
