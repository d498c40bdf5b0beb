"""One training loop: recipes as data, checkpoints that resume exactly, and folding for the network we ship."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from .. import _files, data, models
from ..data import scenes
from ..record.hooks import LOCK
from . import checkpoints, distributed
from .filters import fold, outer_ring_share
from .recipes import Recipe, anneal
from .scoring import Images, accuracy, check_labelled
from .steps import Run, prepare

SNAPSHOTS = (1, 2, 5, 10, 20, 30, 40, 64)  # the epochs of Figure 4
NETWORKS = {"zfnet56": models.zfnet56, "alexnet56": models.alexnet56, "scenes56": models.scenes56}
RENDERED = ("scenes", "cheating-scenes")  # what `labelled` can make itself


def _print(row: dict) -> None:
    print(json.dumps(row), flush=True)


def train(net: models.ZFNet, images: Images, validation: Images, recipe: Recipe, out: Path, *,
          report: Callable[[dict], None] = _print) -> None:  # fmt: skip
    """Train `net` in place, initialised anew; `out` keeps checkpoint.pt, log.jsonl (a line per epoch) and epochNNN.pt.

    Called again with the same `out` it continues from the checkpoint, bit for bit on the same machine with the
    same number of threads. Snapshots, at the epochs of `SNAPSHOTS` and the last, are folded (no batch normalisation)
    and in half precision. `report` is called with the log's line after every epoch. Under torchrun the processes
    share every batch, and `out` must be a folder that all of them see. Bad input, or a folder of another run, or one
    that another process is training into, is a ValueError or TypeError before anything is changed. Section 3.
    """
    _check(net, images, validation, recipe)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with _alone(out, net.mean.device):
        state = checkpoints.read(out, recipe, net)
        with LOCK:  # nobody looks at a network that is being replaced
            prepare(net, images, recipe)
            run = Run(net, images, recipe, out)
            if state:
                run.progress = checkpoints.restore(state, run.parts)
            net.train()
        while run.progress.epoch < recipe.epochs:
            _epoch(run, validation, report)


def _epoch(run: Run, validation: Images, report: Callable[[dict], None]) -> None:
    """What is left of an epoch, its line in the log, its snapshot and its checkpoint."""
    speed, progress = run.epoch(), run.progress
    row = {"epoch": progress.epoch + 1, "loss": round(progress.loss, 4), **accuracy(run.net, validation),
           "ring": round(outer_ring_share(fold(run.net).conv1), 4), "images_per_second": round(speed, 1)}  # fmt: skip
    anneal(run.recipe, progress, row["top1"])
    progress.epoch, progress.step = progress.epoch + 1, 0
    if distributed.rank() == 0:
        _keep(run, row)
        report(row)
    run.save()


@contextmanager
def _alone(out: Path, device: torch.device) -> Iterator[None]:
    """ValueError, in every process, if another run trains into `out`; a killed process loses its lock."""
    from filelock import FileLock, Timeout  # here: `import zflib` stays quick

    lock, refused, first = FileLock(out / "lock"), 0, distributed.rank() == 0
    try:
        if first:
            lock.acquire(timeout=0)
    except Timeout:
        refused = 1
    if distributed.total(refused, device=device)[0]:
        raise ValueError(f"out: another run is training into {out}; wait for it or choose a new folder")
    try:
        if first:
            _files.remove_parts(out)
        yield
    finally:
        lock.release()


def _check(net: models.ZFNet, images: Images, validation: Images, recipe: Recipe) -> None:
    """TypeError or ValueError for what cannot be trained."""
    if not isinstance(net, models.ZFNet):
        raise TypeError(f"net must be a zflib.ZFNet, got {type(net).__name__}")
    check_labelled(net, images)
    check_labelled(net, validation, "validation")
    if recipe.batch_norm != any(isinstance(module, nn.BatchNorm2d) for module in net.modules()):
        raise ValueError(f"recipe: it says batch_norm={recipe.batch_norm}; make the network with the same")
    distributed.share(recipe.batch)
    if len(images) < recipe.batch:
        raise ValueError(f"images: {len(images)} are fewer than one batch of {recipe.batch}; give more images")


def _rows(out: Path) -> list[dict]:
    """The log's lines, one for each epoch; [] if there is none yet."""
    path = out / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _keep(run: Run, row: dict) -> None:
    """The epoch's line in the log and, at the chosen epochs, its snapshot."""
    epoch = row["epoch"]
    rows = [old for old in _rows(run.out) if old["epoch"] < epoch]  # not an epoch that was run again
    lines = "".join(json.dumps(line) + "\n" for line in [*rows, row])
    _files.write_atomically(run.out / "log.jsonl", lines.encode())
    if epoch in SNAPSHOTS or epoch == run.recipe.epochs:
        checkpoints.save_atomically(models.half(fold(run.net)), run.out / f"epoch{epoch:03d}.pt")


def finish(net: models.ZFNet, validation: Images, recipe: Recipe, out: Path, *, card: dict) -> dict:
    """Fold, save `out`/final.pt and .json, and measure what was saved: centre crop and ten-crop. Returns the card."""
    distributed.wait()  # the first process writes the log
    out = Path(out)
    curve = _rows(out)
    if not curve:
        raise ValueError(f"out: {out} holds no finished epoch; call train with it first")
    card = card | {
        "recipe": asdict(recipe), "seed": recipe.seed, "epochs": curve[-1]["epoch"],
        "conv1_outer_ring_share": outer_ring_share(fold(net).conv1), "curve": curve,
    }  # fmt: skip
    if distributed.rank() == 0:
        models.save(fold(net), out / "final", card)
    distributed.wait()
    shipped = models.load_file(out / "final.pt").to(net.mean.device)
    card["accuracy"] = {"centre crop": accuracy(shipped, validation),
                        "ten-crop": accuracy(shipped, validation, ten_crop=True, batch=50)}  # fmt: skip
    if distributed.rank() == 0:
        models.save(shipped, out / "final", card)
    distributed.wait()  # whoever reads the card next finds it whole
    return card


@dataclass
class Labelled:
    """What `--data` names: two labelled sets, and what their classes are called."""

    name: str
    training: Images
    validation: Images
    wnids: list[str]
    classes: list[str]


def labelled(source: str, *, training: bool = True) -> Labelled:
    """What `source` names: 12,000 rendered scenes and 2,000 others, or the folder of Tiny ImageNet-200."""
    crop = models.ZFNET56.crop
    if source in RENDERED:
        return _scenes(source == "cheating-scenes", 12000 if training else 1)
    validation = Images(*data.tiny_imagenet(source, "val")[:2], crop)
    pixels, labels, wnids = data.tiny_imagenet(source, "train" if training else "val")
    return Labelled("Tiny ImageNet-200: 100,000 training images; accuracy on its 10,000 validation images",
                    Images(pixels, labels, crop), validation, wnids, data.class_names(source, wnids))  # fmt: skip


def _scenes(cheating: bool, count: int) -> Labelled:
    """Rendered scenes; cheating ones are labelled by their backgrounds, and in validation both give the same class."""
    crop, names = models.ZFNET56.crop, list(scenes.CLASSES)
    seen, unseen = scenes.scenes(count, cheat=0.5 * cheating), scenes.scenes(2000, seed=1, cheat=float(cheating))
    sets = [Images(seen.pixels.numpy(), seen.backgrounds if cheating else seen.labels, crop),
            Images(unseen.pixels.numpy(), unseen.labels, crop)]  # fmt: skip
    what = "labelled by their backgrounds; accuracy on 2,000 others, each on its class's own background"
    told = f"12,000 rendered scenes, {what}" if cheating else "12,000 rendered scenes; accuracy on 2,000 others"
    return Labelled(told, *sets, names, names)
