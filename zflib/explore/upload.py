"""A photograph of the learner's own, loaded in a panel."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets as widgets
import torch

from .. import data


class Upload:
    """A button that loads one image file, and what has been loaded with it; `preprocess` makes it (3,H,W)."""

    def __init__(self, preprocess: Callable):
        self.control = widgets.FileUpload(accept="image/*", multiple=False, description="your photo")
        self._preprocess, self._seen, self.name = preprocess, self.control.value, ""

    def new(self, value) -> torch.Tensor | None:
        """(3,H,W) of a file that was not there at the last call, else None; a bad file raises its sentence, once."""
        if value is self._seen or not value:
            return None
        self._seen = value
        name, content = loaded(value)
        image = self._preprocess(data.open_image(content, name=name))
        self.name = name
        return image[0] if image.dim() == 4 else image


def loaded(value) -> tuple[str, bytes]:
    """Name and content of the file last loaded: the value is a dict by name in ipywidgets 7, a tuple of files in 8."""
    if isinstance(value, dict):
        name, file = list(value.items())[-1]
        return name, bytes(file["content"])
    return value[-1]["name"], bytes(value[-1]["content"])
