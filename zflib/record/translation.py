"""Which step each tensor operation becomes; an operation that is not here is refused by name."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from . import steps
from .steps import POINT, Step, Window


class Call:
    """A tensor operation that takes something computed from the images, read before it runs.

    `places` holds the place on the tape of every tensor among the arguments, None for constants.
    """

    def __init__(self, function: Callable, args: tuple, kwargs: dict, place: Callable):
        self.function, self.kwargs = function, kwargs
        self.leaves, self.form = tree_flatten((args, kwargs))
        places = [place(leaf) for leaf in self.leaves]
        self.slots = [number for number, place in enumerate(places) if place is not None]
        self.inputs = tuple(places[number] for number in self.slots)
        taken = [self.leaves[number] for number in self.slots]
        self.stride = taken[0].stride()  # before an operation in place changes it
        self.shapes, self.dtypes = [t.shape for t in taken], {t.dtype for t in taken}
        self.size, self.dtype = taken[0].shape, taken[0].dtype
        schema = function._schema.arguments
        given = dict(zip((a.name for a in schema), args)) | kwargs
        self.arguments = {a.name: given.get(a.name, a.default_value) for a in schema}
        self.takers = [
            name for name, value in given.items() if any(leaf is t for leaf in tree_leaves(value) for t in taken)
        ]

    def __getitem__(self, argument: str):
        return self.arguments[argument]

    @property
    def name(self) -> str:
        packet = self.function.overloadpacket.__name__
        name = packet.rstrip("_") or packet  # "relu" for relu_, too
        return name if self.function.namespace == "aten" else f"{self.function.namespace}::{name}"

    @property
    def single(self) -> bool:
        """Whether only the first argument depends on the images."""
        return len(self.inputs) == 1 and self.takers == [self.function._schema.arguments[0].name]

    @property
    def pointwise(self) -> bool:
        return torch.Tag.pointwise in self.function.tags or self.name in ("hardswish", "_prelu_kernel")

    def written(self) -> list[torch.Tensor]:
        """The tensors that the operation writes to."""
        names = [a.name for a in self.function._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
        return [t for name in names for t in tree_leaves(self[name]) if isinstance(t, torch.Tensor)]

    def repeat(self) -> Callable | None:
        """The operation as a function of what depends on the images, never in place; None if there is no such form."""
        function, slots, form = self.function, self.slots, self.form
        if self.written():
            twin = getattr(torch.ops.aten, self.name, None) if function.namespace == "aten" else None
            function = getattr(twin, function._overloadname, None)
        if function is None or "out" in self.kwargs:
            return None
        rest = [None if number in slots else leaf for number, leaf in enumerate(self.leaves)]  # no activations are kept

        def repeated(*values: torch.Tensor):
            leaves = list(rest)
            for slot, value in zip(slots, values, strict=True):
                leaves[slot] = value
            args, kwargs = tree_unflatten(leaves, form)
            out = function(*args, **kwargs)
            return out[0] if isinstance(out, tuple) else out

        return repeated

    def again(self, out: torch.Tensor) -> Callable | None:
        """`repeat`, unless it holds a constant that differs between images or positions."""
        constants = [t for n, t in enumerate(self.leaves) if isinstance(t, torch.Tensor) and n not in self.slots]
        return None if self.pointwise and any(_varies(t, out) for t in constants) else self.repeat()

    def point(self, out: torch.Tensor) -> Window | None:
        """The window of a step that leaves every value at its row and column."""
        return POINT if out.dim() > 2 and all(shape[-2:] == out.shape[-2:] for shape in self.shapes) else None

    def step(self, kind: type[Step], out: torch.Tensor, *, window: Window | None = None, **fields) -> Step:
        return kind(self.inputs, out.shape, self.again(out), window, **fields)

    def refused(self, out: torch.Tensor, name: str = "") -> Step:
        """A step for which there is no way down, under the name by which the message calls it."""
        again, window = (self.again(out), self.point(out)) if self.pointwise else (None, None)
        return steps.Refused(self.inputs, out.shape, again, window, name or self.name)

    def result(self, out: torch.Tensor, name: str = "") -> Step:
        """Something that the operation gives or changes besides its result: it cannot be repeated."""
        return steps.Refused(self.inputs, out.shape, None, None, name or self.name)


def _varies(constant: torch.Tensor, out: torch.Tensor) -> bool:
    positions = constant.shape[-2:] if out.dim() > 2 else ()
    return any(side > 1 for side in positions) or (constant.dim() == out.dim() and len(constant) > 1)


def translate(call: Call, out: torch.Tensor, others: tuple = ()) -> Step:
    """The step that an operation is; `others` are its outputs after the first."""
    rule = RULES.get(call.name)
    if rule is None or "out" in call.kwargs or not out.is_floating_point():
        return call.refused(out)
    if call.dtypes != {out.dtype} and call.name != "_to_copy":
        return call.refused(out, f"{call.name} that changes {call.dtype} to {out.dtype}")
    made = rule(call, out, *others) if rule in (_max_pool, _adaptive_max_pool) else rule(call, out)
    return made or call.refused(out)


def pieces(call: Call, outs: list[torch.Tensor]) -> list[Step]:
    """One step for each of the pieces that an operation cuts its input into."""
    if call.name not in ("split", "split_with_sizes", "unbind") or not call.single or _mixes(call):
        return [call.result(out) for out in outs]
    cut, made = call.repeat(), []
    for number, out in enumerate(outs):
        step = _by_autograd(call, out)
        step.function = step.again = lambda x, number=number: cut(x)[number]
        made.append(step)
    return made


def _convolution(call: Call, out: torch.Tensor) -> Step | None:
    if not call.single or out.dim() != 4:
        return None
    if call["transposed"]:
        return _by_autograd(call, out)
    weight, stride, padding, dilation = call["weight"], *(_pair(call[k]) for k in ("stride", "padding", "dilation"))
    return call.step(
        steps.Filter, out, window=Window(tuple(weight.shape[-2:]), stride, padding, dilation), weight=weight,
        bias=call["bias"], stride=stride, padding=padding, dilation=dilation, groups=call["groups"],
        size=tuple(call.size[-2:]),
    )  # fmt: skip


def _rectify(call: Call, out: torch.Tensor) -> Step:
    return call.step(steps.Rectify, out, window=call.point(out))


def _max_pool(call: Call, out: torch.Tensor, switches: torch.Tensor) -> Step | None:
    if out.dim() != 4:
        return None
    kernel, stride, padding, dilation = (_pair(call[k]) for k in ("kernel_size", "stride", "padding", "dilation"))
    window = Window(kernel, stride or kernel, padding, dilation)
    return call.step(steps.Pool, out, window=window, switches=switches, size=tuple(call.size[-2:]), **window._asdict())


def _adaptive_max_pool(call: Call, out: torch.Tensor, switches: torch.Tensor) -> Step | None:
    if out.dim() != 4:
        return None
    return call.step(steps.AdaptivePool, out, switches=switches, size=tuple(call.size[-2:]))


def _batch_norm(call: Call, out: torch.Tensor) -> Step | None:
    mean, variance, weight = call["running_mean"], call["running_var"], call["weight"]
    if not call.single:
        return None
    if call.arguments.get("training", call.name == "_native_batch_norm_legit") or mean is None or variance is None:
        return call.refused(out, "batch normalisation with the batch's own statistics")
    eps = call.arguments.get("eps", call.arguments.get("epsilon"))
    gain = (variance + eps).rsqrt() * (1.0 if weight is None else weight)
    gain = gain.to(out.dtype).view(1, -1, *[1] * (out.dim() - 2))
    return call.step(steps.Scale, out, window=call.point(out), gain=gain)


def _pass(call: Call, out: torch.Tensor) -> Step:
    return call.step(steps.Pass, out, window=call.point(out), dtype=call.dtype)


def _reshape(call: Call, out: torch.Tensor) -> Step | None:
    """Row-major, so each image keeps to itself as long as the first axis keeps its length."""
    if not out.dim() or len(out) != call.size[0]:
        return None
    point, (_, *shape) = call.point(out), out.shape
    step = call.step(steps.Reshape, out, window=point, size=call.size)
    step.again = lambda x: x.reshape(len(x), *((*shape[:-2], *x.shape[-2:]) if point else shape))
    return step


def _same_numbers(call: Call, out: torch.Tensor) -> Step | None:
    """`as_strided` that only says how axes of length 1 lie in memory (channels last), as adaptive averages use it."""
    long = [(side, step) for side, step in zip(call.size, call.stride) if side > 1]
    kept = out.shape == call.size and long == [(side, step) for side, step in zip(out.shape, out.stride()) if side > 1]
    return _reshape(call, out) if kept and not call["storage_offset"] else None


def _weights(call: Call, out: torch.Tensor) -> Step | None:
    """A fully connected layer, x @ w + b."""
    x, w = ("mat1", "mat2") if call.name == "addmm" else ("self", "mat2")
    scaled = call.arguments.get("alpha", 1) != 1 or call.arguments.get("beta", 1) != 1
    if call.takers != [x] or scaled:
        return None
    return call.step(steps.FullyConnected, out, weight=call[w], bias=call["self"] if x == "mat1" else None)


def _add(call: Call, out: torch.Tensor) -> Step | None:
    """Sums of maps of one shape; a constant that is added goes the way of a bias."""
    if any(shape != out.shape for shape in call.shapes):
        return call.refused(out, f"{call.name} of unequal shapes")
    shares = {"self": 1, "other": call["alpha"] * (-1 if call.name == "sub" else 1)}
    return call.step(steps.Add, out, window=call.point(out), shares=tuple(shares[name] for name in call.takers))


def _cat(call: Call, out: torch.Tensor) -> Step | None:
    dim = call["dim"] % out.dim()
    parts = tuple(part.shape[dim] for part in call["tensors"])
    if not dim or len(parts) != len(call.inputs):
        return None
    return call.step(steps.Cat, out, window=call.point(out), dim=dim, parts=parts)


def _scaled(call: Call, out: torch.Tensor) -> Step | None:
    """A product with, or division by, a constant that is the same for every image."""
    if len(call.inputs) != 1 or call.size != out.shape or call.arguments.get("rounding_mode"):
        return None
    if call.takers != ["self"] and call.name == "div":
        return None
    other = call["other" if call.takers == ["self"] else "self"]
    own = isinstance(other, torch.Tensor) and other.dim() == out.dim() and len(other) > 1
    return None if own else _by_autograd(call, out)


def _linear(call: Call, out: torch.Tensor) -> Step | None:
    """Linear in the maps, and each image by itself: autograd transposes it exactly."""
    return _by_autograd(call, out) if call.single and out.dim() > 1 and not _mixes(call) else None


def _by_autograd(call: Call, out: torch.Tensor) -> Step:
    window, adaptive = _window(call)
    return call.step(
        steps.OtherLinear, out, window=window, function=call.repeat(), size=call.size, name=call.name, adaptive=adaptive
    )


def _axes(call: Call) -> list[int]:
    """The axes that an operation moves, cuts or sums over; none for "all of them"."""
    named = [call.arguments[key] for key in ("dim", "dim0", "dim1", "dims") if call.arguments.get(key) is not None]
    flat = [axis for some in named for axis in (some if isinstance(some, list | tuple) else [some])]
    return [axis % len(call.size) for axis in flat]


def _mixes(call: Call) -> bool:
    """Whether an operation touches the first axis, the images."""
    a, axes = call.arguments, _axes(call)
    if call.name == "permute":
        return axes[0] != 0
    if call.name == "slice" and axes == [0]:
        return bool(a["start"]) or a["step"] != 1 or (a["end"] is not None and a["end"] < sys.maxsize)
    if call.name in ("mean", "sum") and not axes:
        return True
    return 0 in axes or (call.name == "constant_pad_nd" and len(a["pad"]) >= 2 * len(call.size))


def _window(call: Call) -> tuple[Window | None, bool]:
    """The window of a linear operation, if it has one, and whether its windows differ in size."""
    spatial = {len(call.size) - 2, len(call.size) - 1}
    if call.name == "avg_pool2d":
        kernel = _pair(call["kernel_size"])
        return Window(kernel, _pair(call["stride"]) or kernel, _pair(call["padding"])), False
    if call.name == "constant_pad_nd" and len(call["pad"]) <= 4:
        left, _, top, _ = (*call["pad"], 0, 0)[:4]
        return Window(padding=(top, left)), False
    if call.name == "_adaptive_avg_pool2d" or (call.name in ("mean", "sum") and spatial <= set(_axes(call))):
        return None, True
    return (POINT if call.name in ROWS_KEPT and not spatial & set(_axes(call)) else None), False


def _pair(value) -> tuple[int, int] | None:
    """(rows, columns) of a setting; None for the empty list that stands for "as the kernel"."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return (values[0], values[-1]) if values else None


#: Linear operations that leave every value at its row and column, unless they work on those axes themselves.
ROWS_KEPT = {"mul", "div", "neg", "select", "slice", "split", "split_with_sizes", "unbind", "transpose", "mean", "sum",
             "flip", "channel_shuffle", "native_channel_shuffle"}  # fmt: skip

#: What an operation becomes; each rule gives a step, or None to refuse.
RULES: dict[str, Callable] = {
    "convolution": _convolution,
    "relu": _rectify,
    "max_pool2d_with_indices": _max_pool,
    "adaptive_max_pool2d": _adaptive_max_pool,
    "as_strided": _same_numbers,
    "cat": _cat,
    **dict.fromkeys(("add", "sub"), _add),
    **dict.fromkeys(("mul", "div"), _scaled),
    **dict.fromkeys(("mm", "addmm"), _weights),
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze"), _reshape),
    **dict.fromkeys(("clone", "alias", "_to_copy", "lift_fresh"), _pass),
    **dict.fromkeys(
        ("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm", "_batch_norm_no_update",
         "_native_batch_norm_legit", "_native_batch_norm_legit_no_training"), _batch_norm),
    **dict.fromkeys(
        ("avg_pool2d", "_adaptive_avg_pool2d", "mean", "sum", "neg", "flip",
         "constant_pad_nd", "reflection_pad2d", "replication_pad2d",
         "slice", "select", "permute", "transpose", "native_channel_shuffle", "channel_shuffle",
         "upsample_nearest2d", "upsample_bilinear2d", "pixel_shuffle", "pixel_unshuffle"), _linear),
}  # fmt: skip
