"""Is the object what the network looks at? A square slides over the image, and everything behind it is measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import fx, nn
from tqdm.auto import tqdm

from .._arguments import check_image, check_integer, check_label, check_layer, check_scores, check_sides, layer_path
from ..record.hooks import plain, unchanged, watched
from . import partial_forward
from .occluders import blocks, check_fill

#: A layer is computed in part as long as that is less than this share of its whole work.
WORTHWHILE = 0.85

#: Multiply-adds that parts must save all in all; below that, whole images in one batch are as fast.
SAVED = 2**29


@dataclass
class OcclusionMaps:
    """What happened at every position of the square (Figure 7): (rows, cols) each, `corners` (rows, cols, 2).

    `probability` of `label`; `prediction`, the most probable class; `activity`, the sum of the map of `channel`;
    `corners`, the square's top left pixel. `before`: probability and activity without a square.
    """

    probability: torch.Tensor
    prediction: torch.Tensor
    activity: torch.Tensor
    corners: torch.Tensor
    label: int
    channel: int
    before: tuple[float, float]


def occlude(net: nn.Module, image: torch.Tensor, *, size, stride, label: int | None = None, layer: str = "conv5",
            fill=0.0, memory: int = 2**28) -> OcclusionMaps:  # fmt: skip
    """Slide a square over a preprocessed (3,H,W) image, `stride` pixels at a time, always inside it (section 4.2).

    `size` and `stride` are pixels or (rows, columns); `label` is a class, by default the most probable one; `fill` is
    what covers the square: a number in the network's units (0: grey), "grey", "mean", "blur", "noise", "border", or a
    (3,H,W) image. The activity is that of the layer's strongest map, chosen without a square. Exact: layers that the
    square reaches only in part are computed only there. `memory`: about how many bytes a batch may take.
    """
    image = check_image(image, net)
    check_layer(net, layer)
    size, stride = check_sides("size", size, tuple(image.shape[1:])), check_sides("stride", stride)
    check_fill(image, fill)
    memory = check_integer("memory", memory, "a number of bytes, at least 1", low=1)
    corners = _corners(image.shape[1:], size, stride)
    with unchanged(net), plain(image.device):
        look = Look(net, image, layer)
        label = int(look.scores.argmax()) if label is None else check_label(label, len(look.scores))
        look.choose(size, corners[..., 0].numel())
        order = look.order(corners.flatten(0, 1), size)
        batches = _batches(look, corners.flatten(0, 1)[order], size, memory)
        found = [look.at(blocks(image, some, size, fill), some) for some in batches]
    scores, activity = (torch.cat(part)[order.argsort()] for part in zip(*found))
    shape = corners.shape[:2]
    probability = check_scores(scores).softmax(-1)[:, label]
    return OcclusionMaps(
        probability.view(shape), scores.argmax(-1).view(shape), activity.view(shape), corners.cpu(), label,
        look.channel, (float(look.scores.softmax(-1)[label]), float(look.activity)),
    )  # fmt: skip


def _batches(look: Look, corners: torch.Tensor, size, memory: int) -> Iterator[torch.Tensor]:
    some = max(1, min(256, memory // look.bytes(size)))
    with tqdm(total=len(corners), desc="occlude", unit="square", disable=None, leave=False) as bar:
        for batch in corners.split(some):
            yield batch
            bar.update(len(batch))


class Look:
    """A network at one image, ready to say what changes when blocks of pixels do."""

    def __init__(self, net: nn.Module, image: torch.Tensor, layer: str):
        self.net, self.image, self.layer = net, image, layer
        maps, scores = self._dense(image[None])
        check_scores(scores)
        if maps.dim() not in (2, 4):
            raise ValueError(f"layer {layer!r} gives {tuple(maps.shape)}; choose one of maps (N,C,h,w) or units (N,C)")
        self.scores, strongest = scores[0], maps[0].flatten(1).amax(1) if maps.dim() == 4 else maps[0]
        self.channel = int(strongest.argmax())
        self.activity = _sums(maps, self.channel)[0]
        self.graph = partial_forward.trace(net)
        self.target = self._layer_node(layer_path(net, layer))
        # where the layer is no single step of the graph: whole images, with a hook
        self.stages = partial_forward.stages(self.graph, image) if self.target is not None else []

    def _layer_node(self, path: str) -> fx.Node | None:
        """The layer's first use, which is also what a hook sees first."""
        nodes = self.graph.graph.nodes if self.graph else ()
        return next((n for n in nodes if n.op == "call_module" and n.target == path), None)

    def at(self, values: torch.Tensor, corners: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(P,classes) scores and (P,) activities with (P,3,h,w) blocks at (P,2) corners."""
        local = self.local(values.shape[-2:])
        if not local:
            maps, scores = self._dense(partial_forward.Blocks(values, corners).inside(self.image))
            return scores, _sums(maps, self.channel)
        kinds = self.classes(corners, values.shape[-2:])
        which = [(kinds == kind).nonzero().flatten() for kind in kinds.unique()]
        parts = [self._through(local, partial_forward.Blocks(values[some], corners[some])) for some in which]
        back = torch.cat(which).argsort()
        maps, activity = (torch.cat(part)[back] if part[0] is not None else None for part in zip(*parts))
        rest, scores = self._rest(local, maps)
        return scores, _sums(rest.maps, self.channel) if activity is None else activity

    def _through(
        self, local: list[partial_forward.Stage], changed: partial_forward.Blocks
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(P,C,H,W) output of the last of the stages, and the activity if the layer is one of them."""
        activity = None
        for stage in local:
            changed = changed.through(stage)
            if stage.node is self.target:
                one = partial_forward.Blocks(changed.values[:, self.channel : self.channel + 1], changed.corners)
                activity = one.inside(stage.out[self.channel : self.channel + 1]).flatten(1).sum(1)
        return changed.inside(local[-1].out), activity

    def classes(self, corners: torch.Tensor, size) -> torch.Tensor:
        """(P,) numbers: blocks of one class are computed together, those at a border apart from whole ones."""
        local = self.local(size)
        if not local:
            return torch.zeros(len(corners), dtype=torch.int64)
        rows, columns = (partial_forward.classes(local, axis, corners[:, axis], size[axis]) for axis in (0, 1))
        return rows * (int(columns.max()) + 1) + columns

    def order(self, corners: torch.Tensor, size) -> torch.Tensor:
        """(P,) an order of the blocks in which those of one class follow each other."""
        return self.classes(corners, size).argsort(stable=True)

    def choose(self, size, count: int) -> None:
        """Whole images from now on, if for `count` squares of this size parts would save too little."""
        local = self.local(size)
        saved = sum(stage.work * (1 - share) for stage, share in zip(local, partial_forward.shares(local, size)))
        if saved * count < SAVED:
            self.stages = []

    def local(self, size) -> list[partial_forward.Stage]:
        """The first stages, those that are worth computing in part for a square of this size."""
        shares = partial_forward.shares(self.stages, size)
        worth = next((number for number, share in enumerate(shares) if share > WORTHWHILE), len(shares))
        return self.stages[:worth]

    def bytes(self, size) -> int:
        """About what one position takes: the largest input and output of a step, twice."""
        local = self.local(size)
        if not local:
            return 8 * 40 * self.image.numel()
        behind = [_numbers(stage) for stage in self.stages[len(local) :]]
        parts = [share * _numbers(stage) for stage, share in zip(local, partial_forward.shares(local, size))]
        return int(8 * max(*parts, *behind, local[-1].out.numel(), self.widest)) + 1

    @cached_property
    def widest(self) -> int:
        """Numbers for one image in the widest step behind the stages: what it reads and what it gives."""
        return self._rest(self.stages, self.stages[-1].out[None].clone())[0].widest

    def _dense(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with watched(self.net, [self.layer], images.device) as look:
            found, scores = look(images)
        return found[self.layer], scores

    def _rest(self, local: list[partial_forward.Stage], maps: torch.Tensor) -> tuple[_Rest, torch.Tensor]:
        """(what was kept on the way, scores): the network from the output of the last of these stages on."""
        rest = _Rest(self.graph, self.target)
        done = {node: None for node in self.graph.graph.nodes if node.op == "placeholder"}
        done |= {stage.node: None for stage in local} | {local[-1].node: maps}
        return rest, rest.run(initial_env=done)


class _Rest(fx.Interpreter):
    """Runs what is left of a graph; keeps the maps of one node, and how many numbers an image needs at most."""

    def __init__(self, graph: fx.GraphModule, target: fx.Node):
        super().__init__(graph, garbage_collect_values=True)
        self.target, self.maps, self.widest = target, None, 0

    def run_node(self, node: fx.Node):
        near = [self.env[earlier] for earlier in node.all_input_nodes]
        out = super().run_node(node)
        tensors = [t for t in (*near, out) if isinstance(t, torch.Tensor) and t.dim() > 1]
        self.widest = max(self.widest, sum(t[0].numel() for t in tensors))
        if node is self.target:
            self.maps = out.clone()  # an in-place ReLU may follow
        return out


def _numbers(stage: partial_forward.Stage) -> int:
    return stage.whole.numel() + stage.out.numel()


def _sums(maps: torch.Tensor, channel: int) -> torch.Tensor:
    return maps[:, channel].flatten(1).sum(1) if maps.dim() == 4 else maps[:, channel]


def _corners(whole, size: tuple[int, int], stride: tuple[int, int]) -> torch.Tensor:
    rows, columns = (torch.arange(0, n - s + 1, step) for n, s, step in zip(whole, size, stride))
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)
