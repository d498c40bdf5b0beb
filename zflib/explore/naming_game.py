"""Name that channel, to play: nine projections, a name of yours, and eight pictures of which one fires it most."""

from __future__ import annotations

import ipywidgets as widgets
import numpy as np
from torch import nn

from .. import show
from ..studies.naming import Game, Round, new_game, table
from .panels import Panel

PROJECTION = 132  # pixels of each of the nine
PICTURE = 140  # of each of the eight
GAP = 6
NEXT = "next"


class _Play:
    """What the panel shows while `game` is played: a question, then its answer, in the end the table."""

    def __init__(self, net: nn.Module, game: Game, labels: list[str]):
        self.net, self.game, self.labels = net, game, labels
        self.number, self.answered = 0, False

    def turn(self, name: str, choice: str | None) -> bool:
        """Take what the controls say; whether the controls are to be emptied for another round."""
        if choice == NEXT and self.answered and self.number + 1 < len(self.game.rounds):
            self.number, self.answered = self.number + 1, False
            return True
        if choice not in (None, NEXT) and not self.answered:
            self.game.answer(name, self.labels.index(choice))
            self.answered = True
        return False

    @property
    def round(self) -> Round:
        return self.game.rounds[self.number]

    def picture(self) -> np.ndarray:
        """(H,W,3) uint8: the question, with the right picture framed once it is answered; after the last, the table."""
        question = show.beside([nine_pixels(self.round, self.net), self._choices()], self._titles(), gap=24)
        return _stacked([question, table_pixels(self.game, self.net)]) if self.game.over else question

    def _titles(self) -> list[str]:
        asked = f"round {self.number + 1} of {len(self.game.rounds)}: which picture excites the channel most?"
        return [f"one channel of {self.round.layer}: projections from {len(self.round.projections)} images", asked]

    def _choices(self) -> np.ndarray:
        tiles = []
        for place, picture in enumerate(self.round.pictures):
            pixels = show.fit(show.image_pixels(picture, self.net), PICTURE, smooth=True)
            words = self.labels[place]
            if self.answered:
                words += f": {float(self.round.values[place]):.3g}"
                pixels = show.framed(pixels, (4, 4, PICTURE - 4, PICTURE - 4)) if place == self.round.right else pixels
            tiles.append(show.caption(pixels, words))
        return show.mosaic(tiles, columns=4, gap=GAP)

    def words(self) -> str:
        """What happened, and what to do next."""
        if not self.answered:
            return "Write a name for the channel, then choose the picture that it should respond to most."
        one, choice = self.round, self.game.choices[-1]
        values = one.values.tolist()
        verdict = "Right" if choice == one.right else f"It was picture {self.labels[one.right]}"
        first = (f"{verdict}: channel {one.channel} reaches {values[one.right]:.3g} there, {values[choice]:.3g} over "
                 f"your picture. {self._score()}")  # fmt: skip
        return first if self.game.over else f"{first} Press next."

    def _score(self) -> str:
        game, played = self.game, len(self.game.choices)
        score = f"{game.score} of {played} right; a guess is right once in {len(self.round.pictures)}."
        if not game.over:
            return score
        return f"{score} Guessing, a score at least as high has a probability of {game.luck():.2g}."


def nine_pixels(one: Round, net: nn.Module, *, side: int = PROJECTION) -> np.ndarray:
    """One sheet of three by three: the projections, calmed, and below them the patches where they may be shown."""
    sheet = show.mosaic([show.projection_tile(picture, side) for picture in one.projections], columns=3, gap=GAP)
    if one.patches is None:
        return sheet
    tiles = [show.fit(show.image_pixels(patch, net), side // 2, smooth=True) for patch in one.patches]
    return _stacked([sheet, show.mosaic(tiles, columns=5, gap=GAP)])


def _stacked(pictures: list[np.ndarray]) -> np.ndarray:
    """One (H,W,3) column of pictures, their left edges aligned, on white."""
    wide = max(picture.shape[1] for picture in pictures)
    return np.concatenate([
        np.pad(picture, ((0, GAP), (0, wide - picture.shape[1]), (0, 0)), constant_values=255) for picture in pictures
    ])  # fmt: skip


def table_pixels(game: Game, net: nn.Module, *, side: int = 72) -> np.ndarray:
    """(H,W,3) uint8: for each round three projections, the picture that fired most, your name and what had fired."""
    rows = []
    for one, (channel, name, right, fired) in zip(game.rounds, table(game)):
        tiles = [show.projection_tile(picture, side) for picture in one.projections[:3]]
        tiles.append(show.fit(show.image_pixels(one.pictures[one.right], net), side, smooth=True))
        text = f"{channel}, {'right' if right else 'wrong'}. You: {name or 'no name'}."
        text += f" What fired: {fired}." if fired else ""
        words = show.caption(np.full((0, 640, 3), 255, np.uint8), text)
        rows.append(show.beside([*tiles, words], gap=GAP))
    return _stacked(rows)


def name_the_channel(net: nn.Module, images=None, *, layer: str | None = None, rounds: int = 10, **choices) -> Panel:
    """Ten channels to name: from its projections you guess which of eight pictures excites the channel most.

    The pictures are held out: none of them was among those that the nine were found in. Without `images` the
    projections are those of the network's gallery over a thousand photographs, and the pictures are windows of the
    shipped photographs. Of `images` of yours (a folder, `data.caltech101(root)[0]`, a tensor) half is mined, with
    its patches shown, and the other half is asked for. `choices` and the rest: see `studies.naming.new_game`. At
    the end your score stands beside what guessing gives, and your names beside what fired.

    The control: the same game with an untrained network, `name_the_channel(zflib.zfnet56().eval(), images)`. If you
    score as high there, you recognised what any random filter passes on, not what the network has learned.
    """
    game = new_game(net, images, layer=layer, rounds=rounds, **choices)
    labels = [str(place + 1) for place in range(len(game.rounds[0].pictures))]
    play = _Play(net, game, labels)
    name = widgets.Text(description="name", placeholder="what is it?", continuous_update=False)
    choice = widgets.ToggleButtons(options=[*labels, NEXT], value=None, style={"button_width": "52px"})

    def draw(name: str, choice: str | None) -> tuple[np.ndarray, str]:
        if play.turn(name, choice):
            controls["name"].value, controls["choice"].value = "", None
        return play.picture(), play.words()

    controls = {"name": name, "choice": choice}
    return Panel(draw, controls)
