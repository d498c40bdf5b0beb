"""Channels that we named by hand, each from its nine strongest images over a thousand photographs."""

from __future__ import annotations

#: network -> layer -> channel -> what its nine images have in common.
_NAMED: dict[str, dict[str, dict[int, str]]] = {}


def named_channels(network: str) -> dict[str, dict[int, str]]:
    """layer -> {channel: its name} of a shipped network; empty where none was named.

    A name says what we saw in nine images of `gallery.load(network, photographs=True)`. It was chosen by hand among the
    channels that are easy to name, so it shows what channels can be like, not what most of them are like; for that see
    `gallery.sample_channels`.
    """
    return {layer: dict(channels) for layer, channels in _NAMED.get(network, {}).items()}
