"""Is the object what the network looks at? A square slides over the image, and everything behind it is measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import fx, nn
from tqdm.auto import tqdm

from . import trunk
from .checks import check_images, check_layer, layer_path
from .fills import blocks, check_fill
from .tape import plain, unchanged

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
    image, size, stride = _check(net, image, size, stride)
    check_layer(net, layer)
    check_fill(image, fill)
    if not isinstance(memory, Integral) or memory < 1:
        raise ValueError(f"memory must be a number of bytes, at least 1, got {memory!r}; one position is always taken")
    corners = _corners(image.shape[1:], size, stride)
    with unchanged(net), plain(image.device):
        look = Look(net, image, layer)
        label = look.check_label(label)
        look.choose(size, corners[..., 0].numel())
        order = look.order(corners.flatten(0, 1), size)
        batches = _batches(look, corners.flatten(0, 1)[order], size, memory)
        found = [look.at(blocks(image, some, size, fill), some) for some in batches]
    scores, activity = (torch.cat(part)[order.argsort()] for part in zip(*found))
    shape = corners.shape[:2]
    probability = scores.softmax(-1)[:, label]
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
        self.net, self.image, self.path = net, image, layer_path(net, layer)
        self.graph = trunk.trace(net)
        self.stages = trunk.stages(self.graph, image) if self.graph else []
        self.target = self._layer_node()
        if self.target is None:
            self.stages = []  # the layer is no single step of the graph: whole images, with a hook
        self.channel = 0
        maps, self.scores = self._dense(image[None])
        if self.scores.dim() != 2:
            raise ValueError(f"net must give scores (N,classes), got {tuple(self.scores.shape)}; occlude a classifier")
        self.scores, strongest = self.scores[0], maps[0].flatten(1).amax(1) if maps.dim() == 4 else maps[0]
        self.channel = int(strongest.argmax())
        self.activity = _sums(maps, self.channel)[0]

    def _layer_node(self) -> fx.Node | None:
        nodes = self.graph.graph.nodes if self.graph else ()
        return next((n for n in reversed(nodes) if n.op == "call_module" and n.target == self.path), None)

    def check_label(self, label) -> int:
        """The class to watch; by default the most probable one."""
        if label is None:
            return int(self.scores.argmax())
        if not isinstance(label, Integral) or isinstance(label, bool) or not 0 <= label < len(self.scores):
            raise ValueError(f"label must be a class from 0 to {len(self.scores) - 1}, got {label!r}")
        return int(label)

    def at(self, values: torch.Tensor, corners: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(P,classes) scores and (P,) activities with (P,3,h,w) blocks at (P,2) corners."""
        local = self.local(values.shape[-2:])
        if not local:
            maps, scores = self._dense(trunk.Blocks(values, corners).inside(self.image))
            return scores, _sums(maps, self.channel)
        kinds = self.classes(corners, values.shape[-2:])
        which = [(kinds == kind).nonzero().flatten() for kind in kinds.unique()]
        parts = [self._through(local, trunk.Blocks(values[some], corners[some])) for some in which]
        back = torch.cat(which).argsort()
        maps, activity = (torch.cat(part)[back] if part[0] is not None else None for part in zip(*parts))
        maps, scores = self._rest(local[-1].node, maps)
        return scores, _sums(maps, self.channel) if activity is None else activity

    def _through(self, local: list[trunk.Stage], changed: trunk.Blocks) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(P,C,H,W) output of the last of the stages, and the activity if the layer is one of them."""
        activity = None
        for stage in local:
            changed = changed.through(stage)
            if stage.node is self.target:
                one = trunk.Blocks(changed.values[:, self.channel : self.channel + 1], changed.corners)
                activity = one.inside(stage.out[self.channel : self.channel + 1]).flatten(1).sum(1)
        return changed.inside(local[-1].out), activity

    def classes(self, corners: torch.Tensor, size) -> torch.Tensor:
        """(P,) numbers: blocks of one class are computed together, those at a border apart from whole ones."""
        local = self.local(size)
        if not local:
            return torch.zeros(len(corners), dtype=torch.int64)
        rows, columns = (trunk.classes(local, axis, corners[:, axis], size[axis]) for axis in (0, 1))
        return rows * (int(columns.max()) + 1) + columns

    def order(self, corners: torch.Tensor, size) -> torch.Tensor:
        """(P,) an order of the blocks in which those of one class follow each other."""
        return self.classes(corners, size).argsort(stable=True)

    def choose(self, size, count: int) -> None:
        """Whole images from now on, if for `count` squares of this size parts would save too little."""
        local = self.local(size)
        saved = sum(stage.work * (1 - share) for stage, share in zip(local, trunk.shares(local, size)))
        if saved * count < SAVED:
            self.stages = []

    def local(self, size) -> list[trunk.Stage]:
        """The first stages, those that are worth computing in part for a square of this size."""
        worth = 0
        for number, (stage, share) in enumerate(zip(self.stages, trunk.shares(self.stages, size)), start=1):
            if share > WORTHWHILE:
                break
            worth = number if stage.local else max(worth, number)
        return self.stages[:worth]

    def bytes(self, size) -> int:
        """About what one position takes: the largest input and output of a stage, twice."""
        whole = [stage.whole.numel() + stage.out.numel() for stage in self.stages] or [40 * self.image.numel()]
        shares = trunk.shares(self.stages, size) if self.stages else [1.0]
        parts = [numel * (share if share <= WORTHWHILE else 1.0) for numel, share in zip(whole, shares)]
        return int(8 * max(parts)) + 1

    def _dense(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        kept = []
        handle = self.net.get_submodule(self.path).register_forward_hook(lambda _m, _i, out: kept.append(out.clone()))
        try:
            scores = self.net(images)
        finally:
            handle.remove()
        return kept[-1], scores

    def _rest(self, node: fx.Node, maps: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
        """(the layer's maps if it lies here, scores): the network from the output of `node` on."""
        rest = _Rest(self.graph, self.target)
        before = {}
        for earlier in self.graph.graph.nodes:
            before[earlier] = maps if earlier is node else None
            if earlier is node:
                break
        scores = rest.run(initial_env=before)
        return rest.maps, scores


class _Rest(fx.Interpreter):
    """Runs what is left of a graph and keeps the maps of one node."""

    def __init__(self, graph: fx.GraphModule, target: fx.Node):
        super().__init__(graph, garbage_collect_values=False)
        self.target, self.maps = target, None

    def run_node(self, node: fx.Node):
        out = super().run_node(node)
        if node is self.target:
            self.maps = out.clone()  # an in-place ReLU may follow
        return out


def _sums(maps: torch.Tensor, channel: int) -> torch.Tensor:
    return maps[:, channel].flatten(1).sum(1) if maps.dim() == 4 else maps[:, channel]


def _corners(whole, size: tuple[int, int], stride: tuple[int, int]) -> torch.Tensor:
    rows, columns = (torch.arange(0, n - s + 1, step) for n, s, step in zip(whole, size, stride))
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)


def _check(net, image, size, stride) -> tuple[torch.Tensor, tuple[int, int], tuple[int, int]]:
    if isinstance(image, torch.Tensor) and image.dim() == 4 and len(image) == 1:
        image = image[0]
    if not isinstance(image, torch.Tensor) or image.dim() != 3:
        got = tuple(image.shape) if isinstance(image, torch.Tensor) else type(image).__name__
        raise ValueError(f"image must be one preprocessed image (3,H,W), got {got}; use net.preprocess(image)[0]")
    image = check_images(image[None], net)[0]
    return image, _pair("size", size, image.shape[1:]), _pair("stride", stride, None)


def _pair(name: str, value, limits) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, Integral) else tuple(value) if isinstance(value, (tuple, list)) else ()
    whole = len(pair) == 2 and all(isinstance(v, Integral) and not isinstance(v, bool) and v >= 1 for v in pair)
    if not whole or (limits is not None and any(v > limit for v, limit in zip(pair, limits))):
        at_most = f", at most {limits[0]}x{limits[1]}" if limits is not None else ""
        raise ValueError(f"{name} must be pixels or (rows, columns), at least 1{at_most}, got {value!r}")
    return int(pair[0]), int(pair[1])
