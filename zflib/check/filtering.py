"""Exercises of notebook 03: stamps, the filter transposed, and the rows that a stride leaves open."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional as F

from .. import deconv
from .cases import case, seeded
from .verdict import WRONG, Exercise, Verdict, in_numbers


def _whole(generator, *shape, least=0) -> torch.Tensor:
    """Whole numbers from `least` to 3, small enough to add up by hand."""
    return torch.randint(least, 4, shape, generator=generator).float()


@dataclass
class _Growing(Exercise):
    """Cases that grow: the first one with a difference is drawn. A wrong size may have a name, too.

    `sizes` maps the sentence to a function that makes a mistake of size, as `mistakes` does for all others.
    """

    sizes: dict[str, Callable] = field(default_factory=dict)

    def _judge(self, attempt: Callable) -> Verdict:
        found = super()._judge(attempt)
        if not self.sizes or "result has shape" not in found.message:
            return found
        answers, targets = self._all(attempt), self._all(self.target)
        for sentence, mistake in self.sizes.items():
            if all(map(_alike, answers, self._all(mistake))):
                found.message = sentence
        i = next(i for i, pair in enumerate(zip(answers, targets)) if not _alike(*pair))
        return Verdict(WRONG, found.message, self._picture(i, answers[i], targets[i]))

    def _all(self, function: Callable) -> list[torch.Tensor]:
        return [torch.as_tensor(function(*args, **kwargs)).detach().cpu() for args, kwargs in self.cases()]

    def _compare_answers(self, answers: list, targets: list) -> Verdict:
        found = super()._compare_answers(answers, targets)
        different = [i for i, pair in enumerate(zip(answers, targets)) if not _alike(*map(torch.as_tensor, pair))]
        i = different[0] if different else 0
        return Verdict(found.state, found.message, self._picture(i, answers[i], targets[i]))


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one.detach().cpu().double(), other.double(), atol=1e-3)


# --- stamps ----------------------------------------------------------------------------------------------------------


@seeded(8)
def _stamped(generator):
    yield case(torch.tensor([[[1.0, 2], [0, 3]]]), torch.arange(1.0, 10).view(1, 1, 3, 3), stride=2)
    for out, into, side, kernel, stride in ((2, 3, 2, 3, 2), (3, 2, 3, 2, 1)):
        maps = _whole(generator, out, side, side + 1)
        yield case(maps, _whole(generator, out, into, kernel, kernel, least=-3), stride=stride)


def stamp_all(maps: torch.Tensor, weight: torch.Tensor, *, stride: int) -> torch.Tensor:
    """(Cin,H,W) from (Cout,h,w) maps and (Cout,Cin,k,k) filters: every activation stamps its filter, scaled."""
    (channels, rows, columns), kernel = maps.shape, weight.shape[-1]
    image = torch.zeros(weight.shape[1], (rows - 1) * stride + kernel, (columns - 1) * stride + kernel)
    for channel in range(channels):
        for row in range(rows):
            for column in range(columns):
                top, left = row * stride, column * stride
                image[:, top : top + kernel, left : left + kernel] += maps[channel, row, column] * weight[channel]
    return image


def _overwritten(maps, weight, *, stride):
    image, kernel = torch.zeros_like(stamp_all(maps, weight, stride=stride)), weight.shape[-1]
    for channel, row, column in torch.cartesian_prod(*map(torch.arange, maps.shape)).tolist():
        place = image[:, row * stride : row * stride + kernel, column * stride : column * stride + kernel]
        place.copy_(maps[channel, row, column] * weight[channel])
    return image


def _close_together(maps, weight, *, stride):
    """Stamps one pixel apart, in the top left of an image that has room for them `stride` pixels apart."""
    stamped, (rows, columns) = stamp_all(maps, weight, stride=1), maps.shape[1:]
    return F.pad(stamped, (0, (columns - 1) * (stride - 1), 0, (rows - 1) * (stride - 1)))


def _exchanged(maps, weight, *, stride):
    """Rows and columns of the map exchanged, as far as the stamps fit into the image."""
    image, kernel = torch.zeros_like(stamp_all(maps, weight, stride=stride)), weight.shape[-1]
    for channel, row, column in torch.cartesian_prod(*map(torch.arange, maps.shape)).tolist():
        place = image[:, column * stride : column * stride + kernel, row * stride : row * stride + kernel]
        place += (maps[channel, row, column] * weight[channel])[:, : place.shape[1], : place.shape[2]]
    return image


def _one_colour(maps, weight, *, stride):
    """Only the first of the input's channels is stamped."""
    return torch.cat([stamp_all(maps, weight[:, :1], stride=stride), stamp_all(maps * 0, weight[:, 1:], stride=stride)])


def _draw_stamps(given, answer, target) -> np.ndarray:
    (maps, weight), _ = given
    return in_numbers({_first("maps", maps): maps, _first("filter", weight): weight}, answer, target, blank=0)


def _first(name: str, values: torch.Tensor) -> str:
    """The title of the one map of `values` that is drawn."""
    count = values.numel() // (values.shape[-2] * values.shape[-1])
    return name if count == 1 else f"{name}: the first of {count}"


stamps = _Growing(
    "stamps", stamp_all, _stamped,
    mistakes={
        "where stamps overlap, the later one overwrote the earlier ones; add them": _overwritten,
        "every stamp has the same strength; multiply the filter by its activation":
            lambda maps, weight, stride: stamp_all(torch.ones_like(maps), weight, stride=stride),
        "the stamps lie one pixel apart; with a stride they lie `stride` apart": _close_together,
        "the filter was flipped before stamping; a stamp is the filter as it is":
            lambda maps, weight, stride: stamp_all(maps, weight.flip(-2, -1), stride=stride),
        "only the first channel of the maps was stamped; the stamps of all channels add up":
            lambda maps, weight, stride: stamp_all(maps[:1], weight[:1], stride=stride),
        "every channel was stamped with the first channel's filter; channel number c stamps weight[c]":
            lambda maps, weight, stride: stamp_all(maps, weight[:1].expand_as(weight), stride=stride),
        "only the first colour of the image was written; weight[channel] holds a filter for each": _one_colour,
        "row and column are exchanged: the row of the map says how far down, the column how far to the right":
            _exchanged,
    },
    success="every activation stamped its filter, and stamps that overlap add up",
    draw=_draw_stamps,
)  # fmt: skip


# --- the transpose by flipping ----------------------------------------------------------------------------------------


@seeded(7)
def _filters(generator):
    yield _with_whole_filters(generator, 1, 3, 0, 3)  # a padding of (k-1)/2 would be the same up and down
    for channels, kernel, padding, side in ((2, 3, 1, 5), (2, 4, 1, 4), (3, 3, 2, 5)):  # as many in as out
        yield _with_whole_filters(generator, channels, kernel, padding, side)


def _with_whole_filters(generator, channels: int, kernel: int, padding: int, side: int):
    conv = torch.nn.Conv2d(channels, channels, kernel, padding=padding).requires_grad_(False)
    conv.weight.copy_(_whole(generator, *conv.weight.shape, least=-3))
    if channels == 1:
        conv.weight.copy_(torch.arange(1.0, kernel**2 + 1).view_as(conv.weight))  # a flip shows
    conv.bias.copy_(torch.arange(1.0, channels + 1))
    size = side + kernel - 1 - 2 * padding
    return case(_whole(generator, 1, channels, side, side), conv, size=(size, size))


def _by_flipping(maps, conv, *, size):
    """(N,Cin,H,W) from (N,Cout,h,w), for stride 1: correlate with the filters flipped, channels in and out swapped."""
    flipped = conv.weight.flip(-2, -1).transpose(0, 1)  # (Cin,Cout,k,k)
    padding = [k - 1 - p for k, p in zip(conv.kernel_size, conv.padding)]
    return torch.nn.functional.conv2d(maps, flipped, padding=padding)


def _correlate_with(change):
    """Correlate with what `change` makes of the filters, padded as it should be."""
    return lambda maps, conv, size: F.conv2d(
        maps, change(conv.weight), padding=conv.kernel_size[0] - 1 - conv.padding[0]
    )


def _padded_by(padding):
    """All is right but the padding."""
    return lambda maps, conv, size: F.conv2d(
        maps, conv.weight.flip(-2, -1).transpose(0, 1), padding=padding(conv.kernel_size[0], conv.padding[0])
    )


def _draw_transposed(given, answer, target) -> np.ndarray:
    (maps, conv), _ = given
    inputs = {_first("maps", maps): maps, _first("filter", conv.weight): conv.weight}
    return in_numbers(inputs, answer, target, blank=0)


transposed_filter = _Growing(
    "transposed_filter", deconv.transposed_filter, _filters, source=_by_flipping,
    mistakes={
        "the filters are not flipped: every stamp lies upside down and mirrored":
            _correlate_with(lambda weight: weight.transpose(0, 1)),
        "the channels are not swapped: what went in on the way up must come out on the way down":
            _correlate_with(lambda weight: weight.flip(-2, -1)),
        "this is the forward convolution without its bias: swap the channels and flip the filters":
            _correlate_with(lambda weight: weight),
        "the filters are flipped only from top to bottom; flip both axes":
            _correlate_with(lambda weight: weight.flip(-2).transpose(0, 1)),
        "the filters are flipped only from left to right; flip both axes":
            _correlate_with(lambda weight: weight.flip(-1).transpose(0, 1)),
        "rows and columns of the filters are exchanged; flip(-2, -1) turns them by half a turn":
            _correlate_with(lambda weight: weight.transpose(0, 1).transpose(-2, -1)),
        "the forward bias was added; the way down has none":
            lambda maps, conv, size: _by_flipping(maps, conv, size=size) + conv.bias[:, None, None],
        "the forward bias was subtracted first; the way down has none":
            lambda maps, conv, size: _by_flipping(maps - conv.bias[:, None, None], conv, size=size),
    },
    sizes={
        "this is the same padding as on the way up; the corner pixel must reach every activation that saw it: "
        "k - 1 - padding": _padded_by(lambda kernel, padding: padding),
        "k - 1 is the padding if the way up had none; what it padded must be cut off again: k - 1 - padding":
            _padded_by(lambda kernel, padding: kernel - 1),
        "without padding the maps shrink, and they must grow: pad by k - 1 - padding":
            _padded_by(lambda kernel, padding: 0),
        "neither the padding nor the filters are right: pad by k - 1 - padding, and flip both axes":
            lambda maps, conv, size: F.conv2d(maps, conv.weight.transpose(0, 1), padding=conv.padding),
        "this is the forward convolution once more: swap the channels, flip the filters, pad by k - 1 - padding":
            lambda maps, conv, size: F.conv2d(maps, conv.weight, padding=conv.padding),
    },
    success="the same numbers as the package's own, for every padding",
    draw=_draw_transposed,
)  # fmt: skip


# --- the rows that a stride leaves open: the notebook on grids and sizes ----------------------------------------------

#: size, kernel, stride, padding; the first one is small enough to be drawn
_GEOMETRIES = ((12, 4, 3, 0), (224, 7, 2, 1), (223, 7, 2, 1), (56, 7, 2, 3), (224, 11, 4, 2), (30, 5, 3, 1),
               (14, 3, 1, 1))  # fmt: skip


def _missing_rows(size, *, kernel, stride, padding):
    """How many last rows the forward windows did not reach: the remainder of the division that rounds down."""
    return (size + 2 * padding - kernel) % stride


def _draw_rows(given, answer, target) -> np.ndarray:
    """The geometry, in how many windows each row lies (if they are few), and the answers."""
    (size,), geometry = given
    inputs = {"size, kernel, stride, padding": torch.tensor([[size, *geometry.values()]])}
    if size <= 12:
        inputs["rows: windows that reach each"] = _reached(size, **geometry)
    return in_numbers(inputs, answer, target)


def _reached(size: int, *, kernel: int, stride: int, padding: int) -> torch.Tensor:
    """(1,size+2*padding): in how many windows each row of the padded image lies."""
    rows = torch.zeros(1, size + 2 * padding)
    for first in range(0, rows.numel() - kernel + 1, stride):
        rows[0, first : first + kernel] += 1
    return rows


missing_rows = _Growing(
    "missing_rows", _missing_rows,
    lambda: [case(size, kernel=k, stride=s, padding=p) for size, k, s, p in _GEOMETRIES],
    success="the right size for every geometry",
    mistakes={
        "0 is right only where the stride divides exactly; 224 and 223 cannot both be": lambda size, **geometry: 0,
        "one row is missing at stride 2, not at every stride": lambda size, kernel, stride, padding: int(stride > 1),
        "the padding lies on both sides: count it twice":
            lambda size, kernel, stride, padding: (size + padding - kernel) % stride,
        "the first window already takes `kernel` rows: subtract them before dividing":
            lambda size, kernel, stride, padding: (size + 2 * padding) % stride,
        "divide by the stride, not by the kernel: each further window takes `stride` more rows":
            lambda size, kernel, stride, padding: (size + 2 * padding - kernel) % kernel,
        "the sign is wrong: it is the size minus what the way down reaches, never below 0":
            lambda size, **geometry: -_missing_rows(size, **geometry),
        "this is the size of the maps, the quotient; the remainder is wanted":
            lambda size, kernel, stride, padding: (size + 2 * padding - kernel) // stride + 1,
        "this is the size that the way down reaches; the rows that it lacks are wanted":
            lambda size, **geometry: size - _missing_rows(size, **geometry),
    },
    draw=_draw_rows,
)  # fmt: skip
