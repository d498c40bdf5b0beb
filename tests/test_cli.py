"""`python -m zflib`: the picture it writes, and one sentence for everything that can be wrong."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import zflib
from zflib import data, models, show
from zflib.__main__ import main, sheet
from zflib.explore.layer_explorer import View

ROOT = Path(__file__).resolve().parents[1]


def fails(capsys, *arguments) -> str:
    """What stands on stderr after a command that must fail without a picture."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert out == "" and end.value.code
    return err if isinstance(end.value.code, int) else end.value.code  # argparse prints, Python prints for sys.exit


def test_output_that_cannot_print_a_path(tmp_path, monkeypatch):
    with io.TextIOWrapper(io.BytesIO(), "ascii") as plain:
        monkeypatch.setattr(sys, "stdout", plain)
        data.photo("chelsea").save(tmp_path / "küche.png")
        main([str(tmp_path / "küche.png"), "--layer", "conv1", "--top", "1", "-o", str(tmp_path / "☃.png")])
        plain.flush()
        assert plain.buffer.getvalue().endswith(b"\\u2603.png\n") and (tmp_path / "☃.png").exists()


def test_the_command_as_it_is_typed(tmp_path):
    """One process writes a picture; everything else is tested in this one."""
    command = [sys.executable, "-m", "zflib", "chelsea", "--layer", "conv5", "--top", "9", "-o", "out.png"]
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "out.png\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.format == "PNG" and 800 < picture.width < 1300


def test_list_names_layers_and_photographs(capsys):
    main(["--list"])
    out = capsys.readouterr().out
    assert "conv1, pool1, norm1, conv2" in out and "squeezenet, zfnet56" in out
    assert all(name in out for name in data.photo_names())


@pytest.mark.parametrize("layer, ending", [("pool2", "jpg"), ("norm1", "PNG"), ("fc6", "webp"), ("fc8", "jpeg")])
def test_layers_and_formats_of_every_kind(layer, ending, tmp_path):
    path = tmp_path / f"x.{ending}"
    main(["chelsea", "--layer", layer, "--top", "3", "--size", "32", "-o", str(path)])
    assert Image.open(path).format == {"jpg": "JPEG", "jpeg": "JPEG"}.get(ending, ending.upper())


def test_rule_channels_size_and_files_change_the_picture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data.photo("coffee").save("mine.png")
    base = ["mine.png", "--layer", "conv2", "--size", "40"]
    variants = [
        ["--channels", "3,17"],
        ["--channels", "3,18"],
        ["--channels", "3,17", "--rule", "guided"],
        ["--top", "2"],
    ]
    pictures = []
    for number, variant in enumerate(variants):
        main([*base, *variant, "-o", f"{number}.png"])
        pictures.append(np.asarray(Image.open(f"{number}.png")).tobytes())
    assert len(set(pictures)) == 4
    main([*base, "--top", "2"])
    assert Path("mine-conv2.png").is_file()
    main(["mine.png", "chelsea", "--layer", "conv2", "--size", "40", "--top", "2", "-o", "two.png"])
    one, two = Image.open("3.png"), Image.open("two.png")
    assert two.width == one.width and two.height > 1.8 * one.height


def test_a_network_of_your_own(tmp_path):
    torch.manual_seed(0)
    net = zflib.zfnet56(3)
    net.classes, net.wnids = ["a", "b", "c"], ["n1", "n2", "n3"]
    models.save(net, tmp_path / "mine.pt", {"name": "mine"})
    path = tmp_path / "x.png"
    main(["chelsea", "--network", str(tmp_path / "mine.pt"), "--layer", "fc8", "--top", "3", "-o", str(path)])
    assert path.is_file()


def test_the_layer_is_by_default_the_last_convolutional_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for network in ("zfnet56", "squeezenet"):
        main(["chelsea", "--network", network, "--top", "1", "--size", "32"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chelsea-conv5.png", "chelsea-fire9.png"]


def test_sheet_shows_silent_channels_as_grey():
    torch.manual_seed(0)
    net = zflib.zfnet56(3).eval()
    with torch.no_grad():
        net.conv1.bias.fill_(-1e6)
    view = View(net, net.preprocess([data.photo("chelsea")])[0], "conv1")
    picture = sheet(view, [0], photo="chelsea", size=64)
    assert 0 <= (picture == show.GREY).all(axis=2).sum() - 64 * 64 < 50  # some edges of letters are grey too


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["nope.jpg"], "there is no file 'nope.jpg'"),
    (["chelsea", "--layer", "conv9"], "layer 'conv9' is not in this network; it has conv1"),
    (["text.png"], "text.png is not an image"),
    (["cut.png"], "cut.png is damaged or cut short"),
    (["."], "is a folder, not an image"),
    (["chelsea", "--top", "0"], "top must be 1 to 192"),
    (["chelsea", "--top", "193"], "top must be 1 to 192"),
    (["chelsea", "--channels", "192"], "channel must be 0 to 191"),
    (["chelsea", "--channels=-1"], "channel must be 0 to 191"),
    (["chelsea", "--channels", "3,x"], "not a list of channels like 3,17"),
    (["chelsea", "--rule", "both"], "invalid choice"),
    (["chelsea", "--size", "5"], "--size must be 16 to 1000 pixels, got 5"),
    (["chelsea", "--network", "alexnet"], "name 'alexnet' is not a network"),
    (["chelsea", "--network", "mine.pt"], "mine.pt and its card mine.json are needed"),
    (["chelsea", "-o", "x.tiff"], "--output must end in .png"),
    (["chelsea", "-o", "nowhere/x.png"], "there is no folder 'nowhere'"),
    (["--frobnicate"], "unrecognized arguments"),
    ([], "PHOTO is missing; give an image file or one of"),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")  # fmt: skip
def test_one_sentence_for_each_mistake(arguments, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.png").write_text("no image")
    data.photo("coffee").save("whole.png")
    Path("cut.png").write_bytes(Path("whole.png").read_bytes()[:4000])
    before = sorted(path.name for path in tmp_path.iterdir())
    assert sentence in fails(capsys, *arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_disk_that_refuses_leaves_the_old_picture(capsys, tmp_path, monkeypatch):
    target = tmp_path / "x.png"
    target.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr("zflib._files.os.replace", full)
    assert "No space left on device" in fails(capsys, "chelsea", "--layer", "conv1", "--top", "1", "-o", target)
    assert target.read_bytes() == b"old" and [path.name for path in tmp_path.iterdir()] == ["x.png"]
