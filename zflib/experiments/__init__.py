"""The paper's experiments on any network: strongest images, occlusion, invariance, correspondence.

Also what went before the paper: activation maximisation and the curvature of a unit.
"""

from .ascent import activation_maximisation
from .hessian import curvature
from .invariance_curves import Invariance, invariance
from .occlusion import OcclusionMaps, occlude
from .part_correspondence import Comparison, Correspondence, compare, correspondence
from .peaks import Found, find_peaks
from .top_k import Peaks, suppress_overlaps

__all__ = [
    "Comparison", "Correspondence", "Found", "Invariance", "OcclusionMaps", "Peaks", "activation_maximisation",
    "compare", "correspondence", "curvature", "find_peaks", "invariance", "occlude", "suppress_overlaps",
]  # fmt: skip
