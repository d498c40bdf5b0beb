"""Figure 2's search: the images that excite every channel most, over any number of images, in one streaming pass."""

from __future__ import annotations

import glob
import os
import warnings
from collections.abc import Iterable
from numbers import Integral
from pathlib import Path

import torch
from torch import distributed, nn

from .checks import layer_path
from .cluster import rank, wait, world
from .features import check_layers
from .fields import patches, receptive_field, receptive_fields
from .search import Search
from .sources import Skipped, open_source
from .tally import Peaks, Tally, load, run_key

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
