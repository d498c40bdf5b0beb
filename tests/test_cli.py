"""`python -m zflib`: the picture it writes, and one sentence for everything that can be wrong."""

from __future__ import annotations

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


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    environment = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONWARNINGS="error::SyntaxWarning")
    return subprocess.run(
        [sys.executable, "-m", "zflib", *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )


def fails(capsys, *arguments) -> str:
    """The one sentence on stderr of a command that must end with 2."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as end:  # argparse ends the program itself
        code = end.code
    out, err = capsys.readouterr()
    assert code == 2 and out == "" and err.count("\n") == 1 and err.startswith("zflib: ")
    return err


def test_command_writes_the_picture(tmp_path):
    done = run("chelsea", "--layer", "conv5", "--top", "9", "-o", "out.png", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "out.png\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.format == "PNG" and 800 < picture.width < 1300


def test_command_ends_with_2_and_no_traceback(tmp_path):
    done = run("nowhere.jpg", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "zflib: there is no file 'nowhere.jpg'; check the spelling, or give its full path\n"
    assert not list(tmp_path.iterdir())


def test_list_names_layers_and_photographs(capsys):
    assert main(["--list"]) == 0
    out = capsys.readouterr().out
    assert "conv1, pool1, norm1, conv2" in out and "zfnet56" in out and all(name in out for name in data.photo_names())


@pytest.mark.parametrize("layer", ["conv1", "pool2", "norm1", "fc6", "fc8"])
def test_layers_of_every_kind(layer, tmp_path):
    assert main(["chelsea", "--layer", layer, "--top", "3", "-o", str(tmp_path / "x.jpg")]) == 0
    assert Image.open(tmp_path / "x.jpg").format == "JPEG"


@pytest.mark.parametrize("ending", ["png", "jpg", "jpeg", "webp", "PNG"])
def test_formats(ending, tmp_path):
    assert main(["chelsea", "--layer", "conv1", "--top", "1", "--size", "32", "-o", str(tmp_path / f"x.{ending}")]) == 0
    Image.open(tmp_path / f"x.{ending}").load()


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
        assert main([*base, *variant, "-o", f"{number}.png"]) == 0
        pictures.append(np.asarray(Image.open(f"{number}.png")).tobytes())
    assert len(set(pictures)) == 4
    assert main([*base, "--top", "2"]) == 0 and Path("mine-conv2.png").is_file()
    assert main(["mine.png", "chelsea", "--layer", "conv2", "--size", "40", "--top", "2", "-o", "two.png"]) == 0
    one, two = Image.open("3.png"), Image.open("two.png")
    assert two.width == one.width and two.height > 1.8 * one.height


def test_a_network_of_your_own(tmp_path):
    torch.manual_seed(0)
    net = zflib.zfnet56(3)
    net.classes, net.wnids = ["a", "b", "c"], ["n1", "n2", "n3"]
    models.save(net, tmp_path / "mine.pt", {"name": "mine"})
    assert (
        main(
            [
                "chelsea",
                "--net",
                str(tmp_path / "mine.pt"),
                "--layer",
                "fc8",
                "--top",
                "3",
                "-o",
                str(tmp_path / "x.png"),
            ]
        )
        == 0
    )


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
    (["chelsea", "--top", "x"], "invalid int value"),
    (["chelsea", "--channels", "192"], "channel must be 0 to 191"),
    (["chelsea", "--channels=-1"], "channel must be 0 to 191"),
    (["chelsea", "--channels", "3,x"], "not a list of channels like 3,17"),
    (["chelsea", "--channels", "3", "--top", "2"], "not allowed with"),
    (["chelsea", "--rule", "both"], "invalid choice"),
    (["chelsea", "--size", "5"], "--size must be 16 to 1000 pixels, got 5"),
    (["chelsea", "--net", "alexnet"], "name 'alexnet' is not a network"),
    (["chelsea", "--net", "mine.pt"], "mine.pt and its card mine.json are needed"),
    (["chelsea", "-o", "x.tiff"], "--output must end in .png"),
    (["chelsea", "-o", "x"], "--output must end in .png"),
    (["chelsea", "-o", "nowhere/x.png"], "there is no folder 'nowhere'"),
    (["chelsea", "-o", "text.png/x.png"], "there is no folder 'text.png'"),
    (["chelsea", "-o", "folder.png"], "'folder.png' is a folder"),
    (["--frobnicate"], "unrecognized arguments"),
    ([], "PHOTO is missing; give an image file or one of"),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")  # fmt: skip
def test_one_sentence_for_each_mistake(arguments, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.png").write_text("no image")
    data.photo("coffee").save("whole.png")
    Path("cut.png").write_bytes(Path("whole.png").read_bytes()[:4000])
    Path("folder.png").mkdir()
    before = sorted(path.name for path in tmp_path.iterdir())
    assert sentence in fails(capsys, *arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_disk_that_refuses_leaves_the_old_picture(capsys, tmp_path, monkeypatch):
    target = tmp_path / "x.png"
    target.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr("zflib._files.os.replace", full)
    sentence = fails(capsys, "chelsea", "--layer", "conv1", "--top", "1", "-o", target)
    assert "cannot be written: No space left on device" in sentence
    assert target.read_bytes() == b"old" and [path.name for path in tmp_path.iterdir()] == ["x.png"]
