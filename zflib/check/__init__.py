"""The exercises by the names that notebooks call: `check.unpool(unpool)` says not attempted, wrong and why, right."""

from .ablation import order, together, without
from .architecture import band_share, dead, find_stride
from .before_and_beside import ascent_step, hessian_times, ignores
from .bug_museum import adjoint_test, labels, new_property, stamp_test
from .correspondence import chance, sign_distance, without_parts
from .deconvnet import block_down, project, swap_switches
from .evolution import bet_on_jumps, first_named
from .filtering import missing_rows, stamps, transposed_filter
from .invariance import compared_distance, firing_threshold, fooling_shift, invariance_score
from .layer_by_layer import different_places, field_box, top_images
from .occlusion import cheater, pixel_means, slide
from .rectification import rectify, walk_down, which_rule
from .score_sheet import progress, report
from .start import filter_image, single_activation
from .training import descend, dropout, renormalise, vote
from .transfer import layer_scores, neighbours
from .unpooling import losers, pool_again, unpool
from .verdict import NOT_ATTEMPTED, RIGHT, WRONG, Exercise, Verdict
from .your_own_network import find_detector, hand_a_rule

__all__ = [
    "NOT_ATTEMPTED", "RIGHT", "WRONG", "Exercise", "Verdict", "adjoint_test", "ascent_step", "band_share",
    "bet_on_jumps", "block_down", "chance", "cheater", "compared_distance", "dead", "descend", "different_places",
    "dropout", "field_box", "filter_image", "find_detector", "find_stride", "firing_threshold", "first_named",
    "fooling_shift", "hand_a_rule", "hessian_times", "ignores", "invariance_score", "labels", "layer_scores", "losers",
    "missing_rows", "neighbours", "new_property", "order", "pixel_means", "pool_again", "progress", "project",
    "rectify", "renormalise", "report", "sign_distance", "single_activation", "slide", "stamp_test", "stamps",
    "swap_switches", "together", "top_images", "transposed_filter", "unpool", "vote", "walk_down", "which_rule",
    "without", "without_parts",
]  # fmt: skip
