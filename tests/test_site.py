"""The website: its links, that it needs nothing from elsewhere, what it escapes, and the folder that it takes."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
from bs4 import BeautifulSoup
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "notebooks"))
import build  # noqa: E402
import site_pages  # noqa: E402

NASTY = """00 · <i>"rows" & 'columns'"""
OUTSIDE = re.compile(r"https?:|//")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site of the stored notebooks."""
    out = tmp_path_factory.mktemp("out") / "site"
    site_pages.write_site(out, build.paths(), ROOT)
    return out


@pytest.fixture(scope="module")
def soups(site) -> dict[Path, BeautifulSoup]:
    return {path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in site.rglob("*.html")}


def picture(shade: int) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 4), (shade, 0, 0)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def notebook(title: str, *cells: str) -> nbformat.NotebookNode:
    """A notebook of a title, texts, and a code cell with a picture that has no text alternative."""
    new = nbformat.v4
    output = new.new_output("display_data", {"image/png": picture(9), "text/plain": "<Figure>"})
    code = new.new_code_cell("""print("<script>alert(1)</script>")""", outputs=[output])
    cells = [new.new_markdown_cell(text) for text in (f"# {title}", *cells)]
    return new.new_notebook(cells=[*cells, code], metadata={"zflib": {"summary": "a < b & c", "reading": 5}})


@pytest.fixture
def course(tmp_path) -> Path:
    """A course of two notebooks, whose names and texts could break a page."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "README.md").write_text(
        "# A course\n\n[English](README.md)\n\nThe first words.\n\n## More\n\nNot shown.\n"
    )
    first = notebook(NASTY, "[next](01_b.ipynb#Two-words) and [source](../zflib/a.py)", "## Half $x<1$ done")
    nbformat.write(first, tmp_path / "notebooks" / "00_a b#c.ipynb")
    nbformat.write(notebook("01 · b", "## Two words"), tmp_path / "notebooks" / "01_b.ipynb")
    return tmp_path


def write(course: Path, name: str = "site", **settings) -> Path:
    site_pages.write_site(course / name, sorted((course / "notebooks").glob("*.ipynb")), course, **settings)
    return course / name


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def broken(soups: dict[Path, BeautifulSoup]) -> list[str]:
    """Addresses on the pages that lead to no file, or to no place in it."""
    ids = {path: {tag["id"] for tag in soup.find_all(id=True)} for path, soup in soups.items()}
    wrong = []
    for path, soup in soups.items():
        for tag in soup.find_all(["a", "img", "source", "script", "link"]):
            address = tag.get("href") or tag.get("src") or tag.get("srcset") or ""
            place, _, fragment = address.partition("#")
            target = (path.parent / unquote(place)).resolve() if place else path
            if re.match(r"https?:|data:,", address):
                continue
            found = target.is_file() and (not fragment or unquote(fragment) in ids.get(target, ()))
            wrong += [] if found else [f"{path.name}: {address}"]
    return wrong


def test_there_is_a_page_for_every_notebook(site, soups):
    for path in build.paths():
        page = site / path.relative_to(build.HERE).with_suffix(".html")
        assert soups[page].h1.get_text() == build.title(path)
    shown = [link["href"] for link in soups[site / "index.html"].select(".cards a")]
    assert shown == [path.relative_to(build.HERE).with_suffix(".html").as_posix() for path in build.paths()]


def test_every_link_resolves(soups):
    assert broken(soups) == []


def test_nothing_is_loaded_from_elsewhere(site, soups):
    for path, soup in soups.items():
        loaded = [
            t.get("src") or t.get("srcset") for t in soup.find_all(["img", "script", "source", "iframe", "video"])
        ]
        loaded += [tag["href"] for tag in soup.find_all("link")]
        assert not [address for address in loaded if OUTSIDE.match(address)], path
        assert not [tag for tag in soup.find_all(style=True) if "url(" in tag["style"]], path
    for name in ("style.css", "site.js"):
        assert not re.search(r"https?://|@import|url\(", (site / name).read_text())


def test_one_leads_to_the_next(site, soups):
    chapters = [path.with_suffix(".html").name for path in build.chapters()]
    here, seen = chapters[0], []
    while here:
        seen.append(here)
        link = soups[site / here].find("a", rel="next")
        here = link and link["href"]
    assert seen == chapters


def test_pictures_are_the_stored_ones_and_have_words(site, soups):
    animated = 0
    for path in build.paths():
        page = site / path.relative_to(build.HERE).with_suffix(".html")
        stored = [o.data for cell in nbformat.read(path, 4).cells for o in cell.get("outputs", []) if "data" in o]
        stored = [data.get("image/png") or data.get("image/jpeg") for data in stored if "text/html" not in data]
        shown = [(page.parent / unquote(image["src"])).read_bytes() for image in soups[page].find_all("img")]
        assert {base64.b64decode(data) for data in stored if data} <= set(shown), path
        assert all(image["alt"].strip() for image in soups[page].find_all("img")), path
        animated += len(soups[page].select("figure.moves source[media]"))
        assert "data:image" not in page.read_text()
    assert animated >= 10


def test_a_panel_says_that_the_notebook_moves_it(site, soups):
    captions = [caption.get_text() for caption in soups[site / "09_occlusion.html"].find_all("figcaption")]
    assert captions == ["Stored pictures of a panel: in the notebook itself, you move it."]


def test_the_setup_cell_is_folded_and_hints_are_closed(soups, site):
    soup = soups[site / "00_start_here.html"]
    setup = soup.find("details", class_="setup")
    assert "import importlib.util" in setup.get_text() and not setup.has_attr("open")
    assert [d.summary.get_text() for d in soup.select("main details")] == ["Setup", *["Hint", "Solution"] * 2]


def test_the_summary_in_korean_is_there_and_the_notebooks_own_links_are_not(soups, site):
    soup = soups[site / "01_unpooling_with_switches.html"]
    assert "한국어 요약" in soup.find(lang="ko").get_text()
    assert "previous:" not in soup.main.get_text() and not soup.main.find("a", href="../README.md")


def test_formulas_are_mathml(soups, site):
    soup = soups[site / "11_correspondence.html"]
    assert len(soup.find_all("math")) >= 6 and soup.find("math", display="block")
    assert "ℋ" in soup.get_text() and "$" not in re.sub(r"<pre.*?</pre>", "", str(soup), flags=re.DOTALL)


def test_the_search_knows_a_sentence_and_where_it_stands(site, soups):
    script = (site / "search_index.js").read_text()
    index = json.loads(script.removeprefix("window.zflibIndex = ").removesuffix(";\n"))
    sentence = "The pixels that an activation can see are its receptive field."
    found = [(place, id) for place, _, blocks in index for id, _, text in blocks if sentence in text]
    assert len(found) == 1 and found[0][0] == "00_start_here.html"
    assert sentence in soups[site / found[0][0]].find(id=found[0][1]).get_text()
    for place, _, blocks in index:
        ids = {tag["id"] for tag in soups[site / place].find_all(id=True)}
        assert {id for id, _, _ in blocks} <= ids


def luminance(colour: str) -> float:
    """WCAG 2's relative luminance of a colour like #0b57a4 or #fff."""
    digits = colour.lstrip("#")
    digits = digits if len(digits) == 6 else "".join(digit * 2 for digit in digits)
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    parts = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_text_has_contrast():
    css = (site_pages.FILES / "style.css").read_text()
    named = dict(re.findall(r"--(\w+): (#\w+)", css))
    written = set(re.findall(r"[ {]color: (#\w+)", css))
    assert len(written) >= 4
    for colour in written | {named[name] for name in ("ink", "soft", "link")}:
        for ground in ("#fff", named["pale"]):
            ratio = (luminance(ground) + 0.05) / (luminance(colour) + 0.05)
            assert ratio >= 4.5, f"{colour} on {ground}: {ratio:.1f}"


def test_names_are_escaped_and_odd_file_names_work(course):
    out = write(course)
    soups = {path: BeautifulSoup(path.read_text(), "html.parser") for path in out.rglob("*.html")}
    assert broken(soups) == []
    card = soups[out / "index.html"].select_one(".cards a")
    assert card.strong.get_text() == NASTY and card.span.get_text() == "a < b & c"
    first, second = soups[out / "00_a b#c.html"], soups[out / "01_b.html"]
    assert second.find("a", rel="prev")["title"] == f"Previous: {NASTY}"
    assert first.title.get_text() == f"{NASTY} · zflib"
    assert [script.get("src") for script in first.find_all("script")] == ["site.js"]
    assert first.find("img")["alt"] == "figure in the section “Half $x<1$ done”"


def test_links_to_source_go_to_the_repository_or_nowhere(course):
    here = BeautifulSoup((write(course) / "00_a b#c.html").read_text(), "html.parser")
    assert not here.find("a", string="source") and "source" in here.get_text()
    assert here.find("a", string="next")["href"] == "01_b.html#Two-words"
    published = write(course, "other", repository="https://github.com/YOU/NAME") / "00_a b#c.html"
    link = BeautifulSoup(published.read_text(), "html.parser").find("a", string="source")
    assert link["href"] == "https://github.com/YOU/NAME/blob/main/zflib/a.py"


def test_the_first_page_begins_like_the_readme(course):
    page = (write(course) / "index.html").read_text()
    assert "The first words." in page and "Not shown." not in page and "English" not in page


def test_written_twice_the_bytes_are_the_same_and_what_is_left_over_goes(course):
    once, out = contents(write(course)), course / "site"
    (out / ".nojekyll").touch()
    assert contents(write(course)) == once | {".nojekyll": b""}
    (course / "notebooks" / "01_b.ipynb").unlink()
    first = course / "notebooks" / "00_a b#c.ipynb"
    first.write_text(first.read_text().replace("01_b.ipynb", "b"))
    write(course)
    assert not list(out.rglob("*01_b*")) and (out / ".nojekyll").exists()


def test_a_stopped_build_goes_on(course, monkeypatch):
    """The second build takes the half-written folder for its own."""
    whole, writing = contents(write(course)), site_pages._write

    def stopping(path: Path, content: bytes) -> None:
        if path.name == "index.html":
            raise KeyboardInterrupt
        writing(path, content)

    monkeypatch.setattr(site_pages, "_write", stopping)
    with pytest.raises(KeyboardInterrupt):
        write(course, "half")
    monkeypatch.undo()
    assert contents(write(course, "half")) == whole


@pytest.mark.parametrize("name", ["notes.txt", "index.html", "deeper/mine.md"])
def test_a_folder_of_somebody_else_is_refused(course, name):
    own = course / "mine" / name
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    with pytest.raises(SystemExit, match=f"holds {name}, which it did not write: name an empty or a new folder$"):
        write(course, "mine")
    assert contents(course / "mine") == {name: b"mine"}


def test_a_file_is_no_folder(course):
    (course / "taken").write_text("mine")
    with pytest.raises(SystemExit, match="is a file"):
        write(course, "taken")


def test_the_command_refuses_before_it_renders(tmp_path):
    (tmp_path / "notes.txt").touch()
    command = [sys.executable, str(ROOT / "notebooks" / "build.py"), "--site", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "notes.txt" in done.stderr
