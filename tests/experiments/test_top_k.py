"""Peaks that show different places."""

from __future__ import annotations

import torch

from zflib import experiments
from zflib.experiments.top_k import Peaks


def test_distinct_keeps_the_strongest_of_each_place():
    boxes = torch.tensor([[[0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10], [0, 20, 10, 30], [0, 28, 10, 38]]])
    owners = torch.tensor([[0, 0, 1, 0, 0]])
    peaks = Peaks(
        torch.tensor([[5.0, 4, 3, 2, 1]]), torch.tensor([[10, 11, 12, 13, 14]]), torch.arange(10).view(1, 5, 2)
    )
    kept = experiments.suppress_overlaps(
        peaks, owners, boxes, k=4
    )  # 11 shows 10's place; 12 is another picture; 14 touches 13 only
    assert kept.images.tolist() == [[10, 12, 13, 14]] and kept.values.tolist() == [[5, 3, 2, 1]]
    assert kept.positions[0, 1].tolist() == [4, 5]
    few = experiments.suppress_overlaps(peaks, owners, boxes, k=5)
    assert few.images[0, 4] == -1 and few.values[0, 4] == -torch.inf and few.positions[0, 4].tolist() == [-1, -1]
    assert experiments.suppress_overlaps(peaks, owners, boxes, k=4, overlap=0.99).images.tolist() == [[10, 11, 12, 13]]
