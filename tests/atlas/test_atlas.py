"""The atlas: its pages against `find_peaks` and brute force, its links, and runs that were stopped."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.parse
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

import zflib
from zflib import data, show
from zflib.atlas import drawing, pictures
from zflib.atlas.__main__ import main
from zflib.atlas.alike import most_alike
from zflib.atlas.chapters import chapters_of, shapes
from zflib.data.image_source import open_source
from zflib.experiments.top_k import Peaks

ROOT = Path(__file__).resolve().parents[2]
NASTY = """<script>alert("1")&'<b>.png"""
LAYERS = ("1", "4", "6")  # maps, maps, units
COUNT = 13


def small_net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 20, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 7, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(7 * 36, 5),
    ).eval()  # fmt: skip


def prepared(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image.resize((16, 16)))).permute(2, 0, 1).float() / 64 - 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Photographs with names that could break a page, one of them no photograph."""
    path, random = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    (path / "a & b").mkdir()
    names = [NASTY, "a & b/é 100%.png", *(f"{number}.png" for number in range(COUNT - 3))]
    for name in names:
        coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8))
        coarse.resize((20, 20), Image.BICUBIC).save(path / name)
    (path / "broken<i>.png").write_text("no image")
    return path


def atlas(folder: Path, out: Path, **settings) -> Path:
    with pytest.warns(UserWarning, match="could not be read"):
        return zflib.write_atlas(settings.pop("net", small_net()), folder, out, preprocess=prepared,
                                 **{"layers": LAYERS} | settings)  # fmt: skip


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory) -> Path:
    """A finished atlas."""
    out = tmp_path_factory.mktemp("whole") / "atlas"
    assert atlas(folder, out) == out / "index.html"
    return out


def content(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


class Page(HTMLParser):
    """What a page's tags hold: links, pictures, anchors, the cells of its table, and its words."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags, self.links, self.ids, self.labels, self.cells, self.text = set(), [], set(), [], [], ""
        self.inside = False
        self.feed(path.read_text(encoding="utf-8"))
        self.links += re.findall(r"url\('([^']*)'\)", path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.add(tag)
        self.links += [values[name] for name in ("href", "src") if name in values]
        self.ids |= {values["id"]} if "id" in values else set()
        self.labels += [values["aria-label"]] if values.get("role") == "img" else []
        self.cells += [""] if tag == "td" else []
        self.inside = tag == "td" or (self.inside and tag == "small")

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "td"

    def handle_data(self, data):
        self.text += data
        if self.inside:
            self.cells[-1] += data


def rows(page: Page) -> list[tuple[str, ...]]:
    """The nine rows of a channel's table: rank, activation, position, photograph."""
    cells = [" ".join(cell.split()) for cell in page.cells]
    return [tuple(cells[start : start + 4]) for start in range(0, 36, 4)]


def broken_links(out: Path, *, pictures: bool = True) -> list[str]:
    pages = {path: Page(path) for path in out.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            address, _, anchor = urllib.parse.unquote(link).partition("#")
            if address.startswith("https://") or (not pictures and address.endswith(".webp")):
                continue
            target = (path.parent / address).resolve()
            if not target.is_file() or (anchor and anchor not in pages[target].ids):
                broken.append(f"{path.name}: {link}")
    return broken


# --- pages -----------------------------------------------------------------------------------------------------------


def test_every_page_picture_and_anchor_is_there(whole):
    assert broken_links(whole) == []
    for folder, channels in (("1", 20), ("4", 7), ("6", 5)):
        names = {f"{channel}.{kind}" for channel in range(channels) for kind in ("html", "webp")}
        assert {path.name for path in (whole / folder).iterdir()} == names | {"index.html", "wall.webp"}
        assert Page(whole / folder / "index.html").ids == {str(channel) for channel in range(channels)}
    assert {path.name for path in whole.iterdir()} == {*LAYERS, "index.html", "style.css", "atlas.json", "peaks.pt"}


def test_every_page_is_reached_from_the_first(whole):
    seen, waiting = set(), [whole / "index.html"]
    while waiting:
        page = waiting.pop()
        links = {(page.parent / link.partition("#")[0]).resolve() for link in Page(page).links if "://" not in link}
        seen.add(page)
        waiting += sorted(path for path in links if path.suffix == ".html" and path not in seen)
    assert seen == {path.resolve() for path in whole.rglob("*.html")}


def test_names_are_escaped(whole):
    known = {"html", "meta", "title", "link", "style", "body", "nav", "span", "a", "h1", "h2", "p", "div", "figure",
             "figcaption", "b", "i", "table", "tr", "th", "td", "small", "br", "ul", "li", "section"}  # fmt: skip
    pages = [Page(path) for path in whole.rglob("*.html")]
    assert set().union(*(page.tags for page in pages)) <= known
    assert any(NASTY in page.text for page in pages) and any(f"patch 1: {NASTY}" in page.labels for page in pages)
    assert any(str(Path("a & b/é 100%.png")) in page.text for page in pages)
    assert "broken<i>.png" in Page(whole / "index.html").text, "what could not be read is listed"


def test_title_layers_and_classes_are_escaped(folder, tmp_path):
    net = nn.Sequential()
    net.add_module("<b>/ü", nn.Conv2d(3, 2, 3))
    net.classes = ["<u>cat", "dog & co"]
    atlas(folder, tmp_path / "out", net=net, layers=None, title="<u>mine", names=["x<u>"] * COUNT)
    pages = [Page(path) for path in (tmp_path / "out").rglob("*.html")]
    assert not any("u" in page.tags for page in pages) and broken_links(tmp_path / "out") == []
    page = Page(tmp_path / "out" / "-b---" / "0.html")
    assert "<b>/ü · channel 0 · <u>cat" in page.text and "<u>mine" in page.text and "x<u>" in page.text


def test_values_and_positions_are_those_of_find_peaks(whole, folder):
    with pytest.warns(UserWarning, match="could not be read"):
        found = zflib.find_peaks(small_net(), folder, layers=LAYERS, preprocess=prepared)
    for layer in LAYERS:
        for channel, values in enumerate(found[layer].values):
            shown = rows(Page(whole / layer / f"{channel}.html"))
            assert [row[1] for row in shown] == [f"{float(value):.4g}" for value in values]
            positions = [f"row {r}, column {c}" for r, c in found[layer].positions[channel].tolist()]
            assert [row[2] for row in shown] == (["all of it"] * 9 if layer == "6" else positions)
            files = [os.path.relpath(found.names[image], folder) for image in found[layer].images[channel].tolist()]
            assert [row[3] for row in shown] == files


def test_fewer_photographs_than_nine(tmp_path):
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    zflib.write_atlas(small_net(), images, tmp_path / "out", layers="4", names=["one", "two"])
    shown = rows(Page(tmp_path / "out" / "4" / "0.html"))
    assert {row[3] for row in shown[:2]} == {"one", "two"}
    assert shown[2:] == [(str(rank), "", "", "there is no further photograph") for rank in range(3, 10)]


def test_classes_by_wordnet_id(tmp_path):
    net = zflib.load("zfnet56")
    for number, wnid in enumerate(net.wnids[:3]):
        (tmp_path / "photos" / (wnid if number else "others")).mkdir(parents=True)
        path = tmp_path / "photos" / wnid / "1.png" if number else tmp_path / "photos" / "others" / f"{wnid}.png"
        Image.new("RGB", (64, 64), (80 * number, 90, 200)).save(path)
    out = tmp_path / "out"
    zflib.write_atlas(net, tmp_path / "photos", out, layers="conv1")
    words = Page(out / "conv1" / "0.html").text
    assert all(name in words for name in net.classes[:3]) and f"{net.wnids[1]}/1.png" in words


# --- likeness --------------------------------------------------------------------------------------------------------


def test_most_alike_against_brute_force():
    random = torch.Generator().manual_seed(0)
    images = torch.stack([torch.randperm(60, generator=random)[:10] for _ in range(30)])
    values = torch.rand(30, 10, generator=random).sort(dim=1, descending=True).values - 0.2
    values[4], values[5] = -1, 0  # silent channels are like no other
    excited = [{i for i, v in zip(*row) if v > 0} for row in zip(images.tolist(), values.tolist())]
    for channel, found in enumerate(most_alike(Peaks(values, images, torch.zeros(30, 10, 2)), 6)):
        shared = [(-len(excited[channel] & excited[other]), other) for other in range(30) if other != channel]
        assert found == [(other, -number) for number, other in sorted(shared)[:6] if number]
    assert most_alike(Peaks(-values.abs(), images, torch.zeros(30, 10, 2))) == [[]] * 30


# --- pictures --------------------------------------------------------------------------------------------------------


def drawn(net: nn.Module, images: torch.Tensor, layer: str):
    """The chapter of a layer, and the sheets of all its channels."""
    deconvnet, found = zflib.Deconvnet(net), zflib.find_peaks(net, images, layers=layer)
    sizes = shapes(deconvnet, [layer], images[0])
    (chapter,) = chapters_of(net, found, sizes, tuple(images.shape[-2:]))
    photographs = drawing.Photographs(net, open_source(net, images))
    return chapter, drawing.draw_channels(deconvnet, photographs, chapter, chapter.channels)


def tile(sheet: np.ndarray, group: int, rank: int) -> np.ndarray:
    top, left = pictures.tile_corner(group, rank)
    return sheet[top : top + pictures.TILE, left : left + pictures.TILE].astype(int)


@pytest.mark.parametrize("make, layer", [
    (small_net, "1"), (small_net, "4"), (small_net, "6"), (lambda: zflib.load("scenes56"), "conv5"),
    (lambda: torchvision.models.squeezenet1_1(num_classes=4).eval(), "features.4"),
])  # fmt: skip
def test_tiles_are_the_patches_and_projections_of_the_winners(make, layer, monkeypatch):
    monkeypatch.setattr(drawing, "TOGETHER", 3)
    monkeypatch.setattr(drawing, "SEEDS", 5)
    torch.manual_seed(1)
    net = make()
    images = torch.randn(12, 3, 56, 56) if layer in ("conv5", "features.4") else torch.randn(12, 3, 16, 16)
    chapter, sheets = drawn(net, images, layer)
    deconvnet = zflib.Deconvnet(net)
    for channel in (0, len(sheets) - 1):
        peaks, some = chapter.peaks, images[chapter.peaks.images[channel]]
        at = {} if len(chapter.shape) == 1 else {"positions": peaks.positions[channel]}
        for rank, projection in enumerate(deconvnet.project(some, layer, channel, **at)):
            top, left, bottom, right = chapter.boxes[channel, rank].tolist()
            assert top >= 0 and left >= 0 and bottom <= images.shape[2] and right <= images.shape[3]
            cut, patch = projection[:, top:bottom, left:right], show.image_pixels(some[rank], net)
            assert bool((projection != 0).sum() == (cut != 0).sum()), "nothing of a projection is cut away"
            calm = show.signed_pixels(show.calm(cut, sigma=max(cut.shape[1:]) / pictures.BLUR))
            expected = [patch[top:bottom, left:right], show.lit(patch[top:bottom, left:right], cut), calm]
            for group, picture in enumerate(expected):
                picture = show.upscale(np.ascontiguousarray(picture), pictures.TILE, smooth=True)
                assert np.abs(tile(sheets[channel], group, rank) - picture).max() <= 2


def test_wall_shows_the_strongest_projections(whole):
    wall = np.asarray(Image.open(whole / "1" / "wall.webp")).astype(int)
    assert wall.shape == (2 * pictures.WALL_TILE, pictures.WALL_COLUMNS * pictures.WALL_TILE, 3)
    for channel in (0, 15, 16, 19):
        row, column = (pictures.WALL_TILE * index for index in divmod(channel, pictures.WALL_COLUMNS))
        sheet = np.asarray(Image.open(whole / "1" / f"{channel}.webp").convert("RGB"))
        projection = pictures.close(tile(sheet, 2, 0).astype(np.uint8))
        small = Image.fromarray(projection).resize((pictures.WALL_TILE,) * 2, Image.BICUBIC)
        shown = wall[row : row + pictures.WALL_TILE, column : column + pictures.WALL_TILE]
        assert np.abs(shown - np.asarray(small)).mean() < 4


def test_tiles_of_a_wall_are_cut_to_the_contrast():
    tile = np.full((150, 150, 3), show.GREY, np.uint8)
    assert np.array_equal(pictures.close(tile), tile[:75, :75]), "a silent channel"
    tile[10:40, 100:130] = 255
    near = pictures.close(tile)
    assert near.shape == (75, 75, 3) and (near == 255).sum() == (tile == 255).sum()
    tile[120:145, 20:45] = 0
    whole = pictures.close(tile)
    assert whole.shape[0] == whole.shape[1] > 130 and (whole == 0).sum() > 0.9 * (tile == 0).sum()


def test_each_photograph_goes_forward_once_for_a_part(monkeypatch):
    net, seen = small_net(), []
    images = torch.randn(40, 3, 16, 16)
    record = zflib.Deconvnet.record
    monkeypatch.setattr(zflib.Deconvnet, "record", lambda self, some, layer: seen.append(len(some)) or record(
        self, some, layer))  # fmt: skip
    chapter, _ = drawn(net, images, "1")
    assert sum(seen[1:]) == len(chapter.peaks.images.unique()), "and one image to learn the shape of the maps"


# --- stopped, continued, refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 11, 23])
def test_a_stopped_run_is_usable_and_goes_on_to_the_same_folder(after, whole, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("zflib.atlas.writing.PART", 8)
    out, encoded, calls = tmp_path / "atlas", pictures.encoded, []

    def interrupted(pixels):
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(pixels.shape)
        return encoded(pixels)

    with monkeypatch.context() as patch:
        patch.setattr(pictures, "encoded", interrupted)
        with pytest.raises(KeyboardInterrupt):
            atlas(folder, out)
    assert broken_links(out, pictures=False) == []
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.webp")}
    assert len(before) <= after, "sheets are encoded side by side, and written in order"
    (out / "1" / ".7.webp.killed.part").write_bytes(b"half")
    atlas(folder, out)
    assert content(out) == content(whole)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items()), "what was finished is not made twice"


def test_a_second_call_does_nothing(whole, folder, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    monkeypatch.setattr(zflib.Deconvnet, "descend", None)
    atlas(folder, whole)
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


def other_weights() -> dict:
    return {"net": small_net(seed=1)}


@pytest.mark.parametrize("settings, what", [
    (other_weights, "weights"), (lambda: {"layers": ("1", "4")}, "layers"), (lambda: {"batch_size": 5}, "batch_size"),
    (lambda: {"names": ["x"] * COUNT}, "names"),
], ids=["weights", "layers", "batch_size", "names"])  # fmt: skip
def test_leftovers_of_another_run_are_refused(settings, what, whole, folder):
    before = content(whole)
    with pytest.raises(ValueError, match=f"holds an atlas with other {what}; choose another folder"):
        zflib.write_atlas(**{"net": small_net(), "layers": LAYERS} | settings(), images=folder, out=whole,
                          preprocess=prepared)  # fmt: skip
    assert content(whole) == before


def test_other_photographs_are_refused(whole, folder, tmp_path):
    for path in sorted(folder.rglob("*.png"))[:4]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="holds an atlas with other images"):
        zflib.write_atlas(small_net(), tmp_path, whole, layers=LAYERS, preprocess=prepared)


# --- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change, sentence", [
    ({"layers": "9"}, "layer '9' is not in this network"),
    ({"layers": []}, "layers must be at least one"),
    ({"images": iter([])}, "images: an iterator gives each image once"),
    ({"images": "nowhere"}, "path 'nowhere' does not exist"),
    ({"images": "empty"}, "path 'empty' holds no images"),
    ({"images": "broken"}, "images: none of the 1 could be read"),
    ({"out": "file"}, "out must be a folder, 'file' is a file"),
    ({"out": "broken"}, "out: the folder 'broken' holds files but no atlas"),
    ({"out": "photos/atlas"}, "out: 'photos/atlas' lies in the folder of the photographs"),
    ({"out": "damaged"}, "atlas.json is damaged; remove the folder"),
    ({"names": ["a"]}, "names must be one for each of the 2 images, got 1"),
    ({"batch_size": 0}, "batch_size must be a whole number of images"),
    ({"net": nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU())}, "is a GELU, for which a deconvnet has no rule"),
    ({"preprocess": None}, "preprocess is missing"),
], ids=lambda value: value if isinstance(value, str) else "")  # fmt: skip
def test_one_sentence_for_each_mistake(change, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "empty", "broken", "damaged"):
        Path(name).mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (16, 16), "red").save(f"photos/{name}.png")
    Path("broken/x.png").write_text("no image")
    Path("damaged/atlas.json").write_text("{")
    Path("file").write_text("")
    before = sorted(tmp_path.rglob("*"))
    given = {"net": small_net(), "images": "photos", "out": "out", "preprocess": prepared, "layers": "1"}
    with pytest.raises((ValueError, TypeError, OSError), match=re.escape(sentence)):
        zflib.write_atlas(**given | change)
    assert sorted(tmp_path.rglob("*")) == before


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path) -> Path:
    (tmp_path / "photos").mkdir()
    for name in ("chelsea", "coffee"):
        data.photo(name).resize((90, 64)).save(tmp_path / "photos" / f"{name}.png")
    return tmp_path / "photos"


def test_the_command_as_it_is_typed(photos):
    command = [sys.executable, "-m", "zflib.atlas", "photos", "--network", "scenes56", "--layers", "conv1",
               "-o", "atlas"]  # fmt: skip
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    done = subprocess.run(command, cwd=photos.parent, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{Path('atlas/index.html')}\n"), done.stderr
    assert broken_links(photos.parent / "atlas") == []
    assert "scenes56" in Page(photos.parent / "atlas" / "index.html").text


@pytest.mark.parametrize("arguments, sentence", [
    (["photos", "--network", "nope", "-o", "x"], "name 'nope' is not a network"),
    (["photos", "--network", "scenes56", "--layers", "conv1,pool9", "-o", "x"], "layer 'pool9' is not in this network"),
    (["nowhere", "--network", "scenes56", "-o", "x"], "path 'nowhere' does not exist"),
    (["photos", "--network", "scenes56"], "the following arguments are required: -o"),
])  # fmt: skip
def test_the_command_says_what_is_wrong(arguments, sentence, photos, monkeypatch, capsys):
    monkeypatch.chdir(photos.parent)
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert sentence in f"{end.value.code} {capsys.readouterr().err}" and not Path("x").exists()


def test_the_command_can_be_stopped(photos, monkeypatch, capsys):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pictures, "encoded", stopped)
    out = photos.parent / "atlas"
    with pytest.raises(SystemExit, match="stopped; what is there can be read, and the same command goes on"):
        main([str(photos), "--network", "scenes56", "--layers", "conv1", "-o", str(out)])
    assert broken_links(out, pictures=False) == []
