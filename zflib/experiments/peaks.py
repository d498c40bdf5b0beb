"""Figure 2's search: the images that excite every channel most, over any number of images, in one streaming pass."""

from __future__ import annotations

import glob
import os
import time
import warnings
from collections.abc import Iterable
from contextlib import ExitStack, contextmanager
from numbers import Integral
from pathlib import Path

import torch
from torch import distributed, nn
from tqdm.auto import tqdm

from .._arguments import check_images, layer_path
from ..data.image_source import CHUNK, Chunk, Skipped, Source, open_source
from ..deconv.receptive_boxes import patches, receptive_field, receptive_fields
from ..record.hooks import check_layers, plain, unchanged
from ..train.distributed import rank, wait, world
from .top_images import Peaks, Tally, load, merge, nothing, run_key

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


__all__ = ["Found", "Peaks", "Skipped", "find_peaks", "patches", "receptive_field", "receptive_fields"]


_MOST = 10**6  # images kept for every channel: 28 bytes each


class Found(dict):
    """layer -> `Peaks`, with `count` (images in the source), `skipped`, and `names` (number -> path) of the winners."""

    def __init__(self, tally: Tally, layers: Iterable[str]):
        super().__init__({layer: tally.peaks[layer] for layer in layers})
        self.count, self.skipped, self.names = tally.count, tally.skipped, tally.names


def find_peaks(net: nn.Module, images, *, layers, k: int = 9, preprocess=None, save=None) -> Found:
    """dict layer -> Peaks(values (C,k), images (C,k), positions (C,k,2)): the k images that excite every channel most.

    An image counts once, with its strongest position, the first in reading order; equal images: the lowest number.
    A layer means what it means everywhere here; of a fully connected one all positions are (0,0). See Figure 2.

    `images`: floats (N,3,H,W) in the network's units; uint8 (N,3,R,R), an array, memory map or tensor; a folder;
    a torch data set; any iterable of images, (image, label) pairs or batches, a DataLoader among them. Files, PIL
    images and uint8 pixels go through net.preprocess or `preprocess`: a function from an upright RGB PIL image to
    (3,H,W). What cannot be read is skipped but keeps its number: see `Found.skipped`, and a warning names it.

    Always `sources.CHUNK` images pass together, the last ones filled up with zeros: how many do changes the last bits
    of a convolution, so the result would depend on the batches. Memory does not grow with the number of images.
    `save`: a file that a killed run continues from when called again in the same way; that of another run, by its
    network, layers, k and images, is refused. Images are compared as the network gets them: all of up to
    `sources.SAMPLE`, of more as many, from the first to the last evenly spaced; of an iterator, which has to give the
    same images again, the first. In a torch.distributed group (`cluster.joined`) the processes share the chunks,
    every one of them reads an iterator whole, and all return what one alone would.
    """
    layers, source = _checked(net, layers, k), open_source(net, images, preprocess)
    path, device = _file(save), next((p.device for p in net.parameters()), torch.device("cpu"))
    key = run_key(net, source, layers, k) if path else {}
    tally = load(path, key, torch.device("cpu")) if path else None
    if tally is None or not tally.done:
        own = path.with_name(f"{path.name}.rank{rank()}of{world()}") if path and world() > 1 else path
        tally = (load(own, key, device) if own else None) or Tally(chunk=rank())
        search = Search(net, layers, k, tally)
        tally = _together(search, lambda: search.run(source, own, key), path, key)
        if own and own != path:
            own.unlink(missing_ok=True)
    _warn(tally)
    return Found(tally, layers)


def _checked(net: nn.Module, layers, k: int) -> dict[str, str]:
    """Each layer's module path."""
    layers = check_layers(net, layers)
    if not isinstance(k, Integral) or isinstance(k, bool) or not 1 <= k <= _MOST:
        raise ValueError(f"k must be a whole number of images, from 1 to {_MOST:,}, got {k!r}")
    return {layer: layer_path(net, layer) for layer in layers}


def _file(save) -> Path | None:
    if save is None:
        return None
    path = Path(save).expanduser() if isinstance(save, str | os.PathLike) else None
    if path is None or path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"save must be a file's path in a folder that exists, got {str(save)!r}")
    return path


def _together(search: Search, run, path: Path | None, key: dict) -> Tally:
    """Run this process' share and merge everybody's; an error in one process ends all of them."""
    failure = None
    try:
        run()
    except Exception as error:
        failure = error
    shares = [(search.tally.cpu(), failure and f"{type(failure).__name__}: {failure}")]
    if world() > 1:
        mine, shares = shares[0], [None] * world()
        distributed.all_gather_object(shares, mine)
    if failure:
        raise failure
    if broken := next((text for _, text in shares if text), None):
        raise RuntimeError(f"another process failed ({broken}); mend that and start all of them again")
    whole = Tally(done=True)
    for tally, _ in shares:
        whole.add(tally, search.k)
    _check_found(whole)
    whole.prune()
    if path and rank() == 0:
        whole.save(path, key)
        for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):  # of writers that were killed
            part.unlink(missing_ok=True)
    wait()
    return whole


def _check_found(tally: Tally) -> None:
    if not tally.peaks:
        first = (
            f"none of the {tally.count} could be read, first {tally.skipped[0].reason}" if tally.skipped else "empty"
        )
        raise ValueError(f"images: {first}; give at least one image")


def _warn(tally: Tally) -> None:
    if tally.skipped:
        named = "; ".join(f"{s.name} ({s.reason})" for s in tally.skipped[:3])
        more = f"; and {len(tally.skipped) - 3} more, see .skipped" if len(tally.skipped) > 3 else ""
        warnings.warn(
            f"{len(tally.skipped)} of {tally.count} images could not be read and were skipped: {named}{more}",
            stacklevel=3,
        )
