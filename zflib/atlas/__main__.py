"""Write an atlas of a network over a folder of photographs: a page for every channel, as plain HTML.

python -m zflib.atlas PHOTOS --network squeezenet -o atlas
python -m zflib.atlas PHOTOS --network zfnet56 --layers conv3,conv5 -o atlas
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .. import models
from .._arguments import one_sentence
from .writing import write_atlas


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m zflib.atlas", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("photos", metavar="PHOTOS", help="a folder of photographs; those in folders below it count, too")
    add("--network", default="squeezenet", help="a shipped network, or a .pt file of yours (default: %(default)s)")
    add("-o", "--output", type=Path, required=True, help="the folder to write; an atlas there is continued")
    add("--layers", type=lambda text: text.split(","), help="for example conv3,conv5 (default: the convolutional ones)")
    add("--title", help="what to call the network in the pages (default: its name)")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command with its arguments; what is wrong with them ends it with one sentence."""
    options = _parser().parse_args(arguments)
    name = options.network
    with one_sentence("zflib.atlas"):
        net = models.load_file(name) if name.endswith(".pt") else models.load(name)
        title = options.title or Path(name).stem
        try:
            print(write_atlas(net, options.photos, options.output, layers=options.layers, title=title))
        except KeyboardInterrupt:
            sys.exit("zflib.atlas: stopped; what is there can be read, and the same command goes on")


if __name__ == "__main__":
    main()
