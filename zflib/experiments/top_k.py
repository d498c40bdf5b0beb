"""The strongest images found so far: merged exactly, saved whole, continued after a killed run."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from .. import _files
from ..data.image_source import ImageStream, NumberedImages, Skipped


@dataclass
class Peaks:
    """The k strongest images of every channel of a layer: by value, among equal values the lowest image first.

    values (C,k); images (C,k), numbers in the source; positions (C,k,2), row and column in the channel's map.
    Where a channel has seen fewer than k images: value -inf, image -1, position (-1,-1).
    """

    values: torch.Tensor
    images: torch.Tensor
    positions: torch.Tensor

    def rows(self, channels: torch.Tensor) -> Peaks:
        """The same for some channels only."""
        return Peaks(self.values[channels], self.images[channels], self.positions[channels])

    def put(self, channels: torch.Tensor, peaks: Peaks) -> None:
        """Replace the rows of some channels."""
        self.values[channels], self.images[channels] = peaks.values, peaks.images
        self.positions[channels] = peaks.positions

    def columns(self, order: torch.Tensor) -> Peaks:
        """The (C,k) of them in this order, for every channel its own; -1: nothing."""
        at, none = order.clamp(min=0), order < 0
        values, images = self.values.gather(1, at), self.images.gather(1, at)
        positions = self.positions.gather(1, at[..., None].expand(-1, -1, 2))
        return Peaks(values.masked_fill(none, -torch.inf), images.masked_fill(none, -1),
                     positions.masked_fill(none[..., None], -1))  # fmt: skip


def empty_peaks(channels: int, k: int, dtype: torch.dtype) -> Peaks:
    """Peaks of a layer that has seen no image."""
    images = torch.full((channels, k), -1, device="cpu")
    values = torch.full((channels, k), -torch.inf, dtype=dtype, device="cpu")
    return Peaks(values, images, images[..., None].repeat(1, 1, 2))


def merge(some: Peaks, others: Peaks, k: int) -> Peaks:
    """The k best of both: two stable sorts, by image and then by value, so that the lowest of equal images is first."""
    both = Peaks(
        torch.cat([some.values, others.values], dim=1),
        torch.cat([some.images, others.images], dim=1),
        torch.cat([some.positions, others.positions], dim=1),
    )
    if bool((some.images >= 0).all()) and int(some.images.max()) < int(others.images.min()):
        return both.columns(
            both.values.argsort(dim=1, descending=True, stable=True)[:, :k]
        )  # a stream: in order already
    last = both.images.masked_fill(both.images < 0, torch.iinfo(torch.int64).max)  # empty: even behind -inf
    order = last.argsort(dim=1, stable=True)
    order = order.gather(1, both.values.gather(1, order).argsort(dim=1, descending=True, stable=True))
    return both.columns(order[:, :k])


@dataclass
class SearchState:
    """Where a search stands: the next batch, images read, peaks by layer, what was skipped, paths of the winners."""

    batch: int = 0
    count: int = 0
    done: bool = False
    peaks: dict[str, Peaks] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)

    def keep_names(self, names: dict[int, str]) -> None:
        """Of these paths and those before, the winners' only."""
        if names:
            winners = {number for peaks in self.peaks.values() for number in peaks.images.unique().tolist()}
            self.names = {number: name for number, name in (self.names | names).items() if number in winners}

    def add(self, other: SearchState, k: int) -> None:
        """Take in what another process found in its share of the images."""
        for layer, peaks in other.peaks.items():
            self.peaks[layer] = merge(self.peaks[layer], peaks, k) if layer in self.peaks else peaks
        self.count = max(self.count, other.count)
        self.skipped = sorted(self.skipped + other.skipped)
        self.keep_names(other.names)

    def save(self, path: Path, key: dict) -> None:
        """Write it to `path`, whole or not at all; `key` says to which search it belongs."""
        peaks, buffer = {layer: vars(found) for layer, found in self.peaks.items()}, io.BytesIO()
        torch.save(vars(self) | {"key": key, "peaks": peaks, "skipped": [list(s) for s in self.skipped]}, buffer)
        _files.write_atomically(path, buffer.getvalue())


def load(path: Path, key: dict) -> SearchState | None:
    """What `save` wrote for the same search, None if there is no file; ValueError for another's or a damaged one."""
    if not path.exists():
        return None
    try:
        content = torch.load(path, weights_only=True)  # plain numbers only, never code
        found = content.pop("key")
        content["peaks"] = {layer: Peaks(**peaks) for layer, peaks in content["peaks"].items()}
        content["skipped"] = [Skipped(*skipped) for skipped in content["skipped"]]
        state = SearchState(**content)
    except Exception as error:
        raise ValueError(f"save: {path} is no file of find_peaks, or damaged; remove it or choose another") from error
    other = next((name for name in key if found.get(name) != key[name]), None)
    if other:
        raise ValueError(f"save: {path} belongs to a run with other {other}; remove it or choose another file")
    return state


def run_key(net: nn.Module, source: NumberedImages | ImageStream, layers: dict[str, str], k: int, size: int) -> dict:
    """What must be the same for a saved file to be continued."""
    return {"weights": _sha256(net.state_dict().values()), "layers": list(layers.values()), "k": k, "batch_size": size,
            "images": f"{source.count} {_sha256(source.samples())}"}  # fmt: skip


def _sha256(tensors: Iterable[torch.Tensor | None]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        if tensor is None:
            digest.update(b"nothing")
            continue
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def suppress_overlaps(
    peaks: Peaks, owners: torch.Tensor, boxes: torch.Tensor, *, k: int = 9, overlap: float = 0.2
) -> Peaks:
    """Non-maximum suppression: the k strongest of (C,K) peaks that show different places, as Peaks (C,k).

    `owners` (C,K): which picture; `boxes` (C,K,4): where in it. A peak goes if its box shares more than `overlap` (area
    in common over area of both) with a stronger one's. Where fewer than k are left: as in `Peaks`, -inf and -1.
    """
    from torchvision.ops import batched_nms  # slow to import

    kept = torch.full((len(boxes), k), -1, device=peaks.values.device)
    for channel, values in enumerate(peaks.values):
        box = boxes[channel].float()
        owner = owners[channel].unique(return_inverse=True)[1]  # batched_nms tells owners apart by moving their boxes:
        with box.device:  # where torchvision makes its own tensors
            strongest = batched_nms(box - box.min(), values, owner, overlap)[:k]  # small numbers, no negative corners
        kept[channel, : len(strongest)] = strongest
    return peaks.columns(kept)
