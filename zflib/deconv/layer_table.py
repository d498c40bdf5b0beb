"""The layers of a network as a table: what each one gives, how much it sees, and whether there is a way down."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from .._arguments import check_integer, check_net, layer_names, layer_path
from ..record import Tape, Unsupported, record_modules, steps
from ..record.inputs import check_image
from .receptive_boxes import blank_image, trace
from .rules import Rules, own_rules

HEADINGS = ("layer", "kind", "channels", "map", "sees", "way down")


@dataclass(frozen=True)
class Layer:
    """One module of a network: `name` is its path, `kind` its class, `channels` how many it gives.

    `map` (rows, columns) is the size of its maps, () if it has none; `sees` (rows, columns) is the receptive field of
    the position in the middle, in pixels of the image, the padding included, and None where it is not known. `refused`
    names the first operation without a way down, "" if `Deconvnet` can project from here.
    """

    name: str
    kind: str
    channels: int
    map: tuple[int, ...]
    sees: tuple[int, int] | None
    refused: str

    def cells(self) -> tuple[str, ...]:
        """Its row of the table, in the order of `HEADINGS`."""
        sees = "×".join(map(str, self.sees)) if self.sees else "unknown"
        down = f"refused: {self.refused}" if self.refused else "yes"
        return self.name, self.kind, str(self.channels), "×".join(map(str, self.map)) or "–", sees, down


class Layers(list):
    """A list of `Layer`s in the order of their use, which prints as a table."""

    def __repr__(self) -> str:
        rows = [HEADINGS, *(layer.cells() for layer in self)]
        widths = [max(map(len, column)) for column in zip(*rows)]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in HEADINGS)
        rows = ["".join(f"<td>{html.escape(cell)}</td>" for cell in layer.cells()) for layer in self]
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f'<div style="max-height:480px; overflow:auto">{table}</div>'


def layers(net: nn.Module, image=None, *, rules: Mapping | None = None, depth: int | None = None) -> Layers:
    """What `net` calls a layer, or else the modules that it uses, for a (3,H,W) `image`: a table in the order of use.

    `image`: by default a blank one as large as the network takes, 224x224 for networks that do not say so. `rules` as
    in `Deconvnet`: what they are for is not refused. `depth`: only module paths of at most so many parts, 1 for
    "layer1", 2 for "layer1.0". A module that is used again is there once; one that gives several tensors is left out.
    From one forward pass; ValueError for an image that does not fit.
    """
    check_net(net)
    deepest = check_integer("depth", depth, "a whole number, at least 1", low=1) if depth is not None else None
    own = Rules(own=own_rules(net, rules))
    images = blank_image(net) if image is None else check_image(image, net)[None]
    tape, places = record_modules(net, images, ruled=tuple(own.own))
    refused, rows = _refused_module(own, net), Layers()
    paths = {name: layer_path(net, name) for name in layer_names(net)}
    paths = {name: path for name, path in paths.items() if path in places}
    for name, path in sorted(paths.items(), key=lambda layer: (places[layer[1]], -layer[1].count("."))):
        here = replace(tape, place=places[path])
        shape = here.steps[here.place].shape
        if len(shape) > 1 and (deepest is None or name.count(".") < deepest):
            kind, named = type(net.get_submodule(path)).__name__, refused or _refused_step(here)
            rows.append(Layer(name, kind, *_sizes(shape), _field(here, shape, images), named))
    return rows


def _sizes(shape: torch.Size) -> tuple[int, tuple[int, ...]]:
    """Channels and map of an output (N,C,h,w), (N,C), or (N,tokens,C)."""
    return (shape[-1], (shape[1],)) if len(shape) == 3 else (shape[1], tuple(shape[2:]))


def _refused_module(own: Rules, net: nn.Module) -> str:
    """The first module because of which `Deconvnet` refuses the whole network, "" if there is none."""
    return next((f"{type(module).__name__} at {path!r}" for path, module in own.refused(net)), "")


def _refused_step(tape: Tape) -> str:
    """The first operation on the way from the image to the tape's place that has no way down."""
    names = [tape.steps[place].name for place in tape.used() if isinstance(tape.steps[place], steps.Refused)]
    return names[0] if names else ""


def _field(tape: Tape, shape: torch.Size, images: torch.Tensor) -> tuple[int, int] | None:
    """(rows, columns) that the position in the middle sees; a unit without a map sees the whole image."""
    if len(shape) != 4:
        return tuple(images.shape[-2:]) if len(shape) == 2 else None
    try:
        top, left, bottom, right = trace(tape, shape[2] // 2, shape[3] // 2)
    except Unsupported:
        return None
    return bottom - top, right - left
