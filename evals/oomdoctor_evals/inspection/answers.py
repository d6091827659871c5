"""From what a model wrote to an answer, and from messages to a transcript."""

from __future__ import annotations

import json
import re
from typing import Any

from oomdoctor_evals.values import Answer, ToolCall

_FENCE = re.compile(r"```(?:json)?\s*(\{.*\})\s*```", re.DOTALL)


def answer_in(text: str) -> tuple[Answer | None, str | None]:
    """The answer in a completion, or why there is none."""
    found = _FENCE.search(text)
    body = found.group(1) if found else text[text.find("{") : text.rfind("}") + 1]
    try:
        said = json.loads(body)
    except ValueError as error:
        return None, f"no JSON object: {error}"
    try:
        return Answer.model_validate(said), None
    except ValueError as error:
        return None, f"not an answer: {str(error)[:300]}"


def transcript_of(messages: list[Any]) -> tuple[ToolCall, ...]:
    """Tool calls with their results, from the messages of inspect_ai."""
    results = {m.tool_call_id: _result(m) for m in messages if m.role == "tool"}
    calls = []
    for message in messages:
        for call in (message.tool_calls or ()) if message.role == "assistant" else ():
            calls.append(
                ToolCall(tool=call.function, arguments=dict(call.arguments or {}), result=results.get(call.id))
            )
    return tuple(calls)


def _result(message: Any) -> Any:
    try:
        return json.loads(message.text)
    except ValueError:
        return message.text
