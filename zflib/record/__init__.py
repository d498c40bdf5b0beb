"""One forward pass of any network, written down as typed steps; it leaves no trace on the network."""

from .hooks import listening, watched
from .steps import Step, Unsupported, Window
from .tape import Tape, record, record_modules

__all__ = ["Step", "Tape", "Unsupported", "Window", "listening", "record", "record_modules", "watched"]
