"""The strongest activations found so far: merged exactly, saved whole, continued after a killed run."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from .. import _files
from ..data.image_source import CHUNK, Skipped, Source, feed


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

    def cpu(self) -> Peaks:
        """The same in the CPU's memory."""
        return Peaks(self.values.cpu(), self.images.cpu(), self.positions.cpu())


def nothing(channels: int, k: int, like: torch.Tensor) -> Peaks:
    """Peaks of a layer that has seen no image."""
    images = torch.full((channels, k), -1, dtype=torch.int64, device=like.device)
    return Peaks(like.new_full((channels, k), -torch.inf), images, images[..., None].repeat(1, 1, 2))


def merge(some: Peaks, others: Peaks, k: int, *, later: bool = False) -> Peaks:
    """The k best of both; stable sorts, so that equal values stay in the order of their images.

    `later`: the others' images all come after, in their order, as a stream's do; then one sort is enough.
    """
    later = later and bool((some.images >= 0).all())  # an empty place is behind an activation of minus infinity
    values = torch.cat([some.values, others.values], dim=1)
    images = torch.cat([some.images, others.images], dim=1)
    positions = torch.cat([some.positions, others.positions], dim=1)
    if later:
        order = values.argsort(dim=1, descending=True, stable=True)[:, :k]
    else:
        order = images.masked_fill(images < 0, torch.iinfo(images.dtype).max).argsort(dim=1, stable=True)
        order = order.gather(1, values.gather(1, order).argsort(dim=1, descending=True, stable=True)[:, :k])
    return Peaks(
        values.gather(1, order), images.gather(1, order), positions.gather(1, order[..., None].expand(-1, -1, 2))
    )


@dataclass
class Tally:
    """Where a pass stands: the next chunk, images read, peaks by layer, what was skipped, paths of the winners."""

    chunk: int = 0
    count: int = 0
    done: bool = False
    peaks: dict[str, Peaks] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)

    def prune(self) -> None:
        """Forget the paths of images that are no winners any more."""
        winners = {i for peaks in self.peaks.values() for i in peaks.images.unique().tolist()}
        self.names = {i: name for i, name in self.names.items() if i in winners}

    def add(self, other: Tally, k: int) -> None:
        """Take in what another process found in its share of the images."""
        for layer, peaks in other.peaks.items():
            self.peaks[layer] = merge(self.peaks[layer], peaks, k) if layer in self.peaks else peaks
        self.count = max(self.count, other.count)
        self.skipped = sorted(self.skipped + other.skipped)
        self.names |= other.names

    def cpu(self) -> Tally:
        """A copy in the CPU's memory, without the paths that are no longer needed."""
        self.prune()
        peaks = {layer: found.cpu() for layer, found in self.peaks.items()}
        return Tally(self.chunk, self.count, self.done, peaks, list(self.skipped), dict(self.names))

    def save(self, path: Path, key: dict) -> None:
        """Write it to `path`, whole or not at all; `key` says to which run it belongs."""
        plain, buffer = vars(self.cpu()), io.BytesIO()
        peaks = {layer: vars(found) for layer, found in plain["peaks"].items()}
        torch.save(plain | {"key": key, "peaks": peaks, "skipped": [list(s) for s in self.skipped]}, buffer)
        _files.write_atomically(path, buffer.getvalue())


def load(path: Path, key: dict, device: torch.device) -> Tally | None:
    """What `save` wrote for the same run, None if there is no file; ValueError for another run's or a damaged one."""
    if not path.exists():
        return None
    try:
        state = torch.load(path, weights_only=True, map_location=device)  # plain numbers only, never code
        found = state.pop("key")
        state["peaks"] = {layer: Peaks(**peaks) for layer, peaks in state["peaks"].items()}
        state["skipped"] = [Skipped(*skipped) for skipped in state["skipped"]]
        tally = Tally(**state)
    except Exception as error:
        raise ValueError(f"save: {path} is no file of find_peaks, or damaged; remove it or choose another") from error
    other = next((name for name in key if found.get(name) != key[name]), None)
    if other:
        raise ValueError(f"save: {path} belongs to a run with other {other}; remove it or choose another file")
    return tally


def run_key(net: nn.Module, source: Source, layers: dict[str, str], k: int) -> dict:
    """What must be the same for a saved file to be continued."""
    digest = hashlib.sha256()
    for name, value in net.state_dict().items():
        feed(digest, name, value)
    images = f"{source.kind} {source.count} in {CHUNK}s {source.digest()}"
    return {"weights": digest.hexdigest(), "layers": list(layers.items()), "k": k, "images": images}


def distinct(peaks: Peaks, owners: torch.Tensor, boxes: torch.Tensor, *, k: int = 9, overlap: float = 0.2) -> Peaks:
    """Peaks (C,k) of those in `peaks` (C,K) that show another place: strongest first, nearly the same ones left out.

    `owners` (C,K): which picture; `boxes` (C,K,4): where in it. One goes if its box shares more than `overlap` (area
    in common over area of both) with a stronger one's. Where fewer than k are left: as in `Peaks`, -inf and -1.
    """
    keep = torch.stack([_apart(o, b, k, overlap) for o, b in zip(owners, boxes.float())])  # (C,k) places, -1: none
    at, none = keep.clamp(min=0), keep < 0
    values = peaks.values.gather(1, at).masked_fill(none, -torch.inf)
    images = peaks.images.gather(1, at).masked_fill(none, -1)
    positions = peaks.positions.gather(1, at[..., None].expand(-1, -1, 2)).masked_fill(none[..., None], -1)
    return Peaks(values, images, positions)


def _apart(owners: torch.Tensor, boxes: torch.Tensor, k: int, overlap: float) -> torch.Tensor:
    """(k,) places of one channel's candidates, in order, -1 where there are no more."""
    low, high = (
        torch.maximum(boxes[:, None, :2], boxes[None, :, :2]),
        torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:]),
    )
    common = (high - low).clamp(min=0).prod(dim=-1)  # (K,K)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=-1)
    share = common / (area[:, None] + area[None, :] - common).clamp(min=1e-9)
    near = ((share > overlap) & (owners[:, None] == owners[None, :])).tolist()
    kept: list[int] = []
    for candidate in range(len(owners)):
        if len(kept) < k and not any(near[candidate][other] for other in kept):
            kept.append(candidate)
    return torch.tensor(kept + [-1] * (k - len(kept)))
