"""What a network did to some images, operation by operation: the record on which the deconvnet walks back down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from ..models.response_norm import ResponseNorm
from .recorder import Guard, Recorder
from .steps import Step, Unsupported

SKIPPED = (ResponseNorm.forward, nn.LocalResponseNorm.forward)
REFUSED = tuple(
    getattr(nn, name) for name in (
        "GELU", "LeakyReLU", "ReLU6", "PReLU", "RReLU", "ELU", "CELU", "SELU", "SiLU", "Mish", "Hardswish",
        "Hardsigmoid", "Hardtanh", "Sigmoid", "Tanh", "Softplus", "Softsign", "Softshrink", "Hardshrink",
        "Tanhshrink", "Threshold", "GLU", "MultiheadAttention", "TransformerEncoderLayer", "RNNBase", "Bilinear",
    )
)  # fmt: skip


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


class _Reached(BaseException):
    """Ends the forward pass once the layer has been computed; no network may catch it."""


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
def unchanged(net: nn.Module):
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
        handles.callback(target.register_forward_hook(lambda _, args, out: _stop(keep, out)).remove)
        yield


def _stop(keep: Callable, out) -> None:
    keep(out)
    raise _Reached


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
    with plain(images.device):
        images = images.clone()  # a network that works in place does so on our copy
        recorder, target, found = Recorder(images, masks=masks), net.get_submodule(layer), []
        try:
            with unchanged(net), _hooked(net, recorder, target, found.append), Guard(recorder), recorder:
                net(images)
        except _Reached:
            return _tape(recorder, found[0], layer)
        except Unsupported:
            raise
        except RuntimeError as error:
            reason = str(error).split("\n")[0]
            raise ValueError(
                f"images of shape {tuple(images.shape)} do not fit this network ({reason}); "
                "crop or resize them to the size it takes"
            ) from error
    raise ValueError(f"layer {layer!r} took no part in the forward pass; choose a layer that the network uses")


def _tape(recorder: Recorder, out, layer: str) -> Tape:
    if not recorder.depends(out) or not out.is_floating_point():
        raise Unsupported(f"layer {layer!r} does not give a tensor of numbers computed from the images")
    place = recorder.place(out)
    return Tape(recorder.steps[: place + 1], out.clone())
