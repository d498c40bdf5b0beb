"""What test_peaks.py runs in other processes: a slow search to be killed, and the searches that two processes share."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

from zflib.experiments import peaks
from zflib.experiments.peaks import find_peaks

LAYERS = ("0", "1", "3", "5", "7")
SHARED = ("data set", "iterator", "few", "mistake")


def small_net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(6, 40, 3),
        nn.ReLU(inplace=True), nn.Conv2d(40, 40, 3), nn.Flatten(), nn.Linear(40, 5),
    ).eval()  # fmt: skip


def some_images(count: int = 110, side: int = 10, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


class Items(Dataset):
    """(image, number, "label"), and an error for those that are broken."""

    def __init__(self, images, broken=(), error=OSError, seconds: float = 0.0):
        self.images, self.broken, self.error, self.seconds = images, broken, error, seconds

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        time.sleep(self.seconds)
        if i in self.broken:
            raise self.error(f"item {i} is gone")
        return self.images[i], i, "label"


def given(source: str):
    """What two processes search together: several batches each, an iterator, fewer images than one batch, an error."""
    images = some_images(170)
    if source == "iterator":
        return (image for image in images)
    if source == "few":
        return Items(images[:20], broken=(2, 5))
    return Items(images, (70,), KeyError) if source == "mistake" else Items(images, (2, 5, 66))


def as_lists(peaks) -> list:
    return [peaks.values.tolist(), peaks.images.tolist(), peaks.positions.tolist()]


def share(number: int, folder: Path) -> None:
    """Every search of SHARED as process `number` of two; the results go to `folder`."""
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=number, world_size=2)
    results = {}
    for source in SHARED:
        try:
            found = find_peaks(small_net(), given(source), layers=LAYERS, save=folder / f"{source}.pt")
            peaks = {layer: as_lists(found[layer]) for layer in LAYERS}
            results[source] = {"peaks": peaks, "count": found.count, "skipped": [s.image for s in found.skipped]}
        except Exception as error:
            results[source] = f"{type(error).__name__}: {error}"
    torch.save(results, folder / f"result{number}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    peaks.SAVE_EVERY = 0.0
    if sys.argv[1] == "slow":
        find_peaks(small_net(), Items(some_images(400), seconds=0.01), layers=LAYERS, save=sys.argv[2])
    else:
        share(int(sys.argv[1]), Path(sys.argv[2]))
