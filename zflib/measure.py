"""How often a network is right: the centre crop, and the vote of the ten crops (section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from . import cluster, data
from .models import ZFNet


@dataclass
class Images:
    """A labelled set held as uint8 pixels (N,3,R,R) and (N,) int64 labels, with the crop that the network wants."""

    pixels: np.ndarray
    labels: torch.Tensor
    crop: int

    def __len__(self) -> int:
        return len(self.labels)


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

    Several processes (torchrun) share the work and all get the result.
    """
    device, training, hits1, hits5 = net.mean.device, net.training, 0, 0
    starts = range(0, len(images), batch)[cluster.rank() :: cluster.world()]
    net.eval()
    with torch.no_grad():
        for start in starts:
            pixels = torch.from_numpy(np.array(images.pixels[start : start + batch])).to(device)
            labels = images.labels[start : start + batch].to(device)
            found = scores(net, pixels, ten_crop=ten_crop)
            right = found.topk(min(5, found.shape[-1]), dim=-1).indices == labels[:, None]
            hits1, hits5 = hits1 + int(right[:, 0].sum()), hits5 + int(right.sum())
    net.train(training)
    hits1, hits5 = cluster.total(hits1, hits5, device=device)
    return {"top1": 100 * hits1 / len(images), "top5": 100 * hits5 / len(images)}
