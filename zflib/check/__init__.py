"""The exercises by the names that notebooks call: `check.unpool(unpool)` says not attempted, wrong and why, right."""

from .architecture import band_share, dead, find_stride
from .correspondence import chance, mask_part, sign_distance
from .deconvnet import block_down, project, swap_switches
from .evolution import cosines, jumps, strongest_images
from .filtering import missing_rows, stamps, transposed_filter
from .invariance import feature_distance, firing_threshold, invariance_score, shift_down
from .layer_by_layer import different_places, field_box, top_images
from .occlusion import cheater, finest_stride, pixel_means, slide
from .rectification import rectify, walk_down, which_rule
from .start import filter_image, single_activation
from .training import descend, dropout, renormalise, vote
from .transfer import layer_scores, neighbours
from .unpooling import losers, pool_again, unpool
from .verdict import NOT_ATTEMPTED, RIGHT, WRONG, Exercise, Verdict

__all__ = [
    "NOT_ATTEMPTED", "RIGHT", "WRONG", "Exercise", "Verdict", "band_share", "block_down", "chance", "cheater",
    "cosines", "dead", "descend", "different_places", "dropout", "feature_distance", "field_box", "filter_image",
    "find_stride", "finest_stride", "firing_threshold", "invariance_score", "jumps", "layer_scores", "losers",
    "mask_part", "missing_rows", "neighbours", "pixel_means", "pool_again", "project", "rectify", "renormalise",
    "shift_down", "sign_distance", "single_activation", "slide", "stamps", "strongest_images", "swap_switches",
    "top_images", "transposed_filter", "unpool", "vote", "walk_down", "which_rule",
]  # fmt: skip
