"""The explorer of evolution: Figure 4 played, from the first snapshot of a training to the last."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import ipywidgets as widgets
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn

from .. import models, show
from .._arguments import check_choice
from ..data.image_source import images_of
from ..deconv.receptive_boxes import patches, receptive_fields
from ..studies import evolution as study
from ..studies.gallery import middle
from ..studies.units import VIEWS, projection_pixels
from .panels import Panel, list_slider, menu, toggle

TILE, GAP, COLUMNS = 156, 12, 6  # six channels are as wide as a page
STRIP = 34  # pixels of the line of epochs below a channel
SECONDS = 0.8  # between two epochs that are played


class Growth:
    """One layer's Evolution as tiles: `column(epoch number, channel number)` is what Figure 4 shows of a channel.

    `net` gives the receptive fields; `images` are those that the winners are numbers of, None where they may not be
    shown or are not here.
    """

    def __init__(self, net: nn.Module, layer: str, found: study.Evolution, images=None):
        self.net, self.layer, self.found, self.images = net, layer, found, images
        self._boxes = middle(receptive_fields(net, layer, found.positions), found.projections.shape[-2:])  # (E,C,4)
        self.column = lru_cache(maxsize=512)(self._column)

    def _cut(self, image: torch.Tensor, e: int, c: int) -> torch.Tensor:
        """(3,h,w): what the winner's activation sees of a (3,H,W) image, grey beyond its borders."""
        return patches(image[None], self._boxes[e, c][None])[0]

    def _patch(self, e: int, c: int) -> np.ndarray | None:
        if self.images is None:
            return None
        image = images_of(self.net, self.images, self.found.images[e, c : c + 1])[0]
        return show.image_pixels(self._cut(image.cpu(), e, c), self.net)

    def _column(self, e: int, c: int, view: str) -> np.ndarray:
        """(H,TILE,3) uint8: the winner's patch if there are images, the projection, and where the winner changed."""
        patch, seen = self._patch(e, c), self._cut(self.found.projections[e, c], e, c)
        drawn = [projection_pixels(seen, TILE, view=view, patch=patch, net=self.net)]
        if patch is not None:
            drawn.insert(0, show.fit(patch, TILE, smooth=True))
        if self.found.jumps[e, c]:
            drawn = [show.framed(tile, (0, 0, TILE, TILE)) for tile in drawn]
        title = f"channel {int(self.found.channels[c])}: {float(self.found.values[e, c]):.2g}"
        if self.found.labels is not None:
            name = self.net.classes[int(self.found.labels[e, c])]
            drawn.insert(0, show.caption(np.zeros((0, TILE, 3), np.uint8), name, lines=1))
        stack = [part for tile in drawn for part in (tile, np.full((4, TILE, 3), 255, np.uint8))]
        return show.caption(np.concatenate([*stack, self._epochs(e, c)]), title, lines=1)

    def _epochs(self, e: int, c: int) -> np.ndarray:
        """(STRIP,TILE,3) uint8: a dot for each snapshot, a large orange one at a jump, a ring at this snapshot."""
        sheet = Image.new("RGB", (TILE * 2, STRIP * 2), "white")  # drawn twice as large: smooth edges
        draw, count = ImageDraw.Draw(sheet), len(self.found.epochs)
        step = (TILE * 2 - 56) / max(1, count - 1)
        places = [28 + number * step for number in range(count)]
        draw.line((places[0], 24, places[-1], 24), fill="#c9ced4", width=3)
        for number, (x, jump) in enumerate(zip(places, self.found.jumps[:, c].tolist())):
            radius, colour = (min(11, step / 2.4), show.ORANGE) if jump else (min(6, step / 4), "#9aa5b1")
            draw.ellipse((x - radius, 24 - radius, x + radius, 24 + radius), fill=colour)
            if number == e:
                draw.ellipse((x - 18, 6, x + 18, 42), outline="black", width=4)
            if step > 30 or number % 2 == 0:  # every second number where all of them would touch
                epoch = str(int(self.found.epochs[number]))
                draw.text((x, 44), epoch, fill="#555555", font=show.font(20), anchor="mt")
        return np.asarray(sheet.resize((TILE, STRIP), Image.Resampling.BOX))

    def pixels(self, e: int, view: str) -> np.ndarray:
        """(H,W,3) uint8: the channels beside each other, `COLUMNS` of them in a row."""
        columns = [self.column(e, c, view) for c in range(len(self.found.channels))]
        rows = [show.beside(columns[first : first + COLUMNS], gap=GAP) for first in range(0, len(columns), COLUMNS)]
        width = max(row.shape[1] for row in rows)
        return np.concatenate([np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in rows])

    def describe(self, e: int) -> str:
        """The same in words: which channels have another winner than before."""
        epoch, jumped = int(self.found.epochs[e]), self.found.channels[self.found.jumps[e]].tolist()
        if e == 0:
            return f"Epoch {epoch} of {self.layer}, the first snapshot: each channel's strongest image, projected."
        before, count = int(self.found.epochs[e - 1]), len(self.found.channels)
        if not jumped:
            return (
                f"Epoch {epoch} of {self.layer}: all {count} channels have the winner that they had at epoch {before}."
            )
        names = ", ".join(map(str, jumped))
        return (
            f"Epoch {epoch} of {self.layer}: {len(jumped)} of {count} channels have another winner than at epoch "
            f"{before}, framed: {names}."
        )


def evolution(
    found: Mapping[str, study.Evolution] | None = None, *, net: nn.Module | None = None, images=None,
    layer: str | None = None, view: str = "calm",
) -> Panel:  # fmt: skip
    """Figure 4 played: the projections of a layer's channels at each snapshot; where another image won is marked.

    `found` is what `studies.evolution.evolve` gave, layer -> Evolution, with `net`, a network of the same kind;
    without, the shipped snapshots of zfnet56 over Tiny ImageNet's training images. `images` are those that the winners
    are numbers of, as `evolve` takes them: then each winner's patch is shown as well. With `images` but without `found`
    the snapshots of zfnet56 are searched for their winners first, which takes seconds. `layer` is the first one shown,
    by default the last; `view`, how projections are drawn: "raw", "calm", "grey", with images also "lit".
    """
    if found is None and net is not None:
        raise ValueError("found is missing: of a network of yours give also what studies.evolution.evolve found in its "
                         "snapshots, found=evolve(snapshots, images, layers=…)")  # fmt: skip
    net = models.load("zfnet56") if net is None else net
    if found is None:
        found = study.load("zfnet56")
        if images is not None:
            channels = {layer: one.channels.tolist() for layer, one in found.items()}
            found = study.evolve(models.snapshots("zfnet56"), images, layers=channels)
    views, layers = [v for v in VIEWS if v != "lit" or images is not None], list(found)
    layer = layers[-1] if layer is None else layer
    check_choice("layer", layer, layers)
    check_choice("view", view, views)
    growth = {name: Growth(net, name, one, images) for name, one in found.items()}
    epochs = found[layer].epochs.tolist()

    def draw(layer: str, epoch: int, view: str) -> tuple[np.ndarray, str]:
        e = epochs.index(epoch)
        return growth[layer].pixels(e, view), growth[layer].describe(e)

    slider = list_slider("epoch", epochs, epochs[-1])
    controls = {"layer": menu("layer", layers, layer), "epoch": slider, "view": toggle("view", views, view)}
    panel = Panel(draw, controls)
    panel.frames = [{"epoch": epoch} for epoch in epochs]
    panel.children[0].children = [_play(slider, len(epochs)), *panel.children[0].children]
    return panel


def _play(slider: widgets.SelectionSlider, count: int) -> widgets.Play:
    """Buttons that play the slider's values; linked within the page, so that the panel hears of the slider alone."""
    play = widgets.Play(value=count - 1, min=0, max=count - 1, interval=round(1000 * SECONDS))
    widgets.jslink((play, "value"), (slider, "index"))
    return play
