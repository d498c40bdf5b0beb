"""Activation maximisation: gradient ascent on the image, until one unit fires as strongly as it can (Erhan 2009)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional as F

from .._arguments import check_integer, check_net, check_seed, is_number
from ..deconv.receptive_boxes import blank_tape
from ..record.inputs import check_image, check_images
from .one_unit import OneUnit

GRAINS, TRIES = (0, 1, 2, 4), 4  # sigmas in pixels of the noise to start from: a unit that is off has no gradient
CONTRAST = 60.0  # grey levels: about the standard deviation of a photograph's pixels


def activation_maximisation(
    net: nn.Module, layer: str, channel: int, *, position=None, start: torch.Tensor | None = None, steps: int = 64,
    rate: float = 0.3, jitter: int = 0, blur: float = 0.0, norm: float | None = None, seed: int = 0,
) -> torch.Tensor:  # fmt: skip
    """(3,H,W): an image, in the network's units, on which one unit fires strongly. Erhan 2009, gradient ascent.

    Each of `steps` adds the gradient, scaled to `rate` times `norm` (falling to 0 at the last step), and shrinks the
    pixels that the unit sees back to the Euclidean length `norm` if they exceed it. By default that is a photograph's
    contrast. `jitter` moves the image by up to so many pixels before each step, and back; `blur` is the sigma, in
    pixels, of a Gaussian that smooths the image after each. Both keep fine noise away.

    `start`: an image (3,H,W), or None for grey noise drawn with `seed`, of the size that the network takes (224 if it
    does not say), coarser if the unit is off on fine noise. `position` (row, column) is by default the middle of the
    maps. Pixels that the unit does not see stay those of `start`, or grey. Behind a pool, a unit that is off has no
    gradient; ValueError if it is off at the start, and for bad input.
    """
    check_net(net)
    steps = check_integer("steps", steps, "at least 1", low=1)
    jitter = check_integer("jitter", jitter, "pixels, 0 or more", low=0)
    _check_number("rate", rate)
    _check_number("blur", blur, none=True)
    _check_number("norm", 1 if norm is None else norm)
    seed = check_seed(seed)
    unit, window, norm = _begin(net, layer, channel, position, start, norm, seed)
    generator = torch.Generator("cpu").manual_seed(seed)
    for step in range(steps):
        shift = torch.randint(-jitter, jitter + 1, (2,), generator=generator, device="cpu").tolist()
        gradient = unit.gradient(window.roll(shift, (1, 2))).roll([-move for move in shift], (1, 2))
        window = ascent_step(window, gradient, rate * (1 - step / steps), norm)
        window = within(_blurred(window, blur), norm) if blur else window
    return unit.embedded(window, None if start is None else unit.image)


def ascent_step(image: torch.Tensor, gradient: torch.Tensor, rate: float, norm: float) -> torch.Tensor:
    """The image, moved `rate` times `norm` along its gradient, whatever that one's length; then no longer than `norm`.

    A gradient of zeros moves nothing.
    """
    uphill = gradient / gradient.norm().clamp(min=1e-30)
    return within(image + rate * norm * uphill, norm)


def within(window: torch.Tensor, norm: float) -> torch.Tensor:
    """The window, shrunk to the Euclidean length `norm` if it is longer."""
    return window * (norm / window.norm().clamp(min=norm))


def _begin(net, layer, channel, position, start, norm, seed) -> tuple[OneUnit, torch.Tensor, float]:
    """The unit, the window to start from, and the norm."""
    image = _blank(net) if start is None else check_image(start, net, name="start")
    unit = OneUnit(net, image, layer, channel, _middle(net, layer, position, image), signed=True)
    norm = norm or contrast(net, unit.window().numel())
    windows = _noise(unit.window(), norm, seed) if start is None else [within(unit.window(), norm)]
    for window in windows:
        if bool(unit.gradient(window).any()):
            return unit, window, norm
    where = f"noise (seed {seed})" if start is None else "this start"
    raise ValueError(f"channel {channel} of layer {layer!r} is off on {where}, so that its gradient is 0; "
                     "give start=, an image on which it fires, or another position")  # fmt: skip


def _noise(window: torch.Tensor, norm: float, seed: int) -> Iterator[torch.Tensor]:
    """Grey noise of this norm, as large as the window: white, then ever coarser, on which other units fire."""
    generator = torch.Generator("cpu").manual_seed(seed)
    for sigma in GRAINS:
        for _ in range(TRIES):
            noise = torch.randn(window.shape, generator=generator, device="cpu").to(window)
            yield norm * F.normalize(_blurred(noise, sigma) if sigma else noise, dim=(0, 1, 2))


def contrast(net: nn.Module, numbers: int) -> float:
    """The Euclidean length of so many numbers with a photograph's contrast, in the units of `net`.

    Of a scale for each colour the root mean square counts. For a network that does not say how pixels become numbers
    they have standard deviation 1.
    """
    spread = CONTRAST / torch.as_tensor(getattr(net, "scale", CONTRAST), dtype=torch.float64, device="cpu")
    return float(spread.square().mean().sqrt()) * numbers**0.5


def _blank(net: nn.Module) -> torch.Tensor:
    side = getattr(getattr(net, "geometry", None), "crop", 224)
    return check_images(torch.zeros(1, 3, side, side, device="cpu"), net)[0]


def _middle(net: nn.Module, layer: str, position, image: torch.Tensor):
    """The position, by default the middle of the layer's maps; None for a fully connected layer."""
    if position is not None:
        return position
    tape, _ = blank_tape(net, layer, tuple(image.shape[-2:]))
    maps = tape.activations
    return (maps.shape[2] // 2, maps.shape[3] // 2) if maps.dim() == 4 else None


def _blurred(window: torch.Tensor, sigma: float) -> torch.Tensor:
    from torchvision.transforms.functional import gaussian_blur  # slow to import

    side = 2 * min(int(3 * sigma + 0.5), *(size - 1 for size in window.shape[1:])) + 1
    return gaussian_blur(window[None], [side, side], [sigma, sigma])[0]


def _check_number(name: str, value, *, none: bool = False) -> None:
    if not is_number(value) or value < 0 or (not value and not none):
        raise ValueError(f"{name} must be a number{', 0 or more' if none else ' above 0'}, got {value!r}")
