"""Panels to play with: thin ipywidgets over `show` and the rooms behind it; no other room imports ipywidgets."""

from .channel_wall import wall
from .correspondence_explorer import correspondence
from .directions_explorer import directions
from .evolution_explorer import evolution
from .invariance_explorer import invariance
from .layer_explorer import layers
from .naming_game import name_the_channel
from .occlusion_explorer import occlusion
from .panels import Panel, panel, stepper
from .unit_explorer import units

__all__ = [
    "Panel", "correspondence", "directions", "evolution", "invariance", "layers", "name_the_channel", "occlusion",
    "panel", "stepper", "units", "wall",
]  # fmt: skip
