"""What an atlas in a folder belongs to: leftovers of another network, other photographs or settings are refused."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from torch import nn

from .. import _files
from ..data.image_source import NumberedImages
from ..experiments.top_k import run_key

FORMAT = 1  # of an atlas; a new look of its pictures gets a new number
STATE = "atlas.json"


def run_of(
    net: nn.Module, source: NumberedImages, layers: dict[str, str], names: list[str] | None, *, k: int, batch_size: int
) -> dict:
    """What must be the same for an atlas to be continued: `layers` (name -> path), weights, photographs, names."""
    key = run_key(net, source, layers, k, batch_size)
    key["images"] += f" {_digest(_files_of(source))}"
    return {"format": FORMAT, "network": type(net).__name__, **key, "names": _digest(names or [])}


def claim(out: Path, run: dict) -> None:
    """Make the folder `out`, or go on with what an earlier call for the same `run` left there; ValueError for others.

    What a killed writer left unfinished is removed.
    """
    path = out / STATE
    if out.exists() and not out.is_dir():
        raise ValueError(f"out must be a folder, {str(out)!r} is a file; choose another name")
    if path.is_file():
        _check_same(path, run)
        for folder in [out, *(entry for entry in out.iterdir() if entry.is_dir())]:
            _files.remove_parts(folder)
        return
    if out.is_dir() and any(out.iterdir()):
        raise ValueError(f"out: the folder {str(out)!r} holds files but no atlas; choose a new or an empty folder")
    out.mkdir(parents=True, exist_ok=True)
    _files.write_atomically(path, json.dumps(run, indent=1).encode() + b"\n")


def _check_same(path: Path, run: dict) -> None:
    try:
        found = dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"out: {path} is damaged; remove the folder {str(path.parent)!r} or choose another") from error
    other = next((name for name in run if found.get(name) != run[name]), None)
    if other:
        raise ValueError(f"out: the folder {str(path.parent)!r} holds an atlas with other {other}; "
                         "choose another folder, or remove this one")  # fmt: skip


def _files_of(source: NumberedImages) -> list[str]:
    """Name and size of every file, where the photographs are files: `run_key` looks only at some of their pixels."""
    paths = source.images if isinstance(source.images, list) else []
    files = [path for path in paths if isinstance(path, str | os.PathLike) and os.path.isfile(path)]
    return [f"{os.path.basename(path)} {os.path.getsize(path)}" for path in files]


def _digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
