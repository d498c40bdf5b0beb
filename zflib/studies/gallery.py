"""Figure 2 as data: the nine strongest images of every channel, their classes, and the projections of some channels."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .. import _files
from .._arguments import check_choice, check_integer, check_integers
from ..data.image_source import images_of
from ..data.scenes import Scenes
from ..deconv import Deconvnet
from ..deconv.receptive_boxes import patches, receptive_fields
from ..experiments.peaks import find_peaks
from ..experiments.top_images import Peaks

_SIDES = ("left ", "right ", "back ", "front ")


def purity(labels: torch.Tensor) -> torch.Tensor:
    """(…,) share of the most common class among (…,k) class indices: 1 if all k are of one class, 1/k if all differ."""
    if labels.dim() < 1 or labels.shape[-1] < 1 or labels.is_floating_point():
        raise ValueError(f"labels must be (…,k) class indices, k at least 1, got {labels.dtype} {tuple(labels.shape)}")
    same = labels[..., :, None] == labels[..., None, :]  # (…,k,k): row i marks those of i's class
    return same.sum(dim=-1).amax(dim=-1) / labels.shape[-1]


def chance_purity(counts, *, k: int = 9, draws: int = 4000, seed: int = 0) -> float:
    """The mean purity of k different images drawn at random, `counts` (classes,) of them being of each class."""
    counts = np.asarray(counts, dtype=np.int64)
    if counts.ndim != 1 or not 1 <= k <= counts.sum() or counts.min() < 0:
        raise ValueError(f"counts must be images per class, k = {k} of them at least, got {counts.tolist()}")
    drawn = np.random.default_rng(seed).multivariate_hypergeometric(counts, k, size=draws, method="count")
    return float(drawn.max(axis=1).mean()) / k


def agreement(pictures: torch.Tensor) -> torch.Tensor:
    """(…,) mean cosine over all pairs among (…,k,C,h,w) pictures, each less its own mean: 1 if all are one picture.

    Contrast and brightness do not count. A picture of one value everywhere agrees with nothing: its cosines are 0.
    """
    if pictures.dim() < 4 or pictures.shape[-4] < 2:
        raise ValueError(f"pictures must be (…,k,C,h,w), k at least 2, got {tuple(pictures.shape)}")
    flat, k = pictures.flatten(-3).cpu().double(), pictures.shape[-4]  # MPS has no doubles
    flat = flat - flat.mean(dim=-1, keepdim=True)
    size = flat.norm(dim=-1, keepdim=True)
    flat = torch.where(size > 1e-9, flat / size.clamp(min=1e-9), 0)
    cosines = flat @ flat.mT  # (…,k,k)
    return (
        ((cosines.sum(dim=(-2, -1)) - cosines.diagonal(dim1=-2, dim2=-1).sum(dim=-1)) / (k * (k - 1)))
        .float()
        .to(pictures.device)
    )


def contours(pictures: torch.Tensor, *, cell: int = 4) -> torch.Tensor:
    """(…,1,h',w') where (…,C,h,w) pictures have contrast: mean difference of neighbouring pixels in cells of `cell`.

    A pattern moved by a pixel or turned from dark on light to light on dark has the same contours.
    """
    if pictures.dim() < 4 or min(pictures.shape[-2:]) <= cell:
        raise ValueError(f"pictures must be (…,C,h,w), larger than cells of {cell}, got {tuple(pictures.shape)}")
    down = pictures.diff(dim=-2)[..., :, :-1].abs().sum(dim=-3, keepdim=True)
    right = pictures.diff(dim=-1)[..., :-1, :].abs().sum(dim=-3, keepdim=True)
    strength = down + right
    pooled = torch.nn.functional.avg_pool2d(strength.flatten(0, -4), cell)
    return pooled.unflatten(0, strength.shape[:-3])


def part_kinds(world: Scenes) -> list[str]:
    """The parts of all classes without their side: a left eye, a right eye and a fish's eye are all "eye"."""
    return list(dict.fromkeys(_kind(name) for names in world.part_names for name in names))


def _kind(name: str) -> str:
    side = next((side for side in _SIDES if name.startswith(side)), "")
    return name.removeprefix(side)


def nearest_part(world: Scenes, images: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(kinds (…,), distances (…,)): the known part nearest to (…,2) points (row, column) of scenes number `images` (…).

    Points and distances are in the scenes' own pixels; kinds are indices into `part_kinds`.
    """
    if images.shape != points.shape[:-1] or points.shape[-1:] != (2,):
        raise ValueError(f"points must be (…,2), one for each image, got {tuple(images.shape)}, {tuple(points.shape)}")
    kinds, most = part_kinds(world), world.parts.shape[1]
    rows = [[kinds.index(_kind(name)) for name in names] for names in world.part_names]
    table = torch.tensor([row + [-1] * (most - len(row)) for row in rows])  # (classes, P)
    away = (world.parts[images] - points[..., None, :]).norm(dim=-1).nan_to_num(nan=torch.inf)  # (…,P)
    distances, which = away.min(dim=-1)
    return table[world.labels[images]].gather(-1, which[..., None])[..., 0], distances


__all__ = ["Gallery", "agreement", "chance_purity", "draw", "images_of", "load", "mine", "purity", "save"]


@dataclass
class Gallery:
    """Figure 2 of one network over one set of labelled images, layer by layer.

    peaks: layer -> Peaks (C,k) of every channel; labels: layer -> (C,k) class indices of those images; chosen: layer
    -> (D,) some channels; projections: layer -> (D,k,3,H,W) theirs; patch_agreement: layer -> (D,) what `agreement`
    says of the image patches under them. `counts` (classes,): images of each class in the set; `classes`: their
    names; `names`: image number -> file name; `network`: SHA-256 of the weights.
    """

    peaks: dict[str, Peaks]
    labels: dict[str, torch.Tensor]
    chosen: dict[str, torch.Tensor]
    projections: dict[str, torch.Tensor]
    patch_agreement: dict[str, torch.Tensor]
    counts: torch.Tensor
    classes: list[str] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    network: str = ""

    @property
    def layers(self) -> list[str]:
        """Its layers, lowest first."""
        return list(self.peaks)

    def purities(self, layer: str) -> torch.Tensor:
        """(L,) `purity` of every channel that is not dead."""
        return purity(self.labels[layer][alive(self.peaks[layer])])

    def chance(self) -> float:
        """The purity of nine images drawn at random: what `purities` would be if channels knew nothing of classes."""
        k = next(iter(self.labels.values())).shape[-1]
        return chance_purity(self.counts, k=k)

    def cropped(self, net: nn.Module, layer: str) -> torch.Tensor:
        """(D,k,3,h,w): the projections cut to the receptive fields of their activations; grey (0) beyond the image."""
        positions = self.peaks[layer].positions[self.chosen[layer]]
        return cut(net, layer, self.projections[layer], positions)


def alive(peaks: Peaks) -> torch.Tensor:
    """(L,) channels with k images to show, whose strongest is above a hundredth of the layer's strongest."""
    return ((peaks.values[:, 0] > 0.01 * peaks.values.max()) & (peaks.values[:, -1] > 0)).nonzero().flatten()


def draw(peaks: Peaks, number: int, *, seed: int = 0) -> torch.Tensor:
    """(number,) channels drawn at random among those alive, in order: the paper's random subset, not a choice."""
    living = alive(peaks)
    number = check_integer("number", number, f"from 1 to {len(living)}, the channels that are not dead", low=1,
                           high=len(living))  # fmt: skip
    order = torch.randperm(len(living), generator=torch.Generator().manual_seed(seed))
    return living[order[:number]].sort().values


def cut(net: nn.Module, layer: str, pictures: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """(…,3,h,w): (…,3,H,W) pictures cut to the receptive fields of (…,2) positions; 0 (grey) beyond the image.

    Of a field larger than the image its middle, as large as the image.
    """
    boxes = middle(receptive_fields(net, layer, positions, size=pictures.shape[-1]), pictures.shape[-1])
    inner = patches(pictures.flatten(0, -4), boxes.reshape(-1, 4))
    return inner.unflatten(0, pictures.shape[:-3])


def middle(boxes: torch.Tensor, side: int) -> torch.Tensor:
    """(…,4) boxes of one size about the same middles, but no larger than `side`."""
    less = (boxes[..., 2:] - boxes[..., :2] - side).clamp(min=0)
    return torch.cat([boxes[..., :2] + less // 2, boxes[..., 2:] - (less + 1) // 2], dim=-1)


def mine(
    net: nn.Module, images, labels: torch.Tensor, *, layers, chosen, k: int = 9, names=None, classes=None
) -> Gallery:
    """A Gallery over N `images` as `find_peaks` takes them (not an iterator), of classes `labels` (N,).

    `chosen`: how many channels of each layer to draw at random and project, or a dict layer -> channels. `names`: the
    file names of all images, of which those of winners are kept. `classes`: names, by default the network's.
    """
    classes = list(getattr(net, "classes", []) if classes is None else classes)
    labels = _labels(labels, len(classes))
    found = find_peaks(net, images, layers=layers, k=k)
    if len(labels) != found.count:
        raise ValueError(f"labels must be one for each of the {found.count} images, got {len(labels)}")
    if found.count < k:
        raise ValueError(f"images must be at least k = {k}, got {found.count}")
    wanted = _chosen(found, chosen)
    drawn = {layer: _project(net, images, found[layer], layer, channels) for layer, channels in wanted.items()}
    winners = sorted({number for peaks in found.values() for number in peaks.images.flatten().tolist()})
    return Gallery(
        peaks={layer: found[layer] for layer in found},
        labels={layer: labels[found[layer].images] for layer in found},
        chosen=wanted,
        projections={layer: projections for layer, (projections, _) in drawn.items()},
        patch_agreement={layer: agreed for layer, (_, agreed) in drawn.items()},
        counts=torch.bincount(labels, minlength=len(classes)),
        classes=classes,
        names={} if names is None else {number: str(names[number]) for number in winners},
        network=getattr(net, "card", {}).get("sha256", ""),
    )


def _labels(labels, classes: int) -> torch.Tensor:
    """(N,) int64; `classes`: how many there are, 0 for any number."""
    known = check_integers("labels", labels, "one class for each image")
    if known.dim() != 1 or bool(((known < 0) | (known >= (classes or torch.inf))).any()):
        most = f"from 0 to {classes - 1}" if classes else "from 0 on"
        raise ValueError(f"labels must be classes {most}, one for each image, got {labels!r}")
    return known


def _chosen(found: Mapping[str, Peaks], chosen) -> dict[str, torch.Tensor]:
    """layer -> (D,) the channels to project."""
    if not isinstance(chosen, Mapping):
        return {layer: draw(found[layer], chosen) for layer in found}
    for layer, channels in chosen.items():
        check_choice("chosen: the layer", layer, found)
        last = len(found[layer].values) - 1
        if not set(check_integers("chosen", channels, "channels").tolist()) <= set(range(last + 1)):
            raise ValueError(f"chosen: layer {layer!r} has channels 0 to {last}, got {channels}")
    return {layer: torch.as_tensor(channels) for layer, channels in chosen.items()}


def _project(net: nn.Module, images, peaks: Peaks, layer: str, channels: torch.Tensor) -> tuple:
    """((D,k,3,H,W) projections, (D,) agreement of the patches under them)."""
    deconvnet, projections, agreed = Deconvnet(net), [], []
    for channel in channels.tolist():
        some = images_of(net, images, peaks.images[channel])  # (k,3,H,W)
        positions = peaks.positions[channel]
        projections.append(deconvnet.project(some, layer, channel, positions=positions).cpu())
        agreed.append(agreement(cut(net, layer, some, positions)).cpu())
    return torch.stack(projections), torch.stack(agreed)


# --- as a file -------------------------------------------------------------------------------------------------------


def save(gallery: Gallery, path: str | Path) -> None:
    """The gallery as one compressed .npz of plain numbers and letters, atomically; projections in half precision."""
    arrays: dict[str, np.ndarray] = {}
    for layer, peaks in gallery.peaks.items():
        arrays[f"{layer}/values"] = peaks.values.numpy().astype(np.float32)
        arrays[f"{layer}/images"] = peaks.images.numpy().astype(np.int32)
        arrays[f"{layer}/positions"] = peaks.positions.numpy().astype(np.int16)
        arrays[f"{layer}/labels"] = gallery.labels[layer].numpy().astype(np.int32)
    for layer, channels in gallery.chosen.items():
        arrays[f"{layer}/chosen"] = channels.numpy().astype(np.int32)
        arrays[f"{layer}/projections"] = gallery.projections[layer].numpy().astype(np.float16)
        arrays[f"{layer}/patch_agreement"] = gallery.patch_agreement[layer].numpy().astype(np.float32)
    about = {"classes": gallery.classes, "names": list(gallery.names.items()), "network": gallery.network}
    arrays["counts"] = gallery.counts.numpy().astype(np.int32)
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    _files.write_atomically(path, buffer.getvalue())


def load(name: str) -> Gallery:
    """The gallery that zflib ships for a network, mined over Tiny ImageNet's validation images; see `load_file`.

    ValueError if there is none, or if it was mined with other weights than the network has now.
    """
    path, again = _files.SHIPPED / f"{name}-peaks.npz", f"python -m data.make.gallery {name} makes one"
    if not path.is_file():
        raise ValueError(f"name {name!r} has no gallery here; {again}")
    gallery, card = load_file(path), _files.SHIPPED / f"{name}.json"
    if card.is_file() and json.loads(card.read_text(encoding="utf-8"))["sha256"] != gallery.network:
        raise ValueError(f"{path.name} was mined with other weights than {name} has now; {again} anew")
    return gallery


def load_file(path: str | Path) -> Gallery:
    """What `save` wrote; only numbers are read, never code. A damaged or another file is a ValueError."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}; gallery.save writes one")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            content = {key: arrays[key] for key in arrays}
        about = json.loads(content.pop("about").tobytes())
        tensors = {key: torch.from_numpy(value) for key, value in content.items()}
        parts = {key: v.float() if v.is_floating_point() else v.long() for key, v in tensors.items()}
        layers = list(dict.fromkeys(key.split("/")[0] for key in parts if "/" in key))
        peaks = {l: Peaks(*(parts[f"{l}/{what}"] for what in ("values", "images", "positions"))) for l in layers}
        fields = {
            what: {layer: parts[f"{layer}/{what}"] for layer in layers if f"{layer}/{what}" in parts}
            for what in ("labels", "chosen", "projections", "patch_agreement")
        }
        names = {int(number): name for number, name in about["names"]}
        return Gallery(peaks, **fields, counts=parts["counts"], classes=about["classes"], names=names,
                       network=about["network"])  # fmt: skip
    except Exception as error:  # a damaged archive raises half a dozen kinds of errors
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        raise ValueError(f"{path} is not a gallery, or damaged ({reason}); gallery.save writes one") from error
