"""What an atlas says of each layer: its channels' strongest photographs, where they look, and which are alike."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import nn

from .._arguments import check_layer
from ..deconv import Deconvnet
from ..deconv.receptive_boxes import fields_seen
from ..experiments.peaks import Found
from ..experiments.top_k import Peaks
from ..studies.gallery import middle
from .alike import most_alike
from .pictures import K


@dataclass
class Chapter:
    """One layer: its `folder` in the atlas, the `shape` of its activations, (C,h,w) or (C,), and its channels.

    peaks: the K strongest photographs of each channel, (C,K); boxes (C,K,4): the part of the photograph that is shown;
    field: sides of the receptive field in pixels; alike: for each channel the most alike (channel, shared) ones.
    """

    layer: str
    folder: str
    shape: tuple[int, ...]
    peaks: Peaks
    boxes: torch.Tensor
    field: tuple[int, int]
    alike: list[list[tuple[int, int]]]

    @property
    def channels(self) -> range:
        """All channels of the layer, or units of a fully connected one."""
        return range(self.shape[0])

    def silent(self, channel: int) -> bool:
        """Whether no photograph excites the channel."""
        return float(self.peaks.values[channel, 0]) <= 0


def shapes(deconvnet: Deconvnet, layers: list, image: torch.Tensor) -> list[tuple[int, ...]]:
    """(C,h,w) or (C,) of every layer, from one (3,H,W) image.

    A layer from which there is no way down raises Unsupported here, before anything takes long.
    """
    tapes = [deconvnet.record(image[None], layer) for layer in layers]
    for tape in tapes:
        deconvnet.rules.check_way(tape)
    return [tuple(tape.activations.shape[1:]) for tape in tapes]


def chapters_of(net: nn.Module, found: Found, sizes: list[tuple[int, ...]], pixels: tuple[int, int]) -> list[Chapter]:
    """A chapter for each layer that was searched; `sizes` as from `shapes`, `pixels` (H,W) of the images."""
    chapters = []
    for (layer, peaks), shape in zip(found.items(), sizes, strict=True):
        name = check_layer(net, layer)
        best = Peaks(peaks.values[:, :K], peaks.images[:, :K], peaks.positions[:, :K])
        boxes, field = _windows(net, name, best.positions, pixels)
        folder = _folder(name, {chapter.folder for chapter in chapters})
        chapters.append(Chapter(name, folder, shape, best, boxes, field, most_alike(peaks)))
    return chapters


def _folder(layer: str, taken: set[str]) -> str:
    """A name that every file system and every address takes; lower case, since some do not tell it from upper case."""
    plain = re.sub(r"[^a-z0-9._-]", "-", layer.lower())[:100] or "layer"
    return plain if plain not in taken else next(n for i in range(2, 10**6) if (n := f"{plain}-{i}") not in taken)


def _windows(net: nn.Module, layer: str, positions: torch.Tensor, pixels) -> tuple[torch.Tensor, tuple[int, int]]:
    """((C,K,4) boxes, (rows, columns) of the receptive field); all of the image where the field is not known."""
    fields = fields_seen(net, layer, positions.clamp(min=0), pixels)
    sides = tuple((fields[0, 0, 2:] - fields[0, 0, :2]).tolist())
    return _inside(middle(fields, pixels), pixels), sides


def _inside(boxes: torch.Tensor, pixels: tuple[int, int]) -> torch.Tensor:
    """Boxes no larger than the image, moved into it where they stick out."""
    size = boxes[..., 2:] - boxes[..., :2]
    corner = torch.minimum(boxes[..., :2].clamp(min=0), torch.tensor(pixels) - size)
    return torch.cat([corner, corner + size], dim=-1)
