"""How a scene comes about: its random numbers, its background, its object, and what is true of it."""

from dataclasses import replace

import numpy as np

from .objects import CLASSES, OBJECTS, SIDED
from .shapes import Place, Shape, paint
from .textures import PATTERNS, colour, tones

#: The ten kinds of background, by number; number c is the one that a cheating world gives to class c of CLASSES.
BACKGROUNDS = tuple(PATTERNS)

_UNIT = 0.345  # an object unit in sides of the picture: at most shift and scale an object still fits in
_CLUTTER = ("ellipse", "box", "ellipse")  # faint shapes that every background carries

#: What a scene draws, a uniform number in [0,1) each. New names go at the end: that leaves older scenes as they are.
_DRAWS = (
    "down", "right", "scale", "angle", "tall", "wide", "mirror", "background", "cheat",
    *(f"back_{what}" for what in ("turn", "period", "x", "y", "hue", "hue2", "light", "strength", "contrast")),
    "texture", *(f"skin_{what}" for what in ("turn", "period", "x", "y")),
    "hue", "hue2", "accent", "light", "contrast", "second", *(f"loose{i}" for i in (1, 2, 3)), "spin1", "spin2",
    *(f"clutter{i}_{what}" for i in range(len(_CLUTTER)) for what in ("down", "right", "tall", "wide", "turn", "hue")),
)  # fmt: skip
_COLUMNS = 64  # numbers set aside for every scene; a multiple of the four that one step of the generator yields


def draw_numbers(numbers: range, seed: int) -> np.ndarray:
    """(N,64) uniform numbers in [0,1); row i is a function of the seed and the scene's number alone."""
    generator = np.random.Philox(key=seed, counter=numbers.start * _COLUMNS // 4)
    return np.random.Generator(generator).random((len(numbers), _COLUMNS))


def named(table: np.ndarray) -> dict[str, np.ndarray]:
    """name -> (B,) of a table (B,64) of draws."""
    return dict(zip(_DRAWS, np.ascontiguousarray(table.T)))


def render(name: str, draw: dict, poses: np.ndarray, kinds: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """Pixels, masks and parts of B scenes of one class, at poses (B,4) on backgrounds of these kinds (B,)."""
    picture = _background(draw, kinds, size)
    place = _place(poses, draw, size, name in SIDED)
    fills, ink = _fills(place, draw, size)
    for shape in OBJECTS[name]:
        paint(picture, shape, _own_place(shape, place, draw), fills[shape.paint], ink)
    parts = [shape for shape in OBJECTS[name] if shape.name]
    points = [place.pixels(shape.at[0] + shape.mark[0], shape.at[1] + shape.mark[1]) for shape in parts]
    return {
        "pixels": np.clip(picture[:, :3] + np.float32(0.5), 0, 255).astype(np.uint8),
        "masks": picture[:, 3] > 0.5,
        "parts": np.stack(points, axis=1),
    }


def backgrounds(name: str, draw: dict, cheat: float) -> np.ndarray:
    """(B,) kinds: the class's own with probability `cheat`, else any."""
    kinds = (draw["background"] * len(BACKGROUNDS)).astype(np.int64)
    return np.where(draw["cheat"] < cheat, CLASSES.index(name), kinds)


def _place(poses: np.ndarray, draw: dict, size: int, sided: bool) -> Place:
    """Every object is up to a tenth taller or wider than its drawing, and mirrored half of the time if it has sides."""
    stretch = 0.9 + 0.2 * np.stack([draw["tall"], draw["wide"]], axis=1)
    stretch[:, 1] *= np.where(sided & (draw["mirror"] < 0.5), -1, 1)
    angle = np.deg2rad(poses[:, 3])
    return Place((size - 1) / 2 + poses[:, :2], _UNIT * size * poses[:, 2], angle, stretch, np.zeros_like(angle))


def _background(draw: dict, kinds: np.ndarray, size: int) -> np.ndarray:
    """(B,4,S,S) a pattern in two tones, both light or both dark, under faint clutter; it knows nothing of the pose."""
    n, light, strength = len(kinds), _back_light(draw), 14 + 30 * draw["back_strength"]
    still = Place(np.full((n, 2), (size - 1) / 2), np.full(n, size / 2), np.zeros(n), np.ones((n, 2)), np.zeros(n))
    step = (12 + 18 * draw["back_contrast"]) * np.where(draw["back_hue2"] < 0.5, -1, 1)
    first = colour(draw["back_hue"], light - step, strength, 0)
    second = colour(draw["back_hue"] + 0.4 * (draw["back_hue2"] - 0.5), light + step, strength, 0)
    picture = _mix(first, second, _texture(still, draw, "back", kinds, size))
    for i, kind in enumerate(_CLUTTER):
        veil = colour(draw[f"clutter{i}_hue"], light + step * (1, -1, 1)[i], strength + 20, 0)
        paint(picture, Shape(kind, (0, 0)), _clutter(draw, i, size), veil)
    return picture


def _back_light(draw: dict) -> np.ndarray:
    """(B,) mean of a background's colour: half of them are light, half dark."""
    value = draw["back_light"]
    return np.where(value < 0.5, 65 + 70 * value, 150 + 60 * value)


def _clutter(draw: dict, i: int, size: int) -> Place:
    drawn = {what: draw[f"clutter{i}_{what}"] for what in ("down", "right", "tall", "wide", "turn")}
    centre = size * np.stack([drawn["down"], drawn["right"]], axis=1)
    stretch = np.stack([np.ones_like(drawn["wide"]), 0.6 + drawn["wide"]], axis=1)
    angle = 2 * np.pi * drawn["turn"]
    return Place(centre, size * (0.05 + 0.11 * drawn["tall"]), angle, stretch, np.zeros_like(angle))


def _texture(place: Place, draw: dict, prefix: str, kinds: np.ndarray, size: int) -> np.ndarray:
    """(B,S,S) tones in [0,1] of a pattern that lies and turns with `place`: one to two periods a unit."""
    turned = replace(place, turn=2 * np.pi * draw[f"{prefix}_turn"])
    y, x = turned.coordinates(size)
    period = (1.1 + 0.9 * draw[f"{prefix}_period"]).astype(np.float32)[:, None, None]
    for axis, name in ((y, "y"), (x, "x")):
        axis *= period
        axis += (draw[f"{prefix}_{name}"] - 0.5).astype(np.float32)[:, None, None]
    return tones(kinds, x, y)


def _mix(first: np.ndarray, second: np.ndarray, tone: np.ndarray) -> np.ndarray:
    """(B,4,S,S): the colour `first` (B,4) where the tone is 0, `second` where it is 1."""
    mixed = (second - first)[:, :, None, None] * tone[:, None]
    mixed += first[:, :, None, None]
    return mixed


def _own_place(shape: Shape, place: Place, draw: dict) -> Place:
    """Where one shape of the object lies, with its own turn and size."""
    turn = np.full_like(place.unit, np.deg2rad(shape.turn))
    if shape.spin:
        turn += 2 * np.pi * draw[f"spin{shape.spin}"]
    size = 0.85 + 0.3 * draw[f"loose{shape.loose}"] if shape.loose else 1.0
    return replace(place, centre=place.pixels(*shape.at), unit=place.unit * size, turn=turn)


def _fills(place: Place, draw: dict, size: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What every paint of `Shape` is in these scenes, and the ink (B,3) of their outlines.

    An object on a light background is rather dark and the other way round; hues are free.
    """
    bright = _back_light(draw) < 120
    light = np.where(bright, 150, 95) + 30 * draw["light"]
    step = 22 + 26 * draw["contrast"]
    skin = colour(draw["hue"], light - step, 62), colour(draw["hue"] + 0.25 * (draw["hue2"] - 0.5), light + step, 62)
    kinds = (draw["texture"] * len(PATTERNS)).astype(np.int64)
    fills = {
        "body": _mix(*skin, _texture(place, draw, "skin", kinds, size)),
        "second": colour(draw["hue"] + 0.2 + 0.6 * draw["second"], light, 70),
        "accent": colour(draw["accent"], 135, 95),
        "light": colour(draw["hue2"], 236, 14),
        "dark": colour(draw["hue2"], 52, 18),
    }
    return fills, colour(draw["hue"], 26, 14)
