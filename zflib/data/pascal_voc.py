"""PASCAL VOC 2012: the folder that you have, or torchvision's download, as photographs with all their classes."""

import os
import tempfile
from pathlib import Path

import torch

from .._arguments import check_choice

#: The twenty classes, in the order of their columns.
CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_HOME, _ARCHIVE = Path("VOCdevkit", "VOC2012"), "VOCtrainval_11-May-2012.tar"


def pascal(root, split: str = "train", *, download: bool = False) -> tuple[list[Path], torch.Tensor, list[str]]:
    """(paths, labels, classes): N photographs, (N,20) int8 labels, and the names of the twenty classes. Table 6.

    A photograph shows several things, so its labels are a row: 1 where a class is in it, 0 where all of its objects are
    marked as difficult, which the challenge does not count, -1 where it is not. `split` is "train", "val" or
    "trainval"; `root` holds VOCdevkit/VOC2012 as torchvision's `VOCDetection` lays it out, which fetches 2 GB there
    with `download`. Something missing: FileNotFoundError; no network: ConnectionError; a wrong sum: ValueError.
    Everingham and others, The PASCAL visual object classes challenge 2012.
    """
    check_choice("split", split, ("train", "val", "trainval"))
    root = Path(os.path.abspath(os.path.expanduser(root)))
    if not (root / _HOME).is_dir():
        if not download:
            fix = f"unpack yours to {root / _HOME}, or download=True to fetch 2 GB"
            raise FileNotFoundError(f"there is no PASCAL VOC 2012 in {root}; {fix}")
        _download(root)
    from torchvision.datasets import VOCDetection  # here: `import zflib` stays quick
    from torchvision.datasets.voc import ET_parse

    try:
        voc = VOCDetection(root, "2012", split)
        trees = [VOCDetection.parse_voc_xml(ET_parse(path).getroot()) for path in voc.annotations]
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{root / _HOME} lacks {error.filename}; it was not unpacked whole, remove it and unpack it anew"
        ) from error
    rows = [_row(tree["annotation"]["object"], path) for tree, path in zip(trees, voc.annotations)]
    paths = [Path(path) for path in voc.images]
    if missing := [path for path in paths if not path.is_file()]:
        raise FileNotFoundError(f"{root / _HOME} lacks {missing[0]}; it was not unpacked whole, unpack it anew")
    return paths, torch.stack(rows), list(CLASSES)


def _row(objects: list[dict], path: str) -> torch.Tensor:
    """(20,) int8: 1 in it, 0 only as difficult objects, -1 not in it."""
    row = torch.full((len(CLASSES),), -1, dtype=torch.int8)
    for thing in objects:
        if thing["name"] not in CLASSES:
            raise ValueError(f"{path} names {thing['name']!r}, which is none of PASCAL's classes; unpack it anew")
        column = CLASSES.index(thing["name"])
        row[column] = max(row[column].item(), 0 if thing.get("difficult") == "1" else 1)
    return row


def _download(root: Path) -> None:
    """VOCdevkit from the network, whole or not at all."""
    from torchvision.datasets import VOCDetection
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    url = DATASET_YEAR_DICT["2012"]["url"]
    (root / _HOME.parent).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".download.") as part:
        try:
            VOCDetection(part, "2012", download=True)
        except OSError as error:  # URLError among them
            yours = f"fetch it elsewhere and unpack {_ARCHIVE} to {root}; scenes and photos need no download"
            raise ConnectionError(f"{url} cannot be fetched and unpacked ({error}); {yours}") from error
        except RuntimeError as error:
            raise ValueError(f"what came from {url} has not the md5 sum that torchvision knows; call again") from error
        os.replace(Path(part, _HOME), root / _HOME)
