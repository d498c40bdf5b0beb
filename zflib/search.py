"""The streaming pass of `find_peaks`: all layers are reduced where they arise, in one forward pass per chunk."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import nn
from tqdm.auto import tqdm

from .checks import check_images
from .cluster import rank, world
from .sources import CHUNK, Chunk, Source
from .tally import Peaks, Tally, merge, nothing
from .tape import plain, unchanged

SAVE_EVERY = 60.0  # seconds between two saves


class _Reached(BaseException):
    """Ends a forward pass once the last layer asked for has been computed; no network may catch it."""


class Search:
    """One pass of `net` over its share of the images, with its findings in `tally`."""

    def __init__(self, net: nn.Module, layers: dict[str, str], k: int, tally: Tally):
        self.net, self.layers, self.k, self.tally = net, layers, k, tally
        self.chunk: Chunk | None = None
        self.seen: set[str] = set()

    def run(self, source: Source, path: Path | None, key: dict) -> None:
        """The chunks that are left for this process, with a progress bar, saved to `path` now and then."""
        tally, saved, before = self.tally, time.monotonic(), self.tally.count
        bar = tqdm(desc="find_peaks", total=source.count, initial=before, unit="image", smoothing=0.05,
                   disable=None if rank() == 0 else True)  # fmt: skip
        with bar, unchanged(self.net), self.hooked():
            for chunk in source.chunks(tally.chunk, world()):
                self.take(chunk)
                bar.update(tally.count - bar.n)
                if path and time.monotonic() - saved >= SAVE_EVERY:
                    tally.save(path, key)
                    saved = time.monotonic()
        if source.count < before:
            raise ValueError(f"images ended after {source.count}, the saved run had read {before}; give the same ones")
        tally.count = source.count

    @contextmanager
    def hooked(self):
        """Hooks on the layers, gone afterwards whatever happens."""
        with ExitStack() as handles:
            for layer, path in self.layers.items():
                see = self._watcher(layer)
                handles.callback(self.net.get_submodule(path).register_forward_hook(see).remove)
            yield

    def _watcher(self, layer: str):
        def see(_, args, out):
            if layer not in self.seen:  # a module that is used more than once counts at its first use
                self.seen.add(layer)
                self.look(layer, out)
            if len(self.seen) == len(self.layers):
                raise _Reached

        return see

    def take(self, chunk: Chunk) -> None:
        """One forward pass, no further than the last layer asked for."""
        tally, self.chunk, self.seen = self.tally, chunk, set()
        if chunk.slots:
            images = _checked(chunk, self.net)
            with plain(images.device):
                self._forward(images)  # the chunk's own memory: a network that works in place harms nobody
        tally.skipped += chunk.skipped
        tally.chunk, tally.count = tally.chunk + world(), chunk.first + chunk.size
        if len(tally.names) > 4 * sum(peaks.images.numel() for peaks in tally.peaks.values()):
            tally.prune()

    def _forward(self, images: torch.Tensor) -> None:
        try:
            self.net(images)
        except _Reached:
            return
        except RuntimeError as error:
            reason = str(error).split("\n")[0]
            raise ValueError(f"images of shape {tuple(images.shape[1:])} do not fit this network ({reason})") from error
        unused = next(layer for layer in self.layers if layer not in self.seen)
        raise ValueError(f"layer {unused!r} took no part in the forward pass; choose a layer that the network uses")

    def look(self, layer: str, out) -> None:
        """Reduce a layer's maps (B,C,h,w) at once, before a ReLU in place overwrites them, and keep what is new."""
        maps, known = _as_maps(layer, out), self.tally.peaks
        slots = torch.tensor(self.chunk.slots, device=maps.device)
        tops = maps.amax(dim=(2, 3))[slots]  # (B,C)
        if bool(tops.isnan().any()):
            number = self.chunk.first + int(slots[tops.isnan().any(dim=1)][0])
            raise ValueError(f"layer {layer!r} gives NaN for image {number}; look for NaN or overflow in net's weights")
        if layer not in known:
            known[layer] = nothing(maps.shape[1], self.k, maps)
        better = (tops > known[layer].values[:, -1]) | (known[layer].images[:, -1] < 0)  # a tie: the earlier one stays
        channels = better.any(dim=0).nonzero().flatten()
        if len(channels):
            useful = better[:, channels].any(dim=1)  # late in a pass a chunk has few winners, or none
            numbers = (slots[useful] + self.chunk.first).expand(len(channels), -1)
            fresh = Peaks(tops[useful][:, channels].T, numbers, numbers.new_zeros(*numbers.shape, 2))
            best = merge(known[layer].rows(channels), fresh, self.k, later=True)
            self._place(best, channels, maps)
            known[layer].put(channels, best)

    def _place(self, best: Peaks, channels: torch.Tensor, maps: torch.Tensor) -> None:
        """Positions of those images only that got in: few, once the pass has seen some."""
        row, column = (best.images >= self.chunk.first).nonzero(as_tuple=True)
        numbers, width = best.images[row, column], maps.shape[-1]
        flat = maps[numbers - self.chunk.first, channels[row]].flatten(1).argmax(dim=1)  # the first of equal ones
        best.positions[row, column] = torch.stack([flat // width, flat % width], dim=-1)
        if self.chunk.names:
            self.tally.names |= {i: self.chunk.names[i] for i in numbers.unique().tolist() if i in self.chunk.names}


def _as_maps(layer: str, out) -> torch.Tensor:
    """(B,C,h,w); units of a fully connected layer are maps of one place."""
    if not isinstance(out, torch.Tensor) or out.dim() not in (2, 4) or not out.is_floating_point() or not out.numel():
        got = f"{out.dtype} {tuple(out.shape)}" if isinstance(out, torch.Tensor) else type(out).__name__
        raise ValueError(f"layer {layer!r} gives {got}; peaks are found in maps (N,C,h,w) or units (N,C) of floats")
    if len(out) != CHUNK:
        raise ValueError(
            f"layer {layer!r} gives {len(out)} maps for {CHUNK} images; choose one that keeps images apart"
        )
    return out if out.dim() == 4 else out[:, :, None, None]


def _checked(chunk: Chunk, net: nn.Module) -> torch.Tensor:
    """The chunk's images where the network is; one with NaN or infinite pixels is named."""
    try:
        return check_images(chunk.images, net)
    except ValueError:
        finite = torch.isfinite(chunk.images).flatten(1).all(dim=1)
        if bool(finite.all()):
            raise
        number = chunk.first + int((~finite).nonzero()[0])
    raise ValueError(f"images: image {number} holds NaN or infinite pixels; look for a division by zero before")
