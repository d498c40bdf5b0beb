"""What a network did to some images, operation by operation: one record, from which others read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from .hooks import Hooks, Reached, fitting, plain, unchanged
from .recorder import Guard, Recorder
from .steps import Pass, Step, Unsupported


@dataclass
class Tape:
    """The steps from the images (place 0) on; the layer's `place` among them and its activations.

    `scores` is what the network gave if it ran to its end, and the last step stands for it.
    """

    steps: list[Step]
    place: int
    activations: torch.Tensor
    scores: object = None

    def used(self, *ends: int) -> list[int]:
        """The places that the steps at `ends` depend on, these included, in order; by default those of the layer."""
        wanted = set(ends or [self.place])
        for place in range(max(wanted), -1, -1):
            if place in wanted:
                wanted.update(self.steps[place].inputs)
        return sorted(wanted)


def record(
    net: nn.Module, images: torch.Tensor, path: str, *, masks: bool = False, whole: bool = False, ruled=()
) -> Tape:
    """Run (N,3,H,W) images up to the module at `path`, or to the network's end if `whole`, and keep what was done.

    Switches are always kept; where each ReLU was open only with `masks`. Modules of the `ruled` kinds become one step
    each. A module that is used more than once is taken at its first use. ValueError for images that do not fit and for
    a module that is not used; Unsupported for a network that cannot be followed.
    """
    check_watchable(net)
    found: list[tuple[int, torch.Tensor]] = []
    with plain(images.device):
        images = images.clone()  # a network that works in place does so on our copy
        recorder, scores = Recorder(images, masks=masks, ruled=tuple(ruled)), None
        try:
            watching = _hooked(net, recorder, path, found, whole)
            with unchanged(net), watching, fitting(net, images), Guard(recorder), recorder:
                scores = net(images)
        except Reached:
            pass
        if not found:
            raise ValueError(f"layer {path!r} took no part in the forward pass; choose a layer that the network uses")
        if whole:
            _end(recorder, scores)
    return Tape(recorder.steps if whole else recorder.steps[: found[0][0] + 1], *found[0], scores)


def record_modules(net: nn.Module, images: torch.Tensor, *, ruled=()) -> tuple[Tape, dict[str, int]]:
    """One whole pass over (N,3,H,W) images: the tape, and the place of what each module gave at its first use.

    Modules that the network does not use, or that do not give one tensor of numbers, have no place. Else as `record`.
    """
    places: dict[str, int] = {}

    def note(path: str, recorder: Recorder, module, args, kwargs, out) -> None:
        if path not in places and recorder.depends(out) and out.is_floating_point():
            places[path] = recorder.place(out)

    check_watchable(net)
    with plain(images.device), Hooks() as hooks:
        images = images.clone()
        recorder = Recorder(images, masks=False, ruled=tuple(ruled))
        for path, module in net.named_modules():
            hooks.before(module, partial(recorder.enter, path))
            hooks.after(module, recorder.leave, first=True)
            hooks.after(module, partial(note, path, recorder))
        with unchanged(net), fitting(net, images), Guard(recorder), recorder:
            scores = net(images)
        _end(recorder, scores)
    return Tape(recorder.steps, len(recorder.steps) - 1, scores, scores), places


@contextmanager
def _hooked(net: nn.Module, recorder: Recorder, path: str, found: list, whole: bool) -> Iterator[None]:
    """Hooks that tell the recorder where it is, and find the layer's output."""

    def reached(module, args, kwargs, out) -> None:
        if not found:
            found.append(_found(recorder, out, path))
        if not whole:
            raise Reached

    with Hooks() as hooks:
        for name, module in net.named_modules():
            hooks.before(module, partial(recorder.enter, name))
            hooks.after(module, recorder.leave, first=True)
        hooks.after(net.get_submodule(path), reached)
        yield


def _found(recorder: Recorder, out, path: str) -> tuple[int, torch.Tensor]:
    if not recorder.depends(out) or not out.is_floating_point():
        raise Unsupported(f"layer {path!r} does not give a tensor of numbers computed from the images")
    return recorder.place(out), recorder.copy(out)


def _end(recorder: Recorder, scores) -> None:
    """The last step is the one that gave the network's output."""
    if recorder.depends(scores) and (place := recorder.place(scores)) != len(recorder.steps) - 1:
        recorder.append(Pass((place,), scores.shape, torch.clone, None, scores.dtype), scores)


def check_watchable(net: nn.Module) -> None:
    """Unsupported or ValueError, with its path, at the first module that is compiled or has no weights yet."""
    for path, module in net.named_modules():
        where = f"net: module {path!r}" if path else "net"
        if isinstance(module, torch.jit.ScriptModule) or type(module).__name__ == "OptimizedModule":
            raise Unsupported(f"{where} is compiled ({type(module).__name__}); pass the Python module it was made from")
        if isinstance(module, nn.modules.lazy.LazyModuleMixin) and module.has_uninitialized_params():
            raise ValueError(
                f"{where} has no weights yet ({type(module).__name__}); run the network once on your images"
            )
