"""The MCP server: thin; it only translates between the protocol and ``oomdoctor``.

>>> import oomdoctor_mcp
>>> oomdoctor_mcp.serve(["--root", "/home/me/project"])     # speaks MCP on stdin and stdout until stdin ends

Nothing is imported here: the command line imports this package whatever its command is.
"""

from __future__ import annotations

from collections.abc import Sequence


def serve(argv: Sequence[str]) -> int:
    """Serve over stdio with the options in ``argv`` (``--help`` lists them) until the client leaves.

    Returns the exit status: 0, or 2 for bad options.
    """
    from oomdoctor_mcp.stdio import serve

    return serve(argv)
