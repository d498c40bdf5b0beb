"""Figure 2 as data: the nine strongest images of every channel, their classes, and projections of them."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .. import _files
from .._arguments import check_integer, check_integers
from ..data.image_source import images_of
from ..data.scenes import Scenes
from ..deconv import Deconvnet
from ..deconv.receptive_boxes import fields_seen, patches
from ..experiments.peaks import find_peaks
from ..experiments.top_k import Peaks

_TOGETHER = 32  # images that are projected at once


@dataclass
class Gallery:
    """Figure 2 of one network over one set of labelled images, layer by layer.

    peaks: layer -> Peaks (C,k) of every channel; labels: layer -> (C,k) class indices of those images; tiles: layer ->
    (C,3,h,w) the projection from every channel's strongest image; chosen: layer -> (D,) some channels; projections:
    layer -> (D,p,3,h,w) those from their p strongest images; patch_agreement: layer -> (D,) the `mean_correlation` of
    the image patches under them. Projections are cropped to receptive fields, see `crop`, and made smaller where
    these are large; `fields`: layer -> (rows, columns) of pixels that they show. `counts` (classes,): images of each
    class in the set; `classes`: their names; `names`: image number -> file name; `network`: SHA-256 of the weights.
    """

    peaks: dict[str, Peaks]
    labels: dict[str, torch.Tensor]
    tiles: dict[str, torch.Tensor]
    chosen: dict[str, torch.Tensor]
    projections: dict[str, torch.Tensor]
    patch_agreement: dict[str, torch.Tensor]
    fields: dict[str, tuple[int, int]]
    counts: torch.Tensor
    classes: list[str] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    network: str = ""

    @property
    def layers(self) -> list[str]:
        """Its layers, lowest first."""
        return list(self.peaks)

    def tile(self, layer: str, channel: int) -> torch.Tensor:
        """(3,h,w): the projection from the channel's strongest image; zeros for a silent channel."""
        tiles = self.tiles[self._check_layer(layer)]
        last = len(tiles) - 1
        return tiles[check_integer("channel", channel, f"a channel of {layer}, from 0 to {last}", low=0, high=last)]

    def nine(self, layer: str, channel: int) -> torch.Tensor:
        """(p,3,h,w): the projections from the p strongest images of one of the `chosen` channels; else ValueError."""
        chosen = self.chosen[self._check_layer(layer)].tolist()
        if channel not in chosen:
            raise ValueError(f"channel must be one of those drawn, {chosen}, got {channel!r}; `tile` has every channel")
        return self.projections[layer][chosen.index(channel)]

    def class_names(self, layer: str, channel: int) -> list[str]:
        """The classes of the channel's strongest images, strongest first."""
        return [self.classes[label] for label in self.labels[self._check_layer(layer)][channel].tolist()]

    def _check_layer(self, layer: str) -> str:
        if layer not in self.peaks:
            raise ValueError(f"layer {layer!r} is not in this gallery; it has {', '.join(self.layers)}")
        return layer

    def purities(self, layer: str) -> torch.Tensor:
        """(L,) `purity` of every channel that is not dead."""
        return purity(self.labels[layer][alive(self.peaks[layer])])

    def chance(self) -> float:
        """The purity of nine images drawn at random: what `purities` would be if channels knew nothing of classes."""
        return chance_purity(self.counts, k=next(iter(self.labels.values())).shape[-1])


# --- from images to a gallery ----------------------------------------------------------------------------------------


def mine(
    net: nn.Module, images, labels, *, layers, chosen: int, k: int = 9, names=None, classes=None,
    also: Mapping[str, Sequence[int]] | None = None, projected: int | None = None, side: int | None = None,
) -> Gallery:  # fmt: skip
    """A Gallery over N `images` as `find_peaks` takes them (not an iterator), of classes `labels` (N,).

    `chosen`: how many channels of each layer to draw at random and project, from `projected` of their k images (all);
    `also`: layer -> channels to project besides. `side`: projections larger than that are stored at so many pixels a
    side, averaged. `names`: the file names of all images, of which those of the strongest are kept. `classes`: their
    names, by default the network's.
    """
    classes = list(getattr(net, "classes", []) if classes is None else classes)
    found = find_peaks(net, images, layers=layers, k=k)
    labels = check_labels(labels, found.count, classes)
    if found.count < k:
        raise ValueError(f"images must be at least k = {k}, got {found.count}")
    wanted = {layer: _wanted(found[layer], chosen, (also or {}).get(layer, ())) for layer in found}
    drawn = {layer: _draw(net, images, found[layer], layer, wanted[layer], projected or k, side) for layer in found}
    strongest = sorted({number for peaks in found.values() for number in peaks.images.flatten().tolist()})
    return Gallery(
        peaks={layer: found[layer] for layer in found},
        labels={layer: labels[found[layer].images] for layer in found},
        chosen=wanted,
        **{what: {layer: parts[what] for layer, parts in drawn.items()} for what in _DRAWN},
        counts=torch.bincount(labels, minlength=len(classes)),
        classes=classes,
        names={} if names is None else {number: str(names[number]) for number in strongest},
        network=getattr(net, "card", {}).get("sha256", ""),
    )


def check_labels(labels, count: int, classes: list[str]) -> torch.Tensor:
    """(N,) int64: a class for each of `count` images, indices into `classes` unless these are unknown."""
    labels = check_integers("labels", labels, "a class for each image")
    if labels.shape != (count,):
        raise ValueError(f"labels must be one for each image, got {tuple(labels.shape)} for {count} images")
    if wrong := labels[(labels < 0) | (labels >= (len(classes) or torch.inf))].tolist():
        known = f" from 0 to {len(classes) - 1}" if classes else ", at least 0"
        raise ValueError(f"labels must be classes{known}, got {wrong[0]}")
    return labels


_DRAWN = ("tiles", "projections", "patch_agreement", "fields")


def _draw(net, images, peaks: Peaks, layer: str, chosen: torch.Tensor, projected: int, side: int | None) -> dict:
    """What of a layer is drawn, as Gallery keeps it."""
    first, few = peaks.columns(torch.zeros(len(peaks.values), 1, dtype=torch.int64)), peaks.rows(chosen)
    few = Peaks(few.values[:, :projected], few.images[:, :projected], few.positions[:, :projected])
    everything = torch.arange(len(peaks.values))
    agreement, whole = [], (0, 0)
    for row in range(len(chosen)):
        patches = crop(net, layer, images_of(net, images, peaks.images[chosen[row]]), peaks.positions[chosen[row]])
        agreement.append(mean_correlation(patches).cpu())
        whole = tuple(patches.shape[-2:])
    return {
        "tiles": _project(net, images, first, layer, everything, side)[:, 0],
        "projections": _project(net, images, few, layer, chosen, side),
        "patch_agreement": torch.stack(agreement),
        "fields": whole,
    }


def _project(net, images, peaks: Peaks, layer: str, channels: torch.Tensor, side: int | None) -> torch.Tensor:
    """(C,p,3,h,w) from Peaks (C,p) of these channels, cropped, and no larger than `side`; some at a time."""
    deconvnet, drawn = Deconvnet(net), []
    numbers, positions = peaks.images.flatten(), peaks.positions.flatten(0, 1)
    channels = channels.repeat_interleave(peaks.images.shape[1])
    order = numbers.argsort(stable=True)  # many channels share an image, which passes once
    for some in order.split(_TOGETHER):
        different, owners = numbers[some].unique(return_inverse=True)
        tape = deconvnet.record(images_of(net, images, different), layer)
        where = tape.activations.device
        whole = deconvnet.descend(tape, owners.to(where), channels[some].to(where), positions[some].to(where))
        drawn.append(_smaller(crop(net, layer, whole.cpu(), positions[some]), side))
    return torch.cat(drawn)[order.argsort()].unflatten(0, peaks.images.shape)


def _smaller(pictures: torch.Tensor, side: int | None) -> torch.Tensor:
    """(N,3,h,w) at most `side` pixels a side: the means of what falls into each pixel."""
    if side is None or max(pictures.shape[-2:]) <= side:
        return pictures
    return F.interpolate(pictures, (side, side), mode="area")


def _wanted(peaks: Peaks, number: int, also: Sequence[int]) -> torch.Tensor:
    """Channels drawn at random, and `also`, in order, each once."""
    return torch.cat([sample_channels(peaks, number), torch.tensor(list(also), dtype=torch.int64)]).unique()


def alive(peaks: Peaks) -> torch.Tensor:
    """(L,) channels with k images to show, whose strongest is above a hundredth of the layer's strongest."""
    return ((peaks.values[:, 0] > 0.01 * peaks.values.max()) & (peaks.values[:, -1] > 0)).nonzero().flatten()


def sample_channels(peaks: Peaks, number: int, *, seed: int = 0) -> torch.Tensor:
    """(number,) channels drawn at random among those alive, or all, in order: the paper's random subset, no choice."""
    living = alive(peaks)
    order = torch.randperm(len(living), generator=torch.Generator().manual_seed(seed))
    return living[order[:number]].sort().values


def crop(net: nn.Module, layer: str, pictures: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """(…,3,h,w): (…,3,H,W) pictures cropped to the receptive fields of (…,2) positions; 0 (grey) beyond the image.

    Of a field larger than the image its middle, as large as the image.
    """
    size = tuple(pictures.shape[-2:])
    boxes = middle(fields_seen(net, layer, positions, size), size)
    return patches(pictures.flatten(0, -4), boxes.reshape(-1, 4)).unflatten(0, pictures.shape[:-3])


def middle(boxes: torch.Tensor, size) -> torch.Tensor:
    """(…,4) boxes of one size about the same middles, but no larger than `size`, (rows, columns)."""
    less = (boxes[..., 2:] - boxes[..., :2] - torch.tensor(size)).clamp(min=0)
    return torch.cat([boxes[..., :2] + less // 2, boxes[..., 2:] - (less + 1) // 2], dim=-1)


# --- of one class? ---------------------------------------------------------------------------------------------------


def purity(labels: torch.Tensor) -> torch.Tensor:
    """(…,) share of the most common class among (…,k) class indices: 1 if all k are of one class, 1/k if all differ."""
    same = labels[..., :, None] == labels[..., None, :]  # (…,k,k): row i marks those of i's class
    return same.sum(dim=-1).amax(dim=-1) / labels.shape[-1]


def chance_purity(counts, *, k: int = 9, draws: int = 4000, seed: int = 0) -> float:
    """The mean purity of k different images drawn at random, `counts` (classes,) of them being of each class."""
    counts = np.asarray(counts, dtype=np.int64)
    drawn = np.random.default_rng(seed).multivariate_hypergeometric(counts, k, size=draws, method="count")
    return float(drawn.max(axis=1).mean()) / k


# --- of one picture? -------------------------------------------------------------------------------------------------


def mean_correlation(pictures: torch.Tensor) -> torch.Tensor:
    """(…,) mean correlation over all pairs among (…,k,C,h,w) pictures: 1 if all are one picture.

    Contrast and brightness do not count. A picture of one value everywhere has a correlation of 0 with every other.
    """
    if pictures.dim() < 4 or pictures.shape[-4] < 2:
        raise ValueError(f"pictures must be (…,k,C,h,w), k at least 2, got {tuple(pictures.shape)}")
    flat, k = pictures.flatten(-3).cpu().double(), pictures.shape[-4]  # MPS has no doubles
    flat = F.normalize(flat - flat.mean(dim=-1, keepdim=True), dim=-1, eps=1e-9)
    table = flat @ flat.mT  # (…,k,k)
    others = table.sum(dim=(-2, -1)) - table.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    return (others / (k * (k - 1))).float().to(pictures.device)


def edge_maps(pictures: torch.Tensor, *, cell: int = 4) -> torch.Tensor:
    """(…,1,h',w') where (…,C,h,w) pictures have contrast: the gradient's size, averaged over cells of `cell` pixels.

    A pattern moved by a pixel or turned from dark on light to light on dark has the same edges.
    """
    down = pictures.diff(dim=-2)[..., :, :-1].abs().sum(dim=-3, keepdim=True)
    right = pictures.diff(dim=-1)[..., :-1, :].abs().sum(dim=-3, keepdim=True)
    pooled = F.avg_pool2d((down + right).flatten(0, -4), cell)
    return pooled.unflatten(0, pictures.shape[:-3])


# --- of one part? Rendered scenes know where theirs are --------------------------------------------------------------


def part_kinds(world: Scenes) -> list[str]:
    """The parts of all classes without their side: a left eye, a right eye and a fish's eye are all "eye"."""
    return list(dict.fromkeys(_kind(name) for names in world.part_names for name in names))


def _kind(name: str) -> str:
    return re.sub("^(left|right|back|front) ", "", name)


def nearest_part(world: Scenes, images: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(kinds (…,), distances (…,)): the known part nearest to (…,2) points (row, column) of scenes number `images` (…).

    Points and distances are in the scenes' own pixels; kinds are indices into `part_kinds`.
    """
    kinds, most = part_kinds(world), world.parts.shape[1]
    rows = [[kinds.index(_kind(name)) for name in names] for names in world.part_names]
    table = torch.tensor([row + [-1] * (most - len(row)) for row in rows])  # (classes, P)
    away = (world.parts[images] - points[..., None, :]).norm(dim=-1).nan_to_num(nan=torch.inf)  # (…,P)
    distances, which = away.min(dim=-1)
    return table[world.labels[images]].gather(-1, which[..., None])[..., 0], distances


# --- as a file -------------------------------------------------------------------------------------------------------


def save(gallery: Gallery, path: str | Path) -> None:
    """The gallery as one compressed .npz of plain numbers and letters, atomically.

    Each projection is kept in 8 bits of its own scale: exact to 1/254 of its largest value.
    """
    arrays: dict[str, np.ndarray] = {}
    for layer, peaks in gallery.peaks.items():
        arrays[f"{layer}/values"] = peaks.values.numpy().astype(np.float32)
        arrays[f"{layer}/images"] = peaks.images.numpy().astype(np.int32)
        arrays[f"{layer}/positions"] = peaks.positions.numpy().astype(np.int16)
        arrays[f"{layer}/labels"] = gallery.labels[layer].numpy().astype(np.int32)
        arrays[f"{layer}/chosen"] = gallery.chosen[layer].numpy().astype(np.int32)
        arrays[f"{layer}/patch_agreement"] = gallery.patch_agreement[layer].numpy().astype(np.float32)
        arrays[f"{layer}/field"] = np.array(gallery.fields[layer], np.int32)
        for what in ("tiles", "projections"):
            arrays[f"{layer}/{what}"], arrays[f"{layer}/{what}_scale"] = _to_8_bits(getattr(gallery, what)[layer])
    about = {"classes": gallery.classes, "names": list(gallery.names.items()), "network": gallery.network}
    arrays["counts"] = gallery.counts.numpy().astype(np.int32)
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    _files.write_atomically(path, buffer.getvalue())


def _to_8_bits(pictures: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """((…,3,h,w) int8, (…,) float32): each picture over a scale of its own, a 127th of its largest |value|."""
    scale = pictures.abs().amax(dim=(-3, -2, -1)) / 127
    steps = pictures / scale.clamp(min=1e-30)[..., None, None, None]
    return steps.round().to(torch.int8).numpy(), scale.numpy().astype(np.float32)


def load(name: str, *, photographs: bool = False) -> Gallery:
    """The gallery that zflib ships for a network, mined over Tiny ImageNet's validation images; see `load_file`.

    `photographs`: over a thousand photographs of ImageNet instead, one of each class. ValueError if there is none, or
    if it was mined with other weights than the network has now.
    """
    kind, option = ("photographs", "--photographs") if photographs else ("peaks", "--data")
    path, again = _files.SHIPPED / f"{name}-{kind}.npz", f"python -m data.make.gallery {name} {option} makes one"
    if not path.is_file():
        raise ValueError(f"name {name!r} has no gallery here over {_SETS[photographs]}; {again}")
    gallery, card = load_file(path), _files.SHIPPED / f"{name}.json"
    if card.is_file() and json.loads(card.read_text(encoding="utf-8"))["sha256"] != gallery.network:
        raise ValueError(f"{path.name} was mined with other weights than {name} has now; {again} anew")
    return gallery


_SETS = {False: "Tiny ImageNet", True: "photographs"}


def load_file(path: str | Path) -> Gallery:
    """What `save` wrote; only numbers are read, never code. A damaged or another file is a ValueError."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return _gallery({key: arrays[key] for key in arrays})
    except Exception as error:  # a damaged archive raises half a dozen kinds of errors
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        raise ValueError(f"{path} is not a gallery, or damaged ({reason}); gallery.save writes one") from error


def _gallery(arrays: dict[str, np.ndarray]) -> Gallery:
    about = json.loads(arrays.pop("about").tobytes())
    tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
    numbers = {key: value for key, value in tensors.items() if value.dtype != torch.int8}
    parts = {key: value.float() if value.is_floating_point() else value.long() for key, value in numbers.items()}
    layers = list(dict.fromkeys(key.split("/")[0] for key in parts if "/" in key))
    peaks = {l: Peaks(*(parts[f"{l}/{what}"] for what in ("values", "images", "positions"))) for l in layers}
    by_layer = {what: {l: parts[f"{l}/{what}"] for l in layers} for what in ("labels", "chosen", "patch_agreement")}
    for what in ("tiles", "projections"):
        scales = {l: parts[f"{l}/{what}_scale"][..., None, None, None] for l in layers}
        by_layer[what] = {l: tensors[f"{l}/{what}"] * scales[l] for l in layers}
    fields = {l: tuple(parts[f"{l}/field"].tolist()) for l in layers}
    names = {int(number): name for number, name in about["names"]}
    return Gallery(peaks, **by_layer, fields=fields, counts=parts["counts"], classes=about["classes"], names=names,
                   network=about["network"])  # fmt: skip
