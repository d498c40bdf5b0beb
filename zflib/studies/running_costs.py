"""What the experiments cost on this machine: seconds and bytes, measured, and carried over to other sizes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from ..deconv import Deconvnet, strongest
from ..experiments import occlude
from ..record import Tape
from ..record.hooks import watched
from ..record.inputs import check_image

#: What a tape keeps of the image; weights are the network's own.
KEPT = ("switches", "mask", "before", "after")


@dataclass(frozen=True)
class Cost:
    """`seconds` and, where something is kept, `megabytes`, for one image of so many `pixels`."""

    what: str
    seconds: float
    megabytes: float
    pixels: int

    def at(self, height: int, width: int, times: int = 1) -> Cost:
        """The same for images of another size, `times` times: both grow as the pixels, in the convolutional part."""
        factor = height * width / self.pixels * times
        return Cost(self.what, self.seconds * factor, self.megabytes * factor, height * width)


class Costs(list):
    """A list of `Cost`s, which prints as a table."""

    def __repr__(self) -> str:
        lines = [f"{'for one image':34}  {'milliseconds':>12}  {'megabytes':>9}"]
        for cost in self:
            kept = f"{cost.megabytes:9.1f}" if cost.megabytes else f"{'–':>9}"
            lines.append(f"{cost.what:34}  {cost.seconds * 1000:12.1f}  {kept}")
        return "\n".join(lines)

    def __getitem__(self, what):
        """By name, or by number as any list."""
        return next(cost for cost in self if cost.what == what) if isinstance(what, str) else super().__getitem__(what)


def costs(net: nn.Module, image: torch.Tensor, layer: str, *, repeats: int = 3) -> Costs:
    """What one (3,H,W) image costs here: the network, its record up to `layer`, one projection, one occluding square.

    Seconds are medians of `repeats` runs after a first one that does not count; of a GPU until it has finished. The
    record's megabytes are counted, not measured: the switches and the layer's maps. Bad input as for `Deconvnet`.
    """
    image, d = check_image(image, net), Deconvnet(net)
    pixels, images = image.shape[-2] * image.shape[-1], image[None]
    tape, side = d.record(images, layer), max(1, min(image.shape[-2:]) // 4)
    step = max(1, side // 2)
    rows, columns = ((n - side) // step + 1 for n in image.shape[-2:])
    owner, channel, position = _strongest(tape.activations)

    def forward():
        with watched(net, []) as look:
            look(images)

    timed = {
        "forward pass": (forward, 0.0, 1),
        "record": (lambda: d.record(images, layer), kept_bytes(tape) / 2**20, 1),
        "projection": (lambda: d.descend(tape, owner, channel, position), 0.0, 1),
        "occluding square": (lambda: occlude(net, image, size=side, stride=step, layer=layer), 0.0, rows * columns),
    }
    return Costs(
        Cost(what, seconds(run, images.device, repeats) / parts, megabytes, pixels)
        for what, (run, megabytes, parts) in timed.items()
    )


def _strongest(activations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Image (1,), channel (1,) and position (1,2) of the strongest activation: a silent one projects at no cost."""
    values = activations[0].flatten(1).amax(dim=1) if activations.dim() == 4 else activations[0]
    channel = values.argmax()[None]
    return torch.zeros_like(channel), channel, strongest(activations)[0, channel]


def kept_bytes(tape: Tape) -> int:
    """How many bytes a record keeps because of its images: switches, masks, and the layer's activations."""
    held = [getattr(tape.steps[place], name, None) for place in tape.used() for name in KEPT] + [tape.activations]
    return sum(tensor.numel() * tensor.element_size() for tensor in held if isinstance(tensor, torch.Tensor))


def seconds(run: Callable[[], object], device: torch.device, repeats: int = 3) -> float:
    """The median over `repeats` runs, after one that warms up; on a GPU until it has finished."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])
