"""What one attention package is: its modules, how scripts name it, and what diffusers keeps about it."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType

from oomdoctor.loading import packages, session
from oomdoctor.loading.quantised.present import is_installed

DISPATCH = "diffusers.models.attention_dispatch"


@dataclass
class Package:
    """``distribution`` as pip names it; ``version`` is the one that the stand-in follows."""

    distribution: str
    version: str
    modules: Mapping[str, Callable[[ModuleType], None]]
    """Module -> what fills it, parents first."""
    named: re.Pattern[str]
    """Finds it in a script."""
    flag: str
    """diffusers' name for it: ``xformers`` for ``_xformers_available`` and ``_xformers_version``."""
    usable: str | None = None
    """The variable of diffusers' attention dispatch that says that it can be used."""
    functions: Mapping[str, str] = field(default_factory=dict)
    """Name in diffusers' attention dispatch (``module:name`` elsewhere) -> ``module:function`` (or ``module``)."""
    brought: bool = False

    def is_there(self) -> bool:
        """Whether the script finds it."""
        return self.brought or is_installed(self.distribution)

    def bring(self) -> None:
        """Let the script and the libraries find it from now on."""
        self.brought = True
        packages.pretend({self.distribution: self.version, self.flag: self.version})
        session.current().note(f"{self.distribution} is not in the interpreter: install it for a real run.")
        self._tell("diffusers.utils.import_utils", f"_{self.flag}_available", True)
        self._tell("diffusers.utils.import_utils", f"_{self.flag}_version", self.version)
        if self.usable:
            self._tell(DISPATCH, self.usable, True)
        for known, place in self.functions.items():
            module, _, name = known.rpartition(":")
            self._tell(module or DISPATCH, name, _resolve(place))

    def _tell(self, module: str, name: str, value: object) -> None:
        """Set what a module that is imported already found out about this package when it was."""
        known = sys.modules.get(module)
        if known is not None and hasattr(known, name):
            setattr(known, name, value)


def _resolve(place: str) -> object:
    module, _, name = place.partition(":")
    found = importlib.import_module(module)
    return getattr(found, name) if name else found


def refuse(package: str) -> Callable[[str], object]:
    """A module's ``__getattr__`` that names what has no stand-in."""

    def __getattr__(name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(f"the virtual GPU has no stand-in for {package}.{name}")

    return __getattr__
