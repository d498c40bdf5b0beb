"""Controls, one picture that follows them, and its words: what every explorer is made of."""

from __future__ import annotations

import base64
import html
import io
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import ipywidgets as widgets
import numpy as np
from PIL import Image

from .. import show

try:  # a click or a drag in the picture, where this is installed
    from ipyevents import Event
except ImportError:
    Event = None

CURSOR = "<style>.zf-pointer { cursor: crosshair; touch-action: none }</style>"
ALERT = "color:#b00020;background:#ffffff;margin:0"  # read in light themes and in dark ones
FRAMES = 12  # at most, of an animation that is stored


class Panel(widgets.VBox):
    """Controls above one picture that follows them, the picture in words, and a line for errors.

    `draw(**values)` gives (H,W,3) uint8 pixels, or (pixels, words); `controls` are widgets by the names of its
    arguments. What `draw` raises at first is raised; later it is shown in `status` and the last picture stays.
    `picture`, `words` and `status` are widgets; where no kernel runs, the picture last drawn is shown as it is.
    `frames`: pictures, or values of some controls as dicts, that the stored picture plays one after the other.
    Controls may be moved from any thread: pictures are drawn one after the other, the last one of the last values.

    `pointer(x, y, start)` says what a press or a drag in the picture means: the values of the controls to set, by name.
    x and y are the column and the row in the pixels of the picture, `start` where the button went down, (x, y). It
    needs ipyevents; without, the controls do everything.
    """

    _ipython_display_ = None  # ipywidgets 7 would display by this and never ask for the picture

    def __init__(self, draw: Callable, controls: Mapping[str, widgets.Widget], *, pointer: Callable | None = None):
        self._draw, self.controls, self._drawn, self._pointer = draw, dict(controls), {}, pointer
        self.frames: Sequence[np.ndarray | dict] = ()
        self._lock, self._moving = threading.RLock(), None  # the thread that moves controls and then draws, if one does
        self.picture = widgets.Image(format="jpeg", layout=widgets.Layout(max_width="100%", align_self="flex-start"))
        self.words, self.status = widgets.HTML(), widgets.HTML()
        row = widgets.HBox(list(self.controls.values()), layout=widgets.Layout(flex_flow="row wrap"))
        self._show()
        super().__init__([row, self.picture, self.words, self.status])
        self.add_class("zf-fast")
        for name, control in self.controls.items():
            control.observe(partial(self._follow, name), names="value")
        if pointer and Event:
            self.picture.add_class("zf-pointer")
            self.children = [*self.children, widgets.HTML(CURSOR)]
            self._presses = _Presses(self)
            _hear_at_once(self._presses.event)
        _hear_at_once(*self.controls.values())

    @property
    def values(self) -> dict:
        """What the controls say now, by name."""
        return {name: control.value for name, control in self.controls.items()}

    def redraw(self) -> None:
        """Draw what the controls say; an exception goes to the status line: front ends hide those of callbacks."""
        with self._lock:
            self._safely(self._show)

    def point(self, x: int, y: int, start: tuple[int, int]) -> None:
        """What a pointer at column x and row y of the picture does that was pressed at `start`; one picture follows."""
        with self._lock:
            self._safely(lambda: self._move(self._pointer(x, y, start)))

    def _move(self, values: Mapping) -> None:
        before, self._moving = self.values, threading.get_ident()
        try:
            for name, value in values.items():
                self.controls[name].value = value
        finally:
            self._moving = None
        if self.values != before:
            self._show()

    def _safely(self, action: Callable) -> None:
        try:
            action()
        except Exception as error:
            message = html.escape(f"{type(error).__name__}: {error}")
            self.status.value = f'<p role="alert" style="{ALERT}">{message}</p>'
        else:
            self.status.value = ""

    def _follow(self, name: str, change: dict) -> None:
        if self._moving == threading.get_ident():  # several move together, or `draw` itself moved one and knows
            self._drawn[name] = change["new"]
            return
        with self._lock:  # another thread may be drawing what the controls said before
            if self.values != self._drawn:
                self.redraw()

    def _show(self) -> None:
        self._moving, self._drawn = threading.get_ident(), self.values
        try:
            drawn = self._draw(**self._drawn)
            self.pixels, self.text = drawn if isinstance(drawn, tuple) else (drawn, "")
            self.picture.value = _encoded(_checked(self.pixels), "JPEG", quality=90, subsampling=0)
            self.words.value = f'<p aria-live="polite" style="margin:0;line-height:1.5">{html.escape(self.text)}</p>'
        finally:
            self._moving = None
            _hear_at_once(*self.controls.values())

    def _repr_mimebundle_(self, include=None, exclude=None, **kwargs) -> tuple[dict, dict]:
        png, words = self._stored()
        bundle = {"text/plain": self.text or "a panel of controls and one picture"}
        bundle["image/png"] = base64.b64encode(png).decode()
        if self.comm is not None:  # None once closed
            view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
            bundle["application/vnd.jupyter.widget-view+json"] = view
        return bundle, {"image/png": {"alt": words}}

    def _stored(self) -> tuple[bytes, str]:
        """The PNG for where no kernel runs, and its words: `frames` as an animation, else the picture last drawn."""
        if not self.frames:
            said = self.text or f"a picture set by {', '.join(self.controls)}".replace("_", " ")
            return _encoded(self.pixels, "PNG", optimize=True), said
        with self._lock:
            drawn = self._frames_drawn()
        drawn = [one if isinstance(one, tuple) else (one, "") for one in drawn]
        pixels, words = zip(*drawn)
        told = [f"{when}: {said}" for when, said in zip(("first", "last"), (words[0], words[-1])) if said]
        return show.animated(pixels), "; ".join([f"an animation of {len(drawn)} pictures", *told])

    def _frames_drawn(self) -> list:
        """What `draw` gives for each frame. The controls that it moves for them move nothing else, and then go back."""
        self._moving, values = threading.get_ident(), self.values
        try:
            drawn = [self._draw(**values | f) if isinstance(f, dict) else f for f in self.frames]
        finally:
            self._moving = None
        self._show()
        return drawn


def _hear_at_once(*controls: widgets.Widget) -> None:
    """Let them hear the front end while a cell runs, in the thread (subshell) that JupyterLab keeps for widgets.

    ipykernel 7.4 delivers to a widget where it spoke last itself, which is the cell that made or changed it, and there
    it waits until the cell is done. Kernels without that memory are left as they are.
    """
    for control in controls:
        if control.comm is not None:  # None once closed
            vars(control.comm).pop("_reply_subshell_id", None)


class _Presses:
    """Tells `point(x, y, start)` where in the picture the pointer is held, until it is let go or leaves the picture.

    Moves come as the state `xy`, of which a front end sends only the last one when the kernel is slow: no drag lags.
    Places come in pixels of the page. In those of the picture, "data", a browser answers (0, 0) while a picture loads.
    """

    def __init__(self, panel: Panel):
        self._panel, self._start, self._scale = panel, None, (1.0, 1.0)
        self.event = Event(source=panel.picture, watched_events=list(_HELD), xy_coordinate_system="relative", wait=30,
                           throttle_or_debounce="throttle", prevent_default_action=True)  # fmt: skip
        self.event.on_dom_event(self._on_event)
        self.event.observe(self._on_move, names="xy")

    def _on_event(self, event: dict) -> None:
        touches = event.get("changedTouches")
        place = touches[0] if touches else event
        here = place["relativeX"], place["relativeY"]
        if event["event"] in ("mousedown", "touchstart"):
            rows, columns = self._panel.pixels.shape[:2]
            self._scale = columns / place["boundingRectWidth"], rows / place["boundingRectHeight"]
            self._start = self._in_picture(here)
        self._to(here)
        if event["event"] in ("mouseup", "mouseleave", "touchend"):
            self._start = None

    def _on_move(self, change: dict) -> None:
        if change["new"]:  # the front end empties it when the picture is shown once more
            self._to(change["new"])

    def _to(self, here: Sequence[float]) -> None:
        if self._start is not None:
            self._panel.point(*self._in_picture(here), self._start)

    def _in_picture(self, here: Sequence[float]) -> tuple[int, int]:
        """Pixels of the page, from the picture's corner -> column and row of the picture."""
        return tuple(round(place * scale) for place, scale in zip(here, self._scale))


_HELD = ("mousedown", "mouseup", "mouseleave", "touchstart", "touchmove", "touchend")


class Placing(threading.local):
    """`with placing:` this thread moves controls itself; whoever watches them can tell it from the learner's moves."""

    now = False

    def __enter__(self) -> None:
        self.now = True

    def __exit__(self, *error) -> None:
        self.now = False


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


def slider(name: str, low: float, high: float, start: float, *, step: float | None = None) -> widgets.Widget:
    """A slider over whole numbers, or over real ones if there is a step."""
    kind, more = (widgets.IntSlider, {}) if step is None else (widgets.FloatSlider, {"step": step})
    return kind(value=start, min=low, max=high, description=name, layout=widgets.Layout(width="420px"), **more)


def list_slider(name: str, values: Sequence, start) -> widgets.SelectionSlider:
    """A slider over the values of a list."""
    wide = widgets.Layout(width="420px")
    return widgets.SelectionSlider(options=values, value=start, description=name, layout=wide)


def menu(name: str, values: Sequence, start) -> widgets.Dropdown:
    """A menu of the values, narrow enough for two side by side."""
    narrow = widgets.Layout(width="230px")
    return widgets.Dropdown(options=list(values), value=start, description=name, layout=narrow)


def panel(draw: Callable, /, **controls) -> Panel:
    """A `Panel` that shows draw(**values): (H,W,3) uint8 pixels, or (pixels, words that describe them).

    Each control is (low, high) or (low, high, start) for a slider of whole or real numbers, (values, start) for one
    over the numbers in a list, a list or a dict label -> value for a menu, True or False for a tick, or a widget of
    yours. Another value raises TypeError.
    """
    return Panel(draw, {name: _control(name, choice) for name, choice in controls.items()})


def _control(name: str, choice) -> widgets.Widget:
    label = name.replace("_", " ")
    if isinstance(choice, widgets.Widget):
        return choice
    if isinstance(choice, bool):
        return widgets.Checkbox(value=choice, description=label, indent=False)
    if isinstance(choice, tuple) and len(choice) in (2, 3) and all(isinstance(n, int | float) for n in choice):
        low, high, start = (*choice, choice[0])[:3]
        if not low <= start <= high:
            raise ValueError(f"{name} must be (low, high) or (low, high, start) with start between them, got {choice}")
        whole = all(isinstance(n, int) for n in choice)
        return slider(label, low, high, start, step=None if whole else (high - low) / 100 or 0.1)
    if isinstance(choice, tuple) and len(choice) == 2 and isinstance(choice[0], list) and choice[1] in choice[0]:
        return list_slider(label, *choice)
    if isinstance(choice, list | dict) and choice:
        return widgets.Dropdown(options=list(choice.items()) if isinstance(choice, dict) else choice, description=label)
    raise TypeError(
        f"{name} must be (low, high), (values, start), a list, a dict, True or False, or a widget, got {choice!r}"
    )


def stepper(frames: Sequence[np.ndarray] | Callable, *, labels: Sequence[str] | None = None) -> Panel:
    """A slider through frames: a list of (H,W,3) uint8 arrays, or frame(i) that gives number i of len(labels), from 0.

    `labels` are the words under each step. Frames and labels of different numbers raise ValueError.
    """
    labels = [""] * len(frames) if labels is None else list(labels)
    if not callable(frames) and len(frames) != len(labels):
        raise ValueError(f"labels must be one for each frame, got {len(labels)} for {len(frames)} frames")

    def draw(step: int) -> tuple[np.ndarray, str]:
        pixels = frames(step - 1) if callable(frames) else frames[step - 1]
        return pixels, f"Step {step} of {len(labels)}" + (f": {labels[step - 1]}" if labels[step - 1] else "")

    made, count = panel(draw, step=(1, len(labels))), len(labels)
    steps = range(1, count + 1) if count <= FRAMES else [1 + i * (count - 1) // (FRAMES - 1) for i in range(FRAMES)]
    made.frames = [{"step": step} for step in steps] if count > 1 else ()
    return made


def toggle(name: str, values: Sequence[str], start: str) -> widgets.ToggleButtons:
    """Buttons in a row, of which one is pressed."""
    narrow = {"button_width": "52px"}
    return widgets.ToggleButtons(options=list(values), value=start, description=name, style=narrow)
