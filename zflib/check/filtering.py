"""Exercises of notebook 03: the filter, transposed."""

import torch
from torch.nn import functional as F

from .. import deconv
from .cases import case, randomised, seeded
from .verdict import Exercise


@seeded(7)
def _filters(generator):
    for channels, kernel, padding, side in ((1, 3, 1, 6), (2, 3, 1, 6), (3, 5, 2, 7)):  # as many in as out
        conv = randomised(torch.nn.Conv2d(channels, channels, kernel, padding=padding), generator)
        yield case(torch.randn(1, channels, side, side, generator=generator), conv, size=(side, side))


def _by_flipping(maps, conv, *, size):
    """(N,Cin,H,W) from (N,Cout,h,w), for stride 1: correlate with the filters flipped, channels in and out swapped."""
    flipped = conv.weight.flip(-2, -1).transpose(0, 1)  # (Cin,Cout,k,k)
    padding = [k - 1 - p for k, p in zip(conv.kernel_size, conv.padding)]
    return torch.nn.functional.conv2d(maps, flipped, padding=padding)


def _correlate_with(change):
    """Correlate with what `change` makes of the filters; these have as many rows of padding on either way."""
    return lambda maps, conv, size: F.conv2d(maps, change(conv.weight), padding=conv.padding)


transposed_filter = Exercise(
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
        "the forward bias was added; the way down has none":
            lambda maps, conv, size: _by_flipping(maps, conv, size=size) + conv.bias[:, None, None],
        "the forward bias was subtracted first; the way down has none":
            lambda maps, conv, size: _by_flipping(maps - conv.bias[:, None, None], conv, size=size),
    },
)  # fmt: skip


#: size, kernel, stride, padding
_GEOMETRIES = ((224, 7, 2, 1), (223, 7, 2, 1), (56, 7, 2, 3), (224, 11, 4, 2), (30, 5, 3, 1), (14, 3, 1, 1))


def _missing_rows(size, *, kernel, stride, padding):
    """How many last rows the forward windows did not reach: the remainder of the division that rounds down."""
    return (size + 2 * padding - kernel) % stride


missing_rows = Exercise(
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
        "this is the size of the maps, the quotient; the remainder is wanted":
            lambda size, kernel, stride, padding: (size + 2 * padding - kernel) // stride + 1,
        "this is the size that the way down reaches; the rows that it lacks are wanted":
            lambda size, **geometry: size - _missing_rows(size, **geometry),
    },
)  # fmt: skip


@seeded(8)
def _stamped(generator):
    for out, into, side, kernel, stride in ((1, 1, 2, 3, 2), (2, 3, 3, 4, 2), (3, 2, 4, 3, 1)):
        maps = torch.randn(out, side, side, generator=generator)
        yield case(maps, torch.randn(out, into, kernel, kernel, generator=generator), stride=stride)


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


def _overwritten(maps, weight, *, stride):
    image, kernel = torch.zeros_like(_stamp_answer(maps, weight, stride=stride)), weight.shape[-1]
    for channel, row, column in torch.cartesian_prod(*map(torch.arange, maps.shape)).tolist():
        place = image[:, row * stride : row * stride + kernel, column * stride : column * stride + kernel]
        place.copy_(maps[channel, row, column] * weight[channel])
    return image


def _close_together(maps, weight, *, stride):
    """Stamps one pixel apart, in the top left of an image that has room for them `stride` pixels apart."""
    stamped, (rows, columns) = _stamp_answer(maps, weight, stride=1), maps.shape[1:]
    return F.pad(stamped, (0, (columns - 1) * (stride - 1), 0, (rows - 1) * (stride - 1)))


stamps = Exercise(
    "stamps", _stamp_answer, _stamped,
    mistakes={
        "where stamps overlap, the later one overwrote the earlier ones; add them": _overwritten,
        "every stamp has the same strength; multiply the filter by its activation":
            lambda maps, weight, stride: _stamp_answer(torch.ones_like(maps), weight, stride=stride),
        "the stamps lie one pixel apart; with a stride they lie `stride` apart": _close_together,
        "the filter was flipped before stamping; a stamp is the filter as it is, the flip belongs to the correlation":
            lambda maps, weight, stride: _stamp_answer(maps, weight.flip(-2, -1), stride=stride),
    },
)  # fmt: skip
