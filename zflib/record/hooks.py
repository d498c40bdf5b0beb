"""Listening to a network without leaving a trace on it: the hooks, modes and buffers of every pass go through here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from tqdm.auto import tqdm

from .._arguments import check_apart, check_finite, check_layer, check_net, layer_path
from .steps import Unsupported

PIXELS = 2**20  # of all images in one forward pass together, at most 64 images

#: Who changes the modes of a network holds it until they are as before; whoever comes then would find them changed.
LOCK = threading.RLock()


class Reached(BaseException):
    """Ends a forward pass once everything asked for has been heard; no network may catch it."""


class Hooks(ExitStack):
    """Forward hooks that hear only the passes of the thread that made them; all are removed at the end of the block."""

    def __init__(self):
        super().__init__()
        self.thread = threading.get_ident()

    def before(self, module: nn.Module, hear: Callable) -> None:
        """hear(module, args, kwargs) when the module begins."""
        self.callback(module.register_forward_pre_hook(self._own(hear), with_kwargs=True).remove)

    def after(self, module: nn.Module, hear: Callable, *, first: bool = False) -> None:
        """hear(module, args, kwargs, output) when the module has ended; `first`: before hooks that may change it."""
        self.callback(module.register_forward_hook(self._own(hear), prepend=first, with_kwargs=True).remove)

    def _own(self, hear: Callable) -> Callable:
        return lambda *given: hear(*given) if threading.get_ident() == self.thread else None


@contextmanager
def plain(device: torch.device) -> Iterator[None]:
    """Nothing but the arithmetic, whatever the caller's modes: no gradients, no autocast, no inference tensors."""
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield


@contextmanager
def unchanged(net: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every mode and buffer is as it was found.

    A network in evaluation mode is not touched. Another one keeps other threads waiting: they would take its
    evaluation mode for its own.
    """
    with ExitStack() as held:
        with LOCK:
            modes = [(module, module.training) for module in net.modules()]
            training = [module for module, mode in modes if mode]
            if training:
                held.enter_context(LOCK)
            buffers = [(m, k, b, b.clone()) for m in net.modules() for k, b in m._buffers.items() if b is not None]
        try:
            for module in training:
                module.training = False
            yield
        finally:
            with LOCK:
                if training or not net.training:  # else another thread has begun to train it: what changes is its own
                    _restore(modes, buffers)


def _restore(modes: list[tuple[nn.Module, bool]], buffers: list[tuple[nn.Module, str, torch.Tensor, torch.Tensor]]):
    for module, mode in modes:
        module.training = mode
    for module, name, buffer, content in buffers:
        if module._buffers[name] is not buffer:
            module._buffers[name] = buffer
        if not torch.equal(buffer, content):
            buffer.copy_(content)


@contextmanager
def fitting(net: nn.Module, images: torch.Tensor) -> Iterator[None]:
    """ValueError with torch's own reason where the network fails on images of this shape."""
    try:
        yield
    except Unsupported:
        raise
    except RuntimeError as error:
        reason, crop = str(error).strip().split("\n")[0], getattr(getattr(net, "geometry", None), "crop", None)
        raise ValueError(
            f"images of shape {tuple(images.shape)} do not fit this network ({reason}); "
            f"crop or resize them to {f'{crop}x{crop}' if crop else 'the size it takes, or give one if you gave none'}"
        ) from error


def check_hearable(net: nn.Module, path: str) -> None:
    """Unsupported if the module at `path`, or what it lies in, is compiled by torch.jit and takes no hooks."""
    names = path.split(".") if path else []
    for number in range(len(names) + 1):
        if isinstance(net, torch.jit.ScriptModule):
            where = f"module {'.'.join(names[:number])!r}" if number else "it"
            raise Unsupported(
                f"net: {where} is compiled ({type(net).__name__}); pass the Python module it was made from"
            )
        net = getattr(net, names[number]) if number < len(names) else net


@contextmanager
def listening(net: nn.Module, callbacks: Mapping[str, Callable], *, stop: bool = True) -> Iterator[Callable]:
    """run(images): one forward pass in which callbacks[path](output) gets what the module at `path` gives.

    A module that is used more than once is heard at its first use. With `stop` the pass ends after the last one and
    run returns None, else it returns the network's output. The images may be overwritten by a network in place.
    """
    waiting: set[str] = set()  # empty but for a pass of `run`

    def listener(path: str, callback: Callable) -> Callable:
        def hear(module, args, kwargs, out):
            if path in waiting:
                waiting.remove(path)
                callback(out)
                if stop and not waiting:
                    raise Reached

        return hear

    def run(images: torch.Tensor):
        waiting.update(callbacks)
        try:
            with unchanged(net), plain(images.device), fitting(net, images):
                scores = net(images)
        except Reached:
            return None
        for path in callbacks:
            if path in waiting:
                raise ValueError(f"layer {path!r} took no part in the forward pass; choose one that the network uses")
        return scores

    with Hooks() as hooks:
        for path, callback in callbacks.items():
            check_hearable(net, path)
            hooks.after(net.get_submodule(path), listener(path, callback))
        yield run


@contextmanager
def watched(net: nn.Module, layers: Iterable) -> Iterator[Callable]:
    """look(images): ({layer: its output}, the network's); no gradients, evaluation mode, no hooks left afterwards.

    A layer is the module's output at its first use, copied before a ReLU in place overwrites it.
    """
    check_apart(net)
    paths = {layer: layer_path(net, layer) for layer in layers}
    found: dict[str, torch.Tensor] = {}

    def keeper(layer: str, path: str) -> Callable:
        def keep(out) -> None:
            found[path] = _checked(layer, out)

        return keep

    callbacks = {path: keeper(check_layer(net, layer), path) for layer, path in paths.items()}
    with listening(net, callbacks, stop=False) as run:

        def look(images: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
            scores = run(images.clone())  # a network that works in place does so on our copy
            for layer, path in paths.items():
                if len(found[path]) != len(images):
                    raise ValueError(
                        f"layer {layer!r} gives {len(found[path])} maps for {len(images)} images; "
                        "choose one that keeps images apart"
                    )
            return {layer: found[path] for layer, path in paths.items()}, scores

        yield look


def check_steady(net: nn.Module, images: torch.Tensor, paths: Iterable[str], *, whole: bool = True) -> None:
    """ValueError unless modules, and the network if `whole`, give the same for an image alone and among others.

    But for rounding; looked at is the first of (N,3,H,W) images. A network that draws random numbers, or in which the
    images of a batch change each other, gives something else.
    """
    image, found = images[:1], []
    with listening(net, dict.fromkeys(paths, found.append), stop=not whole) as run:
        for some in (image, torch.cat([image, image + 1])):
            found.append(run(some.clone()))
    alone, among = found[: len(found) // 2], found[len(found) // 2 :]
    for one, other in zip(alone, among):
        if not isinstance(one, torch.Tensor) or not one.is_floating_point() or not one.dim():
            continue
        eps = torch.finfo(one.dtype).eps
        rounding = 10 * eps**0.5 * one.abs().max() + 100 * eps  # a sum may cancel: 0 but for rounding
        if bool(((one - other[:1]).abs() > rounding).any()):
            raise ValueError(
                "net gives other numbers for an image alone than for the same image among others; look for random ones "
                "(F.dropout without training=self.training) and for sums over the batch"
            )


def _checked(layer: str, out) -> torch.Tensor:
    if not isinstance(out, torch.Tensor) or not out.is_floating_point() or out.dim() < 2:
        got = f"{out.dtype} {tuple(out.shape)}" if isinstance(out, torch.Tensor) else type(out).__name__
        raise ValueError(f"layer {layer!r} gives {got}; a layer must give floats (N,C,h,w) or (N,C)")
    check_finite(out, f"layer {layer!r}")
    return out.clone()


def check_layers(net: nn.Module, layers) -> list:
    """The layers as they were given, each once; ValueError for one that the network does not have, or for none."""
    check_net(net)
    layers = [layers] if isinstance(layers, str | nn.Module) else layers
    if not isinstance(layers, Iterable) or not (layers := list(layers)):
        raise ValueError(f"layers must be at least one layer's name, got {layers!r}")
    for layer in layers:
        check_layer(net, layer)
    return list(dict.fromkeys(layers))


def chunks(images: Sequence, *, what: str) -> Iterator:
    """(N,3,H,W) images in parts that fit into memory, with a progress bar on a terminal."""
    pixels = images[0].shape[-1] * images[0].shape[-2]
    with tqdm(total=len(images), desc=what, unit="image", disable=None, leave=False) as bar:
        for part in images.split(max(1, min(64, PIXELS // pixels))):
            yield part
            bar.update(len(part))
