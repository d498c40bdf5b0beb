"""The exercises by the names that notebooks call: `check.unpool(unpool)` says not attempted, wrong and why, right."""

from .exercises.assembly import block_down, project, swap_switches
from .exercises.filtering import missing_rows, stamps, transposed_filter
from .exercises.rectification import rectify_deconvnet, rectify_gradient, rectify_guided, walk_down, which_rule
from .exercises.start import single_activation, strongest_position
from .exercises.unpooling import centre_peak, pool_again, unpool, wins
from .verdicts import NOT_ATTEMPTED, RIGHT, WRONG, Exercise, Verdict

__all__ = [
    "NOT_ATTEMPTED",
    "RIGHT",
    "WRONG",
    "Exercise",
    "Verdict",
    "block_down",
    "centre_peak",
    "missing_rows",
    "pool_again",
    "project",
    "rectify_deconvnet",
    "rectify_gradient",
    "rectify_guided",
    "single_activation",
    "stamps",
    "strongest_position",
    "swap_switches",
    "transposed_filter",
    "unpool",
    "walk_down",
    "which_rule",
    "wins",
]
