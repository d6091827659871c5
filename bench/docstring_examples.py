"""The examples in the docstrings of the installed diffusers, as scripts: a test set that nobody wrote for us."""

from __future__ import annotations

import ast
import doctest
import importlib.util
from functools import cache
from pathlib import Path


@cache
def examples() -> dict[str, str]:
    """``pipelines/flux/pipeline_flux.py:1`` -> script; those that load something, parse, and are Python.

    The package is found without importing it. Empty where diffusers is not installed.
    """
    spec = importlib.util.find_spec("diffusers")
    if spec is None or spec.origin is None:
        return {}
    root = Path(spec.origin).parent
    found: dict[str, str] = {}
    for path in sorted(root.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if ">>>" not in text:
            continue
        for index, script in enumerate(_scripts(ast.parse(text)), 1):
            found.setdefault(f"{path.relative_to(root).as_posix()}:{index}", script)
    return found


def _scripts(module: ast.Module) -> list[str]:
    scripts: list[str] = []
    for node in ast.walk(module):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or ">>>" not in node.value:
            continue
        try:
            script = "".join(e.source for e in doctest.DocTestParser().get_examples(node.value))
            ast.parse(script)
        except (ValueError, SyntaxError):
            continue
        if "from_pretrained" in script or "from_single_file" in script:
            scripts.append(script)
    return scripts
