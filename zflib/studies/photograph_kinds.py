"""ImageNet's thousand classes in a few kinds: a thousand photographs of a thousand classes have no class in common."""

from __future__ import annotations

from itertools import pairwise

import torch

#: (first class, kind): from there on, up to the next one. ImageNet's order follows WordNet, so kinds are runs of it.
_STARTS = (
    (0, "fish"), (7, "birds"), (25, "amphibians and reptiles"), (69, "invertebrates"), (80, "birds"),
    (101, "other mammals"), (107, "invertebrates"), (127, "birds"), (147, "other mammals"), (151, "dogs"),
    (269, "other mammals"), (300, "invertebrates"), (330, "other mammals"), (389, "fish"), (398, "things"),
    (924, "food, plants and landscapes"), (999, "things"), (1000, ""),
)  # fmt: skip


def imagenet_kinds() -> tuple[list[str], torch.Tensor]:
    """(names of the kinds, (1000,) the kind of each class): dogs, birds, things and so on, in ImageNet's order."""
    names = list(dict.fromkeys(kind for _, kind in _STARTS[:-1]))
    groups = torch.zeros(1000, dtype=torch.int64)
    for (first, kind), (last, _) in pairwise(_STARTS):
        groups[first:last] = names.index(kind)
    return names, groups
