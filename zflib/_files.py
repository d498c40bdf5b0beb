"""Where the shipped files lie, and how a file is written: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_HERE = Path(__file__).resolve()
_INSTALLED = (folder / "share" / "zflib" for folder in _HERE.parents)  # of the environment that the package lies in

#: The folder with the trained weights, their model cards and the tables of results.
SHIPPED = next(filter(Path.is_dir, _INSTALLED), _HERE.parent.parent / "data")


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write `content` to a temporary neighbour, then rename: a reader finds the old file or the new one, never half."""
    path = Path(path)
    descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    os.chmod(path, 0o644)  # mkstemp makes a file for its owner alone


def remove_parts(folder: Path) -> None:
    """Remove what killed writers left in `folder`: unfinished temporary files."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)
