"""Table 1 as data: the correspondence of five annotated dogs.

python -m data.make.dogs --data tiny-imagenet-200 --out data/dogs-correspondence.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from zflib import models
from zflib._arguments import one_sentence
from zflib._files import write_atomically
from zflib.studies.dogs import measure


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m data.make.dogs", description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="the folder of Tiny ImageNet-200")
    parser.add_argument("--out", type=Path, required=True, help="the .json to write")
    parser.add_argument("--network", default="zfnet56", help="a shipped network (%(default)s)")
    options = parser.parse_args(arguments)
    with one_sentence("data.make.dogs"):
        found = rounded(measure(models.load(options.network), options.data, report=print))
        write_atomically(options.out, (json.dumps(found, indent=1) + "\n").encode())


def rounded(value):
    """The same with every real number rounded to six places."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return round(value, 6) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
