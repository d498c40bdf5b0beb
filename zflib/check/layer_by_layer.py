"""Exercises of notebook 06: Figure 2, layer by layer."""

from functools import partial

import torch

from ..studies import gallery
from .cases import case, seeded
from .verdict import Exercise


def strongest_images(maps: torch.Tensor, k: int) -> torch.Tensor:
    """(C,k) numbers of the k images whose strongest position excites each channel most, from (N,C,h,w) maps."""
    strongest = maps.flatten(2).amax(dim=2)  # (N,C): of every image only its best position
    return strongest.topk(k, dim=0).indices.T


@seeded(11)
def _maps(generator):
    for side, k in ((4, 3), (3, 2)):
        maps = torch.rand(6, 6, side, side, generator=generator)  # as many images as channels: no shape gives it away
        busy = torch.randperm(6, generator=generator)
        maps[busy[0], :, :2, :2] += 1.0  # one image takes several of a channel's strongest positions
        maps[busy[1]] += 0.3  # one answers everywhere a little
        maps[busy[2], :, 0, 0] -= 3.0  # one has the largest negative value, which is none
        yield case(maps, k)


top_images = Exercise(
    "top_images", strongest_images, _maps,
    mistakes={
        "one image is there several times, with several of its positions; let each image count once":
            lambda maps, k: maps.transpose(0, 1).flatten(1).topk(k, dim=1).indices // maps[0, 0].numel(),
        "you compared the means of the maps; an image counts by its strongest position":
            lambda maps, k: maps.flatten(2).mean(dim=2).topk(k, dim=0).indices.T,
        "these are the strongest channels of each image; wanted are the strongest images of each channel":
            lambda maps, k: maps.flatten(2).amax(dim=2).topk(k, dim=1).indices,
        "a large negative value is not a strong activation; take the maximum, not the largest size":
            lambda maps, k: maps.abs().flatten(2).amax(dim=2).topk(k, dim=0).indices.T,
        "these are the weakest images; topk gives the largest values, argsort the smallest first":
            lambda maps, k: maps.flatten(2).amax(dim=2).argsort(dim=0)[:k].T,
    },
    success="each channel's strongest images, every image once",
)  # fmt: skip


def trace_back(position, layers) -> torch.Tensor:
    """(4,) top, left, bottom, right (both exclusive) of what one position sees; layers: (kernel, stride, padding)."""
    (top, left), (bottom, right) = position, (position[0] + 1, position[1] + 1)
    for kernel, stride, padding in reversed(layers):  # from the position down to the image
        top, left = top * stride - padding, left * stride - padding
        bottom, right = (bottom - 1) * stride - padding + kernel, (right - 1) * stride - padding + kernel
    return torch.tensor([top, left, bottom, right])


_STACK = [(7, 2, 3), (3, 2, 0), (5, 1, 2), (3, 2, 0), (3, 1, 1)]  # conv1, pool1, conv2, pool2, conv3 of zfnet56


field_box = Exercise(
    "field_box", trace_back,
    lambda: [case((2, 5), _STACK), case((0, 3), [(5, 3, 1), (3, 2, 1)]), case((4, 1), [(4, 2, 1), (3, 1, 1)])],
    mistakes={
        "the padding is forgotten: each layer moves the box up and left by its padding":
            lambda position, layers: trace_back(position, [(kernel, stride, 0) for kernel, stride, _ in layers]),
        "the layers are taken in the wrong order; begin at the last one and end at the image":
            lambda position, layers: trace_back(position, layers[::-1]),
        "bottom and right are exclusive: one more":
            lambda position, layers: trace_back(position, layers) - torch.tensor([0, 0, 1, 1]),
        "the strides are forgotten: a step of one position is a step of `stride` pixels below it":
            lambda position, layers: trace_back(position, [(kernel, 1, padding) for kernel, _, padding in layers]),
        "rows and columns are exchanged; a position is (row, column), a box begins with its top":
            lambda position, layers: trace_back(position[::-1], layers),
    },
    success="the same box as zflib.receptive_field, padding and strides included",
)  # fmt: skip


_NINES = [[4, 4, 7, 4, 2, 7, 4, 1, 0], [3, 5, 5, 5, 5, 5, 5, 9, 3], [0, 1, 2, 3, 4, 5, 6, 7, 8]]
_FOURS = [[8, 8, 8, 8], [2, 6, 2, 6], [1, 9, 9, 9]]


def _counts(labels):
    return torch.stack([torch.bincount(row).max() for row in labels])


purity = Exercise(
    "purity", gallery.purity, lambda: [case(torch.tensor(_NINES)), case(torch.tensor(_FOURS))],
    mistakes={
        "these are numbers of images; a share is the number divided by k": _counts,
        "you counted the class of the strongest image; wanted is the most common class":
            lambda labels: (labels == labels[:, :1]).float().mean(dim=1),
        "this is the share of different classes; wanted is how often the most common one occurs":
            lambda labels: torch.tensor([len(row.unique()) / len(row) for row in labels]),
        "the mode itself came back, a class; wanted is its share": lambda labels: labels.mode(dim=1).values,
        "all channels were thrown together; every row has a purity of its own":
            lambda labels: (_counts(labels.reshape(1, -1)) / labels.numel()).expand(len(labels)),
    },
    success="1 if all are of one class, 1/k if all differ",
)  # fmt: skip


@seeded(12)
def _pictures(generator):
    for k, side in ((4, 6), (3, 5)):
        common = torch.randn(3, side, side, generator=generator)
        pictures = common + 0.8 * torch.randn(k, 3, side, side, generator=generator)
        pictures *= torch.linspace(0.3, 2, k)[:, None, None, None]  # contrasts
        pictures += torch.linspace(-1.5, 2, k)[:, None, None, None]  # brightnesses
        yield case(pictures)


def _products(pictures, *, centre=True, divide=True):
    """() the mean product over the pairs, the pictures centred or not, divided by their norms or not."""
    flat = pictures.flatten(1)
    flat = flat - flat.mean(dim=1, keepdim=True) if centre else flat
    flat = flat / flat.norm(dim=1, keepdim=True) if divide else flat
    table, k = flat @ flat.T, len(flat)
    return (table.sum() - table.trace()) / (k * (k - 1))


agreement = Exercise(
    "agreement", gallery.mean_correlation, _pictures,
    mistakes={
        "each picture was compared with itself as well, which always gives 1; leave out the diagonal":
            lambda pictures: (gallery.mean_correlation(pictures) * (len(pictures) - 1) + 1) / len(pictures),
        "the pictures were not centred: two bright pictures agree whatever they show; take off each one's mean":
            partial(_products, centre=False),
        "the products were not divided by the pictures' norms; a cosine does not depend on contrast":
            partial(_products, divide=False),
        "the mean that was taken off is the mean picture; take off each picture's own mean, one number":
            lambda pictures: _products(pictures - pictures.mean(dim=0, keepdim=True), centre=False),
    },
    success="1 if all are one picture, about 0 if they have nothing in common",
)  # fmt: skip
