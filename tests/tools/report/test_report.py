"""Reports of runs as text, pictures, traces and tables; made from values, no torch."""

from __future__ import annotations

import builtins
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oomdoctor.errors import InputError, UnreadableFile
from oomdoctor.report import Bar, comparison_table, plot_comparison, plot_run, run_report, write_trace
from oomdoctor.report.perfetto import events
from oomdoctor.report.plot import check
from oomdoctor.values import (
    Alive,
    CallSpan,
    Comparison,
    ComparisonRow,
    MemoryTimeline,
    Moment,
    SavedFile,
    Stage,
    Stretch,
    Trial,
    TrialStage,
)  # fmt: skip

GIB = 1 << 30


def timeline() -> MemoryTimeline:
    return MemoryTimeline(
        seconds=(0.0, 1.0, 2.0, 3.0),
        allocated_bytes=(0, 4 * GIB, 6 * GIB, 5 * GIB),
        reserved_bytes=(0, 4 * GIB, 7 * GIB, 7 * GIB),
        weights_bytes=(0, 4 * GIB, 4 * GIB, 4 * GIB),
        stretches=(
            Stretch(stage=Stage.PLACE, component="unet", start=0.0, end=1.0),
            Stretch(stage=Stage.DENOISE, component="unet", start=1.0, end=3.0),
        ),
        spans=(
            CallSpan(component="unet", path="blocks.0", start=1.0, end=1.5),
            CallSpan(component="unet", path="", start=1.0, end=3.0),
        ),
    )


def trial(**changes: Any) -> Trial:
    alive = (
        Alive(kind="weights", component="unet", bytes=4 * GIB),
        Alive(kind="attention", component="unet", path="blocks.0.attn", bytes=GIB),
        Alive(kind="activations", component="unet", path="blocks.1", bytes=GIB),
        Alive(kind="activations", component="vae", path="tiny", bytes=1024),
    )
    given: dict[str, Any] = {
        "device": "virtual:test", "ran": "script", "isolation": "sandbox", "isolated_by": "landlock 7 + seccomp",
        "outcome": "ok", "peak_allocated_bytes": 6 * GIB, "peak_reserved_bytes": 7 * GIB, "context_bytes": GIB // 2,
        "usable_bytes": 11 * GIB, "peak_host_bytes": 3 * GIB, "host_limit_bytes": 16 * GIB, "seconds": 3.0,
        "stages": (
            TrialStage(stage=Stage.PLACE, component="text", peak_allocated_bytes=GIB, peak_reserved_bytes=GIB),
            TrialStage(stage=Stage.PLACE, component="unet", peak_allocated_bytes=4 * GIB, peak_reserved_bytes=4 * GIB),
            TrialStage(stage=Stage.DENOISE, component="unet", peak_allocated_bytes=6 * GIB, peak_reserved_bytes=7 * GIB, seconds=2.0),
        ),
        "peak": Moment(stage=Stage.DENOISE, component="unet", path="blocks.1", seconds=2.0, allocated_bytes=6 * GIB, alive=alive),
        "files": (SavedFile(path="cat.png", what="picture 8x8 RGB", bytes=192),),
        "assumptions": ("one", "two", "three", "four"), "timeline": timeline(),
    }  # fmt: skip
    return Trial.model_validate({**given, **changes})


def dead() -> Trial:
    died = Moment(
        stage=Stage.VAE_DECODE, component="vae", path="decoder", seconds=3.0, line=12, allocated_bytes=9 * GIB,
        reserved_bytes=10 * GIB, requested_bytes=4 * GIB, alive=(Alive(kind="weights", component="unet", bytes=9 * GIB),),
    )  # fmt: skip
    return trial(outcome="oom", died=died, script_line=12)


def test_a_report_has_the_verdict_first_and_what_was_alive() -> None:
    text = run_report(trial(), "a.py")
    assert text.splitlines()[0] == "a.py: fits on virtual:test (your script, sandbox (landlock 7 + seccomp))"
    assert "VRAM 7.5 GiB of 11.5 GiB, 4.0 GiB left" in text
    assert "at the peak, while denoising (unet.blocks.1)" in text
    assert "unet attention: blocks.0.attn 1.0 GiB" in text
    assert "cat.png (picture 8x8 RGB, 192 B)" in text
    assert "tiny" not in text and "four" not in text and "1 more assumptions" in text
    assert "text" not in text.split("denoise", 1)[0].splitlines()[-2]  # of placing only the sum
    detailed = run_report(trial(), detail=True)
    assert "tiny" in detailed and "four" in detailed


def test_a_death_is_told_with_line_module_and_sizes() -> None:
    text = run_report(dead())
    assert (
        "died at line 12, while the VAE decoded the result (vae.decoder): 4.0 GiB more were asked for, 1.0 GiB were free"
        in text
    )
    assert "on the card when it died" in text


def test_an_error_is_shown_with_its_line() -> None:
    text = run_report(
        Trial(device="virtual:x", ran="script", isolation="guards", outcome="error", error="boom", script_line=3)
    )
    assert "failed on virtual:x (your script, guards)" in text and "line 3: boom" in text


def test_a_comparison_says_what_is_too_tight() -> None:
    rows = (
        ComparisonRow(script="a.py", card="big", trial=trial(), fits=True),
        ComparisonRow(script="a.py", card="small", trial=dead(), fits=False),
        ComparisonRow(script="b.py", card="big", trial=trial(), fits=False),
    )
    lines = comparison_table(Comparison(rows=rows)).splitlines()
    assert lines[2].split() == ["a.py", "big", "fits", "7.50", "11.50", "4.00", "3.00", "3.0", "s", "denoise", "unet"]
    assert "out of memory, line 12" in lines[3] and "vae_decode vae" in lines[3]
    assert "too tight" in lines[4]
    alone = comparison_table(Comparison(rows=rows[:2]))
    assert "a.py" not in alone


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_pictures_are_drawn(tmp_path: Path, ending: str) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"run.{ending}"
    plot_run(dead(), path, "a.py")
    assert path.stat().st_size > 5000 and list(tmp_path.iterdir()) == [path]
    if ending == "svg":
        assert "<svg" in path.read_text()
    row = ComparisonRow(script="a.py", card="x", trial=trial(), fits=True)
    other = ComparisonRow(script="b.py", card="x", trial=dead(), fits=False)
    plot_comparison(Comparison(rows=(row, other)), path)
    assert path.stat().st_size > 5000


def test_a_picture_of_nothing_and_a_wrong_ending_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(InputError, match="nothing to draw"):
        plot_run(trial(timeline=None), tmp_path / "a.png")
    with pytest.raises(InputError, match=r"\.png"):
        check(tmp_path / "a.xyz")
    with pytest.raises(UnreadableFile, match="--plot"):
        plot_run(trial(), tmp_path / "nowhere" / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(InputError, match=r"oom-doctor\[plot\]"):
        check(tmp_path / "a.png")


def test_a_trace_is_one_that_perfetto_reads(tmp_path: Path) -> None:
    write_trace(dead(), tmp_path / "t.json")
    data = json.loads((tmp_path / "t.json").read_text())
    found = data["traceEvents"]
    assert {e["ph"] for e in found} == {"M", "X", "C", "i"}
    spans = [e for e in found if e["ph"] == "X" and e["tid"] == 2]
    assert [e["name"] for e in spans] == ["unet", "unet.blocks.0"]  # the outer one first
    assert spans[0]["ts"] == 1e6 and spans[0]["dur"] == 2e6
    counters = [e["args"] for e in found if e["name"] == "allocated"]
    assert counters[2] == {"weights": 4 * GIB, "activations": 2 * GIB}
    (end,) = (e for e in found if e["ph"] == "i")
    assert end["args"] == {"requested_bytes": 4 * GIB, "module": "decoder", "line": 12}
    assert all(e["ph"] == "M" for e in events(trial(timeline=None)))


class Terminal(io.StringIO):
    pass


def test_the_bar_shows_step_and_memory_and_goes_away() -> None:
    stream = Terminal()
    bar = Bar(stream)
    bar.live({"stage": "denoise", "component": "unet", "step": 7, "reserved_bytes": 6 * GIB, "total_bytes": 12 * GIB})
    drawn = stream.getvalue()
    assert "[############............] 6.00/12.00 GiB  denoise unet 7" in drawn
    bar.close()
    assert stream.getvalue().endswith("\r\x1b[2K")


@given(st.dictionaries(st.sampled_from(["stage", "component", "step", "reserved_bytes", "total_bytes"]),
                       st.one_of(st.none(), st.text(), st.integers(), st.floats(), st.booleans(), st.lists(st.none()))))  # fmt: skip
def test_the_bar_survives_what_a_script_sends(message: dict[str, Any]) -> None:
    stream = Terminal()
    Bar(stream).live(message)
    assert "\x1b" not in stream.getvalue().replace("\r\x1b[2K", "") and "\n" not in stream.getvalue()


def test_reports_import_neither_torch_nor_matplotlib() -> None:
    import subprocess

    tools = str(Path(__file__).parents[3] / "tools")
    code = f"import sys; sys.path.insert(0, {tools!r}); import oomdoctor.report, oomdoctor.trial.sandbox\n"
    code += "assert not {'torch', 'matplotlib'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
