"""Attention packages beside torch: FlashAttention 2 and 3, SageAttention, xFormers, flex attention, kernels of the Hub.

Each file stands in for one: the same functions, with the buffers that the real kernels take. A package that the
interpreter lacks is there for scripts that name it, and the report says what would have to be installed.
"""

from __future__ import annotations

from oomdoctor.loading import hooks
from oomdoctor.loading.attention import flash, flex, hub, sage, xformers
from oomdoctor.loading.attention.package import Package

PACKAGES: tuple[Package, ...] = (flash.TWO, flash.THREE, sage.PACKAGE, xformers.PACKAGE, hub.PACKAGE)


def install() -> None:
    """Offer the stand-ins of installed packages to every import from now on."""
    for package in PACKAGES:
        for name, fill in package.modules.items():
            hooks.provide(name, fill, package.is_there)
    hooks.after_import("torch.nn.attention.flex_attention", flex.patch)
    hooks.after_import("diffusers.models.attention_dispatch", hub.patch_dispatch)


def prepare(source: str) -> None:
    """Before a script runs: bring in the packages that it names and the interpreter lacks."""
    for package in PACKAGES:
        if not package.is_there() and package.named.search(source):
            package.bring()
