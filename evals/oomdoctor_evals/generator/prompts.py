"""Prompts of people: the first is the public one of each family, the rest are for held-out draws."""

from __future__ import annotations

PROMPTS = (
    "a lighthouse on a cliff at dusk, oil painting",
    "an otter reading a newspaper in a cafe, 35mm photo",
    "isometric cutaway of a watchmaker's workshop",
    "a paper boat sailing on a river of stars",
    "portrait of an elderly beekeeper, soft window light",
)
MOTIONS = (
    "waves roll over black sand while a dog runs along the shore",
    "a train crosses a viaduct in heavy snow, drone shot",
    "close-up of hands shaping a clay bowl on a wheel",
)
