"""The tools, one file each: a function whose signature is the schema and whose docstring is the description."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from mcp.server.mcpserver.exceptions import ToolError
from oomdoctor.errors import OomDoctorError

from oomdoctor_mcp.wording import clean, for_tools

_P = ParamSpec("_P")
_R = TypeVar("_R")


def tool(function: Callable[_P, Awaitable[_R]]) -> Callable[_P, Awaitable[_R]]:
    """Makes anticipated failures into tool errors that carry all there is to say; anything else stays a crash, whose
    text is not shown to the client."""

    @functools.wraps(function)
    async def translated(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return await function(*args, **kwargs)
        except OomDoctorError as error:
            raise ToolError(for_tools(clean(str(error)))[:8000]) from error

    return translated
