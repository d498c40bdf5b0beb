"""What notebook 12 draws says what the table says: lengths, orders and numbers, read back from the axes."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

from zflib.models import ZFNET
from zflib.studies import ablation
from zflib.studies import ablation_drawn as drawn


@pytest.fixture
def ax():
    return plt.subplots()[1]


def words(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def card(**errors) -> dict:
    """A table of one training each: name with _ for a blank -> validation error, 3 points above training."""
    rows = []
    for name, error in errors.items():
        curve = [{"top1": 100 - error - later} for later in (9, 4, 0)]
        measured = {"validation": {"top1": error}, "train": {"top1": error - 3}, "ten-crop": {"top1": error - 1}}
        rows.append({"variant": name.replace("_", " "), "budget": "short", "curve": curve} | measured)
    votes = {"full": {"networks": 2, "centre crop": {"top1": 78.0}, "ten-crop": {"top1": 77.0}}}
    return {"rows": rows, "votes": votes}


def test_bars_are_the_shares_of_weights_and_work(ax):
    drawn.draw_costs(ax, ZFNET)
    lengths = np.array([bar.get_width() for bar in ax.patches]).reshape(2, -1)
    costs = np.array(list(ablation.costs(ZFNET).values()), float).T
    assert lengths == pytest.approx(costs / costs.sum(axis=1, keepdims=True))
    assert "fc6\n61%" in words(ax) and "62 million weights" in words(ax)


def test_a_missing_layer_is_dotted_and_has_no_number(ax):
    drawn.draw_networks(ax, ["without fc7"])
    assert [bar.get_linestyle() for bar in ax.patches].count(":") == 1
    assert words(ax)[:7] == ["16", "48", "64", "64", "48", "256", "without fc7"]


def test_changes_are_against_the_whole_network(ax):
    drawn.draw_changes(ax, {"full": [80.0, 82.0], "without fc7": [78.0, 79.0], "alexnet": []})
    assert list(ax.lines[2].get_xdata()) == [-3.0, -2.0]
    assert words(ax)[:3] == ["−2.5", "−0.5", "+2.1"]  # ours and the paper's; the paper's alone
    alone = drawn.draw_changes(plt.subplots()[1], {"full": [80.0, 82.0], "without fc7": [78.0, 79.0]}, paper=None)
    assert words(alone) == ["−2.5"]


def test_the_best_network_stands_on_top_of_its_column(ax):
    drawn.draw_orders(ax, {"the paper": ablation.paper_errors(), "ours": {"full": 84.0, "without all four": 74.0}})
    right = [text for text in ax.texts if text.get_ha() == "left"]
    assert [text.get_text() for text in sorted(right, key=lambda text: -text.get_position()[1])] == [
        "without all four", "full"
    ]  # fmt: skip
    left = sorted((text for text in ax.texts if text.get_ha() == "right"), key=lambda text: -text.get_position()[1])
    assert [text.get_text() for text in left][:2] == ["without fc7", "full"]


def test_gaps_and_votes_are_differences(ax):
    table = card(full=80.0, without_fc7=75.0)
    drawn.draw_gap(ax, table)
    rows = [list(line.get_xdata()) for line in ax.lines[:-1]]  # ours and the paper's, variant after variant
    assert rows[0] == rows[4] == [3.0] and rows[1] == [pytest.approx(5.3)]
    votes = drawn.draw_votes(plt.subplots()[1], table)
    assert [line.get_xdata()[0] for line in votes.lines] == pytest.approx([1.0, 2.0, 3.0])


def test_curves_end_where_the_table_does():
    _, axes = plt.subplots(1, 2, sharey=True)
    drawn.draw_curves(axes, card(full=80.0, alexnet=90.0), {"short": "three", "long": "twelve"})
    assert [list(line.get_ydata()) for line in axes[0].lines] == [[89.0, 84.0, 80.0]] and not axes[1].lines
    assert [text.get_text() for text in axes[1].texts] == ["not trained yet"]


def test_a_network_is_drawn_before_and_after_it_was_trained():
    table = card(full=80.0, without_fc7=75.0)
    trained, waiting = (drawn.variant_pixels(table, name) for name in ("without fc7", "alexnet"))
    assert trained.shape == waiting.shape and trained.dtype == np.uint8
    assert not np.array_equal(trained, waiting)
