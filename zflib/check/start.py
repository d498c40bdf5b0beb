"""Exercises of notebook 00: what a filter makes of an image, and the one activation that a deconvnet starts from."""

import numpy as np
import torch

from .. import show
from .cases import case, seeded
from .verdict import RIGHT, WRONG, Exercise, Verdict, in_numbers

# --- a filter laid on an image ---------------------------------------------------------------------------------------


@seeded(5)
def _small_images(generator):
    for size, sides in (((5, 6), (3, 3)), ((6, 4), (2, 3))):
        image = torch.randint(0, 6, size, generator=generator).float()
        numbers = torch.randperm(sides[0] * sides[1], generator=generator) - 3  # no two alike: no symmetry hides
        yield case(image, numbers.view(sides).float())


def apply_filter(image: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """(H-h+1,W-w+1): at each position, the sum of the products of the (h,w) weights and the (H,W) image under them."""
    height, width = weights.shape
    rows, columns = image.shape[0] - height + 1, image.shape[1] - width + 1
    filtered = torch.zeros(rows, columns)
    for row in range(rows):
        for column in range(columns):
            window = image[row : row + height, column : column + width]
            filtered[row, column] = (window * weights).sum()
    return filtered


def _each_window(image, weights, measure):
    """(H-h+1,W-w+1): what `measure` makes of each window (h,w) of the image."""
    windows = image.unfold(0, weights.shape[0], 1).unfold(1, weights.shape[1], 1)
    return torch.stack([torch.stack([measure(window) for window in row]) for row in windows])


def _draw_filtered(given, answer, target) -> np.ndarray:
    (image, weights), _ = given
    return in_numbers({"image": image, "filter": weights}, answer, target)


filter_image = Exercise(
    "filter_image", apply_filter, _small_images,
    mistakes={
        "the filter is turned by 180°; networks lay it on the image as it is":
            lambda image, weights: apply_filter(image, weights.flip(0, 1)),
        "the filter is mirrored from left to right; lay it on the image as it is":
            lambda image, weights: apply_filter(image, weights.flip(1)),
        "the filter is upside down; lay it on the image as it is":
            lambda image, weights: apply_filter(image, weights.flip(0)),
        "negative sums became 0; the ReLU comes later, keep them":
            lambda image, weights: apply_filter(image, weights).clamp(min=0),
        "you took the mean of the products; add them up":
            lambda image, weights: apply_filter(image, weights) / weights.numel(),
        "you kept the largest product; add all of them up":
            lambda image, weights: _each_window(image, weights, lambda window: (window * weights).max()),
        "the window was added up without the filter; first multiply each pixel by the weight that lies on it":
            lambda image, weights: _each_window(image, weights, torch.sum),
        "every position has the sum of the window at the top left; move the window with row and column":
            lambda image, weights: apply_filter(image, weights)[0, 0].expand(apply_filter(image, weights).shape),
    },
    success="each activation is the sum of the products under the filter",
    draw=_draw_filtered,
)  # fmt: skip


# --- one activation alone --------------------------------------------------------------------------------------------


@seeded(4)
def _some_maps(generator):
    for shape, channel, (row, column) in (((3, 3, 4), 1, (1, 2)), ((2, 5, 3), 0, (2, 1))):
        maps = torch.randint(1, 7, shape, generator=generator).float()
        maps[channel, row, column] = 8
        maps[channel - 1, 0, -1] = 8  # as large, but in another channel
        maps[channel - 1, -1, 0] = 9  # the layer's strongest is not the channel's
        yield case(maps, channel)


def keep_strongest(maps: torch.Tensor, channel: int) -> torch.Tensor:
    """(C,h,w) zeros but for the strongest activation of one channel of the (C,h,w) `maps`, which stay as they are."""
    row, column = divmod(int(maps[channel].argmax()), maps.shape[2])  # argmax counts in reading order
    alone = torch.zeros_like(maps)
    alone[channel, row, column] = maps[channel, row, column]
    return alone


def _at(maps, channel, row, column):
    """The channel's strongest value, at another position, beyond the border counted from the other side."""
    alone = torch.zeros_like(maps)
    alone[channel, row % maps.shape[1], column % maps.shape[2]] = maps[channel].max()
    return alone


def _displaced(change, *, copied: bool = False):
    """The mistake of writing the value, or with `copied` what stands there, at change(row, column, height, width)."""

    def attempt(maps, channel):
        row, column = divmod(int(maps[channel].argmax()), maps.shape[2])
        alone = _at(maps, channel, *change(row, column, *maps.shape[1:]))
        return torch.where(alone != 0, maps, 0.0) if copied else alone

    return attempt


def _exchanged(row, column, height, width):
    return column, row


def _divided_by_height(row, column, height, width):
    return divmod(row * width + column, height)


def _one_too_far(row, column, height, width):
    return row + 1, column + 1


def _strongest_of_all(maps, channel):
    return keep_strongest(maps, int(maps.flatten(1).amax(dim=1).argmax()))


def _whole_channel(maps, channel):
    alone = torch.zeros_like(maps)
    alone[channel] = maps[channel]
    return alone


def _every_channel(maps, channel):
    row, column = divmod(int(maps[channel].argmax()), maps.shape[2])
    alone = torch.zeros_like(maps)
    alone[:, row, column] = maps[:, row, column]
    return alone


class _Untouched(Exercise):
    """Right is only an answer that leaves its input as it was."""

    def _judge(self, attempt) -> Verdict:
        verdict = super()._judge(attempt)
        if verdict.state == RIGHT and any(_writes(attempt, *args) for args, _ in self.cases()):
            sentence = "the answer is right, but `maps` was changed on the way; begin with torch.zeros_like(maps)"
            return Verdict(WRONG, sentence, verdict.picture)
        return verdict


def _writes(attempt, maps, channel) -> bool:
    before = maps.clone()
    attempt(maps, channel)
    return not torch.equal(maps, before)


def _draw_single(given, answer, target) -> np.ndarray:
    """One row of channels for the maps, one for the answer, one for the target."""
    (maps, channel), _ = given
    rows = {"maps": maps} | ({} if answer is None else {"yours": answer}) | {"target": target}
    return np.concatenate([_channels(name, values, channel) for name, values in rows.items()])


def _channels(name: str, values, asked: int) -> np.ndarray:
    maps = torch.as_tensor(values).detach().cpu()
    titles = [f"{name}, channel {i}{' (asked for)' if i == asked else ''}" for i in range(len(maps))]
    row = show.axes_pixels(show.matrices(list(maps), titles=titles, full=10, blank=0))
    return show.upscale(row, 760, smooth=True)


single_activation = _Untouched(
    "single_activation", keep_strongest, _some_maps,
    mistakes={
        "row and column are exchanged: row = position // width, column = position % width":
            _displaced(_exchanged),
        "a row has as many positions as the map is wide: divide by the width, not by the height":
            _displaced(_divided_by_height),
        "the value is one row and one column too far: rows and columns are counted from 0":
            _displaced(_one_too_far),
        "this number stands where row and column are exchanged: row = position // width, column = position % width":
            _displaced(_exchanged, copied=True),
        "this number stands where the position was divided by the height; a row has as many positions as the map is "
        "wide":
            _displaced(_divided_by_height, copied=True),
        "this number stands one row and one column too far: rows and columns are counted from 0":
            _displaced(_one_too_far, copied=True),
        "this is the strongest activation of all channels; keep the strongest of the channel that is asked for":
            _strongest_of_all,
        "the whole channel is left; keep one activation of it": _whole_channel,
        "this position is left in every channel; keep it in one channel only": _every_channel,
        "a value of another channel is left that is just as large; write to one position only":
            lambda maps, channel: torch.where(maps == maps[channel].max(), maps, 0.0),
        "every channel's strongest activation is left; keep that of one channel only":
            lambda maps, channel: sum(keep_strongest(maps, i) for i in range(len(maps))),
        "the position is right, but its value became 1; keep the activation's own value":
            lambda maps, channel: keep_strongest(maps, channel).sign(),
    },
    success="one activation is left, with its value and at its position",
    draw=_draw_single,
)  # fmt: skip
