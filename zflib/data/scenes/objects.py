"""The ten objects of the rendered world, each a list of shapes painted one over the other."""

from .shapes import Shape


def _polygon(at: tuple, points: tuple, paint: str = "body", name: str = "", **options) -> Shape:
    """Convex, its corners counted from `at`."""
    return Shape("polygon", at, paint=paint, name=name, points=points, **options)


def _eye(down: float, right: float, name: str, loose: int = 1) -> tuple[Shape, ...]:
    """White with a dark pupil."""
    return (
        Shape("ellipse", (down, right), (0.19, 0.17), "light", name, loose=loose),
        Shape("ellipse", (down + 0.02, right), (0.09, 0.09), "dark", loose=loose, line=0),
    )


def _wheel(right: float, name: str) -> tuple[Shape, ...]:
    return (
        Shape("ellipse", (0.42, right), (0.29, 0.29), "dark", name, loose=1),
        Shape("ellipse", (0.42, right), (0.13, 0.13), "light", loose=1, line=0),
    )


def _wings(side: int, name: str) -> tuple[Shape, ...]:
    return (
        Shape("ellipse", (0.4, 0.38 * side), (0.34, 0.3), "second", turn=40 * side, loose=1),
        Shape("ellipse", (-0.28, 0.5 * side), (0.36, 0.52), name=name, turn=30 * side),
        Shape("ellipse", (-0.36, 0.62 * side), (0.15, 0.15), "accent", loose=2),
        Shape("box", (-0.72, 0.16 * side), (0.22, 0.03), "dark", turn=-30 * side, line=0),
    )


def _petals() -> tuple[Shape, ...]:
    """Six around the heart: (down, right, turn) of their middles."""
    ring = ((-0.38, 0, 0), (-0.19, 0.33, -60), (0.19, 0.33, 60), (0.38, 0, 0), (0.19, -0.33, -60), (-0.19, -0.33, 60))
    return tuple(Shape("ellipse", (y - 0.32, x), (0.26, 0.19), turn=turn, loose=1) for y, x, turn in ring)


def _bell(side: int, name: str) -> tuple[Shape, ...]:
    return (
        Shape("box", (0.82, 0.5 * side), (0.18, 0.07), "dark", turn=30 * side, line=0),
        Shape("ellipse", (-0.72, 0.5 * side), (0.27, 0.27), "accent", name, loose=1),
    )


def _hand(length: float, width: float, spin: int) -> Shape:
    corners = ((-length, -width), (-length, width), (0.08, width), (0.08, -width))
    return _polygon((0.08, 0), corners, "dark", spin=spin, line=0)


#: class -> its shapes, the last on top. Left and right are the reader's, in an upright picture.
OBJECTS = {
    "face": (
        Shape("ellipse", (0.05, -0.76), (0.22, 0.15), "second"),
        Shape("ellipse", (0.05, 0.76), (0.22, 0.15), "second"),
        Shape("ellipse", (0, 0), (0.97, 0.76)),
        *_eye(-0.22, -0.31, "left eye"),
        *_eye(-0.22, 0.31, "right eye"),
        _polygon((0.12, 0), ((-0.22, 0), (0.12, 0.15), (0.12, -0.15)), "second", "nose", loose=2),
        Shape("half", (0.42, 0), (0.3, 0.4), "accent", "mouth", mark=(0.12, 0), loose=3),
    ),
    "car": (
        _polygon((0, 0), ((-0.68, -0.5), (-0.68, 0.25), (0, 0.62), (0, -0.75)), "second"),
        _polygon((-0.3, 0), ((-0.22, -0.4), (-0.22, 0.18), (0.2, 0.38), (0.2, -0.52)), "light", "window"),
        Shape("box", (-0.3, -0.1), (0.22, 0.04), "dark", line=0),
        Shape("box", (0.17, 0), (0.29, 1.0)),
        *_wheel(-0.55, "back wheel"),
        *_wheel(0.55, "front wheel"),
        Shape("ellipse", (0.07, 0.86), (0.14, 0.14), "accent", "light", loose=2),
    ),
    "house": (
        Shape("box", (-0.6, 0.45), (0.32, 0.13), "second", "chimney", mark=(-0.15, 0), loose=1),
        Shape("box", (0.38, 0), (0.55, 0.7)),
        _polygon((-0.4, 0), ((-0.58, 0), (0.28, 0.98), (0.28, -0.98)), "accent", "roof"),
        Shape("box", (0.6, -0.32), (0.33, 0.18), "dark", "door", loose=2),
        Shape("box", (0.32, 0.3), (0.22, 0.22), "light", "window", mark=(-0.1, -0.1), loose=3),
        Shape("box", (0.32, 0.3), (0.2, 0.03), "dark", line=0, loose=3),
        Shape("box", (0.32, 0.3), (0.03, 0.2), "dark", line=0, loose=3),
    ),
    "fish": (
        _polygon((0, -0.72), ((0, 0.35), (-0.48, -0.3), (0.48, -0.3)), "second", "tail", mark=(0, -0.1), loose=1),
        _polygon((-0.4, 0.05), ((-0.32, -0.3), (0.1, -0.42), (0.1, 0.4)), "second"),
        Shape("ellipse", (0, 0.16), (0.5, 0.78)),
        _polygon((0.1, 0), ((0, 0.2), (-0.2, -0.22), (0.26, -0.22)), "accent", "fin", loose=2),
        *_eye(-0.12, 0.55, "eye", loose=3),
    ),
    "flower": (
        Shape("box", (0.45, 0), (0.53, 0.06), "second", "stem", mark=(0.2, 0)),
        Shape("ellipse", (0.62, 0.3), (0.14, 0.3), "second", "leaf", turn=30, loose=2),
        Shape("ellipse", (0.72, -0.28), (0.12, 0.26), "second", turn=-30, loose=2),
        *_petals(),
        Shape("ellipse", (-0.32, 0), (0.23, 0.23), "accent", "heart", loose=3),
    ),
    "butterfly": (
        *_wings(-1, "left wing"),
        *_wings(1, "right wing"),
        Shape("ellipse", (0.05, 0), (0.62, 0.12), "dark", "trunk", line=0),
    ),
    "boat": (
        Shape("box", (-0.25, 0), (0.7, 0.05), "dark", line=0),
        _polygon((0, 0.35), ((-0.8, -0.28), (0.32, -0.28), (0.32, 0.45)), "light", "sail"),
        _polygon((0, -0.3), ((-0.55, 0.22), (0.32, 0.22), (0.32, -0.4)), "accent"),
        _polygon((-0.88, 0.14), ((-0.14, -0.14), (0, 0.24), (0.14, -0.14)), "second", "flag", loose=1),
        _polygon((0.62, 0), ((-0.25, -0.98), (-0.25, 0.98), (0.27, 0.62), (0.27, -0.68)), name="hull"),
    ),
    "tree": (
        Shape("box", (0.6, 0), (0.4, 0.15), "second", "trunk"),
        Shape("ellipse", (0.0, -0.42), (0.42, 0.42), loose=1),
        Shape("ellipse", (0.0, 0.42), (0.42, 0.42), loose=1),
        Shape("ellipse", (-0.5, 0), (0.46, 0.46), loose=1),
        Shape("ellipse", (-0.08, 0), (0.42, 0.42), name="crown", line=0),
        Shape("ellipse", (-0.52, -0.15), (0.13, 0.13), "accent", loose=2),
        Shape("ellipse", (0.08, -0.42), (0.13, 0.13), "accent", loose=2),
        Shape("ellipse", (-0.08, 0.4), (0.13, 0.13), "accent", "fruit", loose=2),
    ),
    "cup": (
        Shape("ring", (0.02, 0.64), (0.28, 0.09), "second", "handle", mark=(0, 0.28)),
        Shape("ellipse", (0.76, 0), (0.17, 0.92), "second", "saucer", mark=(0, -0.65)),
        _polygon((0.1, 0), ((-0.6, -0.68), (-0.6, 0.68), (0.62, 0.44), (0.62, -0.44))),
        Shape("ellipse", (-0.5, 0), (0.2, 0.68), "light", "rim", mark=(-0.12, 0)),
        Shape("ellipse", (-0.45, 0), (0.11, 0.52), "dark", line=0),
    ),
    "clock": (
        *_bell(-1, "left bell"),
        *_bell(1, "right bell"),
        Shape("ellipse", (0.08, 0), (0.84, 0.84)),
        Shape("ellipse", (0.08, 0), (0.62, 0.62), "light", "dial"),
        *(Shape("box", at, (0.05, 0.05), "dark", line=0) for at in ((-0.42, 0), (0.58, 0), (0.08, -0.5), (0.08, 0.5))),
        _hand(0.48, 0.05, 1),
        _hand(0.32, 0.07, 2),
    ),
}  # fmt: skip

#: Objects that look another way in the mirror and stay what they are; half of their pictures are mirrored.
SIDED = frozenset({"car", "house", "fish", "flower", "boat", "tree", "cup"})

CLASSES = tuple(OBJECTS)
PARTS = {name: tuple(shape.name for shape in shapes if shape.name) for name, shapes in OBJECTS.items()}
