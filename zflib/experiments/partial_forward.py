"""The partial forward: what a change of some pixels reaches is computed again, and nothing else.

Incremental inference under occlusion (Nakandala et al. 2019, SIGMOD): a covered square is carried from step to step as
a patch of each map, with as much of the unchanged map around it as the next filter or pool needs. Where branches meet,
a patch holds what either of them changed. Once patches are most of a map, whole maps go on. Exact: no approximation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import nn
from torch.nn import functional as F

from .._arguments import check_sides
from ..record import Step, Tape, record
from ..record.hooks import plain
from ..record.steps import Filter, FullyConnected, Pool

#: A multiply-add takes so many times as long in patches as in whole maps.
DEARER = 1.2

#: Patches of one class differ by less than this in how far they reach.
ALIKE = 0.85

#: The first and the last row and column, (P,2) each, of P boxes.
Boxes = tuple[torch.Tensor, torch.Tensor]


@dataclass
class Patches:
    """P changed patches: values (P,C,h,w) and the (P,2) corners, on the CPU, at which they begin in their maps."""

    values: torch.Tensor
    corners: torch.Tensor

    @property
    def size(self) -> torch.Size:
        return self.values.shape[2:]

    def window(self, maps: torch.Tensor, corners: torch.Tensor, size) -> torch.Tensor:
        """(P,C,*size): windows of the unchanged (C,H,W) maps at (P,2) corners, with the patches in them."""
        if self.size == tuple(size) and torch.equal(corners, self.corners):
            return self.values
        windows = _windows(maps, corners, size)
        _put(windows, self.values, self.corners - corners)
        return windows

    def inside(self, maps: torch.Tensor) -> torch.Tensor:
        """(P,C,H,W): the unchanged (C,H,W) maps with each patch in its place."""
        return self.window(maps, torch.zeros_like(self.corners), maps.shape[1:])


class Layer:
    """A step that can be computed in patches, with the unchanged maps (C,H,W) that went in, padded, and came out."""

    def __init__(self, step: Step, given: list[torch.Tensor], out: torch.Tensor):
        kernel, self.stride, self.padding, dilation = (_pair(pair) for pair in step.window)
        self.step, self.reach, self.whole = step, dilation * (kernel - 1) + 1, _pair(out.shape[1:])
        self.given, self.out = [_channels_last(self._padded(maps)) for maps in given], _channels_last(out)
        # the change of the output follows from the change of the input alone, which is smaller than a window around it
        plain = isinstance(step, Filter) and step.groups == 1 and bool((self.stride == 1).all() & (dilation == 1).all())
        self.scatters = plain and bool((kernel > 1).any())
        self.taps = _taps(step.weight) if self.scatters else {}

    def _padded(self, maps: torch.Tensor) -> torch.Tensor:
        """With the step's padding, and with what ceil mode adds at the end; -infinity for maxima."""
        needed = (self.whole - 1) * self.stride + self.reach - self.padding - _pair(maps.shape[1:])
        (top, left), (bottom, right) = self.padding.tolist(), needed.clamp(min=0).tolist()
        return F.pad(maps, (left, right, top, bottom), value=-torch.inf if isinstance(self.step, Pool) else 0.0)

    def reached(self, given: list[Boxes]) -> Boxes:
        """What of the output changes with these boxes of its inputs: one box that covers all of it."""
        first, last = given[0] if len(given) == 1 else _joined(given)
        begin = -(self.reach - 1 - self.padding - first).div(self.stride, rounding_mode="floor")
        end = (last + self.padding).div(self.stride, rounding_mode="floor")
        begin = torch.minimum(begin.clamp(min=0), self.whole - 1)
        return begin, torch.maximum(torch.minimum(end, self.whole - 1), begin)

    def through(self, given: list[Patches]) -> Patches:
        """The patches of the output that these can change, all of one size."""
        first, last = self.reached([(one.corners, one.corners + _pair(one.size) - 1) for one in given])
        size = (last - first).amax(0) + 1
        corners = torch.minimum(first, self.whole - size)
        given = [Patches(one.values, one.corners + self.padding) for one in given]
        if self.scatters:
            return self._changed(given[0], corners, size.tolist())
        start, shape = corners * self.stride, ((size - 1) * self.stride + self.reach).tolist()
        windows = [one.window(maps, start, shape) for one, maps in zip(given, self.given)]
        return Patches(self._run(*windows), corners)

    def _run(self, *windows: torch.Tensor) -> torch.Tensor:
        """The step on windows that are padded already."""
        step = self.step
        if isinstance(step, Filter):
            return F.conv2d(*windows, step.weight, step.bias, step.stride, 0, step.dilation, step.groups)
        if isinstance(step, Pool):
            return F.max_pool2d(*windows, step.kernel, step.stride, 0, step.dilation)
        return step.again(*windows)

    def _changed(self, given: Patches, corners: torch.Tensor, size: list[int]) -> Patches:
        change = given.values - _windows(self.given[0], given.corners, given.size)
        values = _windows(self.out, corners, size)
        _put(values, self.scatter(change), given.corners - self.reach + 1 - corners, add=True)
        return Patches(values, corners)

    def scatter(self, change: torch.Tensor) -> torch.Tensor:
        """(P,C',h+k-1,w+k-1) change of a convolution's output for (P,C,h,w) change of its input, tap by tap."""
        lines = change.permute(2, 3, 0, 1).contiguous()  # (h,w,P,C): a line of all patches is one matrix
        (height, width, number, _), (down, right) = lines.shape, (self.reach - 1).tolist()
        out = change.new_zeros(height + down, width + right, number, len(self.step.weight))
        for (row, column), tap in self.taps.items():
            seen = out[down - row : down - row + height, right - column : right - column + width]
            seen.flatten(1, 2).baddbmm_(lines.flatten(1, 2), tap.expand(height, -1, -1))  # no product is stored
        return out.permute(2, 3, 0, 1)


class PartialForward:
    """A recorded network at one image (1,3,H,W); called, it says what it gives where patches of the image differ.

    Unsupported steps, those that cannot be computed again, raise ValueError.
    """

    def __init__(self, tape: Tape, image: torch.Tensor):
        self.steps, self.layer, self.end = tape.steps, tape.place, len(tape.steps) - 1
        self.places, self.cut = [place for place in tape.used(self.layer, self.end) if place], 0
        self.last = {0: 0} | {place: place for place in self.places}  # where each value is read for the last time
        self.last |= {given: place for place in self.places for given in self.steps[place].inputs}
        self.layers: dict[int, Layer] = {}
        maps = {0: image}
        for place in self.places:
            step = self.steps[place]
            if step.again is None:
                raise ValueError(f"net: {type(step).__name__} at step {place} cannot be computed again")
            given = [maps[number] for number in step.inputs]
            maps[place] = step.again(*given)
            if all(number == 0 or number in self.layers for number in step.inputs) and _in_patches(step, given):
                self.layers[place] = Layer(step, [one[0] for one in given], maps[place][0])

    def work(self, place: int) -> int:
        """Multiply-adds for one whole image; nothing but convolutions and fully connected layers takes long."""
        step = self.steps[place]
        if not isinstance(step, Filter | FullyConnected):
            return 0
        return step.shape[1:].numel() * (step.weight[0].numel() if isinstance(step, Filter) else len(step.weight))

    def boxes(self, corners: torch.Tensor, size) -> dict[int, Boxes]:
        """Place -> what of the maps there changes with squares of `size` at (P,2) corners."""
        found = {0: (corners, corners + _pair(size) - 1)}
        for place, layer in self.layers.items():
            found[place] = layer.reached([found[given] for given in layer.step.inputs])
        return found

    def shares(self, corners: torch.Tensor, size) -> dict[int, float]:
        """Place -> the share of its multiply-adds that the largest patch takes there."""
        areas = {place: _area(boxes) for place, boxes in self.boxes(corners, size).items()}
        return {
            place: areas[layer.step.inputs[0] if layer.scatters else place] / int(layer.whole.prod())
            for place, layer in self.layers.items()
        }

    def choose(self, corners: torch.Tensor, size) -> float:
        """Multiply-adds that one square saves at best: with patches up to the `cut`, whole maps from there on.

        Only a value through which everything passes can be the cut: in a network that branches, a place between blocks.
        """
        saved, best, read, self.cut = 0.0, 0.0, self.last[0], 0
        shares = self.shares(corners, size)
        for place in self.places:
            if place not in self.layers:
                break
            saved += self.work(place) * (1 - DEARER * shares[place])
            if read <= place and saved >= best:
                best, self.cut = saved, place
            read = max(read, self.last[place])
        return best

    def classes(self, corners: torch.Tensor, size) -> torch.Tensor:
        """(P,) numbers of the classes of squares: the patches of one class are about equally large at the cut.

        Near a border a patch is cut off; computed with such as are whole, it would cost as much as they do.
        """
        first, last = self.boxes(corners, size)[self.cut]
        rows, columns = (_classes(lengths) for lengths in (last - first + 1).T)
        return rows * (int(columns.max()) + 1) + columns

    def numbers(self, corners: torch.Tensor, size) -> int:
        """How many numbers one square keeps alive at most, counted at the step that needs most."""
        boxes, alive, most = self.boxes(corners, size), {0: 0}, 0
        for place in self.places:
            whole, patch = self.steps[place].shape[1:].numel(), 0
            if place <= self.cut:
                whole, patch = (whole if place == self.cut else 0), self.steps[place].shape[1] * _area(boxes[place])
            alive[place] = max(whole, patch)
            most = max(most, sum(alive.values()))
            alive = {number: held for number, held in alive.items() if self.last[number] > place}
        return most

    def __call__(self, patches: Patches, channel: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(P,classes) scores, and (P,) sums of the map of the layer's `channel`."""
        kinds = self.classes(patches.corners, patches.size)
        which = [(kinds == kind).nonzero().flatten() for kind in kinds.unique()]
        parts = [self._in_patches(Patches(patches.values[some], patches.corners[some]), channel) for some in which]
        back = torch.cat(which).argsort()
        maps, before = (torch.cat(part)[back] if part[0] is not None else None for part in zip(*parts))
        values = {self.cut: maps}
        del maps, parts  # so that they are kept no longer than they are read
        scores, behind = self._whole(values, channel)
        return scores, behind if before is None else before

    def _in_patches(self, patches: Patches, channel: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(P,C,H,W) whole maps at the cut, and the layer's sums if it lies before."""
        sums, before = None, [place for place in self.places if place <= self.cut]
        for place, changed in self._walk({0: patches}, before, lambda place, given: self.layers[place].through(given)):
            if place == self.layer:
                one = Patches(changed.values[:, channel : channel + 1], changed.corners)
                sums = map_sums(one.inside(self.layers[place].out[channel : channel + 1]), 0)
        return changed.inside(self.layers[self.cut].out), sums

    def _whole(self, maps: dict[int, torch.Tensor], channel: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(P,classes) scores from the whole maps at the cut on, and the layer's sums if it lies behind."""
        sums, behind = None, [place for place in self.places if place > self.cut]
        for place, value in self._walk(maps, behind, lambda place, given: self.steps[place].again(*given)):
            if place == self.layer:
                sums = map_sums(value, channel)
        return value, sums

    def _walk(self, values: dict, places: list[int], compute: Callable) -> Iterator:
        """(place, value) for one place after the other; what is read no more leaves `values`."""
        for place in places:
            values[place] = compute(place, [values[given] for given in self.steps[place].inputs])
            yield place, values[place]
            for number in [number for number in values if self.last[number] <= place]:
                del values[number]


def multiply_adds(net: nn.Module, image: torch.Tensor, size=None) -> list[int]:
    """Of every convolution and fully connected layer in turn, for a (3,H,W) image; or only what a square changes.

    `size` of the square: pixels or (rows, columns), wherever it changes most. ValueError for a network that cannot be
    recorded.
    """
    with plain(image.device):
        partial, shares = PartialForward(record(net, image[None], "", whole=True), image[None]), {}
    if size is not None:
        room = _pair(image.shape[1:]) - _pair(size := check_sides("size", size, tuple(image.shape[1:])))
        # every row and every column at least once
        steps = torch.arange(int(room.max()) + 1, device=room.device)[:, None].expand(-1, 2)
        shares = partial.shares(torch.minimum(steps, room), size)
    return [round(partial.work(p) * min(1.0, shares.get(p, 1.0))) for p in partial.places if partial.work(p)]


def map_sums(maps: torch.Tensor, channel: int) -> torch.Tensor:
    """(N,): the sum of one channel's map, or the one number of a fully connected unit."""
    return maps[:, channel].flatten(1).sum(1) if maps.dim() == 4 else maps[:, channel]


def _in_patches(step: Step, given: list[torch.Tensor]) -> bool:
    """Whether the step looks at windows of its maps, of one size if there are several, and pads in a way known here."""
    if step.window is None or len(step.shape) != 4 or any(maps.shape[2:] != given[0].shape[2:] for maps in given):
        return False
    if isinstance(step, Filter | Pool):
        return True
    sides = zip(given[0].shape[2:], *step.window)
    return list(step.shape[2:]) == [(n - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sides if p == 0]


def _taps(weight: torch.Tensor) -> dict[tuple[int, int], torch.Tensor]:
    """(row, column) of the filters -> their (C,C') weights there."""
    places = product(*(range(side) for side in weight.shape[2:]))
    return {(row, column): weight[:, :, row, column].t().contiguous() for row, column in places}


def _pair(sides) -> torch.Tensor:
    """(2,) rows and columns, where corners are kept."""
    return torch.tensor(tuple(sides), device="cpu")


def _joined(boxes: list[Boxes]) -> Boxes:
    firsts, lasts = (torch.stack(ends) for ends in zip(*boxes))
    return firsts.amin(0), lasts.amax(0)


def _area(boxes: Boxes) -> int:
    first, last = boxes
    return int(((last - first).amax(0) + 1).prod())


def _classes(lengths: torch.Tensor) -> torch.Tensor:
    """(P,) 0 for the longest and those almost as long, 1 for the longest of the others, and so on."""
    found, leader = torch.zeros_like(lengths), int(lengths.max())
    for length in sorted(set(lengths.tolist()), reverse=True):
        if length < ALIKE * leader:
            leader, found = length, found + (lengths <= length)
    return found


def _channels_last(maps: torch.Tensor) -> torch.Tensor:
    return maps.permute(1, 2, 0).contiguous().permute(2, 0, 1)


def _windows(maps: torch.Tensor, corners: torch.Tensor, size) -> torch.Tensor:
    """(P,C,*size): windows of (C,H,W) maps that begin at (P,2) corners, channels last in memory."""
    channels, _, width = maps.shape
    inside = torch.arange(size[0], device="cpu")[:, None] * width + torch.arange(size[1], device="cpu")
    pixels = (corners[:, 0] * width + corners[:, 1])[:, None] + inside.flatten()
    found = maps.permute(1, 2, 0).reshape(-1, channels).index_select(0, pixels.flatten().to(maps.device))
    return found.view(len(corners), *size, channels).permute(0, 3, 1, 2)


def _put(maps: torch.Tensor, patches: torch.Tensor, offsets: torch.Tensor, *, add: bool = False) -> None:
    """Write (or add) each patch into its (P,C,H,W) map at its (P,2) offset; what lies outside the map is left out."""
    different, which = offsets.unique(dim=0, return_inverse=True)
    for number, offset in enumerate(different.tolist()):  # slices are many times faster than indices
        some = (which == number).nonzero().flatten().to(maps.device)  # offsets are kept on the CPU
        spans = [(max(o, 0), min(o + n, size)) for o, n, size in zip(offset, patches.shape[2:], maps.shape[2:])]
        (top, bottom), (left, right) = spans
        patch = patches[:, :, top - offset[0] : bottom - offset[0], left - offset[1] : right - offset[1]]
        target = maps[:, :, top:bottom, left:right]
        if len(some) == len(maps):
            target.add_(patch) if add else target.copy_(patch)
        elif add:
            target.index_add_(0, some, patch[some])
        else:
            target.index_copy_(0, some, patch[some])
