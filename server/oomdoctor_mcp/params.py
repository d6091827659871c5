"""The parameters that several tools share: type, limits and description in one place."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

MAX_SCRIPT = 1_000_000
MAX_LOG = 8_000_000
MAX_NOTEBOOK_BYTES = 32 << 20

ScriptText = Annotated[
    str,
    Field(
        max_length=MAX_SCRIPT,
        description="The whole Python script (or notebook JSON) as text. Give this or script_path.",
    ),
]
ScriptPath = Annotated[
    str,
    Field(
        max_length=4096,
        description="Path of the .py or .ipynb file, inside the server's folder. Good: 'train/generate.py'. "
        "Bad: a URL, a folder.",
    ),
]
LogText = Annotated[
    str,
    Field(
        max_length=MAX_LOG,
        description="The traceback or log as pasted, unedited: the longer the better, ANSI colours and progress bars are fine.",
    ),
]
LogPath = Annotated[
    str, Field(max_length=4096, description="Path of a log file inside the server's folder instead of its text.")
]
Gpu = Annotated[
    str,
    Field(
        max_length=80,
        description="The card to plan for: a name such as 'rtx-3060-12gb', 'RTX 3060', 'A100 80GB', or 'auto' for this "
        "machine's. Ask the person when it is not known; the resource oomdoctor://gpus lists all.",
    ),
]
VramGib = Annotated[
    float | None,
    Field(
        gt=0,
        le=1024,
        description="GiB of VRAM the script may use, when other programs take some of it or the card is unlisted.",
    ),
]
RamGib = Annotated[
    float | None,
    Field(
        gt=0,
        le=16384,
        description="GiB of RAM of the machine that runs the script. Default: this machine's, so give it when the card is another machine's.",
    ),
]
Prefer = Annotated[
    Literal["balanced", "quality", "speed", "memory"],
    Field(description="What to put first when several strategies fit."),
]
WorstQuality = Annotated[
    Literal["identical", "slight", "noticeable"],
    Field(description="The most that may happen to the picture. 'identical' when the person wants no loss at all."),
]
NoQuantisation = Annotated[bool, Field(description="True when the person wants no quantised weights.")]
NoNewPackages = Annotated[bool, Field(description="True when nothing is to be installed.")]
MaxSlowdown = Annotated[
    float | None, Field(ge=1, le=1000, description="At most so many times as slow as on a card that holds everything.")
]
WaitS = Annotated[
    float,
    Field(
        ge=0,
        le=600,
        description="Seconds to wait for the result; then a job_id comes back to go on with. Keep it below your client's own limit.",
    ),
]
JobId = Annotated[
    str,
    Field(
        max_length=40,
        description="Go on waiting for this job (from an earlier answer of this tool). Everything else is ignored then.",
    ),
]
DetailLevel = Annotated[
    Literal["concise", "full"],
    Field(description="'full' adds what is left out for brevity: frames, per-stage figures, sources, assumptions."),
]
GpuCount = Annotated[
    int | None, Field(ge=1, le=16, description="How many such cards the machine has; their memory does not add up.")
]
Questions = Annotated[
    list[Literal["largest", "smallest_card", "pareto", "formulas"]],
    Field(
        max_length=4,
        description="Answered besides: 'largest' resolution, frames and batch that fit; 'smallest_card' that runs it; "
        "'pareto' front; 'formulas' of the calculators (S_total, S_block, A).",
    ),
]
About = Annotated[
    str,
    Field(
        max_length=400,
        description="Strategy id to price in full; 'largest' and 'smallest_card' are then about it. Default: the best, "
        "or for smallest_card the script as it is ('plain').",
    ),
]
StrategyId = Annotated[
    str,
    Field(
        min_length=1,
        max_length=400,
        description="Id from compute_strategies or fix_oom, such as 'model_offload+vae_tiling'.",
    ),
]
PictureWanted = Annotated[
    bool,
    Field(description="Also draw it as an image. Only for clients that show images to the person; off by default."),
]
DEFAULT_WAIT_S = 45.0
