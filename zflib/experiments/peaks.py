"""Figure 2's search: the images that excite every channel most, over any number of images, in one streaming pass."""

from __future__ import annotations

import glob
import os
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import distributed, nn
from tqdm.auto import tqdm

from .._arguments import check_apart, check_integer, check_layer, layer_path, shape_or_type
from ..data.image_source import Batch, ImageStream, NumberedImages, Skipped, in_units, open_source
from ..record.hooks import check_layers, check_steady, listening
from ..record.inputs import check_images
from .top_k import Peaks, SearchState, empty_peaks, load, merge, run_key

__all__ = ["Found", "Peaks", "Skipped", "find_peaks"]

SAVE_EVERY = 60.0  # seconds between two saves


class Found(dict):
    """layer -> `Peaks`, with `count` (images in the source), `skipped`, and `names` (number -> path) of the winners."""

    def __init__(self, state: SearchState, layers: dict[str, str]):
        super().__init__({layer: state.peaks[path] for layer, path in layers.items()})
        self.count, self.skipped, self.names = state.count, state.skipped, state.names


def find_peaks(
    net: nn.Module, images, *, layers, k: int = 9, batch_size: int = 64, preprocess=None, save=None
) -> Found:
    """dict layer -> Peaks(values (C,k), images (C,k), positions (C,k,2)): the k images that excite every channel most.

    An image counts once, with its strongest position, the first in reading order; equal images: the lowest number.
    A layer means what it means everywhere here; of a fully connected one all positions are (0,0). See Figure 2.

    `images`: floats (N,3,H,W) in the network's units; uint8 (N,3,R,R), an array, memory map or tensor; a folder;
    a torch data set; any iterable of images, (image, label) pairs or batches. Of a DataLoader its data set is read, so
    numbers are those of the data set even if the loader shuffles; what an iterator gives is numbered as it comes, and
    if that shuffles, nobody knows by the number which image it was. Files, PIL images and uint8 pixels go through
    net.preprocess or `preprocess`: a function from an upright RGB PIL image to (3,H,W). What cannot be read is skipped
    but keeps its number: see `Found.skipped`, and a warning names it. Where reading is slow, other processes do it.

    Always `batch_size` images pass together, the last ones filled up with zeros: how many do changes the last bits
    of a convolution, so the result would depend on the source. Memory does not grow with the number of images.
    `save`: a file that a killed run continues from when called again in the same way; that of another run is refused,
    by its network, layers, k, batch_size and some of its images (of an iterator, which has to give the same ones
    again, the first). In a torch.distributed group the processes share the batches, every one of them reads an
    iterator whole, and all return what one alone would. Bad input: ValueError or TypeError.
    """
    layers = {layer: layer_path(net, layer) for layer in check_layers(net, layers)}
    k = check_integer("k", k, "a whole number of images, from 1 to 1,000,000", low=1, high=10**6)
    size = check_integer("batch_size", batch_size, "a whole number of images, at least 1", low=1)
    check_apart(net)
    path, source = _file(save), open_source(net, images, preprocess)
    search = Search(net, layers, k, size)
    key = run_key(net, source, layers, k, size) if path else {}
    state = load(path, key) if path else None
    if state is None or not state.done:
        state = _together(search, source, path, key)
    _warn(state)
    return Found(state, layers)


def _file(save) -> Path | None:
    if save is None:
        return None
    path = Path(save).expanduser() if isinstance(save, str | os.PathLike) else None
    if path is None or path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"save must be a file's path in a folder that exists, got {str(save)!r}")
    return path


class Search:
    """One pass of `net` over the images, or over the share of them that this process has; it leaves a `state`."""

    def __init__(self, net: nn.Module, layers: dict[str, str], k: int, size: int):
        self.net, self.k, self.size = net, k, size
        # two names of one module are one search
        self.layers = {path: check_layer(net, layer) for layer, path in layers.items()}
        self.state, self.steady = SearchState(), False  # steady: once the network has been looked at

    def run(self, source: NumberedImages | ImageStream, path: Path | None, key: dict) -> None:
        """All batches that are left, with a progress bar, saved to `path` now and then."""
        rank, world = _group()
        self.state = state = (load(path, key) if path else None) or SearchState(batch=rank)
        saved, before = time.monotonic(), state.count
        callbacks = {module: partial(self._look, module) for module in self.layers}
        bar = tqdm(desc="find_peaks", total=source.count, initial=before, unit="image", smoothing=0.05,
                   disable=None if rank == 0 else True)  # fmt: skip
        with bar, listening(self.net, callbacks) as forward:
            for batch in source.batches(self.size, state.batch, world):
                self._take(batch, forward)
                state.batch += world
                bar.update(state.count - bar.n)
                if path and time.monotonic() - saved >= SAVE_EVERY:
                    state.save(path, key)
                    saved = time.monotonic()
        if source.count < before:
            raise ValueError(f"images ended after {source.count}, the saved run had read {before}; give the same ones")
        state.count = source.count

    def _take(self, batch: Batch, forward: Callable) -> None:
        """One forward pass, no further than the last layer asked for."""
        state, self.batch = self.state, batch
        if batch.images is not None:
            forward(images := self._filled(batch))
            if not self.steady:
                check_steady(self.net, images, self.layers, whole=False)
                self.steady = True
        state.keep_names(batch.names)
        state.skipped += batch.skipped
        state.count = batch.first + batch.size

    def _filled(self, batch: Batch) -> torch.Tensor:
        """(size,3,H,W): each image in its own row, zeros in the others, where the network is."""
        images = in_units(self.net, batch.images)
        finite = images.isfinite().flatten(1).all(dim=1).tolist()
        if not all(finite):
            number = batch.numbers[finite.index(False)]
            raise ValueError(f"images: image {number} holds NaN or infinite pixels; look for a division by zero before")
        images = check_images(images, self.net)
        filled = images.new_zeros(self.size, *images.shape[1:])
        filled[[number - batch.first for number in batch.numbers]] = images
        return filled

    def _look(self, path: str, out) -> None:
        """Reduce a layer's maps (B,C,h,w) at once, before a ReLU in place overwrites them, and keep what is new."""
        maps, numbers = _as_maps(self.layers[path], out, self.size), torch.tensor(self.batch.numbers, device="cpu")
        tops = maps.amax(dim=(2, 3)).cpu()[numbers - self.batch.first]  # (R,C)
        if len(wrong := numbers[tops.isnan().any(dim=1)]):
            raise ValueError(f"layer {self.layers[path]!r} gives NaN for image {int(wrong[0])}; "
                             "look for NaN or overflow in net's weights")  # fmt: skip
        found = self.state.peaks.setdefault(path, empty_peaks(maps.shape[1], self.k, maps.dtype))
        better = (tops > found.values[:, -1]) | (found.images[:, -1] < 0)  # a tie: the earlier one stays
        channels = better.any(dim=0).nonzero().flatten()
        if len(channels):
            useful = better[:, channels].any(dim=1)  # late in a pass a batch has few winners, or none
            images = numbers[useful].expand(len(channels), -1)
            fresh = Peaks(tops[useful][:, channels].T, images, images.new_zeros(*images.shape, 2))
            best = merge(found.rows(channels), fresh, self.k)
            self._place(best, channels, maps)
            found.put(channels, best)

    def _place(self, best: Peaks, channels: torch.Tensor, maps: torch.Tensor) -> None:
        """Positions of those images only that got in: few, once the pass has seen some."""
        row, column = (best.images >= self.batch.first).nonzero(as_tuple=True)
        slots, width = best.images[row, column] - self.batch.first, maps.shape[-1]
        slots, of = slots.to(maps.device), channels[row].to(maps.device)
        flat = maps[slots, of].flatten(1).argmax(dim=1).cpu()  # the first of equal ones
        best.positions[row, column] = torch.stack([flat // width, flat % width], dim=-1)


def _as_maps(layer: str, out, size: int) -> torch.Tensor:
    """(B,C,h,w); units of a fully connected layer are maps of one place."""
    if not isinstance(out, torch.Tensor) or out.dim() not in (2, 4) or not out.is_floating_point() or not out.numel():
        raise ValueError(
            f"layer {layer!r} gives {shape_or_type(out)}; peaks are found in maps (N,C,h,w) or units (N,C) of floats"
        )
    if len(out) != size:
        raise ValueError(f"layer {layer!r} gives {len(out)} maps for {size} images; choose one that keeps images apart")
    return out if out.dim() == 4 else out[:, :, None, None]


def _group() -> tuple[int, int]:
    """This process' number in its torch.distributed group, and how many there are: 0 and 1 if it is alone."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _together(search: Search, source: NumberedImages | ImageStream, path: Path | None, key: dict) -> SearchState:
    """Run this process' share and merge everybody's; an error in one process ends all of them."""
    (rank, world), failure = _group(), None
    own = path.with_name(f"{path.name}.rank{rank}of{world}") if path and world > 1 else path
    try:
        search.run(source, own, key)
    except Exception as error:
        failure = error
    shares = [(search.state, failure and f"{type(failure).__name__}: {failure}")]
    if world > 1:
        mine, shares = shares[0], [None] * world
        distributed.all_gather_object(shares, mine)
    if failure:
        raise failure
    if broken := next((text for _, text in shares if text), None):
        raise RuntimeError(f"another process failed ({broken}); mend that and start all of them again")
    whole = SearchState(done=True)
    for state, _ in shares:
        whole.add(state, search.k)
    if not whole.peaks:
        why = f"none of the {whole.count} could be read, first {whole.skipped[0].reason}" if whole.skipped else "empty"
        raise ValueError(f"images: {why}; give at least one image")
    if path:
        _finish(whole, path, own, key)
    return whole


def _finish(whole: SearchState, path: Path, own: Path, key: dict) -> None:
    """The file of the whole search, for which everybody waits; the files of the shares go."""
    rank, world = _group()
    if rank == 0:
        whole.save(path, key)
        for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):  # of writers that were killed
            part.unlink(missing_ok=True)
    if world > 1:
        distributed.barrier()
        own.unlink(missing_ok=True)


def _warn(state: SearchState) -> None:
    if state.skipped:
        named = "; ".join(f"{s.name} ({s.reason})" for s in state.skipped[:3])
        more = f"; and {len(state.skipped) - 3} more, see .skipped" if len(state.skipped) > 3 else ""
        warnings.warn(
            f"{len(state.skipped)} of {state.count} images could not be read and were skipped: {named}{more}",
            stacklevel=3,
        )
