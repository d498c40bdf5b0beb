"""Windows cut out of photographs: pixels at their boxes, and boxes back in the photograph."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from zflib import data


def test_windows_are_the_picture_at_their_boxes():
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    found = data.windows({"noise": picture}, sizes=(16, 32), stride=0.5, side=16)
    assert len(found) == 4 * 5 + 1 * 2 and found.names == ("noise",)
    for i in range(20):  # these are as large as a window: nothing is resized
        top, left, bottom, right = found.boxes[i].tolist()
        assert (bottom - top, right - left) == (16, 16)
        assert np.array_equal(found.pixels[i].permute(1, 2, 0).numpy(), picture[top:bottom, left:right])
    half = Image.fromarray(picture).crop((0, 0, 32, 32)).resize((16, 16), Image.Resampling.BILINEAR)
    assert np.abs(found.pixels[20].permute(1, 2, 0).numpy().astype(int) - np.asarray(half)).max() <= 1
    assert len({tuple(box) for box in found.boxes.tolist()}) == len(found)


def test_windows_of_the_shipped_photographs():
    found = data.windows(sizes=(216,), stride=1)
    assert found.pixels.shape[1:] == (3, 64, 64) and found.pixels.dtype == torch.uint8
    assert "motorcycle" not in found.names and len(found.names) == 7


def test_a_box_in_a_window_is_found_in_its_picture():
    found = data.windows({"grey": np.zeros((100, 120, 3), np.uint8)}, sizes=(80,), stride=0.25, side=20)
    whole = torch.tensor([-1, -1, 19, 19])  # a crop of 18 pixels begins 1 pixel inside: this is the whole window
    for i in range(len(found)):
        assert found.inside(torch.tensor(i), whole, crop=18).tolist() == found.boxes[i].tolist()
    assert found.inside(torch.tensor([0]), torch.tensor([[0, 1, 2, 3]]), crop=18).tolist() == [[4, 8, 12, 16]]


@pytest.mark.parametrize("wrong, sentence", [
    ({"pictures": {}}, "pictures must be a dict"), ({"pictures": [np.zeros((9, 9, 3))]}, "pictures must be a dict"),
    ({"sizes": (5000,)}, "no window of 5000"),
])  # fmt: skip
def test_windows_names_what_is_wrong(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        data.windows(**wrong)
