"""The pages of an atlas as plain HTML: first page, a wall for each layer, a page for each channel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

from ..experiments.peaks import Found
from .captions import Captions
from .chapters import Chapter
from .pictures import WALL_COLUMNS, K

PAGE = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<link rel="stylesheet" href="$root/style.css">
$head<body>
$body</body>
</html>
""")

INDEX = Template("""<h1>What the channels of $network respond to</h1>
<p>$channels channels in $layers, searched over $images photographs. Each channel has a page with the nine photographs
that excite it most.</p>
<div class="layers">
$cards</div>
<h2 id="reading">How to read this</h2>
<ul>
<li>A channel is scored on each photograph by the largest value in its map. The nine photographs with the largest values
are shown, the strongest first.</li>
<li><b>Patch</b>: the part of the photograph that this value can depend on, its receptive field. At a border the window
is moved into the photograph.</li>
<li><b>Projection</b>: this one activation, carried back to the pixels by the deconvnet. It shows which pixels it came
from. Each projection is drawn at its own contrast, slightly blurred and with paler colours; grey is zero.</li>
<li><b>Lit</b>: the patch where its projection is strong, grey where it is weak. It shows the image, not what the
channel knows: even an untrained network would light the middle of many patches.</li>
<li>Nine photographs are few. What they have in common is a guess about the channel, not a proof.</li>
<li><b>Alike</b>: two channels of a layer are compared by how many of their $compared strongest photographs they
share. Unrelated channels would share $chance of them on average.</li>
</ul>
<p class="soft">The method is that of Zeiler and Fergus, <a href="https://arxiv.org/abs/1311.2901"><i>Visualizing and
Understanding Convolutional Networks</i></a>, section 2 and Figure 2.</p>
$skipped""")

CARD = Template("""<a href="$folder/index.html"><span class="strip" role="img" aria-label="Some projections of $layer"
style="background-image:url('$folder/wall.webp')"></span><b>$layer</b><br><small>$about</small></a>
""")

WALL = Template("""<nav><span><a href="../index.html">$network</a> / $layer</span><span class="turn">$turn</span></nav>
<h1>$layer</h1>
<p class="soft">$about. Each tile is the projection of the
channel's strongest activation, cut to where it is strong and drawn at its own contrast.</p>
<div class="wall">
$tiles</div>
""")

CHANNEL = Template("""<nav><span><a href="../index.html">$network</a> / <a href="index.html#$channel">$layer</a> /
$channel</span><span class="turn">$turn</span></nav>
<h1>$title</h1>
<p class="soft">$about</p>
<div class="groups">
$groups</div>
<p class="soft">Lit shows the image, not what the channel knows.
<a href="../index.html#reading">How to read this</a></p>
<div class="below">
<section>
<h2>The photographs</h2>
<table>
<tr><th class="number">no.</th><th class="number">activation</th><th>position</th><th>photograph</th></tr>
$rows</table>
</section>
<section>
<h2>Most alike in $layer</h2>
$alike</section>
</div>
""")

GROUPS = (("patch", "Patches", "what the channel looks at"), ("lit patch", "Lit", "where the projection is strong"),
          ("projection", "Projections", "one activation, carried to the pixels"))  # fmt: skip


@dataclass
class Book:
    """All that the pages say: the network's name and classes, the layers, names of photographs, what was found."""

    network: str
    classes: list[str]
    chapters: list[Chapter]
    captions: Captions
    found: Found
    compared: int

    def name(self, chapter: Chapter, channel: int) -> str:
        """A channel of maps, a unit of a fully connected layer; with its class where there is one for each."""
        kind = "channel" if len(chapter.shape) == 3 else "unit"
        known = len(self.classes) == len(chapter.channels)
        return f"{kind} {channel}" + (f" · {self.classes[channel]}" if known else "")


def sheet_path(chapter: Chapter, channel: int) -> str:
    """Where the 27 tiles of a channel lie in the atlas."""
    return f"{chapter.folder}/{channel}.webp"


def write(book: Book) -> Iterator[tuple[str, str]]:
    """(path in the atlas, text) of every page."""
    yield "style.css", Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    for chapter in book.chapters:
        yield f"{chapter.folder}/index.html", _wall(book, chapter)
        for channel in chapter.channels:
            yield f"{chapter.folder}/{channel}.html", _channel(book, chapter, channel)
    yield "index.html", _index(book)


def _page(title: str, body: str, *, root: str = "..", head: str = "") -> str:
    return PAGE.substitute(title=escape(title), root=root, head=head, body=body)


def _index(book: Book) -> str:
    cards = [CARD.substitute(folder=chapter.folder, layer=escape(chapter.layer), about=_about(chapter))
             for chapter in book.chapters]  # fmt: skip
    channels = sum(len(chapter.channels) for chapter in book.chapters)
    count, layers = book.found.count, len(book.chapters)
    body = INDEX.substitute(
        network=escape(book.network), channels=f"{channels:,}", layers=f"{layers} layer{'s' * (layers > 1)}",
        images=f"{count:,}", cards="".join(cards), compared=book.compared,
        chance=f"{book.compared**2 / count:.3g}", skipped=_skipped(book),
    )  # fmt: skip
    return _page(f"Atlas of {book.network}", body, root=".")


def _skipped(book: Book) -> str:
    if not (skipped := book.found.skipped):
        return ""
    lines = [f"<li>{escape(book.captions.of(image, name)[1] or name)}</li>\n" for image, name, _ in skipped]
    return f"<h2>Could not be read</h2>\n<ul>\n{''.join(lines)}</ul>\n"


def _about(chapter: Chapter) -> str:
    """Channels, maps and receptive field in a line."""
    count = len(chapter.channels)
    if len(chapter.shape) == 1:
        return f"{count:,} units, each of which sees the whole photograph"
    (_, height, width), (rows, columns) = chapter.shape, chapter.field
    return f"{count:,} channels, maps of {height}×{width}, receptive fields of {rows}×{columns} pixels"


def _wall(book: Book, chapter: Chapter) -> str:
    tiles = "".join(_wall_tile(book, chapter, channel, anchor=True) for channel in chapter.channels)
    number = book.chapters.index(chapter)
    turn = _turn(
        [f"../{other.folder}/index.html" for other in book.chapters], [other.layer for other in book.chapters], number
    )
    layer = escape(chapter.layer)
    body = WALL.substitute(network=escape(book.network), layer=layer, about=_about(chapter), turn=turn, tiles=tiles)
    return _page(f"{chapter.layer} · {book.network}", body, head=_wall_style(chapter))


def _wall_style(chapter: Chapter) -> str:
    rows = -(-len(chapter.channels) // WALL_COLUMNS)
    return (f"<style>.wall .tile {{ background-image: url('wall.webp'); "
            f"background-size: {100 * WALL_COLUMNS}% {100 * rows}%; }}</style>\n")  # fmt: skip


def _wall_tile(book: Book, chapter: Chapter, channel: int, *, anchor: bool = False, below: str = "") -> str:
    """A channel's tile of the wall, as a link to its page."""
    rows, name = -(-len(chapter.channels) // WALL_COLUMNS), escape(book.name(chapter, channel))
    row, column = divmod(channel, WALL_COLUMNS)
    place = f"{_percent(column, WALL_COLUMNS)} {_percent(row, rows)}"
    label = f"{name}, silent" if chapter.silent(channel) else f"Projection of {name}"
    own = f' id="{channel}"' if anchor else ""
    return (f'<a{own} href="{channel}.html" title="{name}"><span class="tile" role="img" aria-label="{label}" '
            f'style="background-position:{place}"></span>{below or channel}</a>\n')  # fmt: skip


def _percent(index: int, count: int) -> str:
    """The background position that shows tile `index` of `count` side by side."""
    return f"{100 * index / max(1, count - 1):.6g}%"


def _turn(addresses: list[str], labels: list[str], here: int) -> str:
    """Links to the one before and the one after."""
    links = []
    if here > 0:
        links.append(f'<a rel="prev" href="{addresses[here - 1]}">← {escape(labels[here - 1])}</a>')
    if here < len(addresses) - 1:
        links.append(f'<a rel="next" href="{addresses[here + 1]}">{escape(labels[here + 1])} →</a>')
    return " ".join(links)


def _channel(book: Book, chapter: Chapter, channel: int) -> str:
    winners = [_winner(book, chapter, channel, rank) for rank in range(K)]
    all_channels = list(map(str, chapter.channels))
    groups = "".join(_group(number, winners) for number in range(len(GROUPS)))
    title = f"{chapter.layer} · {book.name(chapter, channel)}"
    silent = "No photograph excites this channel. " if chapter.silent(channel) else ""
    body = CHANNEL.substitute(
        network=escape(book.network), layer=escape(chapter.layer), channel=channel, title=escape(title),
        turn=_turn([f"{number}.html" for number in all_channels], all_channels, channel),
        about=silent + _about_channel(chapter), groups=groups, rows="".join(map(_row, winners)),
        alike=_alike(book, chapter, channel),
    )  # fmt: skip
    style = f"<style>.nine .tile {{ background-image: url('{channel}.webp'); }}</style>\n"
    return _page(f"{title} · {book.network}", body, head=style + _wall_style(chapter))


def _about_channel(chapter: Chapter) -> str:
    if len(chapter.shape) == 1:
        return "It sees the whole photograph."
    (_, height, width), (rows, columns) = chapter.shape, chapter.field
    return f"Its map has {height}×{width} positions; each of them sees {rows}×{columns} pixels."


@dataclass
class Shown:
    """One of the nine, in words that need no further escaping."""

    rank: int
    value: str = ""
    position: str = ""
    name: str = "there is no further photograph"
    file: str = ""


def _winner(book: Book, chapter: Chapter, channel: int, rank: int) -> Shown:
    number = int(chapter.peaks.images[channel, rank])
    if number < 0:
        return Shown(rank + 1)
    name, file = book.captions.of(number, book.found.names.get(number, ""))
    row, column = chapter.peaks.positions[channel, rank].tolist()
    position = f"row {row}, column {column}" if len(chapter.shape) == 3 else "all of it"
    value = f"{float(chapter.peaks.values[channel, rank]):.4g}"
    return Shown(rank + 1, value, position, escape(name), escape(file) if file != name else "")


def _group(number: int, winners: list[Shown]) -> str:
    kind, title, what = GROUPS[number]
    tiles = [
        f'<span class="tile" role="img" aria-label="{kind} {w.rank}: {w.name}" title="{w.rank}: {w.name}" style="'
        f'background-position:{_percent(3 * number + index % 3, 9)} {_percent(index // 3, 3)}"></span>\n'
        for index, w in enumerate(winners)
    ]
    return (
        f'<figure><figcaption><b>{title}</b>, {what}</figcaption><div class="nine">\n{"".join(tiles)}</div></figure>\n'
    )


def _row(shown: Shown) -> str:
    file = f" <small>{shown.file}</small>" if shown.file else ""
    return (f'<tr><td class="number">{shown.rank}</td><td class="number">{shown.value}</td><td>{shown.position}</td>'
            f"<td>{shown.name}{file}</td></tr>\n")  # fmt: skip


def _alike(book: Book, chapter: Chapter, channel: int) -> str:
    if not chapter.alike[channel]:
        return "<p>It shares none of its strongest photographs with another channel.</p>\n"
    tiles = [
        _wall_tile(book, chapter, other, below=f"{other}<br>shares {shared} of {book.compared}")
        for other, shared in chapter.alike[channel]
    ]
    chance = f"{book.compared**2 / book.found.count:.3g}"
    return (f'<div class="wall few">\n{"".join(tiles)}</div>\n<p class="soft">Channels that share most of their '
            f"{book.compared} strongest photographs with this one; {chance} would be chance.</p>\n")  # fmt: skip
