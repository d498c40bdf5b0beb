"""An atlas of a network: every channel as a page of plain HTML, in a folder that opens from disk."""

from .writing import write_atlas

__all__ = ["write_atlas"]
