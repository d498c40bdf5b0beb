"""What a network did to some images, operation by operation: the record on which the deconvnet walks back down."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from .models import ResponseNorm


class Unsupported(NotImplementedError, ValueError):
    """The network holds an operation for which the paper gives no way down."""


@dataclass
class Step:
    """One recorded operation; `inputs` are the places of the earlier steps whose output it took."""

    kind: str  # "image", "filter", "rectify", "pool", "scale", "weights", "pass", "reshape", "add", "cat", "linear", …
    inputs: tuple[int, ...]
    shape: torch.Size
    values: dict = field(default_factory=dict)


@dataclass
class Tape:
    """The steps from the images (step 0) to the layer (the last one), and the layer's activations."""

    steps: list[Step]
    activations: torch.Tensor

    def chain(self) -> list[Step] | None:
        """The steps from image to layer if each feeds only the next one, None for a network that branches."""
        chain, place = [], len(self.steps) - 1
        while place > 0:
            step = self.steps[place]
            if len(step.inputs) != 1:
                return None
            chain.append(step)
            place = step.inputs[0]
        return chain[::-1]


#: Operations that are linear in one argument and treat every image alike: autograd transposes them exactly.
LINEAR = {
    "avg_pool2d", "_adaptive_avg_pool2d", "mean", "sum", "constant_pad_nd", "reflection_pad2d", "replication_pad2d",
    "slice", "permute", "transpose", "split", "split_with_sizes", "upsample_nearest2d", "upsample_bilinear2d",
    "pixel_shuffle", "mul", "div", "neg", "channel_shuffle", "native_channel_shuffle",
}  # fmt: skip
SAME = {"clone", "detach", "alias", "_to_copy", "lift_fresh"}
RESHAPE = {"view", "_unsafe_view", "reshape", "unsqueeze", "squeeze"}
POOLS = {"max_pool2d_with_indices", "adaptive_max_pool2d"}
BATCH_NORMS = {"native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm", "_native_batch_norm_legit",
               "_native_batch_norm_legit_no_training", "_batch_norm_no_update"}  # fmt: skip
SKIPPED = (ResponseNorm, nn.LocalResponseNorm)
REFUSED = tuple(
    getattr(nn, name) for name in (
        "GELU", "LeakyReLU", "ReLU6", "PReLU", "RReLU", "ELU", "CELU", "SELU", "SiLU", "Mish", "Hardswish",
        "Hardsigmoid", "Hardtanh", "Sigmoid", "Tanh", "Softplus", "Softsign", "Softshrink", "Hardshrink",
        "Tanhshrink", "Threshold", "GLU", "MultiheadAttention", "TransformerEncoderLayer", "RNNBase", "Bilinear",
    )
)  # fmt: skip


class _Reached(Exception):
    """Ends the forward pass once the layer has been computed."""


class _Recorder(TorchDispatchMode):
    """Sees every tensor operation of a forward pass and notes how it depends on the images.

    At this level a ReLU is a ReLU, however the network wrote it: module, function, method, in place or not.
    """

    def __init__(self, images: torch.Tensor, *, masks: bool):
        super().__init__()
        self.batch, self.masks = len(images), masks
        self.steps = [Step("image", (), images.shape)]
        self.skipping = False
        self.where = ""
        images._place = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if self.skipping or not self._depends((*args, *kwargs.values())):
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if name == "_mps_max_pool2d":  # this one keeps its switches to itself
            func, name = torch.ops.aten.max_pool2d_with_indices.default, "max_pool2d_with_indices"
        # everything that the way down needs is read before the call: an in-place operation overwrites its input
        inputs, shapes = self._depends((*args, *kwargs.values())), [a.shape for a in args if isinstance(a, torch.Tensor)]
        out = func(*args, **kwargs)
        self._note(name.rstrip("_") or name, func, inputs, shapes, args, kwargs, out)
        return out

    def _depends(self, args) -> tuple[int, ...]:
        flat = [a for arg in args for a in (arg if isinstance(arg, list | tuple) else (arg,))]
        return tuple(a._place for a in flat if isinstance(a, torch.Tensor) and hasattr(a, "_place"))

    def _note(self, name, func, inputs, shapes, args, kwargs, out) -> None:
        first = out[0] if isinstance(out, tuple) else out
        if isinstance(out, list):
            for i, part in enumerate(out):
                self._append(self._linear(name, lambda x, i=i: func(x, *args[1:], **kwargs)[i], inputs, shapes, args, part), part)
            return
        if not isinstance(first, torch.Tensor) or not first.is_floating_point():
            return
        step = self._step(name, func, inputs, shapes, args, kwargs, first, out)
        self._append(step, first)
        if args[0] is first and first._is_view() and name not in RESHAPE:
            # the tensor behind this view changed as well, in a way that is not on the tape: refuse it if it is used
            first._base._place = self._append(self._refused(f"{name}_ on a view", first))

    def _append(self, step: Step, out: torch.Tensor | None = None) -> int:
        self.steps.append(step)
        if out is not None:
            out._place = len(self.steps) - 1
        return len(self.steps) - 1

    def _refused(self, name: str, out: torch.Tensor) -> Step:
        return Step("refused", (), out.shape, {"name": name, "where": self.where})

    def _step(self, name, func, inputs, shapes, args, kwargs, out, whole) -> Step:
        single = len(inputs) == 1 and isinstance(args[0], torch.Tensor) and hasattr(args[0], "_place")
        if name == "convolution" and single and out.dim() == 4:
            return self._convolution(inputs, shapes[0], args, out)
        if name == "relu":
            mask = {"mask": out > 0} if self.masks else {}
            return Step("rectify", inputs, out.shape, mask)
        if name in POOLS and out.dim() == 4:
            return self._pool(name, inputs, shapes[0], args, out, whole[1])
        if name in BATCH_NORMS:
            return self._batch_norm(name, inputs, args, out)
        if name in SAME:
            return Step("pass", inputs, out.shape)
        if name in RESHAPE and len(out) == shapes[0][0]:
            return Step("reshape", inputs, out.shape, {"size": shapes[0]})
        if name in ("addmm", "mm", "linear") and len(inputs) == 1 and out.dim() == 2:
            return self._weights(name, inputs, args, out)
        if name in ("add", "sub"):
            return self._add(name, inputs, shapes, args, kwargs, out)
        if name == "cat":
            dim = args[1] if len(args) > 1 else kwargs.get("dim", 0)
            parts = [part.shape[dim] for part in args[0]]
            if dim % out.dim() != 0 and len(parts) == len(inputs):
                return Step("cat", inputs, out.shape, {"dim": dim, "parts": parts})
        return self._linear(name, lambda x: func(x, *args[1:], **kwargs), inputs, shapes, args, out)

    def _convolution(self, inputs, shape, args, out) -> Step:
        _, weight, _, stride, padding, dilation, transposed, output_padding, groups = args
        settings = {"stride": tuple(stride), "padding": tuple(padding), "dilation": tuple(dilation), "groups": groups}
        if transposed:  # its transpose is the plain convolution
            return Step("convolve", inputs, out.shape, {"weight": weight, **settings})
        return Step("filter", inputs, out.shape, {"weight": weight, "size": tuple(shape[-2:]), **settings})

    def _pool(self, name, inputs, shape, args, out, switches) -> Step:
        values = {"switches": switches, "size": tuple(shape[-2:])}
        if name == "max_pool2d_with_indices":
            kernel, stride, padding, dilation = (*args[1:5], *([], 0, 1)[len(args) - 2 :])[:4]
            kernel, padding, dilation = _pair(kernel), _pair(padding), _pair(dilation)
            values |= {"kernel": kernel, "stride": _pair(stride or kernel), "padding": padding, "dilation": dilation}
        return Step("pool", inputs, out.shape, values)

    def _batch_norm(self, name, inputs, args, out) -> Step:
        weight, mean, variance, eps = args[1], args[3], args[4], args[-1]
        frozen = name.endswith(("no_training", "no_update")) or args[5] is False
        if variance is None or mean is None or not frozen:
            return self._refused("batch normalisation with the batch's own statistics", out)
        gain = (variance + eps).rsqrt() * (1.0 if weight is None else weight)
        return Step("scale", inputs, out.shape, {"gain": gain.view(1, -1, *[1] * (out.dim() - 2))})

    def _weights(self, name, inputs, args, out) -> Step:
        x, weight = (args[1], args[2]) if name == "addmm" else (args[0], args[1])
        if not hasattr(x, "_place"):
            return self._refused(name, out)
        return Step("weights", inputs, out.shape, {"weight": weight.T if name == "linear" else weight})

    def _add(self, name, inputs, shapes, args, kwargs, out) -> Step:
        if any(isinstance(a, torch.Tensor) and hasattr(a, "_place") and a.shape != out.shape for a in args[:2]):
            return self._refused(f"{name} of unequal shapes", out)
        sign = kwargs.get("alpha", 1) * (-1 if name == "sub" else 1)
        shares = [1, sign] if len(inputs) == 2 else [1 if hasattr(args[0], "_place") else sign]
        return Step("add", inputs, out.shape, {"shares": shares})

    def _linear(self, name, function: Callable, inputs, shapes, args, out) -> Step:
        alone = len(inputs) == 1 and isinstance(args[0], torch.Tensor) and hasattr(args[0], "_place")
        moved = args[1] if name == "permute" else args[1:3] if name == "transpose" else ()
        if moved and (moved[0] % out.dim() != 0) == (name == "permute") or name == "transpose" and 0 in moved:
            return self._refused(f"{name} of the batch", out)
        constants = [a for a in args[1:] if isinstance(a, torch.Tensor) and a.dim() == out.dim() and len(a) > 1]
        if name not in LINEAR or not alone or constants or out.dim() < 2 or len(out) != self.batch:
            return self._refused(name, out)
        return Step("linear", inputs, out.shape, {"function": function, "size": shapes[0]})


def _pair(value) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def refuse_modules(net: nn.Module) -> None:
    """Name the first module for which the deconvnet has no rule (GELU, LeakyReLU, attention, …)."""
    for path, module in net.named_modules():
        if isinstance(module, REFUSED):
            raise Unsupported(
                f"net: module {path or 'itself'!r} is a {type(module).__name__}, for which a deconvnet has no rule; "
                "the way down is defined for ReLU networks only"
            )


@contextmanager
def _prepared(net: nn.Module, recorder: _Recorder, target: nn.Module, keep: Callable):
    """Evaluation mode and hooks while recording; afterwards the network is exactly as it was found."""
    modes = [(module, module.training) for module in net.modules()]
    handles = []
    for path, module in net.named_modules():
        handles.append(module.register_forward_pre_hook(_entering(recorder, path, module)))
        if isinstance(module, SKIPPED):
            handles.append(module.register_forward_hook(_skipped(recorder)))
    handles.append(target.register_forward_hook(keep))
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            module.training = mode


def _entering(recorder: _Recorder, path: str, module: nn.Module) -> Callable:
    def hook(_, inputs):
        recorder.where = path
        recorder.skipping = isinstance(module, SKIPPED)

    return hook


def _skipped(recorder: _Recorder) -> Callable:
    """Response normalisation leaves one step that passes the signal on unchanged (section 2.1)."""

    def hook(_, inputs, out):
        recorder.skipping = False
        if hasattr(inputs[0], "_place"):
            recorder._append(Step("pass", (inputs[0]._place,), out.shape), out)

    return hook


def record(net: nn.Module, images: torch.Tensor, layer: str, *, masks: bool = False) -> Tape:
    """Run (N,3,H,W) images up to the module at path `layer` and keep what the way down needs.

    Switches are always kept; where each ReLU was open only with `masks=True`. A module that is used
    more than once is taken at its first use. Bad shapes raise ValueError with torch's own reason.
    """
    images = images.detach().clone()  # the places are written onto our copy, never onto the caller's tensor
    recorder, found = _Recorder(images, masks=masks), {}

    def keep(_, inputs, out):
        if not isinstance(out, torch.Tensor) or not hasattr(out, "_place"):
            raise Unsupported(f"layer {layer!r} does not give a tensor computed from the images")
        found["activations"], found["place"] = out.clone(), out._place
        raise _Reached

    try:
        with torch.no_grad(), _prepared(net, recorder, net.get_submodule(layer), keep), recorder:
            net(images)
    except _Reached:
        return Tape(recorder.steps[: found["place"] + 1], found["activations"])
    except RuntimeError as error:
        if isinstance(error, NotImplementedError):
            raise
        reason = str(error).split("\n")[0]
        raise ValueError(f"images of shape {tuple(images.shape)} do not fit this network: {reason}") from error
    raise ValueError(f"layer {layer!r} took no part in the forward pass; choose a layer that the network uses")
