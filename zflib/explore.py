"""Panels to play with: thin ipywidgets over `show` and `views`, no maths. The only room that imports ipywidgets."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import ipywidgets as widgets
import numpy as np
import torch
from PIL import Image
from torch import nn

from . import crops, data
from .checks import check_choice, check_layer
from .deconv import RULES
from .occluder import Occluder
from .units import Units, describe_unit, unit_pixels
from .views import View, activation_pixels, describe, open_photo

SEEN = (nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.Linear)  # modules offered as layers of a network that names none


class Panel(widgets.VBox):
    """Controls above one picture that follows them, the picture in words, and a line for errors.

    `draw(**values)` gives (H,W,3) uint8 pixels, or (pixels, words); `controls` are widgets by the names of its
    arguments. What `draw` raises at first is raised; later it is shown in `status` and the last picture stays.
    `picture`, `words` and `status` are widgets; where no kernel runs, the picture last drawn is shown as it is.
    """

    _ipython_display_ = None  # ipywidgets 7 would display by this and never ask for the picture

    def __init__(self, draw: Callable, controls: Mapping[str, widgets.Widget]):
        self._draw, self.controls, self._drawn, self._busy = draw, dict(controls), None, False
        self.picture = widgets.Image(format="jpeg", layout=widgets.Layout(max_width="100%", align_self="flex-start"))
        self.words, self.status = widgets.HTML(), widgets.HTML()
        row = widgets.HBox(list(self.controls.values()), layout=widgets.Layout(flex_flow="row wrap"))
        self._show()
        super().__init__([row, self.picture, self.words, self.status])
        self.add_class("zf-fast")
        for control in self.controls.values():
            control.observe(self._follow, names="value")

    @property
    def values(self) -> dict:
        """What the controls say now, by name."""
        return {name: control.value for name, control in self.controls.items()}

    def redraw(self) -> None:
        """Draw what the controls say; an exception goes to the status line: front ends hide those of callbacks."""
        try:
            self._show()
        except Exception as error:
            message = html.escape(f"{type(error).__name__}: {error}")
            self.status.value = f'<p role="alert" style="color:#b00020;margin:0">{message}</p>'
        else:
            self.status.value = ""

    def png(self) -> bytes:
        """The picture last drawn, as a PNG file."""
        return _encoded(self.pixels, "PNG", optimize=True)

    def _follow(self, change: dict) -> None:
        if not self._busy and self.values != self._drawn:  # a control that `draw` itself moved is drawn already
            self.redraw()

    def _show(self) -> None:
        self._busy = True
        try:
            drawn = self._draw(**self.values)
            self.pixels, text = drawn if isinstance(drawn, tuple) else (drawn, "")
            self.picture.value = _encoded(_checked(self.pixels), "JPEG", quality=90, subsampling=0)
            self.text = text
            self.words.value = f'<p aria-live="polite" style="margin:0;line-height:1.5">{html.escape(text)}</p>'
        finally:
            self._busy, self._drawn = False, self.values

    def _repr_mimebundle_(self, include=None, exclude=None, **kwargs) -> dict:
        bundle = {"text/plain": self.text or "a panel of controls and one picture"}
        bundle["image/png"] = base64.b64encode(self.png()).decode()
        if self.comm is not None:  # None once closed
            view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
            bundle["application/vnd.jupyter.widget-view+json"] = view
        return bundle


def _checked(pixels) -> np.ndarray:
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        what = f"{pixels.dtype} {tuple(pixels.shape)}" if hasattr(pixels, "shape") else type(pixels).__name__
        raise TypeError(
            f"draw must give a uint8 array (H,W,3), got {what}; show.image_pixels and show.beside make them"
        )
    return pixels


def _encoded(pixels: np.ndarray, format: str, **settings) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **settings)
    return file.getvalue()


def panel(draw: Callable, /, **controls) -> Panel:
    """A `Panel` that shows draw(**values): (H,W,3) uint8 pixels, or (pixels, words that describe them).

    Each control is (low, high) or (low, high, start) for a slider of whole or real numbers, a list or a dict
    label -> value for a menu, True or False for a tick, or a widget of yours. Another value raises TypeError.
    """
    if not callable(draw):
        raise TypeError(f"draw must be a function that gives (H,W,3) uint8 pixels, got {type(draw).__name__}")
    return Panel(draw, {name: _control(name, choice) for name, choice in controls.items()})


def _control(name: str, choice) -> widgets.Widget:
    if isinstance(choice, widgets.Widget):
        return choice
    label = name.replace("_", " ")
    if isinstance(choice, bool):
        return widgets.Checkbox(value=choice, description=label, indent=False)
    if isinstance(choice, tuple) and len(choice) in (2, 3) and all(isinstance(n, int | float) for n in choice):
        low, high, start = (*choice, choice[0])[:3]
        if not low <= start <= high:
            raise ValueError(f"{name} must be (low, high) or (low, high, start) with start between them, got {choice}")
        kind = widgets.IntSlider if all(isinstance(n, int) for n in choice) else widgets.FloatSlider
        step = {} if kind is widgets.IntSlider else {"step": (high - low) / 100 or 0.1}
        return kind(value=start, min=low, max=high, description=label, layout=widgets.Layout(width="420px"), **step)
    if isinstance(choice, list | dict) and choice:
        return widgets.Dropdown(options=list(choice.items()) if isinstance(choice, dict) else choice, description=label)
    raise TypeError(f"{name} must be (low, high), a list, a dict, True or False, or a widget, got {choice!r}")


def stepper(frames: Sequence[np.ndarray] | Callable, *, labels: Sequence[str] | None = None) -> Panel:
    """A slider through frames: a list of (H,W,3) uint8 arrays, or frame(i) that gives number i of len(labels), from 0.

    `labels` are the words under each step. Frames and labels of different numbers raise ValueError.
    """
    if labels is None and callable(frames):
        raise ValueError("labels are needed with a function: they say how many frames it gives")
    labels = [""] * len(frames) if labels is None else list(labels)
    if not labels or (not callable(frames) and len(frames) != len(labels)):
        number = "a function" if callable(frames) else f"{len(frames)} frames"
        raise ValueError(f"labels must be one for each frame and at least one, got {len(labels)} for {number}")

    def draw(step: int) -> tuple[np.ndarray, str]:
        pixels = frames(step - 1) if callable(frames) else frames[step - 1]
        return pixels, f"Step {step} of {len(labels)}" + (f": {labels[step - 1]}" if labels[step - 1] else "")

    return panel(draw, step=(1, len(labels)))


# --- the explorer of layers ------------------------------------------------------------------------------------------


def layers(
    net: nn.Module, images=None, *, layer: str | None = None, rule: str = "deconvnet", layers=None, preprocess=None
) -> Panel:
    """Explore `net`: choose photograph, layer, channel and rule; see where the channel is strongest, and why.

    `images`: dict name -> image, a list, or None for the shipped photographs; an image is a photograph's name, a path,
    a PIL image, a uint8 array or an already prepared float tensor (3,H,W). For a network that is not ours give
    `preprocess`, from one PIL image to (3,H,W) or (1,3,H,W), and `layers`, the module paths to choose from.
    `layer` is the first one shown, by default conv5 or the last choice. Bad input raises ValueError or TypeError.
    """
    names = _layers_of(net, layers)
    for name in [*names, *([] if layer is None else [layer])]:
        check_layer(net, name)
    check_choice("rule", rule, RULES)
    sources = _named(images)
    explorer = _Explorer(net, sources, preprocess)
    layer = layer or ("conv5" if "conv5" in names else names[-1])
    names = names if layer in names else [*names, layer]
    return explorer.panel(layer, names, rule)


def _layers_of(net: nn.Module, layers) -> list[str]:
    if not isinstance(net, nn.Module):
        raise TypeError(f"net must be a torch network (nn.Module), got {type(net).__name__}")
    if isinstance(layers, str):
        raise TypeError(
            f"layers must be a list of layer names, got {layers!r}; use layer= to choose the first one shown"
        )
    names = getattr(net, "layer_names", None) or [
        path for path, m in net.named_modules() if path and isinstance(m, SEEN)
    ]
    names = list(names if layers is None else layers)
    if not names:
        raise ValueError("layers is empty; give at least one module path of net.named_modules()")
    return names


def _named(images) -> dict[str, object]:
    """name -> image as it was given; none is opened before it is chosen."""
    if images is None:
        images = data.photo_names()
    if isinstance(images, Mapping):
        named = {str(name): image for name, image in images.items()}
    else:
        one = isinstance(images, str | os.PathLike | Image.Image) or getattr(images, "ndim", 0) == 3
        images = [images] if one else list(images)
        named = {_label(image, i): image for i, image in enumerate(images, start=1)}
        if len(named) < len(images):  # two files of one name in different folders
            named = {f"{i} {_label(image, i)}": image for i, image in enumerate(images, start=1)}
    if not named:
        raise ValueError("images is empty; give at least one image, or leave it out for the shipped photographs")
    return named


def _label(image, number: int) -> str:
    return os.path.basename(os.fsdecode(image)) if isinstance(image, str | os.PathLike) else f"image {number}"


class _Explorer:
    """Draws what `layers` shows; keeps the last few forward passes, so that a step of the slider only walks down."""

    def __init__(self, net: nn.Module, sources: dict[str, object], preprocess: Callable | None):
        if preprocess is None and not hasattr(net, "preprocess"):
            raise ValueError("preprocess is needed for this network: a function from one PIL image to (3,H,W)")
        self.net, self.sources, self.preprocess = net, sources, preprocess or net.preprocess
        self.image = lru_cache(maxsize=16)(self._image)
        self.view = lru_cache(maxsize=8)(self._view)
        self.channel = widgets.IntSlider(description="channel", layout=widgets.Layout(width="420px"))

    def panel(self, layer: str, names: list[str], rule: str) -> Panel:
        first = self.view(next(iter(self.sources)), layer, rule)
        self.channel.max = len(first.values) - 1
        self.channel.value = first.strongest(1)[0]
        narrow = widgets.Layout(width="230px")
        menus = {"photo": (self.sources, None), "layer": (names, layer), "rule": (RULES, rule)}
        controls = {
            name: widgets.Dropdown(
                options=list(options), value=value or next(iter(options)), description=name, layout=narrow
            )
            for name, (options, value) in menus.items()
        }
        return Panel(self.draw, controls | {"channel": self.channel})

    def draw(self, photo: str, layer: str, rule: str, channel: int) -> tuple[np.ndarray, str]:
        view = self.view(photo, layer, rule)
        self.channel.max = len(view.values) - 1
        channel = min(channel, self.channel.max)
        return activation_pixels(view, channel, photo), describe(view, channel, photo)

    def _view(self, photo: str, layer: str, rule: str) -> View:
        return View(self.net, self.image(photo), layer, rule=rule)

    def _image(self, photo: str) -> torch.Tensor:
        source = self.sources[photo]
        if isinstance(source, torch.Tensor) and source.is_floating_point():
            return source
        image = self.preprocess(open_photo(source))
        image = image[0] if isinstance(image, torch.Tensor) and image.dim() == 4 and len(image) == 1 else image
        if not isinstance(image, torch.Tensor) or image.dim() != 3:
            what = tuple(image.shape) if hasattr(image, "shape") else type(image).__name__
            raise ValueError(f"preprocess must give one tensor (3,H,W) for one PIL image, got {what}")
        return image


# --- the explorer of units -------------------------------------------------------------------------------------------


def units(net: nn.Module, images=None, *, layers=None, layer: str | None = None, **found) -> Panel:
    """Figure 2 for every channel: sliders for layer and channel; nine projections, nine patches, the map, the classes.

    `images`: a folder of yours, a tensor, an array or a data set, as `find_peaks` takes them; None: windows of the
    shipped photographs. They are searched first, 200 images a second, unless `peaks` of an earlier search or a
    gallery's are given. `labels` (N,) say the classes (indices into net.classes, or `classes`); `preprocess` and
    `layers` are for networks that are not ours. `layer` is the first one shown, by default the last. Bad input raises
    ValueError or TypeError.
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"net must be a torch network (nn.Module), got {type(net).__name__}")
    pixels = crops.windows(side=net.geometry.resize).pixels if images is None and hasattr(net, "geometry") else images
    known = Units(net, pixels, layers=layers, **found)
    check_choice("layer", layer or known.layers[-1], known.layers)
    wide = widgets.Layout(width="420px")
    start = layer or known.layers[-1]
    which = widgets.SelectionSlider(options=known.layers, value=start, description="layer", layout=wide)
    slider = widgets.IntSlider(max=known.channels(start) - 1, description="channel", layout=wide)

    def draw(layer: str, channel: int) -> tuple[np.ndarray, str]:
        slider.max = known.channels(layer) - 1
        unit = known.unit(layer, min(channel, slider.max))
        return unit_pixels(unit), describe_unit(unit, known.names(unit))

    return Panel(draw, {"layer": which, "channel": slider})


# --- the explorer of occlusion ---------------------------------------------------------------------------------------


def occlusion(
    net: nn.Module, image: torch.Tensor, *, label: int | None = None, layer: str = "conv5", fill=0.0
) -> Panel:
    """Figure 7 to play with: sliders for the square's row, column and size; six pictures that follow.

    `image` is one preprocessed (3,H,W) image; `label`, `layer` and `fill` as in `zflib.occlude`. The maps over all
    positions, nine by nine of them, are computed beforehand for every size, a second or two.
    """
    image = image[0] if image.dim() == 4 and len(image) == 1 else image
    square = Occluder(net, image, label=label, layer=layer, fill=fill)
    height, width = square.image.shape[1:]
    size, wide = max(4, min(height, width) // 4), widgets.Layout(width="420px")
    sides = list(range(4, min(height, width) + 1, 4))
    for side in sides:
        square.maps(side)
    controls = {
        "row": widgets.IntSlider(value=(height - size) // 2, max=height - 4, description="row", layout=wide),
        "column": widgets.IntSlider(value=(width - size) // 2, max=width - 4, description="column", layout=wide),
        "size": widgets.SelectionSlider(options=sides, value=size - size % 4, description="size", layout=wide),
    }

    def draw(row: int, column: int, size: int) -> tuple[np.ndarray, str]:
        row, column = min(row, height - size), min(column, width - size)
        return square.pixels(row, column, size), square.describe(row, column, size)

    return Panel(draw, controls)
