"""Keeps the notebooks: writes their generated cells, runs them from a fresh kernel, and stores clean outputs.

    python notebooks/build.py                 # links, setup cells, Korean, README maps: generated parts only
    python notebooks/build.py --run           # the same, then restart, run all and store the figures
    python notebooks/build.py --run 01 04     # only these, with what lies in deeper/ under these numbers
    python notebooks/build.py --check         # exit 1 if a generated part is out of date
    python notebooks/build.py --heroes slides  # a slide for each chapter: its picture and its question; runs nothing
    python notebooks/build.py --repository https://github.com/YOU/NAME   # badges and the clone on Colab point there
    python notebooks/build.py --site site/    # the stored notebooks as a website that needs no server; runs nothing

Cells are found by their tags: "zf-setup" (the setup cell, folded away), "zf-top" (links) and "zf-bottom" (links, under
the Korean summary from notebooks/korean.md). Everything else is the author's. `metadata.zflib` of a notebook
holds `reading` (minutes, by its author), `summary` (one line for the README) and `seconds` (measured by --run). What a
class can skip lies in notebooks/deeper/, named after its chapter.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
import tomllib
from pathlib import Path

import nbformat

GITHUB = "https://github.com/"
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PROJECT = ROOT / "pyproject.toml"
REPOSITORY = tomllib.loads(PROJECT.read_text())["tool"]["zflib"]["repository"]


def setup(repository: str) -> str:
    """The first code cell of every notebook; on Colab it clones `repository`, if there is one."""
    return SETUP_CELL.replace("ADDRESS", repository)


SETUP_CELL = """# @title Run this first: it brings zflib along. { display-mode: "form" }
# It works in JupyterLab, VS Code and Colab, and running it twice does no harm.
import importlib.util, os, subprocess, sys
from pathlib import Path

starts = [Path.cwd(), *map(Path, sys.path), Path(globals().get("__vsc_ipynb_file__", "."))]
starts += [Path(os.environ.get("JPY_SESSION_NAME", ".")), Path.cwd() / "zflib-course"]
folders = [folder for start in starts for folder in (start.absolute(), *start.absolute().parents)]
root = next((f for f in folders if (f / "zflib" / "show" / "__init__.py").is_file()), None)
if root is None and "google.colab" in sys.modules:
    root, address = Path.cwd() / "zflib-course", os.environ.get("ZFLIB_REPOSITORY", "ADDRESS")
    if not address:
        fix = "set os.environ['ZFLIB_REPOSITORY'] to one that you trust, or run notebooks/build.py --repository URL"
        raise RuntimeError(f"this copy of the course has no address to fetch zflib from: {fix}, as its publisher")
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", address, str(root)], check=True)
if root is None:
    raise ModuleNotFoundError("zflib is not here: open this notebook inside the project's folder, or pip install zflib")
if str(root) not in sys.path:
    sys.path.insert(0, str(root))

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait leave the cores to others
import matplotlib.pyplot as plt
import torch
import zflib
from zflib import check, show

zflib.complete_colab()
show.style()
device = zflib.device()
print(zflib.versions(device))"""

SETUP = setup(REPOSITORY)


def chapters() -> list[Path]:
    """The notebooks in reading order."""
    return sorted(HERE.glob("[0-9][0-9]_*.ipynb"))


def number(path: Path) -> str:
    """Of the chapter that the notebook is, or belongs to: "04"."""
    return "04" if path.stem == "bug_museum" else path.name[:2]


def paths() -> list[Path]:
    """All notebooks: the chapters, then what goes deeper."""
    deeper = [*HERE.glob("deeper/[0-9][0-9]_*.ipynb"), *HERE.glob("deeper/bug_museum.ipynb")]
    return chapters() + sorted(deeper, key=lambda path: (number(path), path.name))


def title(path: Path) -> str:
    """What the notebook calls itself, in its first line."""
    return nbformat.read(path, 4).cells[0].source.split("\n")[0].lstrip("# ").strip()


def links(path: Path) -> str:
    """Previous, contents and next; of a notebook in deeper/ the way back to its chapter."""
    files = chapters()
    if path not in files:
        chapter = next(file for file in files if number(file) == number(path))
        return f"[back to {title(chapter)}](../{chapter.name}) · [contents](../../README.md#the-notebooks)"
    place = files.index(path)
    before, after = files[max(place - 1, 0) : place], files[place + 1 : place + 2]
    parts = [f"[previous: {title(file)}]({file.name})" for file in before]
    parts.append("[contents](../README.md#the-notebooks)")
    parts += [f"[next: {title(file)}]({file.name})" for file in after]
    return " | ".join(parts)


def korean() -> dict[str, tuple[str, list[str]]]:
    """Notebook, as a path below this folder -> its Korean title line and its summary's sentences, from korean.md."""
    text = (HERE / "korean.md").read_text(encoding="utf-8")
    parts = [[line for line in part.splitlines() if line] for part in text.split("\n## ")[1:]]
    return {name: (headline, sentences) for name, headline, *sentences in parts}


def bottom(path: Path) -> str:
    """The summary in Korean, if it is written already, above the links."""
    _, sentences = korean().get(path.relative_to(HERE).as_posix(), ("", []))
    summary = "### 한국어 요약\n\n" + " ".join(sentences) + "\n\n" if sentences else ""
    return summary + links(path)


def korean_readme() -> str:
    """The Korean README with its two maps; a notebook that is described in korean.md but not there is left out."""
    there = [(place, line) for place, (line, _) in korean().items() if (HERE / place).is_file()]
    linked = [re.sub(r"\*\*(.+?)\*\*: (.+)", rf"[\1](notebooks/{place}) | \2", line) for place, line in there]
    chapter_rows = [f"| {row} |" for row in linked if "/deeper/" not in row]
    deeper_rows = [f"- {row.replace(' | ', ': ')}" for row in linked if "/deeper/" in row]
    text = (ROOT / "README.ko.md").read_text(encoding="utf-8")
    text = _between("map", "\n".join(["| 노트북 | 내용 |", "|---|---|", *chapter_rows]), text)
    return _between("deeper", "\n".join(deeper_rows), text)


def _between(mark: str, block: str, text: str) -> str:
    """Put `block` between the comments that mark its place."""
    found = f"<!-- {mark} -->.*?<!-- end of {mark} -->"
    return re.sub(found, lambda _: f"<!-- {mark} -->\n{block}\n<!-- end of {mark} -->", text, flags=re.DOTALL)


def top(path: Path, notebook) -> str:
    """The Colab badge, if this copy is published; the links and how long the notebook takes."""
    place = path.relative_to(ROOT).as_posix()
    colab = f"https://colab.research.google.com/github/{REPOSITORY.removeprefix(GITHUB)}/blob/main/{place}"
    badge = f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab})\n\n"
    return f"{badge if REPOSITORY else ''}{links(path)}\n\n*{duration(notebook)}*"


def duration(notebook) -> str:
    own = notebook.metadata.get("zflib", {})
    run = f"runs in {own['seconds']} s on two CPU cores, no GPU needed" if "seconds" in own else "no GPU needed"
    return f"{own.get('reading', 20)} minutes to read and play; {run}"


#: JupyterLab hides the source of such a cell, Colab shows it as a form; VS Code and web pages show it as it is.
FOLDED = {"cellView": "form", "jupyter": {"source_hidden": True}}


def tidy(path: Path, notebook):
    """Write the generated cells; drop metadata that changes from run to run or breaks the page on the web."""
    generated = {"zf-setup": SETUP, "zf-top": top(path, notebook), "zf-bottom": bottom(path)}
    for i, cell in enumerate(notebook.cells):
        tags = cell.metadata.get("tags", [])
        cell.metadata = nbformat.NotebookNode({"tags": tags} if tags else {})
        cell.id = f"cell-{i:02d}"
        for tag in generated.keys() & set(tags):
            cell.source = generated[tag]
        if "zf-setup" in tags:
            cell.metadata.update(FOLDED)
    notebook.metadata = nbformat.NotebookNode({
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "zflib": dict(notebook.metadata.get("zflib", {})),
    })  # fmt: skip
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def run(path: Path, notebook):
    """Restart, run all, and keep outputs that a reader without a kernel can see."""
    from nbclient import NotebookClient

    started = time.monotonic()
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=300, resources=resources, store_widget_state=False).execute()
    notebook.metadata.setdefault("zflib", {})["seconds"] = round(time.monotonic() - started)
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = _joined([o for o in cell.outputs if o.get("name") != "stderr" and _is_seen(o)])
    return notebook


def _is_seen(output) -> bool:
    """Takes the widget out of an output; says whether anything but words about it is left (not of a progress bar)."""
    data = output.get("data", {})
    return data.pop("application/vnd.jupyter.widget-view+json", None) is None or bool(data.keys() - {"text/plain"})


def _joined(outputs: list) -> list:
    """Lines that were printed one after the other as one output, however the kernel happened to send them."""
    kept = []
    for output in outputs:
        if output.output_type == "stream" and kept and kept[-1].output_type == "stream":
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


def readme() -> str:
    """The README with its map of notebooks."""
    rows = ["| notebook | what you will see | minutes | run |", "|---|---|---|---|"]
    for path in paths():
        own = nbformat.read(path, 4).metadata.get("zflib", {})
        summary, reading, seconds = own.get("summary", ""), own.get("reading", ""), own.get("seconds", "?")
        place = path.relative_to(ROOT).as_posix()
        rows.append(f"| [{title(path)}]({place}) | {summary} | {reading} | {seconds} s |")
    return _between("map", "\n".join(rows), (ROOT / "README.md").read_text(encoding="utf-8"))


def written_pages() -> dict[str, str]:
    """The READMEs with their maps, and the teacher's page with its table of exercises."""
    import teaching

    return {"README.md": readme(), "README.ko.md": korean_readme(), "TEACHING.md": teaching.page(paths())}


def write(path: Path, text: str) -> bool:
    """Write `text` if it is news; says whether it was."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
    return True


def publish(repository: str) -> None:
    """Let badges and the clone on Colab point to `repository`, an address on GitHub; "" for nowhere."""
    global REPOSITORY, SETUP
    repository = repository.rstrip("/").removesuffix(".git")
    if repository and not re.fullmatch(GITHUB + r"[\w.-]+/[\w.-]+", repository):
        raise SystemExit(f"--repository must be like {GITHUB}YOU/NAME, which is what Colab opens, got {repository!r}")
    line = re.compile(r'^repository = ".*"$', re.MULTILINE)
    write(PROJECT, line.sub(f'repository = "{repository}"', PROJECT.read_text()))
    REPOSITORY, SETUP = repository, setup(repository)


def site(folder: Path) -> int:
    """Write the stored notebooks as a website that needs no server."""
    import site_pages

    count = site_pages.write_site(folder, paths(), ROOT, REPOSITORY)
    print(f"{count} pages; open {folder / 'index.html'}")
    return 0


def slides(folder: Path) -> int:
    """Write the chapters' slides into `folder`."""
    import heroes

    print(f"{len(heroes.write(folder, chapters()))} slides in {folder}")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", nargs="*", metavar="NN", help="run these notebooks (all, if none is named)")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if something is out of date")
    parser.add_argument("--repository", metavar="URL", help="where this copy is published, '' for nowhere")
    parser.add_argument("--site", type=Path, metavar="FOLDER", help="write the website there, and nothing else")
    parser.add_argument("--heroes", metavar="FOLDER", type=Path, help="write a slide for each chapter; nothing else")
    options = parser.parse_args()
    if options.heroes is not None:
        return slides(options.heroes)
    if options.repository is not None:
        publish(options.repository)
    if options.site is not None:
        return site(options.site)
    stale = []
    for path in paths():
        notebook = nbformat.read(path, 4)
        if options.run is not None and (not options.run or number(path) in options.run):
            notebook = run(path, tidy(path, notebook))
            print(f"{path.name}: {notebook.metadata['zflib']['seconds']} s", flush=True)
        text = nbformat.writes(tidy(path, notebook), version=4) + "\n"
        if options.check:
            stale += [path.name] if path.read_text(encoding="utf-8") != text else []
        else:
            write(path, text)
    for name, text in written_pages().items():
        stale += [name] if (ROOT / name).read_text(encoding="utf-8") != text else []
        if not options.check:
            write(ROOT / name, text)
    if options.check and stale:
        print("out of date, run python notebooks/build.py:", ", ".join(stale))
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
