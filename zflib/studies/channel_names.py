"""Channels that we named by hand, each from its nine strongest images over a thousand photographs."""

from __future__ import annotations

#: network -> layer -> channel -> what its nine images have in common.
_NAMED: dict[str, dict[str, dict[int, str]]] = {
    "zfnet56": {
        "conv1": {
            16: "light left of dark", 61: "dark above light", 20: "rising edges", 41: "a bright horizontal line",
            58: "turquoise", 39: "yellow to orange", 37: "green", 54: "pink to red",
        },
        "conv2": {
            8: "white curves on black", 18: "fine stripes and letters", 22: "crossing lines", 148: "horizontal bands",
            10: "green", 15: "yellow petals", 130: "red beside blue or green", 187: "blue",
        },
        "conv3": {
            177: "rings", 206: "stripes", 19: "dark hair above light clothes", 190: "one thing on a plain ground",
            52: "rows of letters and books", 223: "red and orange things", 87: "round tops", 201: "white and yellow",
        },
        "conv4": {
            7: "dogs' muzzles", 38: "spokes", 64: "round things", 245: "rows of uprights", 101: "leaves",
            212: "thin legs and branches", 9: "many small dots", 126: "screens and signs",
        },
        "conv5": {
            173: "dials and dogs' faces", 98: "faces", 11: "legs on all sides", 125: "towers and sails", 183: "cars",
            74: "people, head and shoulders", 27: "many small things", 149: "shelves and slats",
        },
    },
    "squeezenet": {
        "fire3": {
            119: "letters", 7: "dark dots", 45: "fine horizontal lines", 21: "curved strokes",
            104: "rings and round letters", 12: "fine grids", 113: "horizontal bands",
        },
        "fire5": {
            217: "eyes", 221: "lines of letters", 140: "writing", 115: "red checks and dots", 222: "round tops",
            76: "strands", 102: "twigs and blades",
        },
        "fire7": {
            111: "dogs' faces", 354: "pointed ears", 207: "cars", 216: "round rims", 304: "screens and boxes",
            255: "grass and leaves", 219: "legs and fronds",
        },
        "fire9": {
            498: "shirts", 491: "dogs' faces", 425: "groups of people", 467: "birds", 235: "pots and cups",
            485: "keys and slats",
        },
    },
}  # fmt: skip


def named_channels(network: str) -> dict[str, dict[int, str]]:
    """layer -> {channel: its name} of a shipped network; empty where none was named.

    A name says what we saw in nine images of `gallery.load(network, photographs=True)`. It was chosen by hand among the
    channels that are easy to name, so it shows what channels can be like, not what most of them are like; for that see
    `gallery.sample_channels`.
    """
    return {layer: dict(channels) for layer, channels in _NAMED.get(network, {}).items()}
