"""The exercises by the names that notebooks call: `check.unpool(unpool)` says not attempted, wrong and why, right."""

from .exercises.assembly import block_down, project, swap_switches
from .exercises.evolution import cosines, jumps, strongest_images
from .exercises.filtering import missing_rows, stamps, transposed_filter
from .exercises.layers import agreement, field_box, purity, top_images
from .exercises.rectification import rectify_deconvnet, rectify_gradient, rectify_guided, walk_down, which_rule
from .exercises.start import single_activation, strongest_position
from .exercises.training import dropout, renormalise, ten_corners, vote
from .exercises.unpooling import centre_peak, pool_again, unpool, wins
from .verdicts import NOT_ATTEMPTED, RIGHT, WRONG, Exercise, Verdict

__all__ = [
    "NOT_ATTEMPTED",
    "RIGHT",
    "WRONG",
    "Exercise",
    "Verdict",
    "agreement",
    "block_down",
    "centre_peak",
    "cosines",
    "dropout",
    "field_box",
    "jumps",
    "missing_rows",
    "pool_again",
    "project",
    "purity",
    "rectify_deconvnet",
    "rectify_gradient",
    "rectify_guided",
    "renormalise",
    "single_activation",
    "stamps",
    "strongest_images",
    "strongest_position",
    "swap_switches",
    "ten_corners",
    "top_images",
    "transposed_filter",
    "unpool",
    "vote",
    "walk_down",
    "which_rule",
    "wins",
]
