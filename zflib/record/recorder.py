"""Watches a forward pass, operation by operation, without a word of help from the network."""

from __future__ import annotations

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from ..models.response_norm import ResponseNorm
from .steps import POINT, Image, Pass, Rectify, Refused, Ruled, Step, Unsupported
from .translation import Call, pieces, translate

#: Operations that ask a tensor only for its shape and type.
SHAPE_ONLY = {"zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "new_zeros", "new_ones",
              "new_empty", "new_empty_strided", "new_full"}  # fmt: skip
#: Those that take another tensor's shape or type.
LIKE = {"to", "type_as", "expand_as", "view_as", "reshape_as"}
#: Ways to take numbers out of a tensor that torch's dispatcher does not see.
READS = {"numpy", "tolist", "__array__", "__dlpack__", "data_ptr"}
#: Response normalisation, which the way down leaves out.
SKIPPED = (ResponseNorm.forward, nn.LocalResponseNorm.forward)
#: Modules that change each number by itself, and are no ReLU.
ACTIVATIONS = (
    nn.GELU, nn.LeakyReLU, nn.ReLU6, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.SiLU, nn.Mish, nn.Hardswish,
    nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softsign, nn.Softshrink, nn.Hardshrink,
    nn.Tanhshrink, nn.Threshold,
)  # fmt: skip


class Recorder(TorchDispatchMode):
    """Sees every tensor operation of a forward pass and notes how it depends on the images.

    At this level a ReLU is a ReLU, however the network wrote it: module, function, method, in place or not.
    A tensor's place on the tape holds until its memory is written to, through whichever tensor. Response normalisation
    becomes one step, and so does every module of the `ruled` kinds.
    """

    def __init__(self, images: torch.Tensor, *, masks: bool, ruled: tuple[type, ...]):
        super().__init__()
        self.masks, self.ruled, self.modules = masks, ruled, []
        self.looking, self.whole = True, None  # whole: the module that becomes one step, and what went into it
        self.steps: list[Step] = []
        self.places = WeakTensorKeyDictionary()  # tensor -> (place, writes to its memory until then)
        self.writes: dict[StorageWeakRef | int, int] = {}  # for memory that holds something computed from the images
        self.writers: dict[StorageWeakRef | int, str] = {}  # the last operation that wrote to it
        self.append(Image((), images.shape, None, None), images)

    def append(self, step: Step, out: torch.Tensor) -> None:
        """The step gets the next place on the tape, and `out` stands for it."""
        if isinstance(step, Refused) and self.modules:
            path, module = self.modules[-1]
            step.where = f"{path!r} ({type(module).__name__})" if path else ""
        self.places[out] = len(self.steps), self.writes.setdefault(_memory(out), 0)
        self.steps.append(step)

    def refuse(self, name: str, out: torch.Tensor) -> None:
        """`out` gets a place from which there is no way down."""
        self.append(Refused((), out.shape, None, None, name), out)

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

    def enter(self, path: str, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """A hook: a module begins with what it was given."""
        self.modules.append((path, module))
        skipped = type(module).forward in SKIPPED and "forward" not in vars(module)
        ruled = isinstance(module, self.ruled)
        taken = [value for value in tree_leaves((args, kwargs)) if self.depends(value)]
        if not self.looking or not (skipped or ruled) or not taken:
            return
        if len(taken) > 1:
            raise Unsupported(f"rules: module {path!r} takes {len(taken)} tensors; a rule is for one that takes one")
        (maps,) = taken
        self.whole = module, maps, maps._version, self.place(maps), self.copy(maps) if ruled else None
        self.looking = False

    def leave(self, module: nn.Module, args: tuple, kwargs: dict, out) -> None:
        """A hook: a module ends with what it gave."""
        self.modules.pop()
        if self.looking or module is not self.whole[0]:
            return
        (_, maps, version, place, before), self.whole = self.whole, None
        if not isinstance(out, torch.Tensor):
            raise Unsupported(f"rules: {type(module).__name__} gives {type(out).__name__}, a rule is for one tensor")
        if maps._version != version:
            self.written(maps, type(module).__name__)
        if before is None:  # response normalisation: the signal passes unchanged (section 2.1)
            self.append(Pass((place,), out.shape, module.forward, POINT, maps.dtype), out)
        else:
            window = POINT if isinstance(module, ACTIVATIONS) else None  # what other modules look at is not known
            self.append(Ruled((place,), out.shape, module.forward, window, module, before, out.clone()), out)
        self.looking = True

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy that is no step of the network."""
        looking, self.looking = self.looking, False
        copied = tensor.clone()
        self.looking = looking
        return copied

    def written(self, tensor: torch.Tensor, writer: str) -> None:
        """Everything that shares the tensor's memory has changed."""
        memory = _memory(tensor)
        self.writes[memory], self.writers[memory] = self.writes.get(memory, 0) + 1, writer

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, packet = kwargs or {}, func.overloadpacket.__name__
        shape_only = packet in SHAPE_ONLY and func.namespace == "aten"
        if not self.looking or shape_only or not any(map(self.depends, tree_leaves((args, kwargs)))):
            return func(*args, **kwargs)
        if packet == "_mps_max_pool2d":  # this one keeps its switches to itself
            func = torch.ops.aten.max_pool2d_with_indices.default
        # read before it runs: an operation in place overwrites its input
        call = Call(func, args, kwargs, lambda leaf: self.place(leaf) if self.depends(leaf) else None)
        out = func(*args, **kwargs)
        self._note(call, out)
        return out

    def _note(self, call: Call, out) -> None:
        written = call.written()
        for tensor in written:
            self.written(tensor, call.function.overloadpacket.__name__)
        outs = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        if not outs and not written:
            raise Unsupported(
                f"net: it reads numbers out of its activations ({call.name!r}); a deconvnet cannot follow"
            )
        for step, tensor in zip(self._steps(call, out, outs), outs):
            self.append(step, tensor)
        for tensor in written:
            if not any(tensor is t for t in outs):
                self.append(call.result(tensor), tensor)

    def _steps(self, call: Call, out, outs: list[torch.Tensor]) -> list[Step]:
        if not outs or isinstance(out, list):
            return pieces(call, outs)
        step = translate(call, outs[0], tuple(outs[1:]))
        if isinstance(step, Rectify) and self.masks:
            step.mask = outs[0] > 0
        return [step] + [call.result(other, f"another result of {call.name}") for other in outs[1:]]


class Guard(TorchFunctionMode):
    """Notices results that were computed from the images without the recorder seeing how."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name, recorder = kwargs or {}, getattr(func, "__name__", str(func)), self.recorder
        out = func(*args, **kwargs)
        leaves = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        if not recorder.looking or name in SHAPE_ONLY | LIKE or not (leaves or name in READS):
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
