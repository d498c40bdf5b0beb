"""How often a network is right: the centre crop, and the vote of the ten crops (section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .. import data
from ..models import ImageClassifier
from ..record.hooks import unchanged
from . import distributed


@dataclass
class Images:
    """A labelled set: uint8 pixels (N,3,R,R), (N,) int64 labels, and the crop that the network wants.

    ValueError for anything else, or images smaller than the crop.
    """

    pixels: np.ndarray
    labels: torch.Tensor
    crop: int

    def __post_init__(self) -> None:
        pixels, labels, side = self.pixels, self.labels, self.pixels.shape[-1]
        if pixels.dtype != np.uint8 or pixels.shape != (len(pixels), 3, side, side) or side < self.crop:
            wanted = f"a uint8 array (N,3,R,R), R at least the crop of {self.crop}"
            raise ValueError(f"pixels must be {wanted}, got {pixels.dtype} {tuple(pixels.shape)}")
        if labels.dtype != torch.int64 or labels.shape != (len(pixels),):
            got = f"{labels.dtype} {tuple(labels.shape)}"
            raise ValueError(f"labels must be an int64 tensor ({len(pixels)},), as the pixels, got {got}")

    def __len__(self) -> int:
        return len(self.labels)


def cut(pixels: np.ndarray, indices, corners, mirrored, *, crop: int) -> torch.Tensor:
    """(B,3,crop,crop): image indices[b] of (N,3,R,R) cut at corners[b] = (top, left), mirrored where asked."""
    out = np.empty((len(indices), 3, crop, crop), pixels.dtype)
    for row, (i, (top, left), flip) in enumerate(zip(indices.tolist(), corners.tolist(), mirrored.tolist())):
        patch = pixels[i, :, top : top + crop, left : left + crop]
        out[row] = patch[..., ::-1] if flip else patch
    return torch.from_numpy(out)


def scores(net: ImageClassifier, pixels: torch.Tensor, *, ten_crop: bool = False) -> torch.Tensor:
    """(N,classes) probabilities for (N,3,R,R) pixels: of the centre crop, or the mean of the ten crops'."""
    images, crop = net.normalise(pixels), net.geometry.crop
    if not ten_crop:
        return net(data.centre_crop(images, crop)).softmax(-1)
    crops = data.ten_crop(images, crop)
    return net(crops.flatten(0, 1)).softmax(-1).unflatten(0, crops.shape[:2]).mean(1)


def accuracy(net: ImageClassifier, images: Images, *, batch: int = 250, ten_crop: bool = False) -> dict[str, float]:
    """Top-1 and top-5 in per cent over a labelled set; `ten_crop` averages ten crops' probabilities (section 3).

    Several processes (torchrun) share the work and all get the result. A network that gives NaN is a ValueError.
    """
    check_labelled(net, images)
    device, hits1, hits5, lost = net.mean.device, 0, 0, 0
    starts = range(0, len(images), batch)[distributed.rank() :: distributed.world()]
    with unchanged(net), torch.no_grad():
        for start in starts:
            pixels = torch.from_numpy(np.array(images.pixels[start : start + batch])).to(device)
            labels = images.labels[start : start + batch].to(device)
            found = scores(net, pixels, ten_crop=ten_crop)
            right = found.topk(min(5, found.shape[-1]), dim=-1).indices == labels[:, None]
            hits1, hits5 = hits1 + int(right[:, 0].sum()), hits5 + int(right.sum())
            lost += int(found.isnan().any(dim=-1).sum())
    hits1, hits5, lost = distributed.total(hits1, hits5, lost, device=device)
    if lost:
        raise ValueError(f"net gives NaN for {lost:.0f} of {len(images)} images; train it again with a smaller lr")
    return {"top1": 100 * hits1 / len(images), "top5": 100 * hits5 / len(images)}


def check_labelled(net: ImageClassifier, images: Images, name: str = "images") -> None:
    """TypeError or ValueError unless `net` is a whole network and `images` a labelled set that fits it."""
    if not isinstance(net, ImageClassifier):
        raise TypeError(f"net must be a network of zflib, got {type(net).__name__}")
    if getattr(net.geometry, "hidden", ()) is None:
        raise ValueError("net must give scores, but it ends with its convolutions; take the whole network")
    if images.crop != net.geometry.crop:
        raise ValueError(f"{name}: crop must be the network's {net.geometry.crop}, got {images.crop}")
    for label in (int(images.labels.min()), int(images.labels.max())):
        if not 0 <= label < net.num_classes:
            raise ValueError(f"{name}: labels must be classes from 0 to {net.num_classes - 1}, got {label}")


def check_classes(net: ImageClassifier, wnids: list[str], *, name: str, source: str) -> None:
    """ValueError unless the network called `name` was trained on the classes of `source`, in their order."""
    if net.wnids != list(wnids):
        raise ValueError(f"{name} was not trained on the classes of {source}; give the data that it was trained on")
