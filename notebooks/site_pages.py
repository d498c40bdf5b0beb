"""The course as a website without a server: a page for each notebook, opened from disk or put on any web server.

`write_site` renders the stored notebooks with nbconvert; nothing is run. Beside each page lie its pictures, as they are
stored. The pages load nothing from elsewhere: formulas become MathML, and the search has its index in a script. What
the pages look like stands in site_files/.
"""

from __future__ import annotations

import base64
import copy
import io
import json
import os
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

import jinja2
import nbformat
from bs4 import BeautifulSoup, Tag
from latex2mathml.converter import convert as mathml
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from PIL import Image
from traitlets.config import Config

FILES = Path(__file__).resolve().parent / "site_files"
LIST = "site_files.txt"  # what a build wrote, so that the next one knows its own files
OUTSIDE = re.compile(r"[a-z]+:|//", re.IGNORECASE)  # https:, mailto:, data:, //host
SEARCHED = ["h1", "h2", "h3", "h4", "p", "li", "tr"]
GROUPS = (
    ("Begin here", range(0, 1)),
    ("The deconvnet, part by part", range(1, 5)),
    ("A network, and what its layers see", range(5, 9)),
    ("The paper's experiments, and their controls", range(9, 14)),
    ("Beyond the paper", range(14, 100)),
)


@dataclass
class Page:
    """A page of the site: its source in the repository, its place on the site, and what is rendered for it."""

    source: Path
    place: str  # "deeper/10_units.html"
    notebook: nbformat.NotebookNode
    title: str
    body: str = ""
    headings: list[tuple[int, str, str]] = field(default_factory=list)  # level, id, words
    blocks: list[tuple[str, str, str]] = field(default_factory=list)  # id, heading, words: what the search knows
    hero: str = ""  # the place of its first picture

    @property
    def about(self) -> dict:
        return self.notebook.metadata.get("zflib", {})

    @property
    def number(self) -> str:
        return self.source.name[:2]

    @property
    def language(self) -> str:
        return "ko" if self.source.name.endswith(".ko.md") else "en"

    def to(self, place: str) -> str:
        """The address of another file of the site, from this page."""
        return quote(Path(os.path.relpath(place, Path(self.place).parent)).as_posix())


def write_site(out: Path, notebooks: list[Path], root: Path, repository: str = "") -> int:
    """Write the site of the `notebooks` (in reading order) and of the pages in Markdown beside the README of `root`.

    `repository` is an address on GitHub to which links to source files go; "" makes plain words of them. Returns how
    many pages there are. Stops with one sentence if `out` holds a file that no earlier build wrote.
    """
    known = _own_files(out)
    pages = [_read(path, root / "notebooks") for path in notebooks]
    pages += [_read(path, root) for path in sorted(root.glob("*.md")) if path.name != "README.md"]
    start = _read(root / "README.md", root)
    start.place = "index.html"
    files = _rendered(start, pages, root, repository)
    for name in ("style.css", "site.js"):
        files[name] = (FILES / name).read_bytes()
    _write_all(out, files, known)
    return len(pages) + 1


def _rendered(start: Page, pages: list[Page], root: Path, repository: str) -> dict[str, bytes]:
    """Everything that is made of the notebooks, by its place: pages, their pictures, and the search's index."""
    places = {page.source: page.place for page in [start, *pages]}
    exporter, files = _Exporter(), {}
    for page in [start, *pages]:
        _render(page, exporter, files, places, root, repository)
    chapters = [page for page in pages if "/" not in page.place and page.about]
    deeper = [page for page in pages if "/" in page.place]
    for page in pages:
        around = _around(page, chapters, deeper)
        files[page.place] = _template("page.html.j2", page=page, repository=repository, **around).encode()
    files["index.html"] = _first_page(start, pages, chapters, deeper, files).encode()
    files["search_index.js"] = _search_index(pages).encode()
    return files


def _read(path: Path, root: Path) -> Page:
    """A notebook, or a page in Markdown as a notebook of one cell."""
    if path.suffix == ".md":
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_markdown_cell(path.read_text(encoding="utf-8"), id="text")]
        )
    else:
        notebook = nbformat.read(path, 4)
    place = path.relative_to(root).with_suffix(".html").as_posix()
    title = notebook.cells[0].source.split("\n")[0].lstrip("# ").strip()
    return Page(path, place, notebook, title)


# Rendering


class _Renderer(IPythonRenderer):
    """nbconvert's, with formulas as MathML, which browsers draw without a script."""

    def block_math(self, body: str) -> str:
        return _formula(body, "block")

    def inline_math(self, body: str) -> str:
        return _formula(body, "inline")


class _Exporter(HTMLExporter):
    """nbconvert's "basic" template, without prompts; pictures are handed over as files."""

    def __init__(self):
        config = Config({"ExtractOutputPreprocessor": {"enabled": True}})
        super().__init__(template_name="basic", config=config, exclude_input_prompt=True, exclude_output_prompt=True)

    def default_filters(self):
        yield from super().default_filters()
        yield "markdown2html", self.markdown2html
        yield "clean_html", lambda code: code  # highlighted code is escaped already; cleaning takes a fifth of the time

    @jinja2.pass_context
    def markdown2html(self, context, source: str) -> str:
        return MarkdownWithMath(renderer=_Renderer(escape=False, exclude_anchor_links=True)).render(source)


def _formula(tex: str, display: str) -> str:
    """MathML of a formula; script and sans-serif letters as the characters that browsers have for them."""
    variants = {"script": ("MATHEMATICAL SCRIPT", "SCRIPT"), "sans-serif": ("MATHEMATICAL SANS-SERIF",)}

    def letter(match: re.Match) -> str:
        case = "CAPITAL" if match[2].isupper() else "SMALL"
        names = [f"{variant} {case} {match[2].upper()}" for variant in variants[match[1]]]
        found = next((unicodedata.lookup(name) for name in names if _is_character(name)), match[2])
        return f'<mi mathvariant="normal">{found}</mi>'

    return re.sub(
        r'<mi mathvariant="(script|sans-serif)">([A-Za-z])</mi>', letter, mathml(tex.strip(), display=display)
    )


def _is_character(name: str) -> bool:
    try:
        return bool(unicodedata.lookup(name))
    except KeyError:
        return False


def _render(page: Page, exporter, files: dict[str, bytes], places: dict[Path, str], root: Path, repository: str):
    """Fill in the page's body, headings and blocks; put its pictures into `files`."""
    notebook, panels = _prepared(page)
    resources = {"unique_key": page.source.stem, "output_files_dir": "pictures"}
    html, resources = exporter.from_notebook_node(notebook, resources)
    soup = BeautifulSoup(html, "html.parser")
    _take_pictures(soup, page, resources.get("outputs") or {}, files)
    _frame(soup, page, panels, files)
    _fold_setup(soup)
    for summary in soup.find_all("div", class_="celltag_zf-bottom"):
        summary["lang"] = "ko"
    _mark_headings(soup, page)
    _mark_blocks(soup, page)
    _turn_links(soup, page, places, root, repository)
    for table in soup.find_all("table"):
        table.wrap(soup.new_tag("div", attrs={"class": "scroll"}))
    page.body = str(soup)


def _prepared(page: Page) -> tuple[nbformat.NotebookNode, set[str]]:
    """A copy without generated links, and the names of the pictures that stand for a panel of controls."""
    notebook, panels, heading = copy.deepcopy(page.notebook), set(), page.title
    if page.place == "index.html":
        first = notebook.cells[0].source.split("\n## ")[0]
        notebook.cells[0].source = re.sub(r"^\[.*\n+", "", first, flags=re.MULTILINE)  # links that stand in the bar
    for number, cell in enumerate(notebook.cells):
        if "zf-top" in cell.metadata.get("tags", []):
            cell.source = cell.source.split("\n\n")[-1]  # how long it takes
        if "zf-bottom" in cell.metadata.get("tags", []):
            cell.source = cell.source.rpartition("\n\n")[0]  # the summary in Korean
        headings = re.findall(r"^#+ +(.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else []
        heading = headings[-1] if headings else heading
        for index, output in enumerate(cell.get("outputs", [])):
            panels |= {f"{page.source.stem}_{number}_{index}.png"} if _is_panel(output) else set()
            _give_alt(output, heading)
    return notebook, panels


def _is_panel(output) -> bool:
    """Whether a stored picture stands for a panel; pictures that are only pictures have no words of their own."""
    data = output.get("data", {})
    return "image/png" in data and not data.get("text/plain", "<").startswith("<")


def _give_alt(output, heading: str) -> None:
    """A picture without a text alternative gets the panel's words, or says where it stands."""
    for kind in {"image/png", "image/jpeg"} & output.get("data", {}).keys():
        words = output.data["text/plain"] if _is_panel(output) else f"figure in the section “{heading}”"
        output.metadata.setdefault(kind, nbformat.NotebookNode()).setdefault("alt", words)


# Pictures


def _take_pictures(soup: BeautifulSoup, page: Page, outputs: dict[str, bytes], files: dict[str, bytes]) -> None:
    """Put every picture of the page into a file in the folder pictures beside it."""
    for number, image in enumerate(soup.find_all("img")):
        source = unquote(image["src"])
        if source.startswith("data:image/"):
            kind, content = re.fullmatch(r"data:image/(\w+);base64,(.*)", source, re.DOTALL).groups()
            name, content = f"{page.source.stem}-{number}.{kind}", base64.b64decode(content)
        elif source in outputs:
            name, content = Path(source).name, outputs[source]
        elif OUTSIDE.match(source):
            image.replace_with(image.get("alt", ""))  # a badge
            continue
        else:
            name, content = Path(source).name, (page.source.parent / source).read_bytes()
        place = (Path(page.place).parent / "pictures" / name).as_posix()
        files[place], image["src"] = content, page.to(place)
        page.hero = page.hero or (place if source in outputs else "")  # an exercise's target is none
        image["loading"] = "lazy"
        _measure(image, content)


def _measure(image: Tag, content: bytes) -> None:
    """Width and height in pixels of the page, so that nothing jumps while pictures load."""
    width, height = Image.open(io.BytesIO(content)).size
    shown = min(int(image.get("width", 1000)), width)
    image["width"], image["height"] = str(shown), str(round(shown * height / width))


def _frame(soup: BeautifulSoup, page: Page, panels: set[str], files: dict[str, bytes]) -> None:
    """Pictures become figures that open at full size; those of panels say what they are, those that move can rest."""
    for image in soup.find_all("img"):
        place = (Path(page.place).parent / unquote(image["src"])).as_posix()
        figure = image.wrap(soup.new_tag("a", href=image["src"])).wrap(soup.new_tag("figure"))
        if figure.parent.name == "p":  # which may not hold a figure
            figure.parent.unwrap()
        moves = _frames(files[place]) > 1
        if moves:
            still = place.removesuffix(".png") + "-still.png"
            files[still] = _still(files[place])
            source = soup.new_tag("source", srcset=page.to(still), media="(prefers-reduced-motion: reduce)")
            image.wrap(soup.new_tag("picture")).insert(0, source)
            figure["class"] = "moves"
        if Path(place).name in panels:
            words = "Stored pictures of a panel" if moves else "The stored picture of a panel"
            caption = soup.new_tag("figcaption")
            caption.string = f"{words}: in the notebook itself, you move it."
            figure.append(caption)


def _frames(content: bytes) -> int:
    return getattr(Image.open(io.BytesIO(content)), "n_frames", 1)


def _still(content: bytes) -> bytes:
    """The first picture of an animation, for those whom movement disturbs."""
    return _encoded(Image.open(io.BytesIO(content)).convert("RGB"), "PNG", optimize=True)


def _encoded(image: Image.Image, kind: str, **settings) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def _thumbnail(content: bytes) -> bytes:
    """At most 640 by 400 pixels, without what hangs over at the bottom."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    image = image.resize((640, round(640 * image.height / image.width)), Image.Resampling.LANCZOS)
    return _encoded(image.crop((0, 0, 640, min(400, image.height))), "JPEG", quality=85)


# Text


def _fold_setup(soup: BeautifulSoup) -> None:
    """The setup cell, folded as in JupyterLab."""
    for cell in soup.find_all("div", class_="celltag_zf-setup"):
        details = cell.wrap(soup.new_tag("details", attrs={"class": "setup"}))
        summary = soup.new_tag("summary")
        summary.string = "Setup"
        details.insert(0, summary)


def _mark_headings(soup: BeautifulSoup, page: Page) -> None:
    """An id for each heading, as JupyterLab (in Markdown pages: GitHub) makes it; a second one gets a number."""
    seen: dict[str, int] = {}
    for heading in soup.find_all(["h1", "h2", "h3", "h4"]):
        words = heading.get_text().strip()
        name = words.replace(" ", "-")
        if page.source.suffix == ".md":
            name = re.sub(r"[^\w-]", "", name.lower())
        seen[name] = seen.get(name, 0) + 1
        heading["id"] = name if seen[name] == 1 else f"{name}-{seen[name]}"
        if heading.name in ("h2", "h3"):
            page.headings.append((int(heading.name[1]), heading["id"], words))


def _mark_blocks(soup: BeautifulSoup, page: Page) -> None:
    """What the search finds: headings, paragraphs, items and rows, each with an id to go to."""
    heading = ""
    cells = soup.find_all("div", class_="text_cell")
    for number, block in enumerate(block for cell in cells for block in cell.find_all(SEARCHED)):
        words = " ".join(block.get_text(" " if block.name == "tr" else "").split())
        if block.name[0] == "h":
            heading = words
        if words and not block.find(["p", "li"]):
            block["id"] = block.get("id") or f"b{number}"
            page.blocks.append((block["id"], heading, words))


def _turn_links(soup: BeautifulSoup, page: Page, places: dict[Path, str], root: Path, repository: str) -> None:
    """Links to notebooks and to the README go to their pages; to other files, to the repository or nowhere."""
    for link in soup.find_all("a", href=True):
        address, _, fragment = link["href"].partition("#")
        if not address or OUTSIDE.match(address) or link.find("img"):
            continue
        target = Path(os.path.normpath(page.source.parent / unquote(address)))
        if target in places:
            kept = fragment if places[target] != "index.html" or fragment == "the-notebooks" else ""
            link["href"] = page.to(places[target]) + (f"#{kept}" if kept else "")
        elif repository:
            link["href"] = f"{repository}/blob/main/{quote(target.relative_to(root).as_posix())}"
        else:
            link.unwrap()


# Around the text


def _template(name: str, **values) -> str:
    loader = jinja2.FileSystemLoader(FILES)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(name).render(values)


def _around(page: Page, chapters: list[Page], deeper: list[Page]) -> dict:
    """The pages before and after this one, its chapter if it goes deeper, and what goes deeper."""
    own = [other for other in deeper if other.number == page.number and page in chapters]
    if page in chapters:
        place = chapters.index(page)
        before, after = chapters[max(place - 1, 0) : place], chapters[place + 1 : place + 2]
        return {"before": before[0] if before else None, "after": after[0] if after else None, "deeper": own}
    chapter = [other for other in chapters if other.number == page.number and page in deeper]
    return {"chapter": chapter[0] if chapter else None, "deeper": []}


def _first_page(start: Page, pages: list[Page], chapters: list[Page], deeper: list[Page], files: dict) -> str:
    """The README's first words, and the map of the notebooks with a picture of each."""
    thumbnails = {}
    for page in [*chapters, *deeper]:
        if page.hero:
            name = Path(page.place).with_suffix(".jpg").as_posix().replace("/", "-")
            thumbnails[page.place] = f"pictures/thumbnails/{name}"
            files[thumbnails[page.place]] = _thumbnail(files[page.hero])
    groups = [(name, [page for page in chapters if int(page.number) in numbers]) for name, numbers in GROUPS]
    groups = [(name, members) for name, members in groups if members]
    others = [page for page in pages if page not in chapters and page not in deeper]
    return _template("index.html.j2", page=start, groups=groups, deeper=deeper, others=others, thumbnails=thumbnails)


def _search_index(pages: list[Page]) -> str:
    """A script, since a page on disk may not read other files: for each page its place, title and blocks."""
    known = [[quote(page.place), page.title, page.blocks] for page in pages]
    return "window.zflibIndex = " + json.dumps(known, ensure_ascii=False, separators=(",", ":")) + ";\n"


# Files


def _own_files(out: Path) -> set[str]:
    """The files in `out`, all of an earlier build; names that begin with a dot are nobody's business."""
    if out.exists() and not out.is_dir():
        raise SystemExit(f"--site needs a folder, and {out} is a file: name an empty or a new folder")
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    found = {name for name in found if not any(part.startswith(".") for part in Path(name).parts)}
    listed = set((out / LIST).read_text(encoding="utf-8").splitlines()) if LIST in found else set()
    foreign = sorted(found - listed - {LIST}) if listed else sorted(found)
    if foreign:
        raise SystemExit(f"--site writes no other folder than its own, and {out} holds {foreign[0]}, which it did not "
                         "write: name an empty or a new folder")  # fmt: skip
    return found - {LIST}


def _write_all(out: Path, files: dict[str, bytes], known: set[str]) -> None:
    """Write the files, each whole or not at all, and remove what an earlier build left over.

    The list of files comes first and holds both, so that a build that was stopped knows its own files, too.
    """
    _write(out / LIST, "\n".join(sorted(known | files.keys())).encode())
    for name, content in files.items():
        _write(out / name, content)
    for name in known - files.keys():
        (out / name).unlink()
    _write(out / LIST, "\n".join(sorted(files)).encode())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.replace(path)
