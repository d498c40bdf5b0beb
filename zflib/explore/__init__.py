"""Panels to play with: thin ipywidgets over `show` and the rooms behind it. No other room imports ipywidgets."""

from .correspondence import correspondence
from .invariance import invariance
from .layers import layers
from .occlusion import occlusion
from .panel import Panel, panel, stepper
from .units import units

__all__ = ["Panel", "correspondence", "invariance", "layers", "occlusion", "panel", "stepper", "units"]
