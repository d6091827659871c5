"""Whole runs in forks of one warm child: outcomes, limits, hostile answers, files, what the report has."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from oomdoctor.errors import NoConsent, TrialFailed
from oomdoctor.trial import Zygote, run_virtual, sandbox_available
from oomdoctor.values import Card, Stage, Trial

MIB = 1 << 20


@pytest.fixture
def guards_only(zygote: Zygote) -> Iterator[Zygote]:
    policy = zygote.policy
    zygote.policy = replace(policy, mode="guards")
    yield zygote
    zygote.policy = policy


def run(zygote: Zygote, card: Card, source: str, **options: Any) -> Trial:
    return run_virtual(zygote, source, card=card, ran="script", path="script.py", **{"timeout": 60.0, **options})


def test_a_run_says_what_it_took(zygote: Zygote, card: Card) -> None:
    trial = run(zygote, card, "import torch\nx = torch.zeros(64 << 20, device='cuda', dtype=torch.uint8)\nprint('hi')")
    assert trial.outcome == "ok" and trial.fits
    assert trial.peak_allocated_bytes == 64 * MIB
    assert trial.isolation == ("sandbox" if sandbox_available() else "guards")
    assert trial.isolated_by
    assert trial.peak is not None and trial.peak.alive[0].kind == "activations"
    assert trial.headroom_bytes == trial.usable_bytes - trial.peak_reserved_bytes


def test_a_death_has_its_line_and_what_was_alive(zygote: Zygote, card: Card) -> None:
    source = "import torch\na = torch.empty(3 << 30, device='cuda', dtype=torch.uint8)\nb = torch.empty_like(a)\n"
    trial = run(zygote, card, source)
    assert trial.outcome == "oom" and not trial.fits and trial.headroom_bytes is None
    assert trial.died is not None and trial.died.line == trial.script_line == 3
    assert trial.died.requested_bytes == 3 << 30
    assert sum(a.bytes for a in trial.died.alive) == 3 << 30
    assert "OutOfMemoryError" in (trial.error or "")


def test_memory_is_told_apart_by_module_and_kind(zygote: Zygote, card: Card) -> None:
    source = """
import torch
class Two(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList(torch.nn.Linear(1024, 1024) for _ in range(2))
    def forward(self, x):
        x = self.blocks[1](self.blocks[0](x))
        q = x.view(4, 1024, 256)  # three dimensions: the kernel that writes its scores to memory
        return torch.nn.functional.scaled_dot_product_attention(q, q, q)
with torch.no_grad():
    Two().cuda()(torch.zeros(1, 1024, 1024, device="cuda"))
"""
    trial = run(zygote, card, source, timeline=True)
    assert trial.outcome == "ok", trial.error
    assert trial.peak is not None
    kinds = {(a.kind, a.component, a.path): a.bytes for a in trial.peak.alive}
    assert kinds["weights", "Two", ""] >= 2 * (1024 * 1024 + 1024) * 4
    assert ("activations", "Two", "blocks.1") in kinds
    assert any(kind == "attention" for kind, _, _ in kinds)
    line = trial.timeline
    assert line is not None and max(line.allocated_bytes) == trial.peak_allocated_bytes
    assert list(line.seconds) == sorted(line.seconds)
    assert {s.path for s in line.spans} == {"", "blocks.0", "blocks.1"}


def test_time_is_limited_and_the_child_lives_on(zygote: Zygote, card: Card) -> None:
    assert run(zygote, card, "while True: pass", timeout=1.5).outcome == "timeout"
    assert run(zygote, card, "x = 1").outcome == "ok"


def test_operations_are_limited(zygote: Zygote, card: Card) -> None:
    source = (
        "import torch\nx = torch.zeros(1, device='cuda')\ntry:\n    while True: x = x + 1\nexcept Exception: pass\n"
    )
    request = {"source": source, "path": "s.py", "cards": [_card(card)], "limits": {"ops": 200}}
    answer = zygote.run(request, timeout=60)
    assert answer["outcome"] == "timeout" and "200 operations" in answer["error"]


def test_output_and_files_are_limited(zygote: Zygote, card: Card) -> None:
    flood = run(zygote, card, "for _ in range(20000): print('x' * 1000)\nraise ValueError('end')")
    assert flood.outcome == "error" and len(flood.error or "") < 20_000
    source = "import os\nfor i in range(200):\n    open(os.path.join(os.environ['TMPDIR'], str(i)), 'wb').write(bytes(1 << 20))\n"
    source += "import time\ntime.sleep(60)"
    request = {"source": source, "path": "s.py", "cards": [_card(card)], "limits": {"scratch_bytes": 64 << 20}}
    answer = zygote.run(request, timeout=60)
    assert answer["outcome"] == "timeout" and "64 MiB of files" in answer["error"]
    big = {"source": "open('big', 'wb').write(bytes(3 << 20))", "path": "s.py", "cards": [_card(card)]}
    answer = zygote.run({**big, "limits": {"file_bytes": 1 << 20}}, timeout=60)
    assert answer["outcome"] == "error" and "too large" in answer["error"].lower()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the limit is Linux's")
def test_memory_is_limited(zygote: Zygote, card: Card) -> None:
    request = {"source": "x = bytearray(1 << 30)", "path": "s.py", "cards": [_card(card)]}
    answer = zygote.run({**request, "limits": {"memory_bytes": 256 << 20}}, timeout=60)
    assert answer["outcome"] == "error" and "MemoryError" in answer["error"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the limit is Linux's")
def test_layers_made_and_dropped_by_turns_do_not_add_up(zygote: Zygote, card: Card) -> None:
    source = (
        "import torch\nkept = []\nfor i in range(200):\n    large = torch.empty(1 << 22)\n"
        "    kept.append(torch.empty(40_000))\n    del large\n    kept.append(torch.empty(40_000))\n"
    )
    request = {"source": source, "path": "s.py", "cards": [_card(card)], "limits": {"memory_bytes": 256 << 20}}
    assert zygote.run(request, timeout=60)["outcome"] == "ok"


def test_a_crash_is_named_and_the_child_lives_on(zygote: Zygote, card: Card) -> None:
    with pytest.raises(TrialFailed, match="status 7"):
        run(zygote, card, "import os\nos._exit(7)")
    with pytest.raises(TrialFailed, match="status -11"):
        run(zygote, card, "import ctypes\nctypes.string_at(0)")
    assert run(zygote, card, "x = 1").outcome == "ok"


FORGERY = """
import json, os
for fd in range(3, 64):
    try:
        os.write(fd, b'garbage\\n' + json.dumps({"ready": True, "id": 1, "cancelled": True}).encode() + b'\\n')
        os.write(fd, json.dumps({"isolation": "sandbox", "by": "trust me"}).encode() + b'\\n')
        os.write(fd, json.dumps({"result": %s}).encode() + b'\\n')
    except OSError:
        pass
os._exit(0)
"""


def test_forged_answers_claim_no_sandbox_and_break_nothing(guards_only: Zygote, card: Card) -> None:
    trial = run(guards_only, card, FORGERY % {"outcome": "ok", "isolation": "sandbox"})
    assert trial.isolation == "guards"  # figures are the script's word, isolation is not
    for nonsense in ('"text"', "{}", '{"outcome": "ok", "stages": 7}', '{"outcome": "bliss"}'):
        with pytest.raises(TrialFailed, match="answer that is none"):
            run(guards_only, card, FORGERY % nonsense)
    assert run(guards_only, card, "x = 1").outcome == "ok"


def test_the_script_cannot_hear_the_zygotes_requests(zygote: Zygote, card: Card) -> None:
    trial = run(
        zygote, card, "import os, sys\nassert os.read(0, 10) == b'', 'a request'\nassert sys.stdin.read() == ''"
    )
    assert trial.outcome == "ok", trial.error


@pytest.mark.skipif(sandbox_available() is None, reason="no sandbox here")
def test_a_real_run_in_the_sandbox_is_confined(zygote: Zygote, card: Card, tmp_path: Path) -> None:
    target = tmp_path / "escaped"
    source = f"""
import ctypes, os, posix, socket, _socket
libc = ctypes.CDLL(None)
assert libc.creat({str(target)!r}.encode(), 0o600) == -1
for attempt in (lambda: posix.open({str(target)!r}, posix.O_CREAT | posix.O_WRONLY), lambda: _socket.socket(),
                lambda: posix.posix_spawn("/bin/true", ["true"], {{}}), posix.fork, lambda: posix.kill(os.getppid(), 9)):
    try: attempt()
    except OSError: continue
    raise SystemExit("got through")
"""
    trial = run(zygote, card, source)
    assert trial.outcome == "ok", trial.error
    assert trial.isolation == "sandbox" and not target.exists()


def test_without_a_sandbox_a_required_one_refuses(zygote: Zygote, card: Card, tmp_path: Path) -> None:
    """The script must not have run: it would have left a file, guards or no guards."""
    policy = zygote.policy
    target = tmp_path / "ran"
    try:
        # The canary is put on the list of what may be read: a promise that does not hold.
        zygote.policy = replace(policy, mode="required", read=(policy.canary,))
        with pytest.raises(NoConsent, match="needs a sandbox"):
            run(zygote, card, f"import posix\nposix.open({str(target)!r}, posix.O_CREAT | posix.O_WRONLY)")
    finally:
        zygote.policy = policy
    assert not target.exists()


def test_savers_report_sizes(zygote: Zygote, card: Card) -> None:
    source = """
import torch
from PIL import Image
from diffusers.utils import export_to_video, export_to_gif
x = torch.zeros(1 << 20, device="cuda")
torch.save({"x": x, "again": x}, "weights.pt")
export_to_video([Image.new("RGB", (8, 4))] * 5, "out.mp4", fps=8)
"""
    trial = run(zygote, card, source)
    assert trial.outcome == "ok", trial.error
    files = {f.path: f for f in trial.files}
    assert files["weights.pt"].bytes == 4 << 20 and not files["weights.pt"].kept
    assert files["out.mp4"].what == "export_to_video 5 x 8x4 RGB"


def test_progress_is_told_while_it_runs(zygote: Zygote, card: Card) -> None:
    source = """
import torch, time
m = torch.nn.Linear(8, 8).cuda()
m.requires_grad_(False)
class UNet2DConditionModel(torch.nn.Module):
    def forward(self, x): return m(x)
u = UNet2DConditionModel()
for _ in range(3):
    u(torch.zeros(1, 8, device="cuda")); time.sleep(0.15)
"""
    stages: list[tuple[str, str | None]] = []
    told: list[dict[str, Any]] = []
    trial = run(zygote, card, source, progress=lambda *s: stages.append(s), live=told.append)
    assert trial.outcome == "ok", trial.error
    assert ("denoise", "unet") in stages, stages
    assert [m["step"] for m in told if m["stage"] == Stage.DENOISE.value] == [1, 2, 3]
    assert all(m["total_bytes"] == card.total_bytes for m in told)


def test_the_snapshot_is_one_that_pytorch_reads(zygote: Zygote, card: Card, tmp_path: Path) -> None:
    from oomdoctor.report import write_snapshot
    from torch.cuda import _memory_viz

    taken: list[dict[str, Any]] = []
    source = "import torch\nm = torch.nn.Linear(1024, 1024).cuda()\ny = m(torch.zeros(4, 1024, device='cuda'))\ndel y"
    assert run(zygote, card, source, on_snapshot=taken.append).outcome == "ok"
    write_snapshot(taken[0], tmp_path / "s.pickle")
    snapshot = pickle.loads((tmp_path / "s.pickle").read_bytes())
    assert "MemoryViz" in _memory_viz.trace_plot(snapshot)
    assert "Linear" in str(snapshot["device_traces"][0])
    assert any(f["filename"] == "script.py" for e in snapshot["device_traces"][0] for f in e.get("frames", ()))
    assert "segment" in _memory_viz.segsum(snapshot)
    assert _memory_viz.trace(snapshot).count("cudaMalloc") >= 2


def _card(card: Card) -> dict[str, Any]:
    from oomdoctor.trial.zygote import card_dict

    return card_dict(card)
