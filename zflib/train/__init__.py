"""How the networks were trained, with checkpoints that resume exactly: `python -m zflib.train` (section 3)."""

from .filters import fold, outer_ring_share, renormalise
from .recipes import RECIPES, Recipe
from .run import SNAPSHOTS, finish, train
from .scoring import Images, accuracy

__all__ = [
    "RECIPES", "SNAPSHOTS", "Images", "Recipe", "accuracy", "finish", "fold", "outer_ring_share", "renormalise",
    "train",
]  # fmt: skip
