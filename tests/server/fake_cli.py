"""Stands where ``python -m oomdoctor_mcp.child`` stands, and behaves as its first argument says: well, slowly, or badly.

python fake_cli.py MODE VERB SCRIPT [options]
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

DIAGNOSIS = {
    "is_oom": True,
    "kind": "vram_capacity",
    "stage": "denoise",
    "component": "transformer",
    "requested_bytes": 1 << 30,
    "cause": "the weights alone fill the card.",
    "confidence": "high",
    "next_step": "offload",
    "frames": [{"file": "a.py", "line": 3, "function": "f"}],
}
STRATEGY = {"applications": [{"technique": "model_offload"}, {"technique": "vae_tiling"}]}
OPTION = {
    "id": "model_offload+vae_tiling",
    "strategy": STRATEGY,
    "estimate": {
        "vram_bytes": 9 << 30,
        "allocated_bytes": 8 << 30,
        "ram_bytes": 30 << 30,
        "seconds": 41.5,
        "stages": [{"stage": "denoise", "allocated_bytes": 8 << 30}],
        "rests_on": ["a measurement"],
    },
}


def trial(outcome: str, ran: str = "call") -> dict[str, Any]:
    return {
        "device": "virtual:rtx-3060-12gb",
        "ran": ran,
        "isolation": "guards",
        "outcome": outcome,
        "peak_allocated_bytes": 8 << 30,
        "peak_reserved_bytes": 9 << 30,
        "context_bytes": 256 << 20,
        "stages": [
            {
                "stage": "denoise",
                "component": "transformer",
                "peak_allocated_bytes": 8 << 30,
                "peak_reserved_bytes": 9 << 30,
            }
        ],
        "diagnosis": DIAGNOSIS if outcome == "oom" else None,
    }


def asked() -> dict[str, Any]:
    """Answers to the questions that the options ask besides."""
    spreading = {"kind": "balanced", "code": "device_map", "vram_bytes": 7 << 30, "fits": True}
    known: dict[str, dict[str, Any]] = {
        "--largest": {"largest": [{"dimension": "resolution", "height": 768, "width": 1360, "factor": 1.0}]},
        "--smallest-card": {"smallest_card": {"bytes": 20 << 30, "label": "RTX 4090"}},
        "--pareto": {"pareto": [OPTION]},
        "--formulas": {"formulas": [{"symbol": "S_total", "bytes": 1 << 30, "meaning": "all"}]},
        "--strategy=model_offload": {"subject": OPTION},
        "--gpu-count=2": {"spreadings": [spreading]},
    }
    return {name: answer for option in sys.argv for name, answer in known.get(option, {}).items()}


def value(verb: str, ran: str) -> dict[str, Any]:
    if verb == "measure":
        part = {"name": "transformer", "class_name": "T", "params": 12, "loaded_bytes": 24, "source": "config"}
        use = {"stage": "denoise", "component": "transformer", "activation_bytes": 1 << 30, "calls": 4}
        trace = {"module": [0], "entered": [True]}
        return {
            "pipeline_class": "FluxPipeline",
            "model": "m",
            "components": [part],
            "stages": [use],
            "weights_bytes": 24,
            "trace": trace,
        }
    if verb == "strategies":
        return {"strategies": [OPTION] * 8, "considered": 99, "illegal": {"fp8_casting": "no fp8"}, **asked()}
    if verb == "run":
        return trial("ok", ran)
    patch = {"source": "new\n", "diff": "-old\n+new\n", "strategy": OPTION["id"]}
    return {
        "diagnosis": DIAGNOSIS,
        "strategy": STRATEGY,
        "why": "It is the fastest that fits.",
        "patch": patch,
        "original_trial": trial("oom", ran),
        "trial": trial("ok", ran),
        "alternatives": [OPTION] * 8,
    }


def say(kind: str, **what: Any) -> None:
    print(json.dumps({kind: what}), file=sys.stderr, flush=True)


def watch() -> None:
    def until_parent_dies() -> None:
        while os.read(0, 1):
            pass
        os._exit(3)

    threading.Thread(target=until_parent_dies, daemon=True).start()


def main(mode: str, verb: str, script: str, *options: str) -> int:
    watch()
    print("a library's chatter \x1b[31min red\x1b[0m", file=sys.stderr, flush=True)
    for step, phase in enumerate(("loading", "denoising", "decoding")):
        say("progress", phase=phase, fraction=step / 3, message=f"step {step}")
        time.sleep(0.02)
    if pids := os.environ.get("PYTHONPATH_PIDS"):
        Path(pids).write_text(str(os.getpid()))
    if mode == "slow":
        time.sleep(60)
    elif mode == "short":
        time.sleep(1.0)
    elif mode == "gate":  # goes on when the file exists that the script's first line names
        gate = Path(Path(script).read_text().splitlines()[0].removeprefix("# "))
        while not gate.exists():
            time.sleep(0.02)
    elif mode == "family":  # a grandchild that leaves the session, and one that ignores polite requests
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        forever = [sys.executable, "-c", "import signal, time; signal.signal(15, 1); time.sleep(60)"]
        subprocess.Popen(forever)
        subprocess.Popen(forever, start_new_session=True)
        time.sleep(60)
    elif mode == "orphan":  # ends well and leaves somebody behind who holds the pipes
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    elif mode == "flood":
        block = "x" * (1 << 20)
        while True:
            sys.stdout.write(block)
    elif mode == "noise":
        sys.stderr.write("y" * (1 << 20) + "\n")
        sys.stderr.write('{"progress": 5}\n{"error": "no"}\n{"progress"\n')
    elif mode == "garbage":
        print("not json")
        return 0
    elif mode == "crash":
        print("Traceback: \x1b]0;title\x07 secret-free tail\u202e", file=sys.stderr)
        return 3
    elif mode == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif mode == "error":
        say(
            "error",
            **{
                "class": "UnknownCard",
                "message": "No card called 'x'. `oom-doctor gpus` lists all cards; give --vram.",
            },
        )
        return 2
    elif mode == "environment":
        print(json.dumps({**value(verb, "call"), "notes": [json.dumps([dict(os.environ), os.getcwd(), sys.argv])]}))
        return 0
    elif mode == "none":
        print(json.dumps({"why": "Too large.", "none_fits": True, "unlock": ["512 MiB more VRAM"]}))
        return 1
    elif mode == "newer":
        print(json.dumps({**value(verb, "call"), "a_field_of_the_next_version": 1}))
        return 0
    elif mode == "confined":
        assert "--isolation=required" in options
        print(json.dumps({**trial("ok", "script"), "isolation": "sandbox"}))
        return 0
    print(json.dumps(value(verb, "script" if mode == "disobeys" or "--no-exec" not in options else "call")))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
