"""How often a network is right: the centre crop, and the vote of the ten crops (section 3)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from .. import data
from .._arguments import check_integer
from ..models import ZFNet
from ..record.hooks import unchanged
from . import distributed


@dataclass
class Images:
    """A labelled set held as uint8 pixels (N,3,R,R) and (N,) int64 labels, with the crop that the network wants."""

    pixels: np.ndarray
    labels: torch.Tensor
    crop: int

    def __len__(self) -> int:
        return len(self.labels)

    def about(self) -> dict:
        """What tells one labelled set from another without reading its pixels."""
        labels = hashlib.sha256(self.labels.cpu().numpy().tobytes()).hexdigest()
        return {"images": len(self), "side": self.pixels.shape[-1], "crop": self.crop, "labels": labels}


def cut(pixels: np.ndarray, indices, corners, mirrored, *, crop: int) -> torch.Tensor:
    """(B,3,crop,crop): image indices[b] of (N,3,R,R) cut at corners[b] = (top, left), mirrored where asked."""
    out = np.empty((len(indices), 3, crop, crop), pixels.dtype)
    for row, (i, (top, left), flip) in enumerate(zip(indices.tolist(), corners.tolist(), mirrored.tolist())):
        patch = pixels[i, :, top : top + crop, left : left + crop]
        out[row] = patch[..., ::-1] if flip else patch
    return torch.from_numpy(out)


def scores(net: ZFNet, pixels: torch.Tensor, *, ten_crop: bool = False) -> torch.Tensor:
    """(N,classes) probabilities for (N,3,R,R) pixels: of the centre crop, or the mean of the ten crops'."""
    images, crop = net.normalise(pixels), net.geometry.crop
    if not ten_crop:
        return net(data.centre_crop(images, crop)).softmax(-1)
    crops = data.ten_crop(images, crop)
    return net(crops.flatten(0, 1)).softmax(-1).unflatten(0, crops.shape[:2]).mean(1)


def accuracy(net: ZFNet, images: Images, *, batch: int = 250, ten_crop: bool = False) -> dict[str, float]:
    """Top-1 and top-5 in per cent over a labelled set; `ten_crop` averages ten crops' probabilities (section 3).

    Several processes (torchrun) share the work and all get the result. A network that gives NaN is a ValueError.
    """
    check_labelled(net, images)
    batch = check_integer("batch", batch, "a whole number of images, at least 1", low=1)
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


def check_labelled(net: ZFNet, images: Images, name: str = "images") -> None:
    """TypeError or ValueError unless `net` is a whole network and `images` a labelled set that fits it."""
    if not isinstance(net, ZFNet):
        raise TypeError(f"net must be a zflib.ZFNet, got {type(net).__name__}")
    if net.geometry.hidden is None:
        raise ValueError("net must give scores, but it ends with its convolutions; take the whole network")
    if not isinstance(images, Images):
        raise TypeError(f"{name} must be train.Images(pixels, labels, crop), got {type(images).__name__}")
    pixels, labels, crop, classes = images.pixels, images.labels, net.geometry.crop, net.num_classes
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3:
        raise TypeError(f"{name}: pixels must be a uint8 array (N,3,R,R), got {_kind(pixels)}; see tensor.numpy()")
    if not isinstance(labels, torch.Tensor) or labels.dtype != torch.int64 or labels.shape != pixels.shape[:1]:
        raise TypeError(f"{name}: labels must be an int64 tensor ({len(pixels)},), as the pixels, got {_kind(labels)}")
    if len(labels) == 0:
        raise ValueError(f"{name} is empty; give at least one image")
    wrong = labels[(labels < 0) | (labels >= classes)].tolist()
    if wrong:
        raise ValueError(f"{name}: labels must be classes from 0 to {classes - 1}, got {wrong[0]}")
    if images.crop != crop or pixels.shape[2] != pixels.shape[3] or pixels.shape[3] < crop:
        got = f"crop {images.crop} of {pixels.shape[2]}x{pixels.shape[3]}"
        raise ValueError(f"{name}: crop must be the network's {crop}, of square images at least as large, got {got}")


def _kind(value) -> str:
    numbers = isinstance(value, np.ndarray | torch.Tensor)
    return f"{type(value).__name__} {value.dtype} {tuple(value.shape)}" if numbers else type(value).__name__


def check_classes(net: ZFNet, wnids: list[str], *, name: str, source: str) -> None:
    """ValueError unless the network called `name` was trained on the classes of `source`, in their order."""
    if net.wnids != list(wnids):
        raise ValueError(f"{name} was not trained on the classes of {source}; give the data that it was trained on")
