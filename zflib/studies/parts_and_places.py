"""Part or place? Rendered faces that lie differently, each of their parts masked; Figure 8 and Table 1 drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn

from .. import show
from ..data.scenes import FRONTAL, Pose, Scenes, scenes
from ..experiments.occluders import boxes_around, masked
from ..experiments.part_correspondence import expected_distances, hamming_distances
from ..record.hooks import watched

PARTS = ("right eye", "left eye", "nose", "mouth")  # right and left are the viewer's
SIZE = 11  # pixels of 56, the side of a square
CLOSE = 2  # pixels: squares no further apart, in both directions, lie at the same place
#: Two ways for a face to lie, at the ends of what `scenes56` was trained with.
POSES = ({"angle": 15.0, "scale": 0.8}, {"angle": -15.0, "scale": 1.2})
CONTROL, PART, PLACE = "#8c8c8c", "#0072b2", "#d55e00"  # told apart by the colour-blind


# --- faces that lie differently --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MovedFaces:
    """K masked faces: `signs` of each layer (K,D), and (K,) each: which face, in which pose, which part lies in the
    middle of the image, which part is covered; `corners` (K,2) of the square, row and column.
    """

    signs: dict[str, torch.Tensor]
    faces: torch.Tensor
    poses: torch.Tensor
    middles: torch.Tensor
    parts: torch.Tensor
    corners: torch.Tensor

    def pairs(self) -> torch.Tensor:
        """(K,K) bool: pairs of two different faces that lie differently."""
        return (self.faces[:, None] != self.faces) & (self.poses[:, None] != self.poses)

    def same_part(self) -> torch.Tensor:
        """(K,K) bool: the same part is covered in both."""
        return self.parts[:, None] == self.parts

    def same_place(self) -> torch.Tensor:
        """(K,K) bool: the two squares lie at the same place, at most CLOSE pixels apart."""
        return self._apart() <= CLOSE

    def other_place(self) -> torch.Tensor:
        """(K,K) bool: the two squares share no pixel."""
        return self._apart() >= SIZE

    def same_middle(self) -> torch.Tensor:
        """(K,K) bool: the same part lies in the middle of both images, so much of the two faces lies alike."""
        return self.middles[:, None] == self.middles

    def _apart(self) -> torch.Tensor:
        return (self.corners[:, None] - self.corners).abs().amax(dim=2)


@torch.no_grad()
def moved_faces(net: nn.Module, layers: Sequence[str], numbers: range = range(12)) -> MovedFaces:
    """Every part of every face masked, in eight versions of each: two poses, and each part in the middle once.

    `numbers` are those of the rendered faces; `net` takes scenes. A part therefore lies at many places, and at every
    place lie different parts, but no two faces of a pair lie alike; see POSES.
    """
    signs, rows = {layer: [] for layer in layers}, []
    for pose, turned in enumerate(POSES):
        for middle, name in enumerate(PARTS):
            faces = _with_in_the_middle(name, numbers, turned)
            images, margin = net.preprocess(faces.pixels), _margin(net)
            images = images.to(next(net.parameters()).device)
            with watched(net, layers) as look:
                before = _flat(look(images)[0])
                for part, covered in enumerate(PARTS):
                    boxes = boxes_around(faces.part(covered) - margin, SIZE, tuple(images.shape[-2:]))
                    after = _flat(look(masked(images, boxes))[0])
                    for layer in layers:
                        signs[layer].append((before[layer] - after[layer]).sign().to(torch.int8).cpu())
                    given = torch.tensor([[face, pose, middle, part] for face in numbers])
                    rows.append(torch.cat([given, boxes[:, :2]], dim=1))
    face, pose, middle, part, top, left = torch.cat(rows).T
    signs = {layer: torch.cat(found) for layer, found in signs.items()}
    return MovedFaces(signs, face, pose, middle, part, torch.stack([top, left], dim=1))


def _with_in_the_middle(part: str, numbers: range, turned: Mapping) -> Scenes:
    """The faces, turned, and moved so that on average this part lies in the middle of the picture."""
    found = scenes(numbers, classes="face", pose=Pose.exactly(**turned))
    down, right = ((found.pixels.shape[-1] - 1) / 2 - found.part(part).mean(dim=0)).round().tolist()
    return scenes(numbers, classes="face", pose=Pose.exactly(down=down, right=right, **turned))


def _margin(net: nn.Module) -> int:
    return (net.geometry.resize - net.geometry.crop) // 2


def _flat(values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {layer: units.flatten(1).clone() for layer, units in values.items()}


def against_chance(signs: torch.Tensor, pairs: torch.Tensor) -> float:
    """The score of these pairs (K,K) bool of (K,D) signs, divided by what chance gives for changes as dense."""
    return float(hamming_distances(signs)[pairs].mean() / expected_distances(signs)[pairs].mean())


def four_kinds(found: MovedFaces, layer: str) -> torch.Tensor:
    """(2,2) scores against chance at a layer: rows the same part, another one; columns the same place, another one."""
    score, null = hamming_distances(found.signs[layer]), expected_distances(found.signs[layer])
    cells = torch.zeros(2, 2)
    for row, part in enumerate((found.same_part(), ~found.same_part())):
        for column, place in enumerate((found.same_place(), found.other_place())):
            pairs = found.pairs() & part & place
            cells[row, column] = score[pairs].mean() / null[pairs].mean()
    return cells


# --- pictures --------------------------------------------------------------------------------------------------------

TILE, BARS, GAP, SHOWN = 308, 400, 8, 5  # pixels, twice those of a page; faces in a row
FULL = 0.36  # the score at the right end of the bars


def figure8(net: nn.Module, rows: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> np.ndarray:
    """(H,2000,3) uint8: Figure 8 and Table 1 in one. A row: five faces, a square of each covered, and the row's score.

    `rows` by name: (boxes (N,4) for the first frontal faces, scores (S,) of S sets of faces). The faces are drawn finer
    than the network sees them. A bar is the mean over the sets, its whisker one standard deviation to either side.
    """
    scale = TILE / net.geometry.crop
    faces = scenes(SHOWN, classes="face", pose=FRONTAL, size=round(net.geometry.resize * scale))
    cut = round(_margin(net) * scale)
    grey = show.image_pixels(torch.zeros(3, 8, 8), net)[0, 0]
    pictures = []
    for boxes, _ in rows.values():
        for face, box in zip(faces.pixels, boxes[:SHOWN].tolist()):
            pixels = face[:, cut : cut + TILE, cut : cut + TILE].permute(1, 2, 0).numpy().copy()
            top, left, bottom, right = (round(edge * scale) for edge in box)
            pixels[top:bottom, left:right] = grey
            pictures.append(pixels)
    sheet = show.mosaic(pictures, columns=SHOWN, gap=GAP)
    names = list(rows)
    bars = [_bar(name, rows[name][1], _colour(name, names)) for name in names]
    return show.beside([sheet, show.mosaic(bars, columns=1, gap=GAP)], gap=28)


def _colour(name: str, names: Sequence[str]) -> str:
    """Blue for parts; the last row, the same place in all, is orange, random places are grey."""
    if name in PARTS:
        return PART
    return PLACE if name == names[-1] else CONTROL


def _bar(name: str, scores: torch.Tensor, colour: str) -> np.ndarray:
    """(TILE,BARS,3) uint8: the name of a row, its score as a bar, and as a number."""
    image = Image.new("RGB", (BARS, TILE), "white")
    draw, mean, spread = ImageDraw.Draw(image), float(scores.mean()), float(scores.std())
    at = [round(value / FULL * (BARS - 20)) for value in (mean - spread, mean, mean + spread)]
    draw.text((4, 60), name, fill="black", font=show.font(30))
    draw.rectangle((4, 116, at[1], 186), fill=colour)
    draw.line((at[0], 151, at[2], 151), fill="black", width=4)
    for end in (at[0], at[2]):
        draw.line((end, 138, end, 164), fill="black", width=4)
    draw.text((4, 198), f"{mean:.3f} ± {spread:.3f}", fill="black", font=show.font(30))
    return np.asarray(image)


#: Examples of the four kinds of pairs: (part in the middle, part covered) of a small face and of a large one.
EXAMPLES = {
    "same part, same place": (("left eye", "left eye"), ("left eye", "left eye")),
    "same part, other place": (("mouth", "left eye"), ("left eye", "left eye")),
    "other part, same place": (("mouth", "mouth"), ("left eye", "left eye")),
    "other part, other place": (("left eye", "mouth"), ("left eye", "left eye")),
}
FINE = 4  # times as many pixels as the network sees, in pictures of examples


def four_examples() -> np.ndarray:
    """(H,2000,3) uint8: a pair of faces for each of the four kinds, a square on each; see `moved_faces`."""
    cells = []
    for title, pair in EXAMPLES.items():
        faces = [_example(number, POSES[number], *names) for number, names in enumerate(pair)]
        cells.append(show.caption(show.beside(faces, gap=GAP), title, size=30))
    return show.mosaic(cells, columns=2, gap=40)


def _example(number: int, turned: Mapping, middle: str, covered: str) -> np.ndarray:
    """One face with this part in the middle and that part covered, and lines through the middle of the picture."""
    known = _with_in_the_middle(middle, range(number, number + 1), turned)
    down, right = known.pose[0, :2].tolist()
    pose = Pose.exactly(down=down * FINE, right=right * FINE, **turned)
    face = scenes(range(number, number + 1), classes="face", pose=pose, size=64 * FINE)
    pixels = face.pixels[0, :, 4 * FINE : 60 * FINE, 4 * FINE : 60 * FINE].permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels).resize((480, 480), Image.LANCZOS)
    draw, scale = ImageDraw.Draw(image), 480 / 56
    top, left, bottom, right = (edge * scale for edge in boxes_around(known.part(covered) - 4, SIZE, 56)[0].tolist())
    draw.rectangle((left, top, right - 1, bottom - 1), fill=(128, 128, 128), outline="black", width=3)
    for line in ((0, 240, 480, 240), (240, 0, 240, 480)):
        draw.line(line, fill="white", width=2)
    return np.asarray(image)


def draw_four(ax: show.Axes, sets: torch.Tensor, title: str) -> show.Axes:
    """The four kinds of pairs of one layer: (S,2,2) of S sets of faces, their mean in colour, with its spread."""
    return draw_cells(ax, sets, title, rows=("same\npart", "other\npart"), columns=("same place", "other place"))


def draw_cells(ax: show.Axes, sets: torch.Tensor, title: str, *, rows: Sequence, columns: Sequence) -> show.Axes:
    """(S,R,C) scores against chance: their mean over S sets in colour, the darker the more alike, ± deviation."""
    mean = sets.mean(dim=0)
    drawn = ax.imshow(1 - mean, cmap="Blues", vmin=0, vmax=0.75)
    for row in range(len(rows)):
        for column in range(len(columns)):
            here, ink = sets[:, row, column], show.black_or_white(drawn.to_rgba(1 - float(mean[row, column])))
            ax.text(column, row - 0.04, f"{here.mean():.2f}", ha="center", va="center", fontsize=17, color=ink)
            if len(here) > 1:
                spread = f"± {here.std():.3f}"
                ax.text(column, row + 0.27, spread, ha="center", va="center", fontsize=10, color=ink)
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.set_xticks([column + 0.5 for column in range(len(columns) - 1)], minor=True)
    ax.set_yticks([row + 0.5 for row in range(len(rows) - 1)], minor=True)
    ax.grid(which="minor", color="white", lw=4)
    ax.tick_params(which="both", length=0)
    ax.spines[:].set_visible(False)
    ax.set_title(title)
    return ax
