"""Deconvnet pictures without a notebook: the strongest channels of a photograph, projected down to pixels.

python -m zflib chelsea --layer conv5 --top 9 -o chelsea.png
python -m zflib my_photo.jpg --layer conv3 --channels 3,17 --rule guided
python -m zflib chelsea --network squeezenet --layer fire9
python -m zflib --list
"""

import argparse
import io
import math
from pathlib import Path

import numpy as np
from PIL import Image

from . import data, models, show
from ._arguments import conv_layers, one_sentence
from ._files import write_atomically
from .deconv import RULES
from .explore.layer_explorer import View, open_photo

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m zflib", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("photo", nargs="*", metavar="PHOTO", help="an image file, or the name of a shipped photograph")
    add("-o", "--output", type=Path, help="the picture to write (default: PHOTO-LAYER.png)")
    add("--layer", help="default: the network's last convolutional layer, such as conv5")
    add("--top", type=int, default=9, help="how many of the strongest channels (default: %(default)s)")
    add("--channels", type=_numbers, help="these channels instead, for example 3,17")
    add("--rule", choices=RULES, default=RULES[0], help="at a ReLU when projecting down (default: %(default)s)")
    add("--network", default="zfnet56", help="a shipped network, or a .pt file of yours (default: %(default)s)")
    add("--size", type=int, default=160, help="side of one projection in pixels (default: %(default)s)")
    add("--list", action="store_true", help="list networks, layers and photographs, and stop")
    return parser


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of channels like 3,17") from None


def main(arguments: list[str] | None = None) -> None:
    """Run the command with its arguments; what is wrong with them ends it with one sentence."""
    options = _parser().parse_args(arguments)
    with one_sentence("zflib"):
        net = models.load_file(options.network) if options.network.endswith(".pt") else models.load(options.network)
        print(_listing(net) if options.list else _write(net, options))


def _listing(net: models.ImageClassifier) -> str:
    shown = {"networks": models.shipped(), "layers": net.layer_names, "photographs": data.photo_names(), "rules": RULES}
    return "\n".join(f"{what}: {', '.join(names)}" for what, names in shown.items())


def _write(net: models.ImageClassifier, options: argparse.Namespace) -> Path:
    """The file that was written; everything cheap is checked before the network runs."""
    if not options.photo:
        raise ValueError(f"PHOTO is missing; give an image file or one of {', '.join(data.photo_names())}")
    if not 16 <= options.size <= 1000:
        raise ValueError(f"--size must be 16 to 1000 pixels, got {options.size}")
    options.layer = options.layer or conv_layers(net)[-1]
    output = options.output or Path(f"{Path(options.photo[0]).stem}-{options.layer}.png")
    if output.suffix.lower() not in FORMATS:
        raise ValueError(f"--output must end in {', '.join(FORMATS)}, got {str(output)!r}")
    if not output.parent.is_dir():
        raise ValueError(f"--output: there is no folder {str(output.parent)!r}; make it first")
    file = io.BytesIO()
    sheets = show.mosaic([_sheet_of(net, photo, options) for photo in options.photo], columns=1, gap=24)
    picture = np.pad(sheets, ((12, 12), (12, 12), (0, 0)), constant_values=255)
    Image.fromarray(picture).save(file, FORMATS[output.suffix.lower()], quality=92)
    write_atomically(output, file.getvalue())
    return output


def _sheet_of(net: models.ImageClassifier, photo: str, options: argparse.Namespace) -> np.ndarray:
    view = View(net, net.preprocess(open_photo(photo))[0], options.layer, rule=options.rule)
    chosen = options.channels
    channels = view.strongest(options.top) if chosen is None else [view.check_channel(channel) for channel in chosen]
    return sheet(view, channels, photo=Path(photo).stem, size=options.size)


def sheet(view: View, channels: list[int], *, photo: str, size: int) -> np.ndarray:
    """(H,W,3) uint8: the photograph with receptive fields, beside it each channel's projection, cropped to its own."""
    cells = [_cell(view, channel, size) for channel in channels]
    height = max(len(cell) for cell in cells)
    cells = [np.pad(cell, ((height - len(cell), 0), (0, 0), (0, 0)), constant_values=255) for cell in cells]
    grid = show.mosaic(cells, columns=math.ceil(len(channels) ** 0.5), gap=8)
    image = show.image_pixels(view.image, view.net)
    side = min(max(2 * size, len(grid)), 4 * size)
    seen = show.upscale(image, side, smooth=True)
    for top, left, bottom, right in map(view.box, channels):
        if 2 * (bottom - top) * (right - left) <= image.shape[0] * image.shape[1]:  # larger ones would only cover it
            seen = show.framed(seen, (top, left, bottom, right), scale=side / max(image.shape[:2]))
    return show.beside([seen, grid], [f"{photo}: what they saw", f"{view.layer}, {view.rule}"], gap=20, size=15)


def _cell(view: View, channel: int, size: int) -> np.ndarray:
    values = show.crop_box(view.projection(channel), view.box(channel))
    value = f"{float(view.values[channel]):.3g}" if view.values[channel] else "silent"
    picture = show.fit(show.signed_pixels(values), size, smooth=True)
    return show.caption(picture, f"{view.name(channel)}: {value}", size=12)


if __name__ == "__main__":
    main()
