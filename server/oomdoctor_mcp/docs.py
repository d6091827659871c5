"""The README's table of tools, made from the tools themselves: ``python -m oomdoctor_mcp.docs``."""

from __future__ import annotations

from mcp.types import ToolAnnotations

from oomdoctor_mcp.app import build
from oomdoctor_mcp.config import Config


def tool_table() -> str:
    """Markdown: one row per tool with what it is for, what it needs, and what it may do."""
    plain = build(Config(roots=()))._tool_manager.list_tools()
    trusted = build(Config(roots=(), allow_exec=True))._tool_manager.list_tools()
    rows = ["| tool | what it does | arguments | may do |", "|---|---|---|---|"]
    for tool, with_exec in zip(plain, trusted, strict=True):
        required = set(tool.parameters.get("required", ()))
        names = [f"**{name}**" if name in required else name for name in tool.parameters["properties"]]
        does = tool.description.split("\n", 1)[0].strip()
        rows.append(
            f"| `{tool.name}` | {does} | {', '.join(names) or 'none'} | {_may(tool.annotations, with_exec.annotations)} |"
        )
    return "\n".join(rows)


def _may(plain: ToolAnnotations | None, trusted: ToolAnnotations | None) -> str:
    assert plain is not None and trusted is not None
    if not plain.read_only_hint:
        return "write a new file; replace one after you agree"
    if not trusted.read_only_hint:
        return "read; with `--allow-exec` also run your script when asked to"
    return "read"


if __name__ == "__main__":
    print(tool_table())
