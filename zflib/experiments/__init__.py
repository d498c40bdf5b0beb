"""The paper's experiments on any network: strongest images, occlusion, invariance, correspondence, transfer.

Also what went before the paper: activation maximisation and the curvature of a unit.
"""

from .ascent import activation_maximisation
from .hessian import curvature
from .invariance_curves import Invariance, invariance
from .occlusion import OcclusionMaps, occlude
from .part_correspondence import Comparison, Correspondence, compare, correspondence
from .peaks import Found, find_peaks
from .top_k import Peaks, suppress_overlaps
from .transfer_learning import average_precision, features, linear_accuracy, transfer

__all__ = [
    "Comparison", "Correspondence", "Found", "Invariance", "OcclusionMaps", "Peaks", "activation_maximisation",
    "average_precision", "compare", "correspondence", "curvature", "features", "find_peaks", "invariance",
    "linear_accuracy", "occlude", "suppress_overlaps", "transfer",
]  # fmt: skip
