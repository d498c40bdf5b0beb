"""What an atlas calls its photographs: by the caller's names, by their class, or by their file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from torch import nn


class Captions:
    """What to call image number i: `of(i, path)`, `path` being its file, if it is one."""

    def __init__(self, net: nn.Module, images, count: int, names: Sequence[str] | None):
        if names is not None and (isinstance(names, str) or len(names) != count):
            raise ValueError(f"names must be one for each of the {count} images, got {len(names)}")
        self.names = None if names is None else [str(name) for name in names]
        self.folder = Path(images).expanduser() if isinstance(images, str | os.PathLike) else None
        self.classes = dict(zip(getattr(net, "wnids", []), getattr(net, "classes", [])))

    def of(self, number: int, path: str = "") -> tuple[str, str]:
        """(what it is called, its file below the folder of the photographs or "")."""
        file = self._file(path) if path else ""
        known = [self.classes[part] for part in (Path(path).stem, Path(path).parent.name) if part in self.classes]
        if self.names is not None:
            return self.names[number], file
        return known[0] if known else file or f"image {number}", file

    def _file(self, path: str) -> str:
        inside = self.folder is not None and Path(path).is_relative_to(self.folder)
        return str(Path(path).relative_to(self.folder)) if inside else Path(path).name
