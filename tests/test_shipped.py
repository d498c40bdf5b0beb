"""What is shipped in data/ keeps the limits that the course states, and says how it was made."""

import hashlib
import json

import pytest

from zflib import _files, models
from zflib.train import filters, recipes

FACTS = ("data", "recipe", "command", "seed", "epochs", "curve", "accuracy", "sha256")


@pytest.fixture(params=[name for name in models.shipped() if name != "squeezenet"])  # which others trained
def name(request):
    return request.param


def card(name: str) -> dict:
    return json.loads((_files.SHIPPED / f"{name}.json").read_text())


def test_a_card_tells_how_its_network_was_made_and_what_it_gets_right(name):
    told = card(name)
    assert [fact for fact in FACTS if fact not in told] == []
    assert recipes.Recipe(**told["recipe"]).seed == told["seed"] and len(told["curve"]) == told["epochs"]
    assert told["command"].startswith("python -m zflib.train ") and told["command"].endswith(f"runs/{name}")
    assert hashlib.sha256((_files.SHIPPED / f"{name}.pt").read_bytes()).hexdigest() == told["sha256"]
    for crops in ("centre crop", "ten-crop"):
        assert 0 < told["accuracy"][crops]["top1"] <= told["accuracy"][crops]["top5"] <= 100


def test_the_first_filters_are_clean(name):
    net = models.load(name)
    assert filters.outer_ring_share(net.conv1) <= 0.15
    assert net.card["conv1_outer_ring_share"] <= 0.15


def test_zfnet56_sees_what_was_asked_of_it():
    assert card("zfnet56")["accuracy"]["ten-crop"]["top1"] >= 42


def test_the_snapshots_show_how_features_grow():
    assert list(models.snapshots("zfnet56")) == [1, 2, 5, 10, 12]


def test_data_is_small_enough_for_a_clone():
    assert sum(path.stat().st_size for path in _files.SHIPPED.iterdir()) < 70e6
