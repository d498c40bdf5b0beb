"""What every command of zflib does with a mistake: one sentence, no traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_sentence(program: str) -> Iterator[None]:
    """Ends `program` with the sentence of a ValueError or OSError: arguments and files that are wrong."""
    try:
        yield
    except (ValueError, OSError) as error:
        known = isinstance(error, OSError) and error.strerror
        sentence = f"{error.filename}: {error.strerror}" if known else " ".join(str(error).split())
        sys.exit(f"{program}: " + sentence.replace("download=True", "python -m zflib.train --download"))
