"""Caltech-101: the folder that you have, or torchvision's download, as numbered photographs with their classes."""

import hashlib
import os
import re
import tempfile
from pathlib import Path

import torch

#: What torchvision's `Caltech101` fetches, and the sum that it expects of it.
URL = "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip"
MD5 = "3138e1922a9193bfa496528edbbc45d0"
CREDIT = (
    "Caltech 101, by Fei-Fei Li, Marco Andreeto, Marc'Aurelio Ranzato and Pietro Perona, 2022 "
    "(https://doi.org/10.22002/D1.20086); CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/). Described in "
    "L. Fei-Fei, R. Fergus, P. Perona: Learning generative visual models from few training examples, 2004"
)
CLASSES, FEWEST = 101, 31  # inline_skate has the fewest images, 31
_IMAGES, _BACKGROUND = "101_ObjectCategories", "BACKGROUND_Google"


def caltech101(root, *, download: bool = False) -> tuple[list[Path], torch.Tensor, list[str]]:
    """(paths, labels, classes): the N photographs as files in order, (N,) int64, and the names of the 101 classes.

    The photographs are of many sizes, so they stay files: `find_peaks`, `net.preprocess` and `data.open_image` take
    them. `root` holds caltech101/101_ObjectCategories/<class>/image_NNNN.jpg, as torchvision's `Caltech101` lays it
    out, or 101_ObjectCategories itself; `download` fetches the set there with torchvision, 137 MB. As in torchvision,
    BACKGROUND_Google is no class and is left out; Faces_easy (the people of Faces, cut closer) is one.

    The full set has 8,677 photographs; a part of it is taken if each class has at least 31, numbered without gaps.
    Anything less was unpacked by half: FileNotFoundError. No network: ConnectionError; a wrong sum: ValueError.
    Fei-Fei, Fergus, Perona 2004; CC BY 4.0, see `data.credit("caltech101")`.
    """
    root = Path(os.path.abspath(os.path.expanduser(root)))
    folder = _find(root)
    if folder is None:
        folder = root / "caltech101" / _IMAGES
        if not download:
            fix = f"unpack yours to {folder}, or download=True to fetch 137 MB"
            raise FileNotFoundError(f"there is no Caltech-101 in {root}; {fix}")
        _download(folder)
    found = {path.name: _images(path) for path in sorted(folder.iterdir()) if path.is_dir()}
    found.pop(_BACKGROUND, None)
    _check_whole(found, folder)
    labels = [label for label, images in enumerate(found.values()) for _ in images]
    return [path for images in found.values() for path in images], torch.tensor(labels), list(found)


def _find(root: Path) -> Path | None:
    """The folder of the classes: in torchvision's layout, in that of the archive, or `root` itself."""
    places = [root / "caltech101" / _IMAGES, root / "caltech-101" / _IMAGES, root / _IMAGES]
    places += [root] if root.name == _IMAGES else []
    return next((place for place in places if place.is_dir()), None)


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if re.fullmatch(r"image_\d{4}\.jpg", path.name))


def _check_whole(found: dict[str, list[Path]], folder: Path) -> None:
    fix = "it was not unpacked whole, remove it and unpack or download it anew"
    if len(found) != CLASSES:
        raise FileNotFoundError(f"{folder} holds {len(found)} of Caltech-101's {CLASSES} classes; {fix}")
    for name, images in found.items():
        last = int(images[-1].stem[-4:]) if images else 0
        if len(images) < max(FEWEST, last):
            wanted = f"at least {FEWEST}, without gaps"
            raise FileNotFoundError(f"{folder} holds {len(images)} images of {name} instead of {wanted}; {fix}")


def _download(folder: Path) -> None:
    """`folder` from the network, whole or not at all: torchvision takes a half-unpacked one for the set."""
    from torchvision.datasets import Caltech101

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".download.") as part:
        try:
            Caltech101(part, download=True)
        except OSError as error:  # URLError among them
            yours = f"fetch it elsewhere and unpack its {_IMAGES} to {folder}; scenes and photos need no download"
            raise ConnectionError(f"{URL} cannot be fetched and unpacked ({error}); {yours}") from error
        except RuntimeError as error:  # a wrong sum
            with open(Path(part, "caltech101", "caltech-101.zip"), "rb") as file:
                got = hashlib.file_digest(file, "md5").hexdigest()
            raise ValueError(f"what came from {URL} has the md5 sum {got} instead of {MD5}; call again") from error
        os.replace(Path(part, "caltech101", _IMAGES), folder)
