"""One forward pass of any network, written down as typed steps; it leaves no trace on the network."""

from .steps import Step, Unsupported
from .tape import Tape, record

__all__ = ["Step", "Tape", "Unsupported", "record"]
