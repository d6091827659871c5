"""The machine a script runs on, and the catalogue of cards.

>>> from oomdoctor.hardware import card, detect_hardware, target_for
>>> target_for(card("RTX 3060"), ram_bytes=64 << 30).vram_bytes
12622168064
"""

from __future__ import annotations

from oomdoctor.hardware.detect.interpreter import libraries_of
from oomdoctor.hardware.detect.machine import detect_hardware
from oomdoctor.hardware.gpus.build import card_for, card_with_memory, catalogue_name, custom_card
from oomdoctor.hardware.gpus.catalogue import cards, context_bytes
from oomdoctor.hardware.gpus.spelling import card
from oomdoctor.hardware.gpus.target import target_auto, target_for

__all__ = [
    "card",
    "card_for",
    "card_with_memory",
    "cards",
    "catalogue_name",
    "context_bytes",
    "custom_card",
    "detect_hardware",
    "libraries_of",
    "target_auto",
    "target_for",
]
