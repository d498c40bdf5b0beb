"""Which step of the way down each tensor operation becomes; an operation that is not here is refused by name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch.utils._pytree import tree_leaves


class Unsupported(NotImplementedError, ValueError):
    """The network holds an operation for which the paper gives no way down."""


@dataclass
class Step:
    """One recorded operation; `inputs` are the places of the earlier steps whose output it took."""

    kind: str  # "image", "filter", "convolve", "rectify", "pool", "scale", "weights", "pass", "reshape", "add", …
    inputs: tuple[int, ...]
    shape: torch.Size
    values: dict = field(default_factory=dict)


@dataclass
class Call:
    """A tensor operation that takes something computed from the images, read before it ran.

    `places` holds, for every argument by name, the places of its tensors on the tape (empty for constants).
    """

    function: Callable
    args: tuple
    kwargs: dict
    places: dict[str, tuple[int, ...]]

    def __post_init__(self):
        schema = self.function._schema.arguments
        given = dict(zip((a.name for a in schema), self.args)) | self.kwargs
        self.arguments = {a.name: given.get(a.name, a.default_value) for a in schema}
        self.inputs = tuple(place for places in self.places.values() for place in places)
        self.takers = [name for name, places in self.places.items() if places]
        taken = [t for name in self.takers for t in tree_leaves(self.arguments[name]) if isinstance(t, torch.Tensor)]
        self.size, self.dtype = taken[0].shape, taken[0].dtype
        self.dtypes = {t.dtype for t in taken}

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
        return len(self.inputs) == 1 and self.places[self.function._schema.arguments[0].name] == self.inputs

    def step(self, kind: str, out: torch.Tensor, **values) -> Step:
        return Step(kind, self.inputs, out.shape, values)

    def of_first(self) -> Callable:
        """The operation as a function of the argument that depends on the images, never in place."""
        function = self.function
        if self.name != function.overloadpacket.__name__:
            function = getattr(getattr(torch.ops.aten, self.name), function._overloadname)
        place = [a.name for a in self.function._schema.arguments].index(self.takers[0])
        before, after, kwargs = self.args[:place], self.args[place + 1 :], self.kwargs
        return lambda x: function(*before, x, *after, **kwargs)

    def refused(self, out: torch.Tensor, name: str = "") -> Step:
        """A step for which there is no way down, under the name by which the message calls it."""
        return self.step("refused", out, name=name or self.name)


def translate(call: Call, out: torch.Tensor, others: tuple = ()) -> Step:
    """The step that an operation is; `others` are its outputs after the first."""
    rule = RULES.get(call.name)
    if rule is None or "out" in call.kwargs or not out.is_floating_point():
        return call.refused(out)
    if call.dtypes != {out.dtype} and call.name != "_to_copy":
        return call.refused(out, f"{call.name} that changes {call.dtype} to {out.dtype}")
    made = rule(call, out, *others) if rule in (_max_pool, _adaptive_max_pool) else rule(call, out)
    return made or call.refused(out)


def _convolution(call: Call, out: torch.Tensor) -> Step | None:
    if not call.single or out.dim() != 4:
        return None
    settings = {key: _pair(call[key]) for key in ("stride", "padding", "dilation")} | {"groups": call["groups"]}
    kind = "convolve" if call["transposed"] else "filter"  # the transpose of a transposed one is a plain one
    return call.step(kind, out, weight=call["weight"], size=tuple(call.size[-2:]), **settings)


def _rectify(call: Call, out: torch.Tensor) -> Step:
    return call.step("rectify", out)


def _max_pool(call: Call, out: torch.Tensor, switches: torch.Tensor) -> Step | None:
    if out.dim() != 4:
        return None
    kernel = _pair(call["kernel_size"])
    stride, padding, dilation = (_pair(call[key]) for key in ("stride", "padding", "dilation"))
    values = {"kernel": kernel, "stride": stride or kernel, "padding": padding, "dilation": dilation}
    return call.step("pool", out, switches=switches, size=tuple(call.size[-2:]), **values)


def _adaptive_max_pool(call: Call, out: torch.Tensor, switches: torch.Tensor) -> Step | None:
    if out.dim() != 4:
        return None
    return call.step("pool", out, switches=switches, size=tuple(call.size[-2:]), adaptive=True)


def _batch_norm(call: Call, out: torch.Tensor) -> Step | None:
    mean, variance, weight = call["running_mean"], call["running_var"], call["weight"]
    if not call.single:
        return None
    if call.arguments.get("training", call.name == "_native_batch_norm_legit") or mean is None or variance is None:
        return call.refused(out, "batch normalisation with the batch's own statistics")
    eps = call.arguments.get("eps", call.arguments.get("epsilon"))
    gain = (variance + eps).rsqrt() * (1.0 if weight is None else weight)
    return call.step("scale", out, gain=gain.to(out.dtype).view(1, -1, *[1] * (out.dim() - 2)))


def _pass(call: Call, out: torch.Tensor) -> Step:
    return call.step("pass", out, dtype=call.dtype)


def _reshape(call: Call, out: torch.Tensor) -> Step | None:
    """Row-major, so each image keeps to itself as long as the first axis keeps its length."""
    return call.step("reshape", out, size=call.size) if out.dim() and len(out) == call.size[0] else None


def _weights(call: Call, out: torch.Tensor) -> Step | None:
    """A fully connected layer, x @ w + b."""
    x, w = ("mat1", "mat2") if call.name == "addmm" else ("self", "mat2")
    scaled = call.arguments.get("alpha", 1) != 1
    return None if call.takers != [x] or scaled else call.step("weights", out, weight=call[w])


def _add(call: Call, out: torch.Tensor) -> Step | None:
    """Sums of maps of one shape; a constant that is added goes the way of a bias."""
    taken = [call[name].shape for name in call.takers]
    if any(shape != out.shape for shape in taken):
        return call.refused(out, f"{call.name} of unequal shapes")
    sign = call["alpha"] * (-1 if call.name == "sub" else 1)
    shares = {"self": 1, "other": sign}
    return call.step("add", out, shares=[shares[name] for name in call.takers])


def _cat(call: Call, out: torch.Tensor) -> Step | None:
    dim = call["dim"] % out.dim()
    parts = [part.shape[dim] for part in call["tensors"]]
    return call.step("cat", out, dim=dim, parts=parts) if dim and len(parts) == len(call.inputs) else None


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
    return call.step("linear", out, function=call.of_first(), size=call.size, name=call.name, **_window(call))


def pieces(call: Call, outs: list[torch.Tensor]) -> list[Step]:
    """One step for each of the pieces that an operation cuts its input into."""
    if call.name not in ("split", "split_with_sizes", "unbind") or not call.single or _mixes(call):
        return [call.refused(out) for out in outs]
    cut, steps = call.of_first(), [_by_autograd(call, out) for out in outs]
    for i, step in enumerate(steps):
        step.values["function"] = lambda x, i=i: cut(x)[i]
    return steps


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


def _window(call: Call) -> dict:
    """Which places of a map one place of the result comes from, if that is a window: for receptive fields."""
    same = {"kernel": (1, 1), "stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
    if call.name == "avg_pool2d":
        kernel = _pair(call["kernel_size"])
        return same | {"kernel": kernel, "stride": _pair(call["stride"]) or kernel, "padding": _pair(call["padding"])}
    if call.name == "constant_pad_nd" and len(call["pad"]) <= 4:
        left, _, top, _ = (*call["pad"], 0, 0)[:4]
        return same | {"padding": (top, left)}
    spatial = {len(call.size) - 2, len(call.size) - 1}
    if call.name == "_adaptive_avg_pool2d" or (call.name in ("mean", "sum") and spatial <= set(_axes(call))):
        return {"adaptive": True}
    return same if call.name in ROWS_KEPT and not spatial & set(_axes(call)) else {}


def _pair(value) -> tuple[int, int] | None:
    """(rows, columns) of a setting; None for the empty list that stands for "as the kernel"."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return (values[0], values[-1]) if values else None


#: Operations that leave every value at its row and column, unless they work on those axes themselves.
ROWS_KEPT = {"mul", "div", "neg", "select", "slice", "split", "split_with_sizes", "unbind", "transpose", "mean", "sum",
             "flip", "channel_shuffle", "native_channel_shuffle"}  # fmt: skip

#: What an operation becomes; each rule gives a step, or None to refuse.
RULES: dict[str, Callable] = {
    "convolution": _convolution,
    "relu": _rectify,
    "max_pool2d_with_indices": _max_pool,
    "adaptive_max_pool2d": _adaptive_max_pool,
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
