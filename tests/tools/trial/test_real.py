"""Real runs: the machinery around them, on a process whose GPU is the virtual one, and on a machine without any."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import psutil
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

from oomdoctor.errors import BadInterpreter, NoGpu, TrialFailed
from oomdoctor.hardware import card
from oomdoctor.models import CATALOGUE
from oomdoctor.trial.real.runner import RealRun, environment, run_real
from oomdoctor.trial.real.turn import turn
from oomdoctor.trial.zygote import card_dict
from oomdoctor.values import Stage

PROGRAM = Path(__file__).with_name("real_on_virtual.py")
SCRIPT = textwrap.dedent(
    """\
    import torch
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5", torch_dtype=torch.float16)
    pipe.to("cuda")
    pipe("a cat", num_inference_steps=5)
    """
)


@pytest.fixture(autouse=True)
def own_turn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tests that run at the same time do not wait for each other's GPU."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


@pytest.fixture
def on_virtual(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    """``run(RealRun) -> Trial`` in a child whose card is a virtual RTX 3060, or another."""

    def run(real: RealRun, name: str = "rtx-3060-12gb") -> object:
        loading = {"catalogue": str(CATALOGUE), "configs": [], "like": {}, "scratch": str(tmp_path / "models")}
        monkeypatch.setenv("HF_TEST_SETUP", json.dumps({"card": card_dict(card(name)), "loading": loading}))
        return run_real(real, program=PROGRAM)

    return run


def test_stages_steps_and_peaks_of_a_script(on_virtual: object) -> None:
    trial = on_virtual(RealRun(SCRIPT, mode="full"))  # type: ignore[operator]
    assert trial.outcome == "ok", trial.error
    assert trial.device == "cuda:NVIDIA GeForce RTX 3060"
    assert [s.stage for s in trial.stages] == [
        Stage.LOAD, Stage.PLACE, Stage.TEXT_ENCODE, Stage.DENOISE, Stage.VAE_DECODE, Stage.POST,
    ]  # fmt: skip
    assert trial.steps_run in (5, 6)
    assert 4 << 30 > trial.peak_allocated_bytes > 2 << 30
    decode = next(s for s in trial.stages if s.stage is Stage.VAE_DECODE)
    assert decode.peak_allocated_bytes == trial.peak_allocated_bytes
    assert trial.outputs[0]["count"] == 1
    assert trial.outputs[0]["size"] == [512, 512]
    assert trial.peak_host_bytes > 0


def test_a_probe_keeps_the_sizes_and_takes_the_fewest_steps(on_virtual: object, tmp_path: Path) -> None:
    trial = on_virtual(RealRun(SCRIPT, mode="probe", save_to=str(tmp_path / "kept")))  # type: ignore[operator]
    assert trial.outcome == "ok", trial.error
    assert trial.steps_run <= 3
    assert trial.peak_allocated_bytes > 2 << 30
    assert any("probe" in note for note in trial.notes)
    assert Path(trial.outputs[0]["files"][0]).stat().st_size > 0


def test_a_death_gets_a_diagnosis_with_its_line(on_virtual: object) -> None:
    trial = on_virtual(RealRun(SCRIPT.replace('a cat"', 'a cat", height=4096, width=4096'), mode="probe"))  # type: ignore[operator]
    assert trial.outcome == "oom"
    assert trial.script_line == 6
    assert trial.diagnosis is not None
    assert trial.diagnosis.is_oom


def test_without_a_gpu_it_is_refused_with_the_way_out() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(NoGpu, match="virtual card"):
        run_real(RealRun("print(1)"))


def test_an_interpreter_that_is_none() -> None:
    with pytest.raises(BadInterpreter, match="--python"):
        run_real(RealRun("print(1)"), python="/nowhere/python")


def test_one_gpu_job_at_a_time(tmp_path: Path) -> None:
    with turn(folder=tmp_path), pytest.raises(TrialFailed, match="another run"), turn(folder=tmp_path):
        pass
    with turn(folder=tmp_path):
        pass


def test_the_environment_of_a_run_is_a_list_of_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET", "x")
    monkeypatch.setenv("HF_HOME", "/models")
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    seen = environment()
    assert "MY_SECRET" not in seen
    assert seen["HF_HOME"] == "/models"
    assert seen["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"
    assert "PATH" in seen


def test_a_time_limit_ends_the_whole_group(on_virtual: object) -> None:
    script = "import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])\ntime.sleep(300)\n"
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    trial = on_virtual(RealRun(script, timeout=25.0))  # type: ignore[operator]
    assert trial.outcome == "timeout"
    assert {p.pid for p in psutil.Process().children(recursive=True)} <= before


def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    """The parent is killed without a chance to clean up; the pipe that it held open ends the child."""
    parent = textwrap.dedent(
        f"""
        import sys
        sys.path[:0] = {sys.path!r}
        from oomdoctor.trial.real.runner import RealRun, run_real
        from pathlib import Path
        run_real(RealRun("x"), program=Path({str(tmp_path / "sleeper.py")!r}))
        """
    )
    (tmp_path / "sleeper.py").write_text(
        "import sys, time, types, os\n"
        "sys.path.insert(0, os.path.join(sys.argv[1], 'trial', 'real'))\n"
        "import child; child._make_package(sys.argv[1])\n"
        "from oomdoctor.trial.life import end_with_pipe\n"
        "end_with_pipe(int(sys.argv[3]))\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        "time.sleep(300)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", parent])
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child_pid = int((tmp_path / "pid").read_text())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while psutil.pid_exists(child_pid) and psutil.Process(child_pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline + 20
        time.sleep(0.05)
