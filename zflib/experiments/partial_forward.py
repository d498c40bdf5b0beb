"""The partial forward: what a change of some pixels reaches is computed again, and nothing else.

Incremental inference under occlusion (Nakandala et al. 2019, SIGMOD): a covered square is carried from step to step as
a patch of each map, with as much of the unchanged map around it as the next filter or pool needs. Where branches meet,
a patch covers what both changed. Once the patches are most of a map, whole maps go on. Exact, not an approximation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
from torch.nn import functional as F

#: A multiply-add in patches takes as long as this many in whole maps.
DEARER = 1 / 0.85

#: Patches of one class differ by less than this in how far they reach.
ALIKE = 0.85


@dataclass
class Patches:
    """P changed patches: values (P,C,h,w) and the (P,2) corners, on the CPU, at which they begin in their maps."""

    values: torch.Tensor
    corners: torch.Tensor

    @property
    def ends(self) -> torch.Tensor:
        """(P,2): the last row and column of each."""
        return self.corners + torch.tensor(self.values.shape[2:]) - 1

    def window(self, maps: torch.Tensor, corners: torch.Tensor, size) -> torch.Tensor:
        """(P,C,*size): windows of the unchanged (C,H,W) maps at (P,2) corners, with the patches in them."""
        if tuple(size) == tuple(self.values.shape[2:]) and torch.equal(corners, self.corners):
            return self.values
        out = _windows(maps, corners, size)
        _put(out, self.values, self.corners - corners)
        return out

    def inside(self, maps: torch.Tensor) -> torch.Tensor:
        """(P,C,H,W): the unchanged (C,H,W) maps with each patch in them."""
        return self.window(maps, torch.zeros_like(self.corners), maps.shape[1:])


class Layer:
    """A step that can be computed in patches, with the unchanged maps that it took, padded as it pads, and gave."""

    def __init__(self, step, given: list[torch.Tensor], maps: torch.Tensor):
        window, self.step, self.maps = step.window, step, _channels_last(maps)
        kernel, self.stride, self.padding, dilation = (
            torch.tensor(v) for v in (window.kernel, window.stride, window.padding, window.dilation)
        )
        self.reach, self.whole = dilation * (kernel - 1) + 1, torch.tensor(maps.shape[1:])
        self.given = [_channels_last(self._padded(one)) for one in given]

    def _padded(self, maps: torch.Tensor) -> torch.Tensor:
        """With padding, and with what ceil mode adds at the end; maxima are padded with minus infinity."""
        after = (self.whole - 1) * self.stride + self.reach - torch.tensor(maps.shape[1:]) - self.padding
        (top, left), (bottom, right) = self.padding.tolist(), after.clamp(min=0).tolist()
        fill = 0.0 if _is(self.step, "Filter") else -torch.inf
        return F.pad(maps, (left, right, top, bottom), value=fill) if max(top, left, bottom, right) else maps

    def reached(self, first: torch.Tensor, last: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(P,2) first and last row and column of the output that a change from `first` to `last` reaches."""
        begin = -(self.reach - 1 - self.padding - first).div(self.stride, rounding_mode="floor")
        end = (last + self.padding).div(self.stride, rounding_mode="floor")
        begin = torch.minimum(begin.clamp(min=0), self.whole - 1)
        return begin, torch.maximum(torch.minimum(end, self.whole - 1), begin)

    @cached_property
    def linear(self) -> bool:
        """Whether the output's change is best computed from the input's change alone: it is smaller than a window."""
        return _is(self.step, "Filter") and bool((self.stride == 1).all() and (self.reach > 1).any())

    def through(self, given: list[Patches]) -> Patches:
        """The patches of the output that these can change, all of one size."""
        spans = [self.reached(one.corners, one.ends) for one in given]
        first, last = torch.stack([s[0] for s in spans]).amin(0), torch.stack([s[1] for s in spans]).amax(0)
        size = (last - first).amax(0) + 1
        corners = torch.minimum(first, self.whole - size)
        given = [Patches(one.values, one.corners + self.padding) for one in given]
        if self.linear:
            return self._changed(given[0], corners, size.tolist())
        start, shape = corners * self.stride, ((size - 1) * self.stride + self.reach).tolist()
        windows = [one.window(maps, start, shape) for one, maps in zip(given, self.given)]
        return Patches(self._run(*windows), corners)

    def _run(self, *windows: torch.Tensor) -> torch.Tensor:
        """The step on windows that are padded already."""
        s = self.step
        if _is(s, "Filter"):
            return F.conv2d(*windows, s.weight, s.bias, s.stride, 0, s.dilation, s.groups)
        if _is(s, "Pool"):
            return F.max_pool2d(*windows, s.kernel, s.stride, 0, s.dilation)
        return s.again(*windows)

    def _changed(self, given: Patches, corners: torch.Tensor, size: list[int]) -> Patches:
        change = given.values - _windows(self.given[0], given.corners, given.values.shape[2:])
        values = _windows(self.maps, corners, size)
        _put(values, self.scatter(change), given.corners - self.reach + 1 - corners, add=True)
        return Patches(values, corners)

    def scatter(self, change: torch.Tensor) -> torch.Tensor:
        if MODE == "pad":
            s = self.step
            return F.conv2d(change, s.weight, None, 1, tuple((self.reach - 1).tolist()), s.dilation, s.groups)
        rows = change.permute(2, 3, 0, 1).contiguous()  # (h,w,P,C): a row of all blocks is one matrix
        (high, wide), (height, width, number, channels) = self.step.weight.shape[2:], rows.shape
        out = change.new_zeros(height + high - 1, width + wide - 1, number, len(self.step.weight))
        for (i, j), tap in self.taps.items():
            for row, line in enumerate(rows.view(height, width * number, channels)):
                seen = out[row + high - 1 - i, wide - 1 - j : wide - 1 - j + width]
                seen.view(width * number, -1).addmm_(line, tap)  # in place: no product is stored by itself
        return out.permute(2, 3, 0, 1)

    @cached_property
    def taps(self):
        weight = self.step.weight.detach()
        places = product(*(range(n) for n in weight.shape[2:]))
        return {(i, j): weight[:, :, i, j].t().contiguous() for i, j in places}

MODE = "pad"

class PartialForward:
    """A recorded network at one image, ready to say what changes when patches of pixels do."""

    def __init__(self, tape, image: torch.Tensor):
        self.steps, self.layer = tape.steps, tape.place
        self.used = self._used()
        self.last = {given: place for place in self.used for given in self.steps[place].inputs}
        self.last[self.layer] = max(self.layer, self.last.get(self.layer, 0))
        self.maps, self.layers = {0: image[None]}, {}
        for place in self.used:
            step = self.steps[place]
            given = [self.maps[i] for i in step.inputs]
            self.maps[place] = step.again(*given)
            if all(i in self.layers or i == 0 for i in step.inputs) and _local(step, given):
                self.layers[place] = Layer(step, [one[0] for one in given], self.maps[place][0])

    def _used(self) -> list[int]:
        """The places, after the image's, on which the scores or the layer depend."""
        wanted = {len(self.steps) - 1, self.layer}
        for place in range(len(self.steps) - 1, 0, -1):
            if place in wanted:
                wanted.update(self.steps[place].inputs)
        return sorted(wanted - {0})

    def work(self, place: int) -> int:
        """Multiply-adds of a convolution or a fully connected layer for one image; nothing else takes long."""
        weight = getattr(self.steps[place], "weight", None)
        if weight is None:
            return 0
        return self.maps[place].numel() * (weight[0].numel() if _is(self.steps[place], "Filter") else len(weight))

    def spans(self, corners: torch.Tensor, size) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
        """Place -> (P,2) first and last row and column that squares of `size` at (P,2) corners reach there."""
        found = {0: (corners, corners + torch.tensor(size) - 1)}
        for place, layer in self.layers.items():
            spans = [layer.reached(*found[i]) for i in layer.step.inputs]
            found[place] = torch.stack([s[0] for s in spans]).amin(0), torch.stack([s[1] for s in spans]).amax(0)
        return found

    def shares(self, corners, size) -> dict[int, float]:
        spans, shares = self.spans(corners, size), {}
        area = {p: int(((last - first).amax(0) + 1).prod()) for p, (first, last) in spans.items()}
        for place, layer in self.layers.items():
            shares[place] = area[layer.step.inputs[0] if layer.linear else place] / int(layer.whole.prod())
        return shares

    def choose(self, corners: torch.Tensor, size) -> int:
        """Multiply-adds saved if patches are carried up to `self.cut`, the place that saves most."""
        shares, saved, best, furthest = self.shares(corners, size), 0, 0, self.last[0]
        self.cut = 0
        for place in self.layers:
            saved += self.work(place) * (1 - DEARER * shares[place])
            if furthest <= place and saved >= best:
                best, self.cut = saved, place
            furthest = max(furthest, self.last.get(place, 0))
        return best

    def classes(self, corners: torch.Tensor, size) -> torch.Tensor:
        """(P,) numbers of the classes of squares: those of one class reach about equally far at the cut.

        Near a border a patch is cut off; computed with such as are whole, it would cost as much as they do.
        """
        first, last = self.spans(corners, size)[self.cut]
        rows, columns = (_classes(reached) for reached in (last - first + 1).T)
        return rows * (int(columns.max()) + 1) + columns

    def __call__(self, patches: Patches, channel: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(P,classes) scores and the layer's (P,) sums of the map of one channel."""
        kinds = self.classes(patches.corners, patches.values.shape[2:])
        which = [(kinds == kind).nonzero().flatten() for kind in kinds.unique()]
        parts = [self._through(Patches(patches.values[some], patches.corners[some]), channel) for some in which]
        back = torch.cat(which).argsort()
        maps, sums = (torch.cat(part)[back] if part[0] is not None else None for part in zip(*parts))
        values = {self.cut: maps}
        for place, value in self._walk(values, [p for p in self.used if p > self.cut], self._again):
            if place == self.layer:
                sums = value[:, channel].flatten(1).sum(1) if value.dim() == 4 else value[:, channel]
        return value, sums

    def _through(self, patches, channel):
        sums, values = None, {0: patches}
        for place, value in self._walk(values, [p for p in self.used if p <= self.cut], self._layer):
            if place == self.layer:
                one = Patches(value.values[:, channel : channel + 1], value.corners)
                sums = one.inside(self.layers[place].maps[channel : channel + 1]).flatten(1).sum(1)
        return values[self.cut].inside(self.maps[self.cut][0]), sums

    def _again(self, place, given):
        return self.steps[place].again(*given)

    def _layer(self, place, given):
        return self.layers[place].through(given)

    def _walk(self, values: dict, places: list[int], compute: Callable) -> Iterator:
        for place in places:
            inputs = self.steps[place].inputs
            values[place] = compute(place, [values[i] for i in inputs])
            yield place, values[place]
            for i in set(inputs):
                if self.last[i] <= place and i != self.cut or i<self.cut and self.last[i]<=place:
                    values.pop(i, None)


def _is(step, name: str) -> bool:
    return type(step).__name__ == name


def _local(step, given: list[torch.Tensor]) -> bool:
    """Whether the step can be computed in patches: windows of maps (1,C,H,W), and no padding that only it knows."""
    window = step.window
    if window is None or len(step.shape) != 4 or any(one.dim() != 4 for one in given):
        return False
    if _is(step, "Filter") or _is(step, "Pool"):
        return True
    spans = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(given[0].shape[2:], window.kernel, window.stride, window.dilation)]
    return tuple(window.padding) == (0, 0) and tuple(step.shape[2:]) == tuple(spans) and len({one.shape[2:] for one in given}) == 1


def _classes(reached: torch.Tensor) -> torch.Tensor:
    found, leader = torch.zeros_like(reached), int(reached.max())
    for size in sorted(set(reached.tolist()), reverse=True):
        if size < ALIKE * leader:
            leader, found = size, found + (reached <= size)
    return found


def _channels_last(maps: torch.Tensor) -> torch.Tensor:
    return maps.permute(1, 2, 0).contiguous().permute(2, 0, 1)


def _windows(maps: torch.Tensor, corners: torch.Tensor, size) -> torch.Tensor:
    """(P,C,*size): windows of (C,H,W) maps that begin at (P,2) corners; with the channels last in memory."""
    channels, height, width = maps.shape
    inner = torch.arange(size[0])[:, None] * width + torch.arange(size[1])
    places = (corners[:, 0] * width + corners[:, 1])[:, None] + inner.flatten()
    rows = maps.permute(1, 2, 0).reshape(height * width, channels).index_select(0, places.flatten().to(maps.device))
    return rows.view(len(corners), *size, channels).permute(0, 3, 1, 2)


def _put(maps: torch.Tensor, blocks: torch.Tensor, offsets: torch.Tensor, *, add: bool = False) -> None:
    """Write (or add) each block into its (P,C,H,W) map at its (P,2) offset; what lies outside the map is left out."""
    different, which = offsets.unique(dim=0, return_inverse=True)
    for number, offset in enumerate(different.tolist()):  # slices are many times faster than indices
        some = (which == number).nonzero().flatten().to(maps.device)  # offsets are kept on the CPU
        spans = [(max(o, 0), min(o + n, size)) for o, n, size in zip(offset, blocks.shape[2:], maps.shape[2:])]
        (top, bottom), (left, right) = spans
        block = blocks[:, :, top - offset[0] : bottom - offset[0], left - offset[1] : right - offset[1]]
        target = maps[:, :, top:bottom, left:right]
        if len(some) == len(maps):
            target.add_(block) if add else target.copy_(block)
        elif add:
            target.index_add_(0, some, block[some])
        else:
            target.index_copy_(0, some, block[some])
