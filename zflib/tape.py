"""What a network did to some images, operation by operation: the record on which the deconvnet walks back down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from . import steps
from .models import ResponseNorm
from .steps import Call, Step


class Unsupported(NotImplementedError, ValueError):
    """The network holds an operation for which the paper gives no way down."""


@dataclass
class Tape:
    """The steps from the images (step 0) to the layer (the last one), and the layer's activations."""

    steps: list[Step]
    activations: torch.Tensor

    def used(self) -> Iterator[Step]:
        """The steps that the layer depends on, from the layer down."""
        wanted = {len(self.steps) - 1}
        for place in range(len(self.steps) - 1, -1, -1):
            if place in wanted:
                wanted.update(self.steps[place].inputs)
                yield self.steps[place]

    def check(self) -> None:
        """Unsupported, with its name, if an operation on the way from the images to the layer has no way down."""
        refused = [step.values for step in self.used() if step.kind == "refused"]
        if refused:
            first = refused[-1]  # the others only took what it gave
            where = f" in module {first['where']}" if first.get("where") else ""
            raise Unsupported(
                f"net: it uses {first['name']!r}{where}, for which a deconvnet has no rule; "
                "choose a layer before it, or a network without it"
            )

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


SKIPPED = (ResponseNorm.forward, nn.LocalResponseNorm.forward)
#: Operations that ask a tensor only for its shape and type.
SHAPE_ONLY = {"zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "new_zeros", "new_ones",
              "new_empty", "new_empty_strided", "new_full"}  # fmt: skip
#: Those that take another tensor's shape or type.
LIKE = {"to", "type_as", "expand_as", "view_as", "reshape_as"}
#: Ways to take numbers out of a tensor that torch's dispatcher does not see.
READS = {"numpy", "tolist", "__array__", "__dlpack__", "data_ptr"}
REFUSED = tuple(
    getattr(nn, name) for name in (
        "GELU", "LeakyReLU", "ReLU6", "PReLU", "RReLU", "ELU", "CELU", "SELU", "SiLU", "Mish", "Hardswish",
        "Hardsigmoid", "Hardtanh", "Sigmoid", "Tanh", "Softplus", "Softsign", "Softshrink", "Hardshrink",
        "Tanhshrink", "Threshold", "GLU", "MultiheadAttention", "TransformerEncoderLayer", "RNNBase", "Bilinear",
    )
)  # fmt: skip


class _Reached(BaseException):
    """Ends the forward pass once the layer has been computed; no network may catch it."""


class Recorder(TorchDispatchMode):
    """Sees every tensor operation of a forward pass and notes how it depends on the images.

    At this level a ReLU is a ReLU, however the network wrote it: module, function, method, in place or not.
    A tensor's place on the tape holds until its memory is written to, through whichever tensor.
    """

    def __init__(self, images: torch.Tensor, *, masks: bool):
        super().__init__()
        self.masks, self.skipping, self.modules = masks, False, []
        self.steps: list[Step] = []
        self.places = WeakTensorKeyDictionary()  # tensor -> (place, writes to its memory until then)
        self.writes: dict[StorageWeakRef | int, int] = {}  # for memory that holds something computed from the images
        self.writers: dict[StorageWeakRef | int, str] = {}  # the last operation that wrote to it
        self.append(Step("image", (), images.shape), images)

    def append(self, step: Step, out: torch.Tensor) -> None:
        """The step gets the next place on the tape, and `out` stands for it."""
        if step.kind == "refused" and self.modules:
            path, module = self.modules[-1]
            step.values["where"] = f"{path!r} ({type(module).__name__})" if path else ""
        self.places[out] = len(self.steps), self.writes.setdefault(_memory(out), 0)
        self.steps.append(step)

    def refuse(self, name: str, out: torch.Tensor) -> None:
        """`out` gets a place from which there is no way down."""
        self.append(Step("refused", (), out.shape, {"name": name}), out)

    def depends(self, tensor) -> bool:
        """Whether something computed from the images is in this tensor, or in the memory behind it."""
        return isinstance(tensor, torch.Tensor) and (tensor in self.places or _memory(tensor) in self.writes)

    def place(self, tensor: torch.Tensor) -> int:
        """The place of a tensor on the tape; one that was changed behind its back is refused."""
        place, writes = self.places.get(tensor, (None, None))
        memory = _memory(tensor)
        if writes is None or writes != self.writes[memory]:
            writer = self.writers.get(memory, "view")
            self.refuse(f"{writer} through another view of the same memory", tensor)
            place, _ = self.places[tensor]
        return place

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, packet = kwargs or {}, func.overloadpacket.__name__
        shape_only = packet in SHAPE_ONLY and func.namespace == "aten"
        if self.skipping or shape_only or not any(map(self.depends, tree_leaves((args, kwargs)))):
            return func(*args, **kwargs)
        if packet == "_mps_max_pool2d":  # this one keeps its switches to itself
            func = torch.ops.aten.max_pool2d_with_indices.default
        names = [a.name for a in func._schema.arguments]
        given = dict(zip(names, args)) | kwargs
        places = {name: tuple(self.place(t) for t in tree_leaves(a) if self.depends(t)) for name, a in given.items()}
        call = Call(func, args, kwargs, places)  # before it runs: an operation in place overwrites its input
        out = func(*args, **kwargs)
        self._note(call, out)
        return out

    def _note(self, call: Call, out) -> None:
        written = [
            t for a in call.function._schema.arguments if a.alias_info is not None and a.alias_info.is_write
            for t in tree_leaves(call[a.name]) if isinstance(t, torch.Tensor)
        ]  # fmt: skip
        for tensor in written:
            self.writes[_memory(tensor)] = self.writes.get(_memory(tensor), 0) + 1
            self.writers[_memory(tensor)] = call.function.overloadpacket.__name__
        outs = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        if not outs and not written:
            raise Unsupported(
                f"net: it reads numbers out of its activations ({call.name!r}); a deconvnet cannot follow"
            )
        for step, tensor in zip(self._steps(call, out, outs), outs):
            self.append(step, tensor)
        for tensor in written:
            if not any(tensor is t for t in outs):
                self.append(call.refused(tensor), tensor)

    def _steps(self, call: Call, out, outs: list[torch.Tensor]) -> list[Step]:
        if not outs or isinstance(out, list):
            return steps.pieces(call, outs)
        step = steps.translate(call, outs[0], tuple(outs[1:]))
        if step.kind == "rectify" and self.masks:
            step.values["mask"] = outs[0] > 0
        return [step] + [call.refused(other, f"another result of {call.name}") for other in outs[1:]]


class _Guard(TorchFunctionMode):
    """Notices results that were computed from the images without the recorder seeing how."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name, recorder = kwargs or {}, getattr(func, "__name__", str(func)), self.recorder
        out = func(*args, **kwargs)
        leaves = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        if recorder.skipping or name in SHAPE_ONLY | LIKE or not (leaves or name in READS):
            return out
        if any(map(recorder.depends, tree_leaves((args, kwargs)))):
            if name in READS:
                raise Unsupported(f"net: it reads numbers out of its activations ({name!r}); a deconvnet cannot follow")
            for tensor in leaves:
                if not recorder.depends(tensor):
                    recorder.refuse(name, tensor)
        return out


def _memory(tensor: torch.Tensor) -> StorageWeakRef | int:
    """What tensors share that are views of one another."""
    try:
        return StorageWeakRef(tensor.untyped_storage())
    except (NotImplementedError, RuntimeError):  # sparse and opaque tensors have no storage
        return id(tensor)


def check_network(net: nn.Module) -> None:
    """Unsupported, with its path, at the first module that has no rule (GELU, attention, …) or cannot be watched."""
    for path, module in net.named_modules():
        where = f"net: module {path!r}" if path else "net"
        if isinstance(module, REFUSED):
            raise Unsupported(
                f"{where} is a {type(module).__name__}, for which a deconvnet has no rule; "
                "the way down is defined for ReLU networks only"
            )
        if isinstance(module, torch.jit.ScriptModule) or type(module).__name__ == "OptimizedModule":
            raise Unsupported(f"{where} is compiled ({type(module).__name__}); pass the Python module it was made from")
        if isinstance(module, nn.modules.lazy.LazyModuleMixin) and module.has_uninitialized_params():
            raise ValueError(
                f"{where} has no weights yet ({type(module).__name__}); run the network once on your images"
            )


@contextmanager
def plain(device: torch.device):
    """Nothing but the arithmetic, whatever the caller's modes: no gradients, no autocast, no inference tensors."""
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield


@contextmanager
def _unchanged(net: nn.Module):
    """Evaluation mode inside; afterwards every mode and buffer is as it was found."""
    modes = [(module, module.training) for module in net.modules()]
    buffers = [(m, name, b, b.clone()) for m in net.modules() for name, b in m._buffers.items() if b is not None]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for module, name, buffer, content in buffers:
            module._buffers[name] = buffer
            if not torch.equal(buffer, content):
                buffer.copy_(content)


@contextmanager
def _hooked(net: nn.Module, recorder: Recorder, target: nn.Module, keep: Callable):
    """Hooks that tell the recorder where it is, skip response normalisation, and end at the target."""
    with ExitStack() as handles:
        for path, module in net.named_modules():
            enter, leave = _hooks(recorder, path, module)
            handles.callback(module.register_forward_pre_hook(enter).remove)
            handles.callback(module.register_forward_hook(leave, prepend=True, with_kwargs=True).remove)
        handles.callback(target.register_forward_hook(keep).remove)
        yield


def _hooks(recorder: Recorder, path: str, module: nn.Module) -> tuple[Callable, Callable]:
    skipped = type(module).forward in SKIPPED and "forward" not in vars(module)

    def enter(_, args):
        recorder.modules.append((path, module))
        recorder.skipping = skipped

    def leave(_, args, kwargs, out):
        recorder.modules.pop()
        if skipped:  # one step that passes the signal on unchanged (section 2.1)
            recorder.skipping = False
            (maps,) = (*args, *kwargs.values())
            if recorder.depends(maps):
                recorder.append(Step("pass", (recorder.place(maps),), out.shape), out)

    return enter, leave


def record(net: nn.Module, images: torch.Tensor, layer: str, *, masks: bool = False) -> Tape:
    """Run (N,3,H,W) images up to the module at path `layer` and keep what the way down needs.

    Switches are always kept; where each ReLU was open only with `masks=True`. A module that is used
    more than once is taken at its first use. Bad shapes raise ValueError with torch's own reason.
    """
    check_network(net)
    found: list[Tape] = []

    def keep(_, args, out):
        if not recorder.depends(out) or not out.is_floating_point():
            raise Unsupported(f"layer {layer!r} does not give a tensor of numbers computed from the images")
        place = recorder.place(out)
        found.append(Tape(recorder.steps[: place + 1], out))
        raise _Reached

    with plain(images.device):
        images = images.clone()  # a network that works in place does so on our copy
        recorder = Recorder(images, masks=masks)
        try:
            with _unchanged(net), _hooked(net, recorder, net.get_submodule(layer), keep), _Guard(recorder), recorder:
                net(images)
        except _Reached:
            return Tape(found[0].steps, found[0].activations.clone())
        except RuntimeError as error:
            if isinstance(error, Unsupported):
                raise
            reason = str(error).split("\n")[0]
            raise ValueError(
                f"images of shape {tuple(images.shape)} do not fit this network ({reason}); "
                "crop or resize them to the size it takes"
            ) from error
    raise ValueError(f"layer {layer!r} took no part in the forward pass; choose a layer that the network uses")
