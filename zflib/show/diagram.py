"""The machine: the paper's Figure 1, a deconvnet attached to a network, drawn from a photograph's own maps."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn
from torch.nn import functional as F

from .._arguments import check_choice
from .chain import Chain, Stage, follow
from .light import calm
from .pixels import DIVERGING, as_array, fit, font, image_pixels, limit, signed_pixels
from .sheets import WIDTH

TILE, GAP, TILES = 164, 12, 4  # pixels, twice those of a page
BLOCK = TILES * TILE + (TILES - 1) * GAP
LEFT, RIGHT = 64, WIDTH - 64 - BLOCK  # where the two columns begin
MIDDLE = WIDTH // 2
STEP = 92  # between two rows of tiles: an arrow and its words
PHOTO = 520
HEAD = 120
INK, PALE = (34, 34, 34), (205, 205, 205)
FAINT = (118, 118, 118)  # of the words of pale parts: they can still be read
UP, DOWN, SWITCH = (0, 90, 160), (190, 75, 0), (0, 130, 95)  # blue, orange, green: told apart by the colour-blind
#: Which parts of the course light what: (column, kind of operation).
PARTS = {
    "filter": {("down", "filter"), ("shared", "filter")},
    "rectify": {("down", "rectify"), ("shared", "rectify")},
    "unpool": {("up", "pool"), ("down", "pool"), ("shared", "pool")},
    "deconvnet": {(column, kind) for column in ("down", "shared") for kind in ("filter", "rectify", "pool", "seed")},
    "train": {("up", kind) for kind in ("filter", "rectify", "pool")},
}


def machine(net: nn.Module, image, *, here: str | None = None, until: int | None = None, layer: str | None = None,
            channel: int | None = None) -> np.ndarray:  # fmt: skip
    """(H,2000,3) uint8: a photograph's way up through the network and, beside it, one activation's way down (Figure 1).

    `image`: one preprocessed (3,H,W) image. `here` lights a part and pales the rest: "filter", "rectify", "unpool",
    "deconvnet", "train", or a convolution, "conv2"; None lights all. `until`: only the first so many of the drawing's
    steps; see `machine_steps`. `layer` (default: the third convolution) and `channel` (default: the strongest): where
    the way down begins. A network that is no row of convolutions, ReLUs and max pools up to there raises ValueError.
    """
    found = _found(net, image, here, layer, channel)
    return _Drawing(net, found, here, _steps(found) if until is None else until).drawn()


def machine_steps(net: nn.Module, image, *, here: str | None = None, layer: str | None = None,
                  channel: int | None = None) -> tuple[list[np.ndarray], list[str]]:  # fmt: skip
    """The machine grown step by step, for `explore.stepper` or `animated`: its pictures, and the words of each."""
    found = _found(net, image, here, layer, channel)
    words = ["the photograph"] + [f"{stage.name}, {_up_words(stage)}" for stage in found.stages]
    words.append("keep one activation and set all others to 0")
    words += [f"{stage.name}, {_down_words(stage)}" for stage in reversed(found.stages)]
    return [_Drawing(net, found, here, step).drawn() for step in range(1, _steps(found) + 1)], words


def _found(net: nn.Module, image, here, layer, channel) -> Chain:
    found = follow(net, image, layer=layer, channel=channel, count=TILES)
    if here is not None:
        check_choice("here", here, (*PARTS, *dict.fromkeys(stage.name for stage in found.stages)))
    return found


def _steps(found: Chain) -> int:
    """The photograph, the way up, the choice, the way down."""
    return 2 * len(found.stages) + 2


def _up_words(stage: Stage) -> str:
    step = stage.step
    if stage.kind == "filter":
        count, _, rows, columns = step.weight.shape
        return f"{'normalise, ' if stage.normalised else ''}filter: {count} filters, {rows}×{columns}"
    if stage.kind == "pool":
        return f"pool: the largest of {step.kernel[0]}×{step.kernel[1]}"
    return "rectify: negative becomes 0"


def _down_words(stage: Stage) -> str:
    return {"filter": "filter, transposed", "rectify": "rectify: negative becomes 0", "pool": "unpool"}[stage.kind]


class _Drawing:
    """One picture of the machine: rows of tiles from the photograph, at the bottom, to the layer, at the top."""

    def __init__(self, net: nn.Module, found: Chain, here: str | None, until: int):
        self.net, self.found, self.here, self.until = net, found, here, until
        self.count = len(found.stages)
        height = HEAD + self.count * (TILE + STEP) + PHOTO + 30
        self.image = Image.new("RGB", (WIDTH, height), "white")
        self.draw = ImageDraw.Draw(self.image)

    def drawn(self) -> np.ndarray:
        """The finished picture."""
        self._heads()
        photo = image_pixels(self.found.image, self.net)
        self._photo(photo, LEFT, lit=self._lit("up", 0, state=True), when=1)
        for number, stage in enumerate(self.found.stages):
            self._stage(number, stage)
        self._choice()
        projection = calm(self.found.projection)
        pixels = signed_pixels(projection, full=limit(projection, 99))
        self._photo(pixels, RIGHT, lit=self._lit("down", 0, state=True), when=2 * self.count + 2)
        self._legend()
        return np.asarray(self.image)

    # --- what is where, and when -------------------------------------------------------------------------------------

    def _top(self, number: int) -> int:
        """The upper edge of the tiles of stage `number`, -1 for the photograph."""
        return HEAD + (self.count - 1 - number) * (TILE + STEP)

    def _lit(self, column: str, number: int, *, state: bool = False) -> bool:
        """Whether an operation is lit, or (`state`) what lies below the operation `number` in a column."""
        if self.here is None:
            return True
        numbers = {number - 1, number} if state else {number}
        stages = [self.found.stages[n] for n in numbers if 0 <= n < self.count]
        if self.here in PARTS:
            return any((column, stage.kind) in PARTS[self.here] for stage in stages)
        return any(stage.name == self.here for stage in stages)

    # --- pieces ------------------------------------------------------------------------------------------------------

    def _heads(self) -> None:
        up, down = (self._any_lit(column) for column in ("up", "down"))
        self._text("up: the network", LEFT + BLOCK // 2, 36, 44, UP if up else FAINT)
        if self.until > self.count + 1:
            self._text("down: the deconvnet", RIGHT + BLOCK // 2, 36, 44, DOWN if down else FAINT)

    def _any_lit(self, column: str) -> bool:
        return any(self._lit(column, number) for number in range(self.count))

    def _stage(self, number: int, stage: Stage) -> None:
        """One operation: its arrows, what both ways share, and the maps after it, up on the left, down on the right."""
        top, below = self._top(number), self._top(number) + TILE
        if self.until >= number + 2:
            full = limit(stage.up[stage.channels])
            self._tiles(stage.up, stage, LEFT, top, full, self._lit("up", number + 1, state=True))
            self._arrow(LEFT + BLOCK // 2, below + STEP - 8, below + 8, _up_words(stage), UP, self._lit("up", number))
            self._name(stage, top, self._lit("up", number + 1, state=True))
            self._shared(number, stage, below + STEP // 2)
        if self.until >= 2 * self.count + 1 - number:
            full = limit(stage.down[stage.channels])
            self._tiles(_coarse(stage.down), stage, RIGHT, top, full, self._lit("down", number + 1, state=True))
        if self.until >= 2 * self.count + 2 - number:
            lit = self._lit("down", number)
            self._arrow(RIGHT + BLOCK // 2, below + 8, below + STEP - 8, _down_words(stage), DOWN, lit)

    def _tiles(self, maps: torch.Tensor, stage: Stage, left: int, top: int, full: float, lit: bool) -> None:
        for i, channel in enumerate(stage.channels):
            self._paste(_map_tile(maps[channel], full, TILE), left + i * (TILE + GAP), top, lit)

    def _photo(self, pixels: np.ndarray, left: int, *, lit: bool, when: int) -> None:
        if self.until >= when:
            self._paste(fit(pixels, PHOTO, smooth=True), left + (BLOCK - PHOTO) // 2, self._top(-1), lit)

    def _name(self, stage: Stage, top: int, lit: bool) -> None:
        """What the maps are and how large, written upwards beside the row."""
        name = {"filter": stage.name, "rectify": "rectified", "pool": "pooled"}[stage.kind]
        while font(22).getlength(name) > TILE:
            name = "…" + name[2:]  # the end of a path says more than its beginning
        strip = Image.new("RGB", (TILE, 52), "white")
        draw, ink = ImageDraw.Draw(strip), INK if lit else FAINT
        for y, text in ((13, name), (38, "{}×{}".format(*stage.up.shape[-2:]))):
            draw.text((TILE // 2, y), text, fill=ink, font=font(22), anchor="mm")
        self.image.paste(strip.rotate(90, expand=True), (LEFT - 58, top))

    def _legend(self) -> None:
        """What the colours of maps and filters mean."""
        top, side = self._top(-1) + PHOTO - 96, 300
        bar = _map_tile(torch.linspace(-1, 1, side).expand(26, -1), 1.0, side)
        bar = bar[(side - 26) // 2 : (side + 26) // 2]
        self._paste(bar, MIDDLE - side // 2, top, self.here is None)
        for x, words in ((-side // 2, "negative"), (0, "0"), (side // 2, "positive")):
            self._text(words, MIDDLE + x, top + 50, 24, INK if self.here is None else FAINT)
        self._text("maps and filters", MIDDLE, top - 26, 24, INK if self.here is None else FAINT)

    def _choice(self) -> None:
        """From the way up to the way down: one activation."""
        if self.until < self.count + 2:
            return
        lit, top = self.here is None or self._lit("down", self.count - 1), self._top(self.count - 1)
        y, colour = top + TILE // 2, DOWN if lit else PALE
        self._line([(LEFT + BLOCK + 14, y), (RIGHT - 14, y)], colour, head=True)
        stage, (row, column) = self.found.stages[-1], self.found.position
        value = float(stage.up[self.found.channel, row, column])
        self._text("keep one activation", MIDDLE, y - 102, 28, INK if lit else FAINT)
        self._text(f"({value:.3g}, in channel {self.found.channel}),", MIDDLE, y - 68, 24, INK if lit else FAINT)
        self._text("set all others to 0", MIDDLE, y - 32, 28, INK if lit else FAINT)

    def _shared(self, number: int, stage: Stage, y: int) -> None:
        """What both ways have in common: filters, the rectifier, switches."""
        lit = self._lit("shared", number) or (
            self.here is not None and self._lit("up", number) and stage.name == self.here
        )
        pieces = {"filter": self._filters, "rectify": self._rectifier, "pool": self._switches}
        pieces[stage.kind](stage, y, lit)

    def _filters(self, stage: Stage, y: int, lit: bool) -> None:
        """Some of the filters as they are, and below them turned by half a turn, as the way down uses them."""
        side, below = 84, self._channels_below(stage)
        tiles = [_filter_tile(stage.step.weight, channel, below, side) for channel in stage.channels]
        width = len(tiles) * (side + 8) - 8
        for i, tile in enumerate(tiles):
            left = MIDDLE - width // 2 + i * (side + 8)
            self._paste(tile, left, y - side - 20, lit)
            if self._used(stage):
                self._paste(tile[::-1, ::-1], left, y + 20, lit)
        words = "the filters, and turned by 180°" if self._used(stage) else "the filters"
        self._text(words, MIDDLE, y, 24, INK if lit else FAINT)

    def _used(self, stage: Stage) -> bool:
        """Whether the way down has come past a stage."""
        return self.until >= 2 * self.count + 2 - self.found.stages.index(stage)

    def _channels_below(self, stage: Stage) -> int:
        number = self.found.stages.index(stage)
        return self.found.stages[number - 1].channels[0] if number else 0

    def _rectifier(self, stage: Stage, y: int, lit: bool) -> None:
        colour = INK if lit else PALE
        self._line([(MIDDLE - 70, y + 34), (MIDDLE + 70, y + 34)], PALE)
        self._line([(MIDDLE, y + 50), (MIDDLE, y - 60)], PALE)
        self._line([(MIDDLE - 70, y + 34), (MIDDLE, y + 34), (MIDDLE + 64, y - 50)], colour, width=6)

    def _switches(self, stage: Stage, y: int, lit: bool) -> None:
        """Where the maximum of each window was: an arrow from the window's middle to it, around the strongest one."""
        side, colour = 200, SWITCH if lit else PALE
        tile = _switch_tile(stage, side)
        words = font(28).getlength(_up_words(stage))
        self._line([(LEFT + BLOCK // 2 - 100 + words, y), (MIDDLE - side // 2 - 10, y)], colour, head=True)
        self._paste(tile, MIDDLE - side // 2, y - side // 2, lit)
        self._text("switches", MIDDLE, y + side // 2 + 18, 26, SWITCH if lit else FAINT)
        if self._used(stage):
            self._line([(MIDDLE + side // 2 + 10, y), (RIGHT + BLOCK // 2 - 180, y)], colour, head=True)

    # --- strokes -----------------------------------------------------------------------------------------------------

    def _arrow(self, x: int, start: int, end: int, words: str, colour, lit: bool) -> None:
        """A vertical arrow and its words, to the right of it."""
        self._line([(x - 150, start), (x - 150, end)], colour if lit else PALE, head=True, width=8)
        self._text(words, x - 120, (start + end) // 2, 28, INK if lit else FAINT, anchor="lm")

    def _line(self, points: Sequence[tuple], colour, *, head: bool = False, width: int = 5) -> None:
        (x0, y0), (x, y) = points[-2:]
        size = max(abs(x - x0), abs(y - y0), 1)
        dx, dy = (x - x0) / size, (y - y0) / size
        end = (x - 14 * dx, y - 14 * dy) if head else (x, y)
        self.draw.line([*points[:-1], end], fill=colour, width=width, joint="curve")
        if head:
            back, wing = (x - 22 * dx, y - 22 * dy), 13
            self.draw.polygon(
                [(x, y), (back[0] - wing * dy, back[1] + wing * dx), (back[0] + wing * dy, back[1] - wing * dx)],
                fill=colour,
            )

    def _text(self, text: str, x: int, y: int, size: int, colour, *, anchor: str = "mm") -> None:
        self.draw.text((x, y), text, fill=colour, font=font(size), anchor=anchor)

    def _paste(self, pixels: np.ndarray, left: int, top: int, lit: bool) -> None:
        if not lit:
            pixels = (255 - (255 - pixels.astype(np.float32)) * 0.22).round().astype(np.uint8)
        self.image.paste(Image.fromarray(np.ascontiguousarray(pixels)), (left, top))
        edge = (150, 150, 150) if lit else (225, 225, 225)
        self.draw.rectangle((left - 1, top - 1, left + pixels.shape[1], top + pixels.shape[0]), outline=edge, width=2)


def _coarse(maps: torch.Tensor, most: int = 40) -> torch.Tensor:
    """Maps of at most so many cells a side, each its strongest value: single pixels of large maps stay visible."""
    size = -(-max(maps.shape[-2:]) // most)
    high, low = (F.max_pool2d(sign * maps[None], size, ceil_mode=True)[0] for sign in (1, -1))
    return torch.where(high >= low, high, -low)


def _map_tile(values: torch.Tensor, full: float, side: int) -> np.ndarray:
    """(side,side,3) uint8: blue below zero, white zero, red above."""
    colours = mpl.colormaps[DIVERGING](as_array(values).clip(-full, full) / full / 2 + 0.5)[..., :3]
    return fit((colours * 255).round().astype(np.uint8), side)


def _filter_tile(weight: torch.Tensor, channel: int, below: int, side: int) -> np.ndarray:
    """One filter: in colours if it looks at an image, else what it takes from one map below."""
    values = weight.detach()[channel]
    if values.shape[0] == 3:
        return fit(signed_pixels(values, full=float(values.abs().max()) or 1.0), side)
    part = values[min(below, len(values) - 1)]
    return _map_tile(part, float(part.abs().max()) or 1.0, side)


def _switch_tile(stage: Stage, side: int) -> np.ndarray:
    """(side,side,3) uint8: up to 7x7 windows around the strongest, each with an arrow to where its maximum was."""
    channel, step, fine = stage.channels[0], stage.step, 4 * side  # drawn larger, then made smooth
    values, (height, width) = stage.up[channel], stage.up.shape[-2:]
    strongest = divmod(int(stage.down[channel].abs().argmax()), width)
    first, start = (max(0, min(at - 3, size - 7)) for at, size in zip(strongest, (height, width)))
    image, cell = Image.new("RGB", (fine, fine), "white"), fine / min(7, height, width)
    for row in range(first, min(first + 7, height)):
        for column in range(start, min(start + 7, width)):
            away = _away(step, row, column, int(step.switches[0, channel, row, column]))
            middle = ((column - start + 0.5) * cell, (row - first + 0.5) * cell)
            _small_arrow(ImageDraw.Draw(image), middle, away, cell / 2, SWITCH if values[row, column] > 0 else PALE)
    return np.asarray(image.resize((side, side), Image.LANCZOS))


def _away(step, row: int, column: int, switch: int) -> tuple[float, float]:
    """How far a window's maximum is to the right of its middle and below it, from -1 to 1."""
    won, away = divmod(switch, step.size[1]), []
    for axis, at in enumerate((row, column)):
        half = (step.kernel[axis] - 1) / 2
        middle = at * step.stride[axis] - step.padding[axis] + half
        away.append((won[axis] - middle) / max(half, 1))
    return away[1], away[0]


def _small_arrow(draw: ImageDraw.ImageDraw, middle, away, room: float, colour) -> None:
    """An arrow through `middle` that points `away`, (right, down), in a square of 2 `room`; a dot if the middle won."""
    (x, y), (right, down), tip = middle, away, room * 0.3
    if not right and not down:
        draw.ellipse((x - tip / 2, y - tip / 2, x + tip / 2, y + tip / 2), fill=colour)
        return
    length = (right**2 + down**2) ** 0.5
    dx, dy = right / length, down / length
    end, neck = room * 0.8, room * 0.8 - 1.5 * tip
    draw.line([(x - dx * end, y - dy * end), (x + dx * neck, y + dy * neck)], fill=colour, width=round(room / 8))
    wings = [(x + dx * neck - side * dy * tip, y + dy * neck + side * dx * tip) for side in (-1, 1)]
    draw.polygon([(x + dx * end, y + dy * end), *wings], fill=colour)
