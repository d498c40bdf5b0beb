"""Channel or photograph? What a projection under each rule at the ReLUs says about the channel that it was made for."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from ..deconv import RULES, Deconvnet

KINDS = (*RULES, "noise")


def strongest_channels(net: nn.Module, image: torch.Tensor, layer: str, *, count: int = 5, position=None):
    """(count,) channels with the largest activations at one position of one (3,H,W) image, and that position.

    `position` is (row, column), by default the middle of the layer's maps.
    """
    maps = Deconvnet(net).activations(image[None], layer)[0]  # (C,h,w)
    row, column = position or (maps.shape[1] // 2, maps.shape[2] // 2)
    return maps[:, row, column].topk(count).indices, (row, column)


def same_position(net: nn.Module, image: torch.Tensor, layer: str, rule: str, *, count: int = 5, position=None):
    """(count,3,H,W): the strongest channels at one position of one (3,H,W) image, projected down under `rule`.

    The photograph, the position and the switches are the same for all, so only the channel tells them apart. See
    `strongest_channels`.
    """
    channels, position = strongest_channels(net, image, layer, count=count, position=position)
    return Deconvnet(net, rule=rule).project(image.expand(count, -1, -1, -1), layer, channels, positions=position)


def own_channel_rises(net: nn.Module, images: torch.Tensor, layer: str, *, count: int = 5, position=None,
                      share: float = 0.05, seed: int = 0) -> dict[str, torch.Tensor]:  # fmt: skip
    """kind -> (N,count) bool: does a channel's picture, added to the photograph, raise that channel most of `count`?

    Each of the pictures of `same_position` for (N,3,H,W) images is scaled to `share` of the photograph's norm and
    added to it. "noise" is Gaussian. A picture that is the same for every channel is right for one of `count`.
    """
    generator = torch.Generator().manual_seed(seed)
    found = {kind: [] for kind in KINDS}
    for image in images:
        channels, position_here = strongest_channels(net, image, layer, count=count, position=position)
        for kind in KINDS:
            if kind == "noise":
                pictures = torch.randn(count, *image.shape, generator=generator).to(image)
            else:
                pictures = same_position(net, image, layer, kind, count=count, position=position_here)
            found[kind].append(_own_rises_most(_rises(net, image, layer, channels, position_here, pictures, share)))
    return {kind: torch.stack(rows) for kind, rows in found.items()}


def _rises(net, image, layer, channels, position, pictures, share) -> torch.Tensor:
    """(pictures, channels): how much each picture, added to the image, raises each channel at the position."""
    steps = share * image.norm() * F.normalize(pictures.flatten(1), dim=1).view_as(pictures)
    maps = Deconvnet(net).activations(torch.cat([image[None], image + steps]), layer)
    values = maps[:, channels, position[0], position[1]]
    return values[1:] - values[:1]


def _own_rises_most(rises: torch.Tensor) -> torch.Tensor:
    """(n,) bool for (n,n) rises: whether picture i raises channel i more than any other channel."""
    own = rises.diagonal()
    others = rises.masked_fill(torch.eye(len(rises), dtype=torch.bool, device=rises.device), -torch.inf).amax(dim=1)
    return (own > others).cpu()


def likeness_to_untrained(net: nn.Module, untrained: nn.Module, images: torch.Tensor, layer: str, *, count: int = 5,
                          position=None) -> dict[str, torch.Tensor]:  # fmt: skip
    """rule -> (N,count): cosine between the pictures of two networks for the same image and position.

    The strongest channel of one is compared with the strongest of the other, the second with the second, and so on
    (the sanity check of Adebayo and others, 2018).
    """
    found = {rule: [] for rule in RULES}
    for image in images:
        for rule in RULES:
            one, other = (
                same_position(n, image, layer, rule, count=count, position=position) for n in (net, untrained)
            )
            found[rule].append(F.cosine_similarity(one.flatten(1), other.flatten(1)).cpu())
    return {rule: torch.stack(rows) for rule, rows in found.items()}


def likeness_to_photograph(net: nn.Module, images: torch.Tensor, layer: str, rules: dict, *, count: int = 5,
                           position=None) -> dict[str, torch.Tensor]:  # fmt: skip
    """name -> (N,count): cosine between each picture and its photograph.

    `rules`: name -> function(signal, before), the signal below a ReLU from the signal above it and the maps `before`
    that ReLU.
    """
    found = {name: [] for name in rules}
    for image in images:
        channels, here = strongest_channels(net, image, layer, count=count, position=position)
        for name, rule in rules.items():
            own = {nn.ReLU: lambda signal, before, after, rule=rule: rule(signal, before)}
            images_ = image.expand(count, -1, -1, -1)
            pictures = Deconvnet(net, rules=own).project(images_, layer, channels, positions=here)
            found[name].append(F.cosine_similarity(pictures.flatten(1), image.flatten()[None]).cpu())
    return {name: torch.stack(rows) for name, rows in found.items()}


def mean_and_error(values: torch.Tensor) -> tuple[float, float]:
    """The mean of (N,count) values, and its standard error over the N images, each with the mean of its own."""
    means = values.float().mean(dim=1)
    return float(means.mean()), float(means.std() / len(means) ** 0.5)
