"""Channel or photograph? What a projection under each rule at the ReLUs says about the channel that it was made for."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

from ..deconv import RULES, Deconvnet
from ..show import ORANGE, Axes

KINDS = (*RULES, "noise")


def strongest_channels(deconvnet: Deconvnet, image: torch.Tensor, layer: str, *, count: int = 5, position=None):
    """The `count` channels with the largest activations at one position of one (3,H,W) image, and that position.

    `position` is (row, column), by default the middle of the layer's maps.
    """
    return _strongest(deconvnet.activations(image[None], layer)[0], count, position)


def _strongest(maps: torch.Tensor, count: int, position) -> tuple[torch.Tensor, tuple[int, int]]:
    row, column = position or (maps.shape[1] // 2, maps.shape[2] // 2)
    return maps[:, row, column].topk(count).indices, (row, column)


def same_position(deconvnet: Deconvnet, image: torch.Tensor, layer: str, *, count: int = 5, position=None):
    """(count,3,H,W): the strongest channels at one position of one (3,H,W) image, projected down.

    Photograph, position and switches are the same for all: only the channel tells them apart. See
    `strongest_channels`.
    """
    tape = deconvnet.record(image[None], layer)  # once for all channels
    channels, position = _strongest(tape.activations[0], count, position)
    positions = torch.tensor([position] * count, device=channels.device)
    return deconvnet.descend(tape, torch.zeros_like(channels), channels, positions)


def own_channel_rises(net: nn.Module, images: torch.Tensor, layer: str, *, count: int = 5, position=None,
                      share: float = 0.05, seed: int = 0) -> dict[str, torch.Tensor]:  # fmt: skip
    """kind -> (N,count) bool: does a channel's picture, added to the photograph, raise that channel most of `count`?

    The pictures of `same_position` for each of (N,3,H,W) images are scaled to `share` of the image's norm and added to
    it. "noise" is Gaussian. Pictures that are the same for every channel are right for one of `count`.
    """
    generator, found = torch.Generator().manual_seed(seed), {kind: [] for kind in KINDS}
    for image in images:
        channels, here = strongest_channels(Deconvnet(net), image, layer, count=count, position=position)
        deconvnets = [Deconvnet(net, rule=rule) for rule in RULES]
        pictures = [same_position(each, image, layer, count=count, position=here) for each in deconvnets]
        pictures.append(torch.randn(count, *image.shape, generator=generator).to(image))
        found_here = rises(net, image, layer, channels, here, torch.cat(pictures), share=share).split(count)
        for kind, own in zip(KINDS, found_here):
            found[kind].append(_own_rises_most(own))
    return {kind: torch.stack(rows) for kind, rows in found.items()}


def rises(net: nn.Module, image: torch.Tensor, layer: str, channels, position, pictures: torch.Tensor, *,
          share: float = 0.05) -> torch.Tensor:  # fmt: skip
    """(pictures, channels): how much each picture, added to the (3,H,W) image, raises each channel at the position."""
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

    The strongest channel of one is compared with the strongest of the other, the second with the second, and so on:
    the sanity check of Adebayo and others (2018).
    """
    found = {}
    for rule in RULES:
        both = [Deconvnet(one, rule=rule) for one in (net, untrained)]
        pictures = [_each(deconvnet, images, layer, count, position) for deconvnet in both]
        found[rule] = F.cosine_similarity(*pictures, dim=2)
    return found


def likeness_to_photograph(deconvnets: Mapping[str, Deconvnet], images: torch.Tensor, layer: str, *, count: int = 5,
                           position=None) -> dict[str, torch.Tensor]:  # fmt: skip
    """name -> (N,count): cosine between each picture of `same_position` and the image that it was made from."""
    pictures = {name: _each(deconvnet, images, layer, count, position) for name, deconvnet in deconvnets.items()}
    originals = images.flatten(1)[:, None].cpu()
    return {name: F.cosine_similarity(values, originals, dim=2) for name, values in pictures.items()}


def _each(deconvnet: Deconvnet, images, layer, count, position) -> torch.Tensor:
    """(N,count,3*H*W): the pictures of each image."""
    pictures = [same_position(deconvnet, image, layer, count=count, position=position) for image in images]
    return torch.stack(pictures).flatten(2).cpu()


def mean_and_error(values: torch.Tensor) -> tuple[float, float]:
    """The mean of (N,count) values, and its standard error over the N images, each with the mean of its own."""
    means = values.float().mean(dim=1)
    return float(means.mean()), float(means.std() / len(means) ** 0.5)


def bars(found: Mapping[str, torch.Tensor], ax: Axes, *, title: str) -> Axes:
    """A bar for the mean of each kind's (N,count) values, and a dot for each of the N images."""
    names = []
    for place, (kind, values) in enumerate(found.items()):
        mean, error = mean_and_error(values)
        dots = values.float().mean(dim=1).tolist()
        ax.bar(place, mean, width=0.7, color="0.82")
        ax.plot((place + torch.linspace(-0.28, 0.28, len(dots))).tolist(), dots, "o", color=ORANGE, ms=5)
        names.append(f"{kind}\n{mean:.2f} ± {error:.2f}")
    ax.set_xticks(range(len(names)), names)
    ax.tick_params(axis="x", length=0)
    ax.set(ylim=(-0.03, 1.03), title=title)
    return ax
