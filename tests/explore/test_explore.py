"""Panels without a browser: controls at both of their ends, errors in the status line, a picture without a kernel."""

from __future__ import annotations

import base64
import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import zflib
from zflib import data, explore, show
from zflib.deconv import RULES
from zflib.explore import charts
from zflib.explore.layer_explorer import SIDE, View, open_photo

GEOMETRY = zflib.models.Geometry(64, 56, (
    zflib.models.Conv(8, 7, stride=2, padding=3, pool=True, norm=True), zflib.models.Conv(12, 3, padding=1, pool=True),
), hidden=(16,))  # fmt: skip


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = zflib.ZFNet(6, geometry=GEOMETRY).eval()
    net.classes = [f"class <{i}>" for i in range(6)]
    return net


@pytest.fixture
def explorer(net):
    return explore.layers(net, ["chelsea", "coffee"], layer="conv2")


def decoded(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def flat(value: int) -> np.ndarray:
    return np.full((20, 30, 3), value, np.uint8)


# --- the panel -------------------------------------------------------------------------------------------------------


def test_panel_redraws_at_both_ends_of_a_slider():
    panel = explore.panel(lambda grey: (flat(grey), f"grey <{grey}>"), grey=(0, 200))
    slider = panel.controls["grey"]
    for value in (slider.max, slider.min, slider.max):
        slider.value = value
        assert abs(int(decoded(panel.picture.value).mean()) - value) <= 2
        assert f"grey &lt;{value}&gt;" in panel.words.value and panel.text == f"grey <{value}>"


def test_panel_makes_a_control_of_each_choice():
    seen = {}
    panel = explore.panel(
        lambda **values: seen.update(values) or flat(9),
        whole=(1, 5, 2),
        real=(0.0, 1.0),
        menu=["a", "b"],
        named={"one": 1},
        tick=True,
        epoch=([1, 2, 5, 10], 10),
    )
    assert seen == {"whole": 2, "real": 0.0, "menu": "a", "named": 1, "tick": True, "epoch": 10} == panel.values
    assert isinstance(panel.controls["epoch"], explore.panel.__globals__["widgets"].SelectionSlider)
    panel.controls["tick"].value = False
    panel.controls["real"].value = 1.0
    panel.controls["menu"].value = "b"
    panel.controls["epoch"].value = 2
    assert seen == {"whole": 2, "real": 1.0, "menu": "b", "named": 1, "tick": False, "epoch": 2}


@pytest.mark.parametrize("choice", [(1, 5, 9), [], "text", ([1, 2], 3)])
def test_panel_refuses_a_bad_control_by_its_name(choice):
    with pytest.raises((TypeError, ValueError), match="amount must be"):
        explore.panel(lambda amount: flat(1), amount=choice)


def test_panel_refuses_what_is_no_picture():
    for wrong in (np.zeros((4, 4, 3)), torch.zeros(3, 4, 4)):
        with pytest.raises(TypeError, match=r"draw must give a uint8 array \(H,W,3\)"):
            explore.panel(lambda n, wrong=wrong: wrong, n=(0, 1))


def test_panel_shows_an_error_escaped_and_recovers():
    def draw(n):
        if n == 2:
            raise ValueError("no <script> for 2")
        return flat(n)

    panel = explore.panel(draw, n=(0, 3, 1))
    before = panel.picture.value
    panel.controls["n"].value = 2
    assert "ValueError: no &lt;script&gt; for 2" in panel.status.value and "alert" in panel.status.value
    assert panel.picture.value == before
    panel.controls["n"].value = 1  # back to what the picture already shows
    assert panel.status.value == ""


def test_panel_raises_what_is_wrong_from_the_start():
    with pytest.raises(ZeroDivisionError):
        explore.panel(lambda n: flat(1 // n), n=(0, 3))


def test_panel_draws_once_for_a_change():
    calls = []
    panel = explore.panel(lambda n: calls.append(n) or flat(n), n=(0, 9))
    panel.controls["n"].value = 4
    panel.controls["n"].value = 4
    assert calls == [0, 4]
    panel.redraw()
    assert calls == [0, 4, 4]


def test_panel_keeps_up_when_draw_moves_its_own_control():
    def draw(layer, channel):
        panel_channel.max = last = {"wide": 9, "narrow": 3}[layer]
        calls.append((layer, min(channel, last)))
        return flat(1), f"{layer} {min(channel, last)}"

    calls, panel_channel = [], explore.panels.slider("channel", 0, 9, 7)
    panel = explore.panel(draw, layer=["wide", "narrow"], channel=panel_channel)
    panel.controls["layer"].value = "narrow"
    assert panel.values == {"layer": "narrow", "channel": 3} and panel.text == "narrow 3"
    panel_channel.max = 9
    panel_channel.value = 7  # as it was before `draw` moved it
    panel_channel.value = 2
    assert calls == [("wide", 7), ("narrow", 3), ("narrow", 3), ("narrow", 2)]


def test_panel_moved_by_another_thread_while_it_draws_shows_the_last_value():
    started, go_on = threading.Event(), threading.Event()

    def draw(grey):
        if grey == 1:
            started.set()
            assert go_on.wait(20)
        return flat(grey), f"grey {grey}"

    panel = explore.panel(draw, grey=(0, 9))
    threads = [threading.Thread(target=setattr, args=(panel.controls["grey"], "value", n)) for n in (1, 5)]
    threads[0].start()
    assert started.wait(20)
    threads[1].start()
    while panel.values["grey"] != 5:
        time.sleep(0.01)
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert panel.text == "grey 5" and (panel.pixels == 5).all()


def crosshair(calls: list) -> explore.Panel:
    """A panel that draws where the pointer is, unless it was pressed in the right half."""

    def draw(x, y):
        calls.append((x, y))
        return flat(x + y)

    def follow(x, y, start):
        if start == (0, 0):
            raise ValueError("not <there>")
        return {"x": x, "y": y} if start[0] < 15 else {}

    controls = {name: explore.panels.slider(name, 0, 29, 5) for name in ("x", "y")}
    return explore.Panel(draw, controls, pointer=follow)


def test_pointer_moves_controls_and_draws_once():
    calls = []
    panel = crosshair(calls)
    panel.point(7, 9, (7, 9))
    panel.point(99, 9, (7, 9))  # a control keeps its own limits
    panel.point(20, 9, (20, 9))
    panel.point(29, 9, (7, 9))  # nothing new
    assert calls == [(5, 5), (7, 9), (29, 9)] and panel.values == {"x": 29, "y": 9} and panel.status.value == ""
    panel.point(0, 0, (0, 0))
    assert "ValueError: not &lt;there&gt;" in panel.status.value
    panel.controls["x"].value = 3
    assert calls[-1] == (3, 9) and panel.status.value == ""


def test_pointer_is_heard_while_it_is_held():
    pytest.importorskip("ipyevents")
    calls = []
    panel = crosshair(calls)
    event = panel._presses.event
    shown = dict(zip(("boundingRectHeight", "boundingRectWidth"), (side / 2 for side in panel.pixels.shape)))

    def tell(kind, x, y):  # in pixels of the page, where the picture is shown half as large
        event._handle_mouse_msg(event, {"event": kind, "relativeX": x, "relativeY": y} | shown, [])

    event.xy = [3, 3]  # not held
    tell("mousedown", 4, 6)
    event.xy = [8, 6]
    event.xy = []
    tell("mouseup", 9, 6)
    event.xy = [1, 1]
    tell("mouseleave", 1, 1)
    assert calls[1:] == [(8, 12), (16, 12), (18, 12)]
    finger = {"event": "touchstart", "changedTouches": [{"relativeX": 2, "relativeY": 3} | shown]}
    event._handle_mouse_msg(event, finger, [])
    event._handle_mouse_msg(event, finger | {"event": "touchend"}, [])
    event.xy = [10, 10]
    assert calls[4:] == [(4, 6)] and panel.status.value == ""


def test_panel_without_ipyevents_has_its_controls(monkeypatch):
    monkeypatch.setattr(explore.panels, "Event", None)
    calls = []
    crosshair(calls).controls["x"].value = 8
    assert calls == [(5, 5), (8, 5)]


def test_panel_has_a_static_picture_and_its_words_for_readers_without_a_kernel():
    panel = explore.panel(lambda n: (flat(n), f"grey {n}"), n=(0, 9, 5))
    bundle, metadata = panel._repr_mimebundle_()
    assert metadata == {"image/png": {"alt": "grey 5"}}
    assert np.array_equal(decoded(base64.b64decode(bundle["image/png"])), flat(5))
    assert bundle["text/plain"] == "grey 5"
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == panel.model_id
    assert "zf-fast" in panel._dom_classes
    panel.close()
    assert "application/vnd.jupyter.widget-view+json" not in explore.Panel._repr_mimebundle_(panel)[0]


# --- the stepper -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [[flat(0), flat(90), flat(180)], lambda i: flat(90 * i)], ids=["list", "function"])
def test_stepper_goes_from_the_first_frame_to_the_last(frames):
    panel = explore.stepper(frames, labels=["pool", "unpool", "rectify"])
    slider = panel.controls["step"]
    assert (slider.min, slider.max, panel.text) == (1, 3, "Step 1 of 3: pool")
    slider.value = slider.max
    assert panel.text == "Step 3 of 3: rectify" and np.array_equal(panel.pixels, flat(180))


def test_stepper_without_labels_and_with_wrong_ones():
    assert explore.stepper([flat(1), flat(2)]).text == "Step 1 of 2"
    with pytest.raises(ValueError, match="labels must be one for each frame"):
        explore.stepper([flat(1)], labels=["a", "b"])
    with pytest.raises(ValueError, match="step must be"):
        explore.stepper([])


# --- the explorer of layers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_explorer_at_both_ends_of_the_channels_of_every_layer(explorer, net, rule):
    explorer.controls["rule"].value = rule
    for layer in net.layer_names:
        explorer.controls["layer"].value = layer
        channel = explorer.controls["channel"]
        view = View(net, net.preprocess([data.photo("chelsea")])[0], layer)
        assert channel.max == len(view.values) - 1
        for end in (0, channel.max):
            channel.value = end
            assert explorer.status.value == ""
            assert f"{view.name(end)} of {layer}" in explorer.text
            assert explorer.pixels.shape[1] == 4 * SIDE + 3 * 12
    assert len(explorer.picture.value) > 1000


@pytest.mark.parametrize("layer, words", [("conv2", "Strongest channels here: "), ("fc4", "Strongest here: class <")])
def test_explorer_names_the_strongest_channels(net, layer, words):
    assert words in explore.layers(net, ["chelsea"], layer=layer).text


def test_explorer_starts_at_the_strongest_channel(explorer, net):
    view = View(net, net.preprocess([data.photo("chelsea")])[0], "conv2")
    assert explorer.controls["channel"].value == view.strongest(1)[0] == int(view.values.argmax())


def test_explorer_clamps_the_channel_of_a_narrower_layer(explorer):
    explorer.controls["layer"].value = "fc3"
    explorer.controls["layer"].value = "fc4"
    explorer.controls["layer"].value = "fc3"
    explorer.controls["channel"].value = 15
    explorer.controls["layer"].value = "fc4"
    assert explorer.values["channel"] == 5 and "class <5> (5) of fc4" in explorer.text
    assert "class &lt;5&gt;" in explorer.words.value


def test_explorer_follows_photo_and_rule(explorer):
    seen = {explorer.pixels.tobytes()}
    explorer.controls["photo"].value = "coffee"
    seen.add(explorer.pixels.tobytes())
    explorer.controls["rule"].value = "gradient"
    seen.add(explorer.pixels.tobytes())
    assert len(seen) == 3


def test_explorer_shows_a_bad_image_in_the_status_when_it_is_chosen(net, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    panel = explore.layers(net, {"good": data.photo("chelsea"), "bad": tmp_path / "text.png"}, layer="conv1")
    panel.controls["photo"].value = "bad"
    assert "is not an image" in panel.status.value
    panel.controls["photo"].value = "good"
    assert panel.status.value == ""


def test_explorer_takes_images_in_many_forms(net, tmp_path):
    image, path = data.photo("chelsea"), tmp_path / "cat.png"
    image.save(path)
    forms = [image, np.asarray(image), path, str(path), "chelsea", net.preprocess([image])[0]]
    pictures = []
    for form in forms:
        for images in (form, [form], {"cat": form}):
            panel = explore.layers(net, images, layer="conv2")
            pictures.append(panel.pixels[30:])  # without the titles
    assert all(np.array_equal(picture, pictures[0]) for picture in pictures)
    twice = explore.layers(net, [path, str(path)], layer="conv2")
    assert list(twice.controls["photo"].options) == ["1 cat.png", "2 cat.png"]


def test_explorer_defaults_to_the_shipped_photographs_and_the_last_convolution(net):
    panel = explore.layers(net)
    assert list(panel.controls["photo"].options) == data.photo_names()
    assert panel.values["layer"] == "conv2"


def test_explorer_starts_at_conv5_of_the_course_network():
    panel = explore.layers(zflib.load("zfnet56"), "chelsea")
    assert panel.values["layer"] == "conv5"


def test_explorer_on_a_network_that_is_not_ours():
    torchvision = pytest.importorskip("torchvision")
    resnet = torchvision.models.resnet18().eval()
    panel = explore.layers(resnet, ["chelsea"], layers=["layer1", "layer3.0", "avgpool", "fc"], preprocess=_small)
    assert panel.values["layer"] == "fc"
    for layer in ("layer1", "layer3.0", "avgpool"):
        panel.controls["layer"].value = layer
        panel.controls["channel"].value = panel.controls["channel"].max
        assert panel.status.value == "" and layer in panel.text
    assert (
        "layer4.1.conv2"
        in explore.layers(resnet, "chelsea", preprocess=_small, layer="layer2").controls["layer"].options
    )


def _small(image: Image.Image) -> torch.Tensor:
    return torch.tensor(np.asarray(image.resize((64, 64)))).permute(2, 0, 1)[None] / 255 - 0.5


@pytest.mark.parametrize("layer", ["0", "2", "5"])
def test_explorer_shows_maps_where_there_is_no_way_down(layer):
    body = nn.Conv2d(3, 4, 3), nn.GELU(), nn.Conv2d(4, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)
    refused = nn.Sequential(*body).eval()
    panel = explore.layers(refused, "chelsea", preprocess=_small, layers=["0", "2", "5"], layer=layer)
    assert panel.text.endswith("for all that looks at this network.") and "No projection: net: module '1'" in panel.text
    with torch.no_grad():
        strongest = refused[: int(layer) + 1](_small(data.photo("chelsea"))).max()
    assert f"{strongest:.3g}" in panel.text
    refused.deconv_rules = {nn.GELU: lambda signal, before, after: signal.clamp(min=0)}
    panel = explore.layers(refused, "chelsea", preprocess=_small, layers=["0", "2", "5"], layer=layer)
    assert "No projection" not in panel.text


def test_explorer_names_what_is_wrong(net):
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    wrong = [
        (lambda: explore.layers("net"), "net must be a torch network"),
        (lambda: explore.layers(net, layer="conv9"), "layer 'conv9' is not in this network"),
        (lambda: explore.layers(net, layers=["conv1", "nope"]), "layer 'nope' is not in this network"),
        (lambda: explore.layers(net, layers=[]), "layers must be at least one layer's name"),
        (lambda: explore.layers(net, rule="both"), "rule must be one of"),
        (lambda: explore.layers(net, []), "images is empty"),
        (lambda: explore.layers(net, "nope.jpg"), "there is no file 'nope.jpg'"),
        (lambda: explore.layers(plain, "chelsea"), r"preprocess is needed .*models\.with_preprocessing"),
        (lambda: explore.layers(plain, "chelsea", preprocess=np.asarray), "preprocess must give one tensor"),
    ]
    for call, sentence in wrong:
        with pytest.raises((TypeError, ValueError, FileNotFoundError), match=sentence):
            call()


def test_explorer_shows_a_silent_channel_as_grey(net):
    silent = zflib.ZFNet(6, geometry=GEOMETRY).eval()
    with torch.no_grad():
        silent.conv2.bias.fill_(-1e6)
    panel = explore.layers(silent, "chelsea", layer="conv2")
    assert "channel 0 of conv2 is silent" in panel.text
    assert (panel.pixels[100, -100:-20] == show.GREY).all()


# --- the explorer of units -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def squares():
    return np.random.default_rng(5).integers(0, 256, (12, 3, 64, 64), dtype=np.uint8)


def test_units_at_both_ends_of_the_channels_of_every_layer(net, squares):
    panel = explore.units(net, squares, layers=net.layer_names, labels=torch.arange(12) % 6)
    for layer in net.layer_names:
        panel.controls["layer"].value = layer
        channel = panel.controls["channel"]
        for end in (0, channel.max):
            channel.value = end
            assert panel.status.value == "" and f"Channel {end} of {layer}" in panel.text and "class <" in panel.text
            assert panel.pixels.shape[1] == 6 * 156 + 5 * 8
    assert channel.max == 5 and "class &lt;" in panel.words.value


def test_units_clamps_the_channel_and_starts_where_it_is_told(net, squares):
    panel = explore.units(net, squares, layer="conv1")
    assert panel.values == {"layer": "conv1", "channel": 0, "view": "calm"} and panel.controls["channel"].max == 7
    panel.controls["layer"].value = "conv2"
    panel.controls["channel"].value = 11
    panel.controls["layer"].value = "conv1"
    assert panel.values["channel"] == 7 and "Channel 7 of conv1" in panel.text


def test_units_takes_a_folder_and_names_its_files(net, tmp_path):
    for name in ("chelsea", "coffee", "rocket"):
        data.photo(name).resize((90, 80)).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_text("no image")
    with pytest.warns(UserWarning, match="could not be read"):
        panel = explore.units(net, str(tmp_path))
    assert panel.values["layer"] == "conv2" and "over the third" in panel.text
    assert all(f"{name}.png" in panel.text for name in ("chelsea", "coffee", "rocket"))


def test_units_shows_what_was_found_before(net, squares):
    found = zflib.find_peaks(net, squares, layers=["conv2"])
    again = explore.units(net, squares, peaks=found)
    assert np.array_equal(again.pixels, explore.units(net, squares, layers="conv2").pixels)
    assert list(again.controls["layer"].options) == ["conv2"]


def test_units_names_what_is_wrong(net, squares):
    found = zflib.find_peaks(net, squares, layers=["conv2"])
    wrong = [
        (lambda: explore.units("net"), "net must be a torch network"),
        (lambda: explore.units(net, squares, peaks=found, layer="conv9"), "layer must be one of 'conv2'"),
        (lambda: explore.units(net, squares, layers=["nope"]), "layer 'nope' is not in this network"),
        (lambda: explore.units(torch.nn.Conv2d(3, 4, 3), squares), "layers is missing"),
        (lambda: explore.units(net, squares[:2], peaks=found), r"peaks are of other images: .* there are 2 images"),
        (lambda: explore.units(net, squares, peaks=found, labels=[0] * 11 + [6]), "classes from 0 to 5, got 6"),
        (lambda: explore.units(net, squares, peaks=found, labels=[0] * 3), r"one for each image, got \(3,\)"),
    ]
    for call, sentence in wrong:
        with pytest.raises((TypeError, ValueError), match=sentence):
            call()


# --- one image at one layer ------------------------------------------------------------------------------------------


def test_view_agrees_with_the_deconvnet_and_its_receptive_fields(net):
    image = net.preprocess([data.photo("coffee")])[0]
    for layer in ("conv1", "norm1", "conv2", "pool2", "fc3"):
        view, deconvnet = View(net, image, layer, rule="guided"), zflib.Deconvnet(net, rule="guided")
        whole = deconvnet.project_all(image, layer)
        for channel in range(len(view.values)):
            torch.testing.assert_close(view.projection(channel), whole[channel], rtol=1e-4, atol=1e-7)
            expected = zflib.receptive_field(net, layer, view.positions[channel].tolist())
            assert view.field(channel) == expected
            assert view.box(channel) == tuple(min(max(0, edge), 56) for edge in expected)


def test_view_orders_and_names_its_channels(net):
    view = View(net, net.preprocess([data.photo("coffee")])[0], "fc4")
    values = view.values[view.strongest(6)].tolist()
    assert values == sorted(values, reverse=True)
    assert view.name(2) == "class <2> (2)"
    for wrong in (0, 7):
        with pytest.raises(ValueError, match="top must be 1 to 6"):
            view.strongest(wrong)
    for wrong in (-1, 6):
        with pytest.raises(ValueError, match="channel must be 0 to 5"):
            view.projection(wrong)


def test_open_photo_prefers_a_file_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_photo("chelsea").size == data.photo("chelsea").size
    Image.new("RGB", (5, 4)).save("chelsea", "PNG")
    assert open_photo("chelsea").size == (5, 4)


# --- a slider's callback in a thread of its own, while a cell is busy ------------------------------------------------


def _moves(name, net, image):
    """A panel on `net` and what its controls may say."""
    if name == "layers":
        panel = explore.layers(net, {"cat": image, "turned": image.flip(2)}, layer="conv2")
        rest = {"rule": "guided", "row": 1, "column": 2, "view": "lit"}
        return panel, [{"photo": p, "layer": layer, "channel": c, "strongest": c == 0} | rest
                       for p in ("cat", "turned") for layer in ("conv1", "conv2", "fc4") for c in (0, 9)]  # fmt: skip
    if name == "occlusion":
        panel = explore.occlusion(net, image, layer="conv2")
        return panel, [{"row": row, "column": c, "size": size, "view": "raw"}
                       for row in (0, 9) for c in (0, 20) for size in (4, 12)]  # fmt: skip
    if name == "invariance":
        panel = explore.invariance(net, image, layers=("conv1", "conv2", "fc4"))
        return panel, [{"down": d, "right": r, "scale": 1, "angle": a, "along": "down"}
                       for d in (0, 9) for r in (0, 3) for a in (0, 8)]  # fmt: skip
    images = torch.stack([image, image.flip(1), image.flip(2)])
    panel = explore.correspondence(net, images, {"nose": torch.full((3, 2), 28)}, layers=("conv1", "conv2", "fc3"))
    return panel, [{"part": "nose", "layer": layer, "size": n, "down": n - 5, "right": 3}
                   for layer in ("conv1", "conv2", "fc3") for n in (5, 9)]  # fmt: skip


@pytest.mark.parametrize("name", ["layers", "occlusion", "invariance", "correspondence"])
def test_two_threads_draw_what_one_draws(net, name):
    image = net.preprocess([data.photo("chelsea")])[0]
    alone, moves = _moves(name, net, image)
    # maps and curves that appear as they are measured leave the pictures on the left to be compared
    part = slice(charts.SIDE if name in ("occlusion", "invariance") else None)
    expected = [alone._draw(**move) for move in moves]
    shared, _ = _moves(name, net, image)

    def draw_all(order: list[int]) -> list[int]:
        drawn = {number: shared._draw(**moves[number]) for number in order}
        return [
            number
            for number, (pixels, text) in drawn.items()
            if text != expected[number][1] or (pixels[:, part] != expected[number][0][:, part]).any()
        ]

    numbers = list(range(len(moves)))
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(draw_all, [numbers, numbers[::-1]])) == [[], []]
