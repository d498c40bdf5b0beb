"""ImageNet's photographs in a folder: the class is the WordNet id in a path, n02124075.jpg or n02124075/1.jpg."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch

from .crops import stack
from .images import folder


class Photographs:
    """(N,3,side,side) uint8 pixels of N files, of which a slice is read when it is asked for."""

    dtype = np.dtype(np.uint8)

    def __init__(self, paths: list[Path], side: int):
        self.paths, self.shape = paths, (len(paths), 3, side, side)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, some: slice) -> np.ndarray:
        return stack(self.paths[some], self.shape[-1]).numpy()


def imagenet_folder(path, wnids: list[str], *, side: int = 256) -> tuple[Photographs, torch.Tensor]:
    """(pixels (N,3,side,side), labels (N,) int64) of all photographs in a folder and below it, by path.

    A photograph's class is the first WordNet id in its path; its label is that id's place in `wnids`. Smaller side to
    `side` pixels, then the centre. A path without an id, or with one that is not in `wnids`, is a ValueError.
    """
    root, labels = Path(path).expanduser(), []
    paths, places = folder(root), {wnid: label for label, wnid in enumerate(wnids)}
    for file in paths:
        found = re.search(r"n\d{8}", str(file.relative_to(root)))
        if found is None or found[0] not in places:
            raise ValueError(f"{file} must have the WordNet id of one of {len(wnids)} classes in its path, such as "
                             f"{wnids[0]}.jpg or {wnids[0]}/{file.name}; rename or move it")  # fmt: skip
        labels.append(places[found[0]])
    return Photographs(paths, side), torch.tensor(labels)
