"""One activation as a function of the pixels that it sees: what gradient ascent and curvature differentiate."""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import nn

from .._arguments import check_finite, check_integer, check_layer, check_positions, layer_path
from ..deconv.deconvnet import strongest
from ..deconv.receptive_boxes import trace
from ..record import Tape, record
from ..record.hooks import Hooks, Reached, plain, unchanged
from ..record.inputs import check_image

Box = tuple[int, int, int, int]


class OneUnit:
    """One activation of `net`, and its derivatives, as functions of a window of the image.

    The window `box` = (top, left, bottom, right) is the receptive field inside the image, widened to the grid of the
    network's strides: cut out there, the network gives the same activation and costs less. Where that does not hold the
    window is the whole image. `position` is None for a fully connected unit. With `signed`, a layer that is an nn.ReLU
    means what goes into it: negative where the unit is off. Bad input raises ValueError or TypeError.
    """

    def __init__(
        self, net: nn.Module, image: torch.Tensor, layer: str, channel: int, position=None, *, signed: bool = False
    ):
        layer, self.image = check_layer(net, layer), check_image(image, net)
        self.net, self.module = net, net.get_submodule(layer_path(net, layer))
        self.signed = signed and isinstance(self.module, nn.ReLU)
        tape = record(net, self.image[None], layer_path(net, layer))
        maps = tape.activations
        if maps.dim() not in (2, 4):
            raise ValueError(f"layer {layer!r} gives {tuple(maps.shape)}; choose one of maps (N,C,h,w) or units (N,C)")
        check_finite(maps, f"layer {layer!r}")
        last = maps.shape[1] - 1
        self.channel = check_integer("channel", channel, f"one of layer {layer!r}, 0 to {last}", low=0, high=last)
        self.layer, self.position = layer, None
        if position is not None or maps.dim() == 4:
            place = strongest(maps)[0, self.channel]
            place = place if position is None else check_positions(position, maps, layer, name="position")[0]
            self.position = tuple(place.tolist())
        self.box, self.place = (0, 0, *self.image.shape[1:]), self.position
        if self.position is not None:
            self._narrow(tape)

    def _narrow(self, tape: Tape) -> None:
        """Make the window as small as the receptive field allows, if the activation stays what it is."""
        if any(step.window is None for step in map(tape.steps.__getitem__, tape.used()[1:])):
            return  # an average over all of the map, or an operation that nobody knows
        whole, before = (self.box, self.place), float(tape.activations[0, self.channel][self.position])
        with suppress(RuntimeError):
            self.box, self.place = _on_the_grid(tape, self.position)
            now = float(self.values(self.window()[None]))
            now = max(now, 0.0) if self.signed else now
            if abs(now - before) <= 1e-4 * abs(before):
                return
        self.box, self.place = whole

    def window(self, image: torch.Tensor | None = None) -> torch.Tensor:
        """(3,h,w): what lies in `box` of a (3,H,W) image, by default its own."""
        top, left, bottom, right = self.box
        return (self.image if image is None else image)[..., top:bottom, left:right]

    def embedded(self, windows: torch.Tensor, around: torch.Tensor | None = None) -> torch.Tensor:
        """(…,3,H,W): (…,3,h,w) windows in their place of the image, with zeros `around` or another (3,H,W) image."""
        around = torch.zeros_like(self.image) if around is None else around
        top, left, bottom, right = self.box
        images = around.expand(*windows.shape[:-3], *around.shape).clone()
        images[..., top:bottom, left:right] = windows
        return images

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """(N,) activations of (N,3,h,w) windows, differentiable."""
        found = []

        def hear(module, args, kwargs, *out):
            found.append(args[0] if self.signed else out[0])
            raise Reached

        with Hooks() as hooks, unchanged(self.net):
            if self.signed:
                hooks.before(self.module, hear)
            else:
                hooks.after(self.module, hear, first=True)
            with suppress(Reached):
                self.net(windows.clone())  # a network that works in place does so on our copy
        place = () if self.place is None else self.place
        return found[0][(slice(None), self.channel, *place)]

    def values(self, windows: torch.Tensor) -> torch.Tensor:
        """(N,) activations, a few windows at a time, without derivatives."""
        with plain(windows.device):
            return torch.cat([self(some) for some in windows.split(32)])

    def gradient(self, window: torch.Tensor) -> torch.Tensor:
        """(3,h,w): how the activation changes with each pixel of the window."""
        with plain(window.device):
            return torch.func.grad(self._one)(window)

    def hessian_times(self, window: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
        """(3,h,w): how the gradient changes when the window moves in a direction: the Hessian times the direction."""
        with plain(window.device):
            return torch.func.jvp(torch.func.grad(self._one), (window,), (direction,))[1]

    def _one(self, window: torch.Tensor) -> torch.Tensor:
        return self(window[None])[0]


def _on_the_grid(tape: Tape, position: tuple[int, int]) -> tuple[Box, tuple[int, int]]:
    """The window of a position, and the position's row and column in the maps of that window alone."""
    field, (height, width) = trace(tape, *position), tape.steps[0].shape[-2:]
    origin, beside = trace(tape, 0, 0), trace(tape, 1, 1)
    strides = [beside[axis] - origin[axis] for axis in (0, 1)]
    starts = [max(0, edge // stride * stride) for edge, stride in zip(field, strides)]
    place = tuple(at - start // stride for at, start, stride in zip(position, starts, strides))
    return (*starts, min(field[2], height), min(field[3], width)), place
