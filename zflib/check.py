"""Verdicts for exercises: not attempted, wrong because of a named mistake, or right; and a picture of it."""

from __future__ import annotations

import base64
import html
import inspect
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from . import deconv, models, show

NOT_ATTEMPTED, WRONG, RIGHT = "not attempted", "wrong", "right"
_COLOURS = {NOT_ATTEMPTED: "#6c757d", WRONG: "#b45309", RIGHT: "#15803d"}


@dataclass
class Verdict:
    """What a check says: `state`, one sentence, and the picture *yours | target | difference* where there is one."""

    state: str
    message: str
    picture: bytes | None = None

    def __repr__(self) -> str:
        return f"{self.state}: {self.message}"

    def _repr_html_(self) -> str:
        text = f'<b style="color:{_COLOURS[self.state]}">{self.state}</b>: {html.escape(self.message)}'
        if self.picture is None:
            return f"<p>{text}</p>"
        source = base64.b64encode(self.picture).decode()
        return f'<p>{text}</p><img alt="yours, target and difference" src="data:image/png;base64,{source}">'


@dataclass
class Exercise:
    """One exercise: the package's own function is the target, tried on `cases` beside the learner's.

    `mistakes` maps the sentence a learner should read to a function that makes this mistake: an attempt that gives
    the same numbers on every case has made it too. Calling the exercise returns a `Verdict` and never raises.
    """

    name: str
    target: Callable
    cases: Callable[[], list[tuple[tuple, dict]]]
    mistakes: dict[str, Callable] = field(default_factory=dict)
    source: object = None  # what `solution` prints, if it is not the target
    success: str = "the same numbers as the package's own"

    def __call__(self, attempt: Callable) -> Verdict:
        try:
            return self._judge(attempt)
        except Exception as error:  # a check must never end a learner's notebook
            return Verdict(WRONG, f"the check stumbled over your answer: {type(error).__name__}: {error}")

    def _judge(self, attempt: Callable) -> Verdict:
        cases = self.cases()
        targets = [self.target(*args, **kwargs) for args, kwargs in cases]
        if not callable(attempt):
            state = NOT_ATTEMPTED if attempt is None or attempt is ... else WRONG
            message = f"pass your function itself: check.{self.name}({self.name})"
            return Verdict(state, message, _compare(None, targets[0]))
        answers = []
        for (args, kwargs), target in zip(self.cases(), targets):  # fresh cases: an attempt may write into its input
            try:
                answers.append(attempt(*args, **kwargs))
            except Exception as error:
                message = f"your function raised {type(error).__name__}: {error}"
                return Verdict(WRONG, message, _compare(None, target))
        if all(answer is None or answer is ... for answer in answers):
            message = "replace the ... by your code; the target is drawn here"
            return Verdict(NOT_ATTEMPTED, message, _compare(None, targets[0]))
        return self._compare_answers(answers, targets)

    def _compare_answers(self, answers: list, targets: list) -> Verdict:
        for answer, target in zip(answers, targets):
            problem = _misfit(answer, target)
            if problem:
                return Verdict(WRONG, problem, _compare(None, target))
        worst = max(range(len(targets)), key=lambda i: _distance(answers[i], targets[i]))
        picture = _compare(answers[worst], targets[worst])
        if _distance(answers[worst], targets[worst]) < 1e-4:
            return Verdict(RIGHT, self.success, picture)
        for sentence, mistake in self.mistakes.items():
            wrong = [mistake(*args, **kwargs) for args, kwargs in self.cases()]
            if all(_misfit(a, w) is None and _distance(a, w) < 1e-4 for a, w in zip(answers, wrong)):
                return Verdict(WRONG, sentence, picture)
        return Verdict(WRONG, "the shape is right, the numbers are not yet; look where the difference is", picture)

    def solution(self) -> None:
        """Print the package's own source: there is only one copy of the answer."""
        print(inspect.getsource(self.source or self.target))


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
    return float((got - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12)) if wanted.numel() else 0.0


def _plane(value) -> np.ndarray:
    """The first map of whatever shape, as a picture's (h,w)."""
    values = _tensor(value)
    while values.dim() > 2:
        values = values[0]
    return np.atleast_2d(values.numpy())


def _compare(answer, target) -> bytes:
    """PNG of *yours | target | difference*."""
    return show.difference_png(None if answer is None else _plane(answer), _plane(target))


# --- 01: unpooling ---------------------------------------------------------------------------------------------------


def _pools() -> list[tuple[tuple, dict]]:
    generator = torch.Generator().manual_seed(1)
    cases = []
    for kernel, stride, side in ((2, 2, 6), (3, 2, 7)):
        maps = torch.randn(1, 2, side, side, generator=generator)
        pooled, switches = torch.nn.functional.max_pool2d(maps, kernel, stride, return_indices=True)
        values = torch.rand(pooled.shape, generator=generator) + 0.5  # different ones where windows share a winner
        cases.append(((values, switches), {"size": (side, side)}))
    return cases


def _top_left(pooled, switches, *, size):
    step = 2
    maps = pooled.new_zeros(*pooled.shape[:2], *size)
    maps[..., : step * pooled.shape[-2] : step, : step * pooled.shape[-1] : step] = pooled
    return maps


def _nearest(pooled, switches, *, size):
    return torch.nn.functional.interpolate(pooled, size, mode="nearest")


unpool = Exercise(
    "unpool", deconv.unpool, _pools,
    mistakes={
        "the values sit at the top-left of each window; use the switches": _top_left,
        "every place of the window got the value; only the place that won gets it": _nearest,
        "where two windows share a winner, one value overwrote the other; add them": (
            lambda pooled, switches, *, size: deconv.unpool(pooled, switches, size=size, overlap="last")
        ),
        "where two windows share a winner, only the larger value is left; add them": (
            lambda pooled, switches, *, size: deconv.unpool(pooled, switches, size=size, overlap="max")
        ),
    },
)  # fmt: skip


def centre_peak_values() -> torch.Tensor:
    """A 5x5 map with one peak in its centre, pooled 3x3/2: all four windows chose place 12, where 1, 2, 3, 4 meet."""
    under = {"sum": 1 + 2 + 3 + 4, "max": 4, "last": 4}  # in reading order the window of the 4 is the last one
    return torch.tensor([under["sum"], under["max"], under["last"]])


centre_peak = Exercise(
    "centre_peak", centre_peak_values, lambda: [((), {})],
    mistakes={
        'under "sum" every window adds its value to the place that won: 1 + 2 + 3 + 4': lambda: [4, 4, 4],
        '"last" keeps what is written last in reading order (bottom right), not the first': lambda: [10, 4, 1],
        "the peak is the strongest place of all four windows, so all four values go there": lambda: [1, 1, 1],
        '"last" does not add up: the last window in reading order overwrites the others': lambda: [10, 4, 10],
    },
    success="four windows, one winner: 10 if they add up, 4 if one of them overwrites the rest",
)  # fmt: skip


def count_wins(pooled: torch.Tensor, switches: torch.Tensor, *, size) -> torch.Tensor:
    """(N,C,H,W): how many windows each place won, not counting windows whose maximum is 0."""
    return deconv.unpool((pooled > 0).float(), switches, size=size)


def _rectified_pools() -> list[tuple[tuple, dict]]:
    generator = torch.Generator().manual_seed(2)
    maps = (torch.randn(2, 3, 7, 7, generator=generator) - 0.9).clamp(min=0)  # about one window in five is all zero
    maps[0, 0, 2, 2], maps[0, 0, 5:, :3] = 3.0, 0.0  # a place that wins four times, and a window that nobody wins
    return [(torch.nn.functional.max_pool2d(maps, 3, 2, return_indices=True), {"size": (7, 7)})]


wins = Exercise(
    "wins", count_wins, _rectified_pools,
    mistakes={
        "a window whose maximum is 0 has a switch too, but nothing won there; count the windows with pooled > 0": (
            lambda pooled, switches, *, size: deconv.unpool(torch.ones_like(pooled), switches, size=size)
        ),
        "a place that won several windows counts once; scatter_add_ counts it every time": (
            lambda pooled, switches, *, size: (deconv.unpool(pooled, switches, size=size) > 0).float()
        ),
        "you added up the values; add 1 for every window": (
            lambda pooled, switches, *, size: deconv.unpool(pooled, switches, size=size)
        ),
        "the wins stand at the top-left of each window; use the switches": (
            lambda pooled, switches, *, size: _top_left((pooled > 0).float(), switches, size=size)
        ),
    },
    success="every window that has a winner is counted once, at its winner",
)  # fmt: skip


def read_switches(maps: torch.Tensor, switches: torch.Tensor) -> torch.Tensor:
    """(N,C,h,w): the values of (N,C,H,W) `maps` at the places that won; linear in the maps, unlike a maximum."""
    return maps.flatten(-2).gather(-1, switches.flatten(-2)).view_as(switches)


def _other_maps() -> list[tuple[tuple, dict]]:
    generator = torch.Generator().manual_seed(3)
    cases = []
    for kernel, side in ((2, 6), (3, 7)):
        maps, others = torch.randn(2, 1, 2, side, side, generator=generator)
        _, switches = torch.nn.functional.max_pool2d(maps, kernel, 2, return_indices=True)
        cases.append(((others, switches), {}))
    return cases


def _pool_anew(maps, switches):
    kernel = 2 if maps.shape[-1] == 6 else 3
    return torch.nn.functional.max_pool2d(maps, kernel, 2)


pool_again = Exercise(
    "pool_again", read_switches, _other_maps,
    mistakes={
        "you chose new winners; read the values at the places that the switches recorded": _pool_anew,
        "the values come from the top-left of each window; read them at the switches": (
            lambda maps, switches: maps[..., : 2 * switches.shape[-2] : 2, : 2 * switches.shape[-1] : 2]
        ),
        "every channel was read at the first channel's switches; each map has switches of its own": (
            lambda maps, switches: read_switches(maps, switches[:, :1].expand_as(switches))
        ),
        "the switches themselves came back; they are places, read the map's values there": (
            lambda maps, switches: switches.float()
        ),
    },
)  # fmt: skip


# --- 02: rectification -----------------------------------------------------------------------------------------------


def let_through_positive_signals(signal: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Deconvnet: the reconstruction must be positive, whatever the forward ReLU did."""
    return signal.clamp(min=0)


def let_through_open_places(signal: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Gradient: what the forward ReLU let through, with either sign."""
    return signal * (before > 0)


def let_through_both(signal: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Guided backpropagation: positive signals at places that the forward ReLU let through."""
    return signal.clamp(min=0) * (before > 0)


def _signals() -> list[tuple[tuple, dict]]:
    generator = torch.Generator().manual_seed(4)
    return [((torch.randn(1, 2, 6, 6, generator=generator), torch.randn(1, 2, 6, 6, generator=generator)), {})]


_THROUGH = {
    "everything passes: a ReLU is missing": lambda signal, before: signal,
    "you rectified the forward map; the rule changes the signal that comes down": (
        lambda signal, before: before.clamp(min=0)
    ),
    "the absolute value makes negative signals positive; they should become 0": lambda signal, before: signal.abs(),
    "the signal was multiplied by the forward activation; only ask whether that was positive": (
        lambda signal, before: signal * before.clamp(min=0)
    ),
}  # fmt: skip

rectify_deconvnet = Exercise(
    "rectify_deconvnet", let_through_positive_signals, _signals,
    mistakes={
        "this is the gradient's rule, it asks what the forward ReLU let through; ask for the sign of the signal": (
            let_through_open_places
        ),
        "this is guided backpropagation, it asks for the forward sign as well; the deconvnet does not look at it": (
            let_through_both
        ),
    } | _THROUGH,
)  # fmt: skip

rectify_gradient = Exercise(
    "rectify_gradient", let_through_open_places, _signals,
    mistakes={
        "this is the deconvnet's rule; the gradient asks what the forward ReLU let through, not for its sign": (
            let_through_positive_signals
        ),
        "this is guided backpropagation; the gradient keeps negative signals where the forward ReLU was open": (
            let_through_both
        ),
    } | _THROUGH,
)  # fmt: skip

rectify_guided = Exercise(
    "rectify_guided", let_through_both, _signals,
    mistakes={
        "this is the deconvnet's rule; guided backpropagation also shuts the places that the forward ReLU shut": (
            let_through_positive_signals
        ),
        "this is the gradient's rule; guided backpropagation also drops the negative signals": let_through_open_places,
    } | _THROUGH,
)  # fmt: skip


def rules_of_the_hooks() -> torch.Tensor:
    """grad_in has been through the forward mask, grad_out has not: guided clamps one, the deconvnet the other."""
    gradient, deconvnet, guided = 0, 1, 2
    return torch.tensor([guided, deconvnet, gradient])  # hook_a, hook_b, hook_c


which_rule = Exercise(
    "which_rule", rules_of_the_hooks, lambda: [((), {})],
    mistakes={
        "hook_a is not the deconvnet: grad_in has already been masked by the forward ReLU, so clamping it is guided": (
            lambda: [1, 1, 0]
        ),
        "hook_a and hook_b are the other way round: grad_in is what torch's own backward pass made of grad_out": (
            lambda: [1, 2, 0]
        ),
        "hook_b does not look at the forward pass: it replaces torch's mask by a clamp": lambda: [2, 2, 0],
        "hook_c returns grad_in as it is: what is left is torch's own rule": lambda: [2, 1, 1],
    },
    success="clamping grad_in is guided backpropagation, clamping grad_out is the deconvnet",
)  # fmt: skip


def two_layers_down(top, second, first, hidden) -> torch.Tensor:
    """(N,P) pixels from (N,K) `top`: transpose `second` (K,M), rectify, transpose `first` (M,P); pixels stay signed."""
    return deconv.rectify(top @ second) @ first


def _two_layers() -> list[tuple[tuple, dict]]:
    generator = torch.Generator().manual_seed(5)
    image, first, second = (torch.randn(*shape, generator=generator) for shape in ((2, 8), (6, 8), (4, 6)))
    hidden = (image @ first.T).clamp(min=0)
    return [(((hidden @ second.T).clamp(min=0), second, first, hidden), {})]


walk_down = Exercise(
    "walk_down", two_layers_down, _two_layers,
    mistakes={
        "a ReLU is missing: rectify the reconstruction of the hidden layer before you filter it": (
            lambda top, second, first, hidden: top @ second @ first
        ),
        "the pixels were rectified too; after the last filtering they may be negative": (
            lambda top, second, first, hidden: ((top @ second).clamp(min=0) @ first).clamp(min=0)
        ),
        "only the pixels were rectified; the ReLU belongs to the hidden layer": (
            lambda top, second, first, hidden: (top @ second @ first).clamp(min=0)
        ),
        "masked by the hidden activations: that is the gradient": (
            lambda top, second, first, hidden: (top @ second * (hidden > 0)) @ first
        ),
        "clamped and masked by the hidden activations: that is guided backpropagation": (
            lambda top, second, first, hidden: ((top @ second).clamp(min=0) * (hidden > 0)) @ first
        ),
    },
)  # fmt: skip


# --- 00: start here --------------------------------------------------------------------------------------------------


def _a_map() -> list[tuple[tuple, dict]]:
    generator = torch.Generator().manual_seed(3)
    return [((torch.rand(height, width, generator=generator),), {}) for height, width in ((5, 7), (7, 4), (6, 6))]


def _some_maps() -> list[tuple[tuple, dict]]:
    generator = torch.Generator().manual_seed(4)
    one, other = torch.rand(3, 4, 5, generator=generator) + 0.5, torch.rand(2, 6, 6, generator=generator)
    return [((one, 0, 2, 3), {}), ((other, 1, 0, 4), {})]


def _strongest_position(map):
    """(2,) row and column of the largest value of one (h,w) map."""
    place = map.argmax()
    return torch.stack([place // map.shape[1], place % map.shape[1]])


def _single_activation(maps, channel, row, column):
    """(C,h,w) zeros but for the activation at (channel, row, column)."""
    alone = torch.zeros_like(maps)
    alone[channel, row, column] = maps[channel, row, column]
    return alone


def _whole_channel(maps, channel, row, column):
    return maps * (torch.arange(len(maps)) == channel)[:, None, None]


def _every_channel(maps, channel, row, column):
    alone = torch.zeros_like(maps)
    alone[:, row, column] = maps[:, row, column]
    return alone


strongest_position = Exercise(
    "strongest_position", _strongest_position, _a_map,
    mistakes={
        "this is (column, row); rows come first": lambda map: _strongest_position(map).flip(0),
        "the map was divided by its height; a row holds as many places as the map is wide": (
            lambda map: torch.stack([map.argmax() // map.shape[0], map.argmax() % map.shape[0]])
        ),
    },
)  # fmt: skip

single_activation = Exercise(
    "single_activation", _single_activation, _some_maps,
    mistakes={
        "the whole channel is left; one activation of it is wanted": _whole_channel,
        "this position is left in every channel; only one channel is wanted": _every_channel,
        "the place is right, but its value became 1; keep the activation's own value": (
            lambda maps, channel, row, column: _single_activation(maps, channel, row, column).sign()
        ),
    },
)  # fmt: skip


# --- 03: transposed filtering ----------------------------------------------------------------------------------------


def _filters() -> list[tuple[tuple, dict]]:
    generator = torch.Generator().manual_seed(7)
    cases = []
    for channels, kernel, padding, side in ((1, 3, 1, 6), (2, 3, 1, 6), (3, 5, 2, 7)):  # as many in as out
        conv = torch.nn.Conv2d(channels, channels, kernel, padding=padding).requires_grad_(False)
        for parameter in conv.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        cases.append(((torch.randn(1, channels, side, side, generator=generator), conv), {"size": (side, side)}))
    return cases


def _correlate(maps, weight, bias=None):
    return torch.nn.functional.conv2d(maps, weight, bias, padding=weight.shape[-1] // 2)


def _by_flipping(maps, conv, *, size):
    """(N,Cin,H,W) from (N,Cout,h,w), for stride 1: correlate with the filters flipped, channels in and out swapped."""
    flipped = conv.weight.flip(-2, -1).transpose(0, 1)  # (Cin,Cout,k,k)
    padding = [k - 1 - p for k, p in zip(conv.kernel_size, conv.padding)]
    return torch.nn.functional.conv2d(maps, flipped, padding=padding)


transposed_filter = Exercise(
    "transposed_filter", deconv.transposed_filter, _filters, source=_by_flipping,
    mistakes={
        "the filters are not flipped: every stamp lies upside down and mirrored": (
            lambda maps, conv, *, size: _correlate(maps, conv.weight.transpose(0, 1))
        ),
        "the channels are not swapped: what went in on the way up must come out on the way down": (
            lambda maps, conv, *, size: _correlate(maps, conv.weight.flip(-2, -1))
        ),
        "this is the forward convolution without its bias: swap the channels and flip the filters": (
            lambda maps, conv, *, size: _correlate(maps, conv.weight)
        ),
        "the filters are flipped only from top to bottom; flip both axes": (
            lambda maps, conv, *, size: _correlate(maps, conv.weight.flip(-2).transpose(0, 1))
        ),
        "the filters are flipped only from left to right; flip both axes": (
            lambda maps, conv, *, size: _correlate(maps, conv.weight.flip(-1).transpose(0, 1))
        ),
        "the forward bias was added; the way down has none": (
            lambda maps, conv, *, size: _correlate(maps, conv.weight.flip(-2, -1).transpose(0, 1), conv.bias)
        ),
        "the forward bias was subtracted first; the way down has none": (
            lambda maps, conv, *, size: _by_flipping(maps - conv.bias[:, None, None], conv, size=size)
        ),
    },
)  # fmt: skip


def _geometries() -> list[tuple[tuple, dict]]:
    names = ("kernel", "stride", "padding")
    table = ((224, 7, 2, 1), (223, 7, 2, 1), (56, 7, 2, 3), (224, 11, 4, 2), (30, 5, 3, 1), (14, 3, 1, 1))
    return [((size,), dict(zip(names, geometry))) for size, *geometry in table]


def _missing_rows(size, *, kernel, stride, padding):
    """How many last rows the forward windows did not reach: the remainder of the division that rounds down."""
    return (size + 2 * padding - kernel) % stride


missing_rows = Exercise(
    "missing_rows", _missing_rows, _geometries, success="the right size for every geometry",
    mistakes={
        "0 is right only where the stride divides exactly; 224 and 223 cannot both be": lambda size, **geometry: 0,
        "one row is missing at stride 2, not at every stride": lambda size, *, kernel, stride, padding: int(stride > 1),
        "the padding lies on both sides: count it twice": (
            lambda size, *, kernel, stride, padding: (size + padding - kernel) % stride
        ),
        "the first window already takes `kernel` rows: subtract them before dividing": (
            lambda size, *, kernel, stride, padding: (size + 2 * padding) % stride
        ),
        "this is the size of the maps, the quotient; the remainder is wanted": (
            lambda size, *, kernel, stride, padding: (size + 2 * padding - kernel) // stride + 1
        ),
        "this is the size that the way down reaches; the rows that it lacks are wanted": (
            lambda size, **geometry: size - _missing_rows(size, **geometry)
        ),
    },
)  # fmt: skip


def _stamped() -> list[tuple[tuple, dict]]:
    generator = torch.Generator().manual_seed(8)
    cases = []
    for out, into, side, kernel, stride in ((1, 1, 2, 3, 2), (2, 3, 3, 4, 2), (3, 2, 4, 3, 1)):
        maps = torch.randn(out, side, side, generator=generator)
        cases.append(((maps, torch.randn(out, into, kernel, kernel, generator=generator)), {"stride": stride}))
    return cases


def _stamps(maps, weight, *, stride, add=True, scale=True, step=None):
    """`_stamp_answer`, or one of its mistakes."""
    (rows, columns), kernel = maps.shape[1:], weight.shape[-1]
    image = weight.new_zeros(weight.shape[1], (rows - 1) * stride + kernel, (columns - 1) * stride + kernel)
    step = stride if step is None else step
    for channel, row, column in torch.cartesian_prod(*map(torch.arange, maps.shape)).tolist():
        place = image[:, row * step : row * step + kernel, column * step : column * step + kernel]
        stamp = weight[channel] * (maps[channel, row, column] if scale else 1)
        place.copy_(place + stamp if add else stamp)
    return image


def _stamp_answer(maps, weight, *, stride):
    """(Cin,H,W) from (Cout,h,w) maps and (Cout,Cin,k,k) filters: every activation stamps its filter, scaled."""
    (channels, rows, columns), kernel = maps.shape, weight.shape[-1]
    image = torch.zeros(weight.shape[1], (rows - 1) * stride + kernel, (columns - 1) * stride + kernel)
    for channel in range(channels):
        for row in range(rows):
            for column in range(columns):
                top, left = row * stride, column * stride
                image[:, top : top + kernel, left : left + kernel] += maps[channel, row, column] * weight[channel]
    return image


stamps = Exercise(
    "stamps", _stamp_answer, _stamped,
    mistakes={
        "where stamps overlap, the later one overwrote the earlier ones; add them": (
            lambda maps, weight, *, stride: _stamps(maps, weight, stride=stride, add=False)
        ),
        "every stamp has the same strength; multiply the filter by its activation": (
            lambda maps, weight, *, stride: _stamps(maps, weight, stride=stride, scale=False)
        ),
        "the stamps lie one pixel apart; with a stride they lie `stride` apart": (
            lambda maps, weight, *, stride: _stamps(maps, weight, stride=stride, step=1)
        ),
        "the filter was flipped before stamping; a stamp is the filter as it is, the flip belongs to the correlation": (
            lambda maps, weight, *, stride: _stamps(maps, weight.flip(-2, -1), stride=stride)
        ),
    },
)  # fmt: skip


# --- 04: the deconvnet -----------------------------------------------------------------------------------------------


def _blocks() -> list[tuple[tuple, dict]]:
    generator = torch.Generator().manual_seed(9)
    cases = []
    for channels, kernel, stride, side in ((4, 3, 1, 11), (3, 5, 2, 17)):
        conv = torch.nn.Conv2d(channels, channels, kernel, stride, padding=1)
        pool, norm = torch.nn.MaxPool2d(3, 2, ceil_mode=True), models.ResponseNorm()
        block = torch.nn.Sequential(conv, torch.nn.ReLU(), pool, norm).requires_grad_(False)
        for parameter in conv.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        image = torch.randn(1, channels, side, side, generator=generator)
        cases.append(((torch.randn(block(image).shape, generator=generator), block, image), {}))
    return cases


def _block_down(signal, block, image, *, at_relu=lambda signal, conv, maps: deconv.rectify(signal)):
    conv, relu, _, _ = block
    maps = relu(conv(image))
    _, switches = torch.nn.functional.max_pool2d(maps, 3, 2, ceil_mode=True, return_indices=True)
    signal = at_relu(deconv.unpool(signal, switches, size=maps.shape[-2:]), conv, maps)
    return deconv.transposed_filter(signal, conv, size=image.shape[-2:])


def _block_answer(signal, block, image):
    """(N,Cin,H,W): the signal at a block's output, brought down to the image that went in."""
    conv, relu, _, _ = block
    maps = relu(conv(image))  # the way up, for its switches
    _, switches = torch.nn.functional.max_pool2d(maps, 3, 2, ceil_mode=True, return_indices=True)
    unpooled = deconv.unpool(signal, switches, size=maps.shape[-2:])  # response normalisation: passed unchanged
    return deconv.transposed_filter(deconv.rectify(unpooled), conv, size=image.shape[-2:])


def _block_through_norm(signal, block, image):
    pooled = block[:3](image).requires_grad_()
    (through,) = torch.autograd.grad(block[3](pooled), pooled, signal)
    return _block_answer(through, block, image)


def _block_without_switches(signal, block, image):
    maps = torch.nn.functional.interpolate(signal, block[0](image).shape[-2:])
    return deconv.transposed_filter(deconv.rectify(maps), block[0], size=image.shape[-2:])


def _at_relu(rule: Callable) -> Callable:
    return lambda signal, block, image: _block_down(signal, block, image, at_relu=rule)


block_down = Exercise(
    "block_down", _block_answer, _blocks,
    mistakes={
        "the ReLU is missing: negative values of the reconstruction become 0": (
            _at_relu(lambda signal, conv, maps: signal)
        ),
        "this ReLU lets through what the forward ReLU let through: that is the gradient; clamp the reconstruction": (
            _at_relu(lambda signal, conv, maps: signal * (maps > 0))
        ),
        "two masks at the ReLU: that is guided backprop; clamp the reconstruction and nothing else": (
            _at_relu(lambda signal, conv, maps: signal.clamp(min=0) * (maps > 0))
        ),
        "the forward bias was added on the way down; the way down has none": (
            _at_relu(lambda signal, conv, maps: (signal + conv.bias[:, None, None]).clamp(min=0))
        ),
        "the response normalisation was differentiated; on the way down it is skipped": _block_through_norm,
        "the signal was normalised once more; on the way down nothing is normalised": (
            lambda signal, block, image: _block_answer(block[3](signal), block, image)
        ),
        "no switches: every place of a window got the value; only the place that won gets it": _block_without_switches,
    },
)  # fmt: skip


def _small_net() -> tuple[models.ZFNet, torch.Tensor]:
    """A random three-layer network of the paper's kind and two random images: (2,3,24,24)."""
    convs = (
        models.Conv(6, 5, stride=2, padding=2, pool=True, norm=True),
        models.Conv(8, 3, padding=1, pool=True),
        models.Conv(8, 3, padding=1),
    )
    generator = torch.Generator().manual_seed(10)
    net = models.ZFNet(5, geometry=models.Geometry(28, 24, convs, hidden=(12,))).requires_grad_(False).eval()
    for parameter in net.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return net, torch.randn(2, 3, 24, 24, generator=generator)


def _projections() -> list[tuple[tuple, dict]]:
    net, images = _small_net()
    peaks = deconv.Deconvnet(net).activations(images[:1], "conv3")[0].amax(dim=(1, 2))
    return [((net, images[:1], "conv3", channel), {}) for channel in peaks.topk(2).indices.tolist()]


def _projection(net, image, layer, channel):
    return deconv.Deconvnet(net).project(image, layer, channel)


def _climb(net, image, layer):
    """The activations, and (module, maps before, maps after, switches) of every step."""
    steps, target = [], net.get_submodule(net.layer_path(layer))
    for module in net.children():
        before, switches = image, None
        if isinstance(module, torch.nn.MaxPool2d):
            image, switches = torch.nn.functional.max_pool2d(before, 3, 2, ceil_mode=True, return_indices=True)
        else:
            image = module(before)
        steps.append((module, before, image, switches))
        if module is target:
            return image, steps
    raise ValueError(f"layer {layer!r} is not in this network")


_BUGS = {
    "seed": "the whole channel is the seed; keep its strongest activation alone",
    "relu": "the ReLU asks the forward maps: that is the gradient; clamp the reconstruction",
    "pool": "max_unpool2d overwrites where windows overlap; add",
}


def _descend(signal, steps, bugs=()):
    """Down through the steps of `_climb`; normalisation and dropout are passed unchanged."""
    for module, before, after, switches in reversed(steps):
        if isinstance(module, torch.nn.Conv2d):
            signal = deconv.transposed_filter(signal, module, size=before.shape[-2:])
        elif isinstance(module, torch.nn.ReLU):
            signal = signal * (after > 0) if "relu" in bugs else deconv.rectify(signal)
        elif isinstance(module, torch.nn.MaxPool2d) and "pool" in bugs:
            signal = torch.nn.functional.max_unpool2d(signal, switches, 3, 2, output_size=before.shape[-2:])
        elif isinstance(module, torch.nn.MaxPool2d):
            signal = deconv.unpool(signal, switches, size=before.shape[-2:])
    return signal


def _project_answer(net, image, layer, channel):
    """(1,3,H,W): the strongest activation of one channel, projected down to pixels."""
    activations, steps = _climb(net, image, layer)
    seed = torch.zeros_like(activations)
    seed[:, channel] = activations[:, channel]
    seed[seed < seed.amax()] = 0  # one activation, not the channel
    return _descend(seed, steps)  # clamped at every ReLU, added where windows overlap


def _buggy(*bugs: str) -> Callable:
    """`_project_answer` with some of its exercise's bugs still in it."""

    def project(net, image, layer, channel):
        activations, steps = _climb(net, image, layer)
        seed = torch.zeros_like(activations)
        seed[:, channel] = activations[:, channel]
        return _descend(seed if "seed" in bugs else seed * (seed == seed.amax()), steps, bugs)

    return project


project = Exercise(
    "project", _projection, _projections, source=_project_answer,
    success="all three bugs are gone; the same numbers as Deconvnet.project",
    mistakes={
        "; and ".join(_BUGS[bug] for bug in bugs): _buggy(*bugs)
        for count in (1, 2, 3) for bugs in itertools.combinations(_BUGS, count)
    },
)  # fmt: skip


def _pairs() -> list[tuple[tuple, dict]]:
    net, images = _small_net()
    channel = int(deconv.Deconvnet(net).activations(images, "conv3").amax(dim=(2, 3)).amin(dim=0).argmax())
    first, second = images.split(1)
    return [((net, first, second, "conv3", channel), {}), ((net, second, first, "conv3", channel), {})]


def _swap_answer(net, image, other, layer, channel):
    """(1,3,H,W): the strongest activation of `image` in one channel, brought down with the switches of `other`."""
    activations, steps = _climb(net, image, layer)
    _, others = _climb(net, other, layer)
    seed = torch.zeros_like(activations)
    seed[:, channel] = activations[:, channel]
    seed[seed < seed.amax()] = 0
    return _descend(seed, [(*step[:3], foreign[3]) for step, foreign in zip(steps, others)])


swap_switches = Exercise(
    "swap_switches", _swap_answer, _pairs,
    mistakes={
        "nothing was swapped: the switches are still the first image's own": (
            lambda net, image, other, layer, channel: _projection(net, image, layer, channel)
        ),
        "activation and switches both come from the second image; the activation is the first image's": (
            lambda net, image, other, layer, channel: _projection(net, other, layer, channel)
        ),
        "the wrong way round: the activation is the first image's, the switches are the second's": (
            lambda net, image, other, layer, channel: _swap_answer(net, other, image, layer, channel)
        ),
    },
)  # fmt: skip
