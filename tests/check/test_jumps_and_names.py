"""The exercises of notebook 07: luck by simulation, answers that students give, and when a channel had its name."""

import io
import re

import pytest
import torch
from PIL import Image

from zflib import check
from zflib.check import evolution as exercises
from zflib.studies import evolution


def answers(function):
    return [function(*args, **kwargs) for args, kwargs in check.bet_on_jumps.cases()]


def test_blind_bets_are_luck():
    generator = torch.Generator().manual_seed(0)
    verdict = check.bet_on_jumps(lambda values, images: torch.randperm(values.shape[1], generator=generator)[:10])
    assert verdict.state == check.WRONG and "luck" in verdict.message


def test_luck_is_that_of_drawing_from_the_same_layers():
    picks, layers, jumps = answers(exercises.closest_races), exercises._seen()[2], exercises._jumps()
    expected, luck = exercises._luck(picks)
    generator, totals = torch.Generator().manual_seed(0), []
    for _ in range(300):
        hits = 0
        for row, pick in zip(jumps, picks):
            for layer in layers[pick].unique():
                mine = (layers == layer).nonzero().flatten()
                drawn = mine[torch.randperm(len(mine), generator=generator)][: int((layers[pick] == layer).sum())]
                hits += int(row[drawn].sum())
        totals.append(hits)
    totals = torch.tensor(totals).float()
    assert expected == pytest.approx(float(totals.mean()), abs=4 * float(totals.std()) / 300**0.5)
    assert luck < 1e-6 and float(totals.max()) < int(exercises._hits(picks).sum())


def test_higher_layers_jump_more_and_that_alone_is_no_skill():
    def by_history(values, images):
        return evolution.changed(images[..., 0]).sum(dim=0).topk(10).indices

    expected, _ = exercises._luck(answers(by_history))
    assert expected > 80 * float(exercises._jumps().float().mean())  # its layers jump more often than the others
    assert check.bet_on_jumps(by_history).state == check.WRONG


@pytest.mark.parametrize("pick, sentence", [
    (torch.zeros(10), "name 10 different channels"),
    (torch.arange(10) + 240, "channels are numbered from 0 to 247; your numbers run from 240 to 249"),
    (torch.arange(10) / 3, "these are not numbers of channels"),
    (torch.arange(8), r"your result has shape \(8,\), the target \(10,\)"),
])  # fmt: skip
def test_what_is_no_bet_is_named(pick, sentence):
    verdict = check.bet_on_jumps(lambda values, images: pick)
    assert verdict.state == check.WRONG
    assert re.search(sentence, verdict.message)


def test_only_what_was_seen_so_far_can_be_used():
    for number, ((values, images), _) in enumerate(check.bet_on_jumps.cases()):
        assert len(values) == len(images) == exercises.FIRST + 1 + number


@pytest.mark.parametrize("exercise", [check.bet_on_jumps, check.first_named], ids=lambda one: one.name)
def test_the_picture_grows_by_the_answer(exercise):
    areas = []
    for answer in (..., exercise.target):
        width, height = Image.open(io.BytesIO(exercise(answer).picture)).size
        assert width <= 1300
        areas.append(width * height)
    assert areas[0] < areas[1]


def test_a_name_counts_from_when_it_holds_for_good():
    labels = torch.zeros(4, 3, 9, dtype=torch.long)
    labels[1, 0, :5] = 1  # channel 0 loses its name once
    labels[:, 1] = torch.arange(9)  # channel 1 never has one
    labels[0, 2, :2] = 3  # seven of nine are enough
    assert evolution.named_from(labels).tolist() == [2, -1, 0]
    assert evolution.named_from(labels, enough=8).tolist() == [2, -1, 1]
