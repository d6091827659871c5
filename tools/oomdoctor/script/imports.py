"""``import`` statements: which library thing each name of the script stands for."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from oomdoctor.script.domain import Named

if TYPE_CHECKING:
    from oomdoctor.script.interpreter import Interpreter

# Short names that libraries re-export and scripts use interchangeably.
_SHORT = {
    "diffusers.pipelines": "diffusers", "diffusers.models": "diffusers", "diffusers.schedulers": "diffusers",
    "diffusers.quantizers": "diffusers", "transformers.models": "transformers",
}  # fmt: skip


def canonical(qualified: str) -> str:
    """``diffusers.pipelines.flux.FluxPipeline`` -> ``diffusers.FluxPipeline``; only for classes."""
    parts = qualified.split(".")
    if len(parts) > 2 and ".".join(parts[:2]) in _SHORT and parts[-1][:1].isupper():
        return f"{parts[0]}.{parts[-1]}"
    return qualified


def bind(reader: Interpreter, node: ast.Import | ast.ImportFrom) -> None:
    """Give the imported names their meaning in the present scope."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            name = alias.asname or alias.name.split(".", 1)[0]
            qualified = alias.name if alias.asname else name
            reader.scope.set(name, Named(qualified))
            reader.imports[name] = qualified
        return
    module = "." * node.level + (node.module or "")
    for alias in node.names:
        if alias.name == "*":
            reader.star_modules.append(module)
            continue
        name = alias.asname or alias.name
        qualified = canonical(f"{module}.{alias.name}" if not module.endswith(".") else module + alias.name)
        reader.scope.set(name, Named(qualified))
        reader.imports[name] = qualified
