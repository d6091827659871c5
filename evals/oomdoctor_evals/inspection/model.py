"""A model without a model: plays the oracle or the habit of a bot, so that the whole of inspect_ai runs offline in CI."""

from __future__ import annotations

import json
from typing import Any

from inspect_ai.model import GenerateConfig, ModelAPI, ModelOutput, ModelUsage, modelapi

from oomdoctor_evals.agents import agent
from oomdoctor_evals.loader import load_all


@modelapi(name="oomdoctor")  # type: ignore[untyped-decorator]  # inspect_ai is an extra, not seen here
def scripted_model() -> type[ModelAPI]:
    """``oomdoctor/oracle``, ``oomdoctor/noop``, ...: the name after the slash is one of our agents."""
    return ScriptedModel


class ScriptedModel(ModelAPI):  # type: ignore[misc]
    """Answers each question at once, through ``submit`` where the loop offers it."""

    def __init__(self, model_name: str, base_url: str | None = None, api_key: str | None = None,
                 config: GenerateConfig | None = None, **options: Any) -> None:  # fmt: skip
        super().__init__(model_name, base_url, api_key, [], config or GenerateConfig())
        self.agent = agent(model_name)

    async def generate(
        self, input: list[Any], tools: list[Any], tool_choice: Any, config: GenerateConfig
    ) -> ModelOutput:
        question = next(m.text for m in input if m.role == "user")
        wanted = json.loads(question)["id"]
        scenario = next(s for s in load_all() if s.public_id == wanted)
        attempt = self.agent.attempt(scenario)
        text = attempt.answer.model_dump_json() if attempt.answer else "no answer"
        if any(tool.name == "submit" for tool in tools):
            output = ModelOutput.for_tool_call(self.model_name, "submit", {"answer": text})
        else:
            output = ModelOutput.from_content(self.model_name, text)
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return output


__all__ = ["ScriptedModel", "scripted_model"]
