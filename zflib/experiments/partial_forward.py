"""The local beginning of a network: the layers through which a change of some pixels spreads only a little.

A changed square is carried from layer to layer as a block of each map, with as much of the unchanged map around it as
the next filter or pool needs. What it cannot reach is not computed again. Exact, not an approximation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
from torch import fx, nn
from torch.nn import functional as F

from ..models.response_norm import ResponseNorm

#: Blocks of one class differ by less than this in how far they reach.
ALIKE = 0.85

POINTWISE = (nn.ReLU, nn.Identity, nn.Dropout, nn.Dropout2d, nn.BatchNorm2d, nn.LocalResponseNorm, ResponseNorm)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, ResponseNorm) or _altered(module) or super().is_leaf_module(module, name)


def _altered(module: nn.Module) -> bool:
    """Whether calling the module may do other than its class says: hooks, or a forward of its own."""
    return bool(module._forward_hooks or module._forward_pre_hooks) or "forward" in vars(module)


def trace(net: nn.Module) -> fx.GraphModule | None:
    """The network as a graph of its modules and functions; None if its forward is not a fixed graph of one input."""
    if _altered(net):  # a graph holds what is called inside the network, not what happens around it
        return None
    try:
        graph = fx.GraphModule(net, _Tracer().trace(net))
    except Exception:  # control flow that depends on the images, among many other reasons
        return None
    # an optional argument would be traced as if it were given
    return graph if sum(node.op == "placeholder" for node in graph.graph.nodes) == 1 else None


@dataclass
class Stage:
    """One module of the trunk with its input for the unchanged image, padded as it pads, and its output."""

    node: fx.Node
    module: nn.Module
    whole: torch.Tensor  # (C,H,W), padded
    out: torch.Tensor  # (C',H',W')

    @property
    def local(self) -> bool:
        return not isinstance(self.module, POINTWISE)

    @property
    def linear(self) -> bool:
        """Whether the change of the output is best computed from the change of the input alone: less of it is 0."""
        m = self.module
        return (
            isinstance(m, nn.Conv2d) and m.stride == (1, 1) == m.dilation and m.groups == 1 and m.kernel_size != (1, 1)
        )

    @property
    def work(self) -> int:
        """Multiply-adds of the whole output, of a convolution; nothing else takes long."""
        return self.out.numel() * self.module.weight[0].numel() if isinstance(self.module, nn.Conv2d) else 0

    def axis(self, axis: int) -> tuple[int, int, int]:
        """(reach of a window, stride, padding before) along rows (0) or columns (1)."""
        kernel, stride, padding, dilation = (_two(v)[axis] for v in _settings(self.module))
        return dilation * (kernel - 1) + 1, stride, padding

    def count(self, axis: int, length: int) -> int:
        """How many rows (or columns) of the output a block of `length` can change."""
        reach, stride, _ = self.axis(axis)
        return min((length + reach - 2) // stride + 1, self.out.shape[1 + axis])

    def reached(self, axis: int, low: torch.Tensor, high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The first and the last row (column) of the output that a change of the rows from `low` to `high` reaches."""
        if not self.local:
            return low, high
        reach, stride, padding = self.axis(axis)
        most = self.out.shape[1 + axis] - 1
        first = -(reach - 1 - padding - low).div(stride, rounding_mode="floor")  # of the windows, the first to see low
        last = (high + padding).div(stride, rounding_mode="floor")
        first = first.clamp(0, most)
        return first, torch.maximum(last.clamp(max=most), first)

    def run(self, patches: torch.Tensor) -> torch.Tensor:
        """The module on patches that are padded already."""
        m = self.module
        if isinstance(m, nn.Conv2d):
            return F.conv2d(patches, m.weight, m.bias, m.stride, 0, m.dilation, m.groups)
        if isinstance(m, nn.MaxPool2d):
            return F.max_pool2d(patches, m.kernel_size, m.stride, 0, m.dilation)
        return F.avg_pool2d(patches, m.kernel_size, m.stride) if self.local else m(patches)

    def spread(self, change: torch.Tensor) -> torch.Tensor:
        """(P,C',h+k-1,w+k-1) change of the output for (P,C,h,w) change of the input: products for each tap and row."""
        rows = change.permute(2, 3, 0, 1).contiguous()  # (h,w,P,C): a row of all blocks is one matrix
        (high, wide), (height, width, number, channels) = self.module.kernel_size, rows.shape
        out = change.new_zeros(height + high - 1, width + wide - 1, number, len(self.module.weight))
        for (i, j), tap in self.taps.items():
            for row, line in enumerate(rows.view(height, width * number, channels)):
                seen = out[row + high - 1 - i, wide - 1 - j : wide - 1 - j + width]
                seen.view(width * number, -1).addmm_(line, tap)  # in place: no product is stored by itself
        return out.permute(2, 3, 0, 1)

    @cached_property
    def taps(self) -> dict[tuple[int, int], torch.Tensor]:
        """(row, column) of the filters -> their (C,C') weights there."""
        weight = self.module.weight.detach()
        places = product(*(range(n) for n in weight.shape[2:]))
        return {(i, j): weight[:, :, i, j].t().contiguous() for i, j in places}


def _settings(module: nn.Module) -> tuple:
    return module.kernel_size, module.stride, module.padding, getattr(module, "dilation", 1)


def _two(value) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _known(module: nn.Module) -> bool:
    """Whether a module's output can be computed again in part."""
    if _altered(module):
        return False
    if isinstance(module, nn.Conv2d):
        return module.padding_mode == "zeros" and not isinstance(module.padding, str)
    if isinstance(module, nn.AvgPool2d):
        return _two(module.padding) == (0, 0) and not module.ceil_mode and module.divisor_override is None
    return isinstance(module, (nn.MaxPool2d, *POINTWISE)) and not getattr(module, "return_indices", False)


def stages(graph: fx.GraphModule, image: torch.Tensor) -> list[Stage]:
    """The modules from (3,H,W) pixels on, as long as each output has one reader and each is known."""
    node = next(node for node in graph.graph.nodes if node.op == "placeholder")
    found, maps = [], image
    while len(node.users) == 1:
        node = next(iter(node.users))
        module = graph.get_submodule(node.target) if node.op == "call_module" else None
        if module is None or not _known(module) or type(module).forward is not _forward_of(module):
            break
        out = module(maps.clone()[None])[0]
        found.append(Stage(node, module, _padded(module, maps, out.shape[-2:]), out))
        maps = out
    return found


def _forward_of(module: nn.Module):
    """The forward of the class we know, so that a subclass with its own is not taken for it."""
    known = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, *POINTWISE)
    return next(kind for kind in known if isinstance(module, kind)).forward


def _padded(module: nn.Module, maps: torch.Tensor, out) -> torch.Tensor:
    """The map with its padding, and what ceil mode adds at the end; maxima are padded with minus infinity."""
    if isinstance(module, POINTWISE):
        return maps
    pads = []
    for axis in (1, 0):
        kernel, stride, padding, dilation = (_two(v)[axis] for v in _settings(module))
        needed = (out[axis] - 1) * stride + dilation * (kernel - 1) + 1
        pads += [padding, max(0, needed - maps.shape[1 + axis] - padding)]
    return F.pad(maps, pads, value=-torch.inf if isinstance(module, nn.MaxPool2d) else 0.0)


def shares(stages: list[Stage], size) -> list[float]:
    """For a square of `size`: the share of its whole work that each stage has to do, counted in multiply-adds.

    That is the share of the output that is reached or, where the change of the input is spread, of the input.
    """
    lengths, found = list(size), []
    for stage in stages:
        counts = [stage.count(axis, lengths[axis]) for axis in (0, 1)] if stage.local else lengths
        rows, columns = lengths if stage.linear else counts
        found.append(rows * columns / (stage.out.shape[1] * stage.out.shape[2]))
        lengths = counts
    return found


def classes(stages: list[Stage], axis: int, starts: torch.Tensor, length: int) -> torch.Tensor:
    """(n,) numbers of the classes of blocks that begin at `starts`: those of one class reach about equally far.

    Near a border a block's change is cut off; computed with such as are whole, it would cost as much as they do.
    """
    low, high = starts, starts + length - 1
    for stage in stages:
        low, high = stage.reached(axis, low, high)
    reached, found = high - low + 1, torch.zeros_like(starts)
    leader = int(reached.max())
    for size in sorted(set(reached.tolist()), reverse=True):
        if size < ALIKE * leader:
            leader, found = size, found + (reached <= size)
    return found


@dataclass
class Blocks:
    """P changed blocks: values (P,C,h,w) and where in the whole map each begins, (P,2)."""

    values: torch.Tensor
    corners: torch.Tensor

    def through(self, stage: Stage) -> Blocks:
        """The blocks of the stage's output that these can change, all of one size."""
        if not stage.local:
            return Blocks(stage.run(self.values), self.corners)
        lengths = self.values.shape[2:]
        reach, steps, pads = (self.corners.new_tensor(v) for v in zip(*(stage.axis(axis) for axis in (0, 1))))
        spans = [stage.reached(a, self.corners[:, a], self.corners[:, a] + lengths[a] - 1) for a in (0, 1)]
        sizes = [int((last - low).max()) + 1 for low, last in spans]
        limit = self.corners.new_tensor([n - size for n, size in zip(stage.out.shape[1:], sizes)])
        corners = torch.minimum(torch.stack([low for low, _ in spans], dim=1), limit)
        if stage.linear:
            old = _windows(stage.whole, self.corners + pads, self.values.shape[2:])
            values = _windows(stage.out, corners, sizes)
            _put(values, stage.spread(self.values - old), self.corners + pads - reach + 1 - corners, add=True)
            return Blocks(values, corners)
        shape = [(n - 1) * step + r for n, step, r in zip(sizes, steps.tolist(), reach.tolist())]
        patches = _windows(stage.whole, corners * steps, shape)
        _put(patches, self.values, self.corners + pads - corners * steps)
        return Blocks(stage.run(patches), corners)

    def inside(self, maps: torch.Tensor) -> torch.Tensor:
        """(P,C,H,W): the unchanged (C,H,W) map with each block in it."""
        if self.values.shape[-2:] == maps.shape[-2:]:
            return self.values
        full = maps.expand(len(self.values), *maps.shape).clone()
        _put(full, self.values, self.corners)
        return full


def _windows(maps: torch.Tensor, corners: torch.Tensor, shape) -> torch.Tensor:
    """(P,C,*shape): windows of (C,H,W) that begin at (P,2) corners; with the channels last in memory."""
    views = maps.permute(1, 2, 0).contiguous().unfold(0, shape[0], 1).unfold(1, shape[1], 1)  # (H',W',C,*shape)
    return views.permute(0, 1, 3, 4, 2)[corners[:, 0], corners[:, 1]].permute(0, 3, 1, 2)


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
