"""The heart: unpool, rectify and filter with the transpose, from one activation down to the pixels (section 2.1).

Read operations.py first, then rules.py and deconvnet.py; _receptive_window.py is only about speed.
"""

from ..record import Unsupported
from .deconvnet import Deconvnet, strongest
from .layer_table import Layer, Layers, layers
from .operations import OVERLAPS, rectify, transposed_filter, unpool
from .receptive_boxes import patches, receptive_field, receptive_fields
from .rules import RULES

__all__ = [
    "OVERLAPS", "RULES", "Deconvnet", "Layer", "Layers", "Unsupported", "layers", "patches", "receptive_field",
    "receptive_fields", "rectify", "strongest", "transposed_filter", "unpool",
]  # fmt: skip
