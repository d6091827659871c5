"""The exchange in the README, from a real one: the example's script and traceback, through the server's own tool.

    python bench/readme_exchange.py [--write] [--answer FILE]

``--answer`` takes a saved answer of ``fix_oom`` (JSON) instead of asking for one; ``--save`` keeps the one that came.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "server")]

from oomdoctor.explain import stage_words
from oomdoctor.units import duration, gib, human
from oomdoctor.values import Stage

EXAMPLE = ROOT / "examples" / "flux-12gb"
MARKED = re.compile(r"(<!-- exchange -->\n).*?(<!-- end exchange -->)", re.DOTALL)
GPU, RAM = "RTX 3060", 64


async def ask() -> dict[str, Any]:
    """What the tool answers for the example."""
    from mcp import Client
    from oomdoctor_mcp.app import build
    from oomdoctor_mcp.config import Config

    arguments = {"script": (EXAMPLE / "script.py").read_text("utf-8"), "gpu": GPU, "ram_gib": RAM, "wait_s": 600,
                 "traceback": (EXAMPLE / "traceback.txt").read_text("utf-8")}  # fmt: skip
    async with Client(build(Config(roots=()))) as client:
        result = await client.call_tool("fix_oom", arguments)
    if result.is_error:
        raise SystemExit(result.content[0].text)
    answer: dict[str, Any] = result.structured_content
    return answer


def exchange(answer: dict[str, Any]) -> str:
    """Markdown: what a person pastes, what the assistant calls, what it shows."""
    log = (EXAMPLE / "traceback.txt").read_text("utf-8").rstrip().splitlines()
    last = log[-1] if len(log[-1]) < 400 else log[-1][: log[-1].find(". If reserved") + 1] or log[-1][:400]
    before, after = answer["original_trial"], answer["trial"]
    chosen = _chosen(answer)
    rows = [chosen, *(_row(o) for o in answer["alternatives"][:3])]
    head = "| strategy | VRAM GiB | RAM GiB | time | picture | proof |\n|---|---|---|---|---|---|"
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return f"""\
**You** paste the log and the script:

```text
{log[0]}
  …
{last}
```

**The assistant** calls one tool:

```text
fix_oom(script=…, traceback=…, gpu="{GPU}", ram_gib={RAM})
```

**and answers.** {answer["diagnosis"]["cause"]} What fits {human(after["usable_bytes"] + after["context_bytes"])}:

{head}
{table}

```diff
{answer["patch"]["diff"].rstrip()}
```

**Proof.** Before: out of memory on `{before["device"]}`, {_where(before)}. After: finishes on `{after["device"]}` with \
{human(after["peak_reserved_bytes"] + after["context_bytes"])} of VRAM ({human(after["peak_allocated_bytes"])} of live tensors at most) and \
{human(after["peak_host_bytes"])} of RAM, in about {duration(after["seconds"])}: denoising peaks at {_stage(after, "denoise")}, \
the VAE at {_stage(after, "vae_decode")}. These are predictions of the virtual card."""


def _row(option: dict[str, Any]) -> list[str]:
    e = option["estimate"]
    return [
        f"`{option['id']}`",
        gib(e["vram_bytes"]),
        gib(e["ram_bytes"]),
        duration(e["seconds"]),
        e["quality"],
        option["proof"],
    ]


def _chosen(answer: dict[str, Any]) -> list[str]:
    trial = answer["trial"]
    vram = trial["peak_reserved_bytes"] + trial["context_bytes"]
    quality = re.search(r"leaves the picture ([\w-]+)", answer["summary"])
    return [f"**`{answer['strategy_id']}`**", gib(vram), gib(trial["peak_host_bytes"]), duration(trial["seconds"]),
            quality[1] if quality else "see summary", "simulated"]  # fmt: skip


def _where(trial: dict[str, Any]) -> str:
    died = trial.get("died") or {}
    stage = stage_words(Stage(died["stage"])) if died.get("stage") else "as in the log"
    own = trial["ran"] == "script" and trial.get("script_line")  # a generated call has lines of its own
    return f"{stage} (line {trial['script_line']})" if own else stage


def _stage(trial: dict[str, Any], stage: str) -> str:
    return human(max(s["peak_reserved_bytes"] for s in trial["stages"] if s["stage"] == stage))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put it into the README")
    parser.add_argument("--answer", type=Path, help="a saved answer")
    parser.add_argument("--save", type=Path, help="keep the answer here")
    options = parser.parse_args()
    if options.answer:
        answer = json.loads(options.answer.read_text("utf-8"))
    else:
        import anyio

        answer = anyio.run(ask)
    if options.save:
        options.save.write_text(json.dumps(answer, indent=1) + "\n", "utf-8")
    text = exchange(answer)
    if options.write:
        readme = ROOT / "README.md"
        readme.write_text(MARKED.sub(lambda m: f"{m[1]}{text}\n{m[2]}", readme.read_text("utf-8")), "utf-8")
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
