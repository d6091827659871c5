"""What a scenario, an answer and a grade are. Memory in scenario files is MiB; everything computed is bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MIB = 1 << 20

Verdict = Literal["fixable", "impossible", "not_oom"]
Resource = Literal["vram", "ram", "pinned_ram", "none"]
Os = Literal["linux", "windows", "wsl"]
QualityClass = Literal["identical", "slight", "noticeable"]
QUALITY_ORDER: tuple[QualityClass, ...] = ("identical", "slight", "noticeable")

CATEGORIES = (
    "load_time", "text_encode", "denoise", "vae_decode", "host_ram", "loop", "other_process", "multi_gpu", "video",
    "lora", "adapters", "quantisation", "api_version", "compile", "batch", "not_oom", "impossible",
)  # fmt: skip


class Model(BaseModel):
    """Frozen, and strict about names: a misspelt field of a scenario is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Machine(Model):
    """The machine of the person who asks."""

    gpu: str
    """Catalogue name of the card."""
    count: int = 1
    used_by_others_mib: int = 0
    ram_mib: int
    """RAM that the script may use."""
    os: Os = "linux"
    versions: dict[str, str | None] = {}
    """Distribution -> version; None: not installed."""


class Rules(Model):
    """The preference, as limits that a trace can be held to."""

    quality: QualityClass = "slight"
    """Worst that may happen to the picture."""
    quantise: Literal["allow", "forbid"] = "allow"
    """Quantisers. Casting to fp8 layer by layer is storage and counts for quality only."""
    max_slowdown: float | None = None
    """Against everything resident on a card without limit."""
    new_packages: Literal["allow", "forbid"] = "forbid"


class Preference(Model):
    text: str
    """As the person says it."""
    rules: Rules = Rules()


class Provenance(Model):
    kind: Literal["issue", "synthetic"]
    url: str | None = None
    note: str = ""


class Truth(Model):
    """What is right about the failure; each field is compared exactly."""

    phase: str
    component: str | None = None
    resource: Resource
    root_cause: str


class Unlock(Model):
    """One change of the world that makes an impossible scenario possible."""

    vram_mib: int | None = None
    """Free card memory that is enough."""
    ram_mib: int | None = None
    rule: Literal["quality", "quantise", "max_slowdown", "new_packages"] | None = None


class Best(Model):
    """The best that the exhaustive search found under the scenario's rules."""

    answer: str
    """Name of the candidate."""
    seconds: float
    peak_mib: int
    quality: QualityClass


class Expected(Model):
    """Never shown to an agent."""

    verdict: Verdict
    truth: Truth
    best: Best | None = None
    unlock: tuple[Unlock, ...] = ()
    searched: int = 0
    """Candidates that the search tried."""
    simulator: str = ""
    """Digest of the simulator that the figures come from."""


class Scenario(Model):
    """One folder under ``scenarios/<family>/``."""

    id: str
    """``family/variant``: for people; agents see :attr:`public_id`."""
    public_id: str
    """A hash, so that the name gives nothing away."""
    family: str
    category: str
    twin: str | None = None
    """Id of the scenario on the other side of the boundary."""
    split: Literal["dev", "heldout"] = "dev"
    provenance: Provenance
    machine: Machine
    preference: Preference
    script: str
    """The person's whole file."""
    evidence: dict[str, str]
    """``traceback``, ``nvidia_smi``, ``dmesg``: text as pasted."""
    expected: Expected
    witnesses: dict[str, str] = {}
    """Name -> patched script that must pass."""
    wrong: dict[str, str] = {}
    """Name -> plausible patched script that must fail."""
    folder: Path

    def question(self) -> dict[str, Any]:
        """What an agent gets to see."""
        return {
            "id": self.public_id,
            "script": self.script,
            "evidence": self.evidence,
            "machine": self.machine.model_dump(),
            "preference": self.preference.model_dump(),
        }


class Predicted(Model):
    peak_vram_mib: float | None = None
    slowdown: float | None = None


class Said(Model):
    """The agent's diagnosis."""

    phase: str | None = None
    component: str | None = None
    resource: str | None = None
    root_cause: str | None = None


class Answer(Model):
    """What an agent gives back."""

    verdict: Verdict
    patched_script: str | None = None
    diagnosis: Said = Said()
    predicted: Predicted = Predicted()
    unlock: tuple[Unlock, ...] = ()
    explanation: str = ""
    claims_verified: bool = False


class ToolCall(Model):
    """One entry of a transcript."""

    tool: str
    arguments: dict[str, Any] = {}
    result: Any = None
    seconds: float | None = None


class Attempt(Model):
    """One run of an agent on a scenario: its answer and how it came to it."""

    scenario: str
    agent: str
    answer: Answer | None = None
    """None when it gave none, or none that is well formed."""
    error: str | None = None
    transcript: tuple[ToolCall, ...] = ()
    seconds: float = 0.0
    tokens: int | None = None
    cost: float | None = None
    """US dollars."""


class Gate(Model):
    """Passed or not, and why not."""

    name: str
    passed: bool
    reasons: tuple[str, ...] = ()


class Grade(Model):
    """How one attempt did."""

    scenario: str
    family: str
    category: str
    agent: str
    epoch: int = 0
    expected: Verdict
    verdict: Verdict | None = None
    gates: tuple[Gate, ...] = ()
    safe_fix: bool = False
    regret: float | None = None
    """Seconds against the best's; None when there is nothing to compare."""
    fit: dict[str, bool] = {}
    """``1.25``, ``2``, ``inf`` -> safe and not slower than that."""
    diagnosis: float | None = None
    """Share of the enums that are right, 0 to 1."""
    peak_right: bool | None = None
    """The predicted peak is within 10 % of the simulated one."""
    diff_ok: bool | None = None
    changed_statements: int | None = None
    honest: bool = True
    dishonesty: tuple[str, ...] = ()
    peak_mib: int | None = None
    seconds: float | None = None
    """Predicted duration of the patched script."""
    agent_seconds: float = 0.0
    tool_calls: int = 0
    tokens: int | None = None
    cost: float | None = None

    @property
    def false_fix(self) -> bool:
        """Claims a fix where there is none, or where memory is not the matter."""
        return self.expected != "fixable" and self.verdict == "fixable"

    @property
    def false_impossible(self) -> bool:
        return self.expected == "fixable" and self.verdict == "impossible"

    @property
    def died_verified(self) -> bool:
        """Called verified and does not run."""
        return any(g.name == "honesty" and not g.passed for g in self.gates)


class Observed(Model):
    """One simulated run, as the grader sees it."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    outcome: str
    error: str | None = None
    seconds: float | None = None
    peak_reserved_bytes: int = 0
    peak_allocated_bytes: int = 0
    context_bytes: int = 0
    peak_host_bytes: int = 0
    oom_moment: dict[str, Any] | None = None
    script_line: int | None = None
    workload: dict[str, Any] = Field(default_factory=dict)

    @property
    def peak_vram_bytes(self) -> int:
        """With the CUDA context."""
        return self.peak_reserved_bytes + self.context_bytes
