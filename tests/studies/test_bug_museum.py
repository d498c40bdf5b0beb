"""The bug museum: every exhibit fails exactly its tests, the real one passes all, and no two have the same row."""

import pytest
import torch
from torch.nn import functional as F

import zflib
from zflib import data
from zflib.studies import bug_museum
from zflib.studies.bug_museum import EXHIBITS, LETTERS, agree

FAILS = {
    "the real one": set(),
    "forward biases": {
        "zero", "homogeneous", "field", "stamp", "adjoint conv1", "adjoint pool1", "adjoint norm1", "yours",
    },
    "no ReLU": {"yours"},
    "guided": {"adjoint conv1", "adjoint pool1", "adjoint norm1"},
    "no switches": {"adjoint pool1", "adjoint norm1"},
    "unflipped": {"stamp", "adjoint conv1", "adjoint pool1", "adjoint norm1"},
    "whole channel": {"field"},
    "differentiated": {"adjoint norm1"},
    "overwritten": {"adjoint pool1", "adjoint norm1", "total"},
}  # fmt: skip


@pytest.fixture(scope="module")
def net():
    return zflib.load("zfnet56").requires_grad_(False)


@pytest.fixture(scope="module")
def photo(net):
    return net.preprocess(data.photo("coffee"))


@pytest.fixture(scope="module")
def own(net, photo):
    return bug_museum.own_tests(net, photo)


@pytest.mark.parametrize("name", EXHIBITS)
def test_an_exhibit_fails_exactly_its_tests(name, own):
    assert {column for column, test in own.items() if not agree(*test(EXHIBITS[name]))} == FAILS[name]


def test_rows_differ_with_all_nine_columns_and_not_with_the_first_seven():
    def rows(columns):
        return {name: tuple(column in FAILS[name] for column in columns) for name in EXHIBITS}

    columns = sorted(set().union(*FAILS.values()))
    assert len(columns) == 9 and len(set(rows(columns).values())) == 9
    first = rows(set(columns) - {"yours", "total"})
    assert len(set(first.values())) == 7
    assert first["no ReLU"] == first["the real one"] and first["no switches"] == first["overwritten"]
    for column in set(columns) - {"zero", "homogeneous"}:
        assert len(set(rows(set(columns) - {column}).values())) < 9, f"{column} could be left out"


def test_whatever_the_photograph_rows_are_the_same(net):
    cat = bug_museum.own_tests(net, net.preprocess(data.photo("chelsea")), seed=5)
    for name in ("the real one", "guided", "overwritten"):
        assert {column for column, test in cat.items() if not agree(*test(EXHIBITS[name]))} == FAILS[name]


@pytest.mark.parametrize("layer", ["conv2", "conv5"])
def test_the_real_one_is_the_packages(net, photo, layer):
    deconvnet = EXHIBITS["the real one"](net, photo, layer)
    ours, theirs = deconvnet.picture(3), zflib.Deconvnet(net).project(photo, layer, 3)
    assert torch.allclose(ours, theirs, atol=1e-5 * float(theirs.abs().max()))


@pytest.fixture(scope="module")
def block(net):
    return net.conv1, net.relu1, net.pool1, net.norm1


def signal_at(net, photo, layer):
    return torch.randn(zflib.Deconvnet(net).activations(photo, layer).shape, generator=torch.Generator().manual_seed(2))


def by_autograd(modules, photo, signal):
    leaf = photo.clone().requires_grad_()
    with torch.enable_grad():
        maps = leaf
        for module in modules:
            maps = module(maps)
    return torch.autograd.grad(maps, leaf, signal)[0]


def close(one, other):
    return torch.allclose(one, other, atol=1e-5 * float(other.abs().max()))


def test_bugs_are_the_ones_on_their_labels(net, photo, block):
    """Each against torch's own functions, on the first block."""
    conv, relu, pool, norm = block
    size, maps = photo.shape[-2:], relu(conv(photo))
    _, switches = F.max_pool2d(maps, 3, 2, ceil_mode=True, return_indices=True)
    y = signal_at(net, photo, "conv1")
    pooled = signal_at(net, photo, "pool1")

    def down(name, layer, signal):
        return EXHIBITS[name](net, photo, layer).down(signal)

    def transposed(signal, weight=conv.weight):
        return F.conv_transpose2d(signal, weight, None, conv.stride, conv.padding, output_padding=1)

    assert transposed(y).shape[-2:] == size
    assert close(down("no ReLU", "conv1", y), transposed(y))
    assert close(down("guided", "conv1", y), transposed(y.clamp(min=0) * (maps > 0)))
    assert close(down("unflipped", "conv1", y), transposed(y.clamp(min=0), conv.weight.flip(-1, -2)))
    biased = (y.clamp(min=0) + conv.bias.view(1, -1, 1, 1)).clamp(min=0)
    assert close(down("forward biases", "conv1", y), transposed(biased))
    corners = torch.zeros_like(maps)
    corners[..., ::2, ::2] = pooled
    assert close(down("no switches", "pool1", pooled), transposed(corners.clamp(min=0)))
    one_by_one = torch.zeros_like(maps).flatten(2)
    for window in range(pooled[0, 0].numel()):  # in reading order: the last one stays
        at = switches.flatten(2)[..., window : window + 1]
        one_by_one.scatter_(2, at, pooled.flatten(2)[..., window : window + 1])
    assert close(down("overwritten", "pool1", pooled), transposed(one_by_one.view_as(maps).clamp(min=0)))
    normed = signal_at(net, photo, "norm1")
    through = by_autograd([norm], pool(maps), normed)
    assert close(down("differentiated", "norm1", normed), down("the real one", "pool1", through))


def test_a_whole_channel_is_the_sum_of_its_activations_where_nothing_is_clamped(net, photo):
    exhibit, real = EXHIBITS["whole channel"](net, photo, "conv1"), EXHIBITS["the real one"](net, photo, "conv1")
    signal = torch.zeros_like(real.activations)
    signal[0, 3] = real.activations[0, 3]
    assert close(exhibit.picture(3), real.down(signal))


def test_every_label_hangs_once_and_does_not_show():
    assert sorted(bug_museum._HUNG.values()) == sorted(EXHIBITS)
    assert bug_museum.rightly_labelled(bug_museum._HUNG) == 9


def test_an_unknown_letter_is_refused(net, photo):
    with pytest.raises(ValueError, match="letter must be one of A, B"):
        bug_museum.attach("Z", net, photo, "conv1")


def test_alike_is_the_cosine():
    one, other = torch.tensor([[3.0, 4]]), torch.tensor([[4.0, 3]])
    assert torch.allclose(
        bug_museum.alike([one, 2 * one, other]), torch.tensor([[1, 1, 0.96], [1, 1, 0.96], [0.96, 0.96, 1]])
    )


@pytest.mark.parametrize(("left", "right", "equal"), [
    (1.0, 1.0005, True), (1.0, 1.01, False), (0.0, 0.0, True), (0.0, 1e-30, False), (1e-9, 1e-9, True),
    (float("inf"), 0.0, False), (float("nan"), 0.0, False),
])  # fmt: skip
def test_sides_agree_relative_to_their_largest_value(left, right, equal):
    assert agree(left, right) is equal


# --- the score sheet --------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    """A museum that has a test of its own, and letters for exhibits."""
    monkeypatch.setattr(bug_museum, "own_tests", lambda net, image: {"zero": lambda attach: (1, attach(3, 3, 3))})
    monkeypatch.setattr(bug_museum, "attach", lambda letter, *_: LETTERS.index(letter))


def test_a_sheet_has_the_visitors_tests_and_the_museums_where_none_is_written(quick):
    mine = {"mine": lambda letter: (letter in "AC", True), "zero": lambda letter: None}
    sheet = bug_museum.score(mine, None, None)
    assert sheet.row("A") == (True, False) and sheet.row("B") == (False, True) and sheet.row("C") == (True, False)
    assert sheet.museums == ["zero"]
    assert sheet.not_told_apart() == ["AC", "DEFGHI"]
    assert bug_museum.score({"zero": lambda letter: (0, 0)}, None, None).museums == []


def test_a_test_that_nobody_has_written_is_refused(quick):
    with pytest.raises(ValueError, match="'new' gives None, and the museum has no test"):
        bug_museum.score({"new": lambda letter: None}, None, None)


def test_a_sheet_is_drawn_with_a_mark_in_every_cell():
    passed = {"one": [True] * 9, "two parts": [False] * 8 + [True]}
    texts = [text.get_text() for text in bug_museum.ScoreSheet(passed, ["one"]).draw().texts]
    assert texts.count("✓") == 10 and texts.count("✗") == 8
    assert [letter for letter in texts if letter in LETTERS] == list(LETTERS)
    assert "one\n(museum's)" in texts and "two\nparts" in texts


def test_the_likeness_is_drawn_by_letters():
    texts = [text.get_text() for text in bug_museum.likeness_sheet(torch.eye(9)).texts]
    assert texts.count("1") == 9 and texts.count("A") == texts.count("I") == 2
