"""Exercises of notebook 07: a channel's strongest image, when another takes over, how near a filter is to its end."""

import torch

from ..studies import evolution
from .cases import case, seeded
from .verdict import Exercise


@seeded(5)
def _some_activations(generator):
    """As many images as channels, so that a maximum over the wrong one has the right shape."""
    for count, height, width in ((6, 3, 4), (7, 5, 5)):
        maps = torch.rand(count, count, height, width, generator=generator)
        order = torch.randperm(count, generator=generator)
        places = torch.randint(height * width, (count,), generator=generator)
        # one peak for each channel, in a map that is weak elsewhere
        maps.flatten(2)[order, torch.arange(count), places] = 2.0
        maps[order] *= torch.where(torch.arange(count) % 2 == 0, 0.6, 1.0)[:, None, None, None]
        yield case(maps)


def _strongest_images(activations):
    """(C,) number of the image whose map holds the strongest activation of each channel."""
    return activations.amax(dim=(2, 3)).argmax(dim=0)  # (N,C), then (C,)


strongest_images = Exercise(
    "strongest_images", _strongest_images, _some_activations,
    mistakes={
        "the map's mean decides here; a single strong place decides, so take the map's maximum":
            lambda activations: activations.mean(dim=(2, 3)).argmax(dim=0),
        "this is each image's strongest channel; each channel's strongest image is wanted":
            lambda activations: activations.amax(dim=(2, 3)).argmax(dim=1),
        "this counts places, not images; every image has height x width of them":
            lambda activations: activations.transpose(0, 1).flatten(1).argmax(dim=1),
    },
)  # fmt: skip


def _winners():
    """(E,C) numbers of images that change often, return, and once are the last one's from the beginning."""
    one = torch.tensor([[4, 7, 9, 3, 5], [4, 2, 9, 8, 6], [4, 2, 1, 3, 5], [4, 6, 1, 3, 5]])
    other = torch.tensor([[11, 12, 13], [11, 14, 12], [15, 14, 13], [15, 12, 13], [16, 12, 13]])
    return [case(one), case(other)]


def _against(images, reference, *, first: bool = False):
    changed = images != reference
    changed[0] = first
    return changed


jumps = Exercise(
    "jumps", evolution.changed, _winners,
    mistakes={
        "each row was compared with the last one; compare it with the row before it":
            lambda images: _against(images, images[-1]),
        "each row was compared with the first one; compare it with the row before it":
            lambda images: _against(images, images[0]),
        "the first snapshot has none before it, so nothing can have jumped there; its row is False":
            lambda images: _against(images, images.roll(1, 0), first=True),
        "the first row was compared with the last one: roll goes round in a circle; the first row is False":
            lambda images: images != images.roll(1, 0),
        "the row before each jump is marked; mark the row in which the new image appears":
            lambda images: evolution.changed(images).roll(-1, 0),
    },
)  # fmt: skip


@seeded(6)
def _filters(generator):
    for shape in ((6, 3, 5, 5), (4, 8, 3, 3)):
        last, noise = torch.randn(2, *shape, generator=generator)
        strength = torch.linspace(0.3, 2.5, shape[0])[:, None, None, None]
        yield case(strength * (last + noise * strength + 0.4), 1.7 * last)


def _products(filters, last):
    return (filters * last).flatten(1).sum(dim=1)


cosines = Exercise(
    "cosines", evolution.cosines, _filters,
    mistakes={
        "these are products, not cosines; divide each by both filters' norms, so that size does not count":
            _products,
        "the norms are the whole layer's; each filter has two norms of its own":
            lambda filters, last: _products(filters, last) / (filters.norm() * last.norm()),
        "a cosine was taken at every place and averaged; flatten a filter first, it is one vector":
            lambda filters, last: torch.nn.functional.cosine_similarity(filters, last, dim=1).mean(dim=(1, 2)),
        "each filter's mean was taken away first: that is a correlation; a filter's mean is a part of it":
            lambda *both: evolution.cosines(*(values - values.mean(dim=(1, 2, 3), keepdim=True) for values in both)),
    },
)  # fmt: skip
