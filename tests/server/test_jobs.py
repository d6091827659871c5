"""Long calls: bounded waits, continuation, progress, cancellation, limits, and children that misbehave."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from oomdoctor.errors import InputError, OomDoctorError, TrialFailed, UnknownCard
from oomdoctor_mcp import children, jobs
from oomdoctor_mcp.children import Command
from oomdoctor_mcp.jobs import Job, Jobs

pytestmark = pytest.mark.anyio
FAKE = str(Path(__file__).parent / "fake_cli.py")


async def silent(job: Job, update: children.Update) -> None:
    pass


@asynccontextmanager
async def manager(timeout_s: float = 30.0) -> AsyncIterator[Jobs]:
    async with anyio.create_task_group() as group:
        held = Jobs(group, timeout_s=timeout_s)
        try:
            yield held
        finally:
            group.cancel_scope.cancel()


@pytest.fixture
def command(tmp_path: Path) -> Callable[[str], Command]:
    def make(mode: str) -> Command:
        folder = tmp_path / f"job{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        return Command((sys.executable, FAKE, mode, "run", "x.py"), folder)

    return make


def family() -> set[int]:
    """Everything that this process started and is still there."""
    found = set()
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or ())
        if process.info["status"] != psutil.STATUS_ZOMBIE and (FAKE in line or "time.sleep(60)" in line):
            found.add(process.pid)
    return found


async def all_gone(before: set[int]) -> bool:
    for _ in range(50):
        if not family() - before:
            return True
        await anyio.sleep(0.05)
    return False


async def test_a_job_gives_its_value_and_cleans_up(command: Any):
    async with manager() as held:
        job = held.start("verify_script", made := command("ok"), key=("a",))
        await held.wait(job, 20, silent)
        assert job.value is not None and job.value["outcome"] == "ok"
        assert not made.folder.exists()
        assert held.get(job.id, "verify_script") is job


async def test_a_wait_is_bounded_and_can_be_continued(command: Any):
    async with manager() as held:
        job = held.start("verify_script", command("short"), key=("a",))
        await held.wait(job, 0.2, silent)
        assert not job.done.is_set()
        await held.wait(job, 20, silent)
        assert job.value is not None


async def test_progress_names_the_stages(command: Any):
    seen: list[tuple[str, float | None]] = []

    async def note(job: Job, update: children.Update) -> None:
        seen.append((update.phase, update.fraction))

    async with manager() as held:
        await held.wait(held.start("verify_script", command("short"), key=("a",)), 20, note)
    assert ("decoding", 2 / 3) in seen


async def test_a_stage_too_short_to_be_seen_is_told_in_its_turn(command: Any):
    seen: list[str] = []

    async def note(job: Job, update: children.Update) -> None:
        seen.append(update.message or update.phase)

    async with manager() as held:
        job = held.start("verify_script", command("ok"), key=("a",))
        for phase, message in [("load", "a"), ("load", "b"), ("denoise", "c"), ("decode", "d"), ("decode", "e")]:
            job.tell(children.Update(phase, None, message))
        await held.wait(job, 20, note)
    assert [word for word in seen if len(word) == 1] == ["b", "c", "e"]


@pytest.mark.parametrize("mode", ["slow", "family"])
async def test_cancelling_the_only_wait_ends_the_whole_family(command: Any, mode: str):
    before = family()
    async with manager() as held:
        job = held.start("verify_script", command(mode), key=("a",))
        with anyio.move_on_after(1.0):
            await held.wait(job, 60, silent)
        assert job.done.is_set() and isinstance(job.error, TrialFailed)
        assert await all_gone(before)


async def test_a_second_wait_keeps_the_job_alive(command: Any):
    async with manager() as held, anyio.create_task_group() as group:
        job = held.start("verify_script", command("short"), key=("a",))
        group.start_soon(held.wait, job, 20, silent)
        await anyio.sleep(0.1)
        with anyio.move_on_after(0.2):
            await held.wait(job, 20, silent)
        await job.done.wait()
        assert job.value is not None


async def test_the_end_of_the_server_ends_the_children(command: Any):
    before = family()
    async with manager() as held:
        held.start("verify_script", command("family"), key=("a",))
        await anyio.sleep(0.5)
        assert family() - before
    assert await all_gone(before)


async def test_a_result_does_not_leave_grandchildren(command: Any):
    before = family()
    async with manager() as held:
        job = held.start("verify_script", command("orphan"), key=("a",))
        await held.wait(job, 20, silent)
        assert job.value is not None
    assert await all_gone(before)


async def test_a_job_has_a_hard_limit(command: Any):
    before = family()
    async with manager(timeout_s=0.5) as held:
        job = held.start("verify_script", command("slow"), key=("a",))
        await held.wait(job, 20, silent)
        assert isinstance(job.error, TrialFailed) and "--timeout" in str(job.error)
    assert await all_gone(before)


@pytest.mark.parametrize(
    ("mode", "kind", "words"),
    [
        ("error", UnknownCard, "No card called"),
        ("crash", TrialFailed, "status 3"),
        ("garbage", TrialFailed, "gave no result"),
        ("killed", TrialFailed, "signal 9"),
    ],
)
async def test_what_goes_wrong_has_a_name(command: Any, mode: str, kind: type[OomDoctorError], words: str):
    async with manager() as held:
        job = held.start("verify_script", command(mode), key=("a",))
        await held.wait(job, 20, silent)
    assert type(job.error) is kind and words in str(job.error)
    assert "\x1b" not in str(job.error) and "\u202e" not in str(job.error)


async def test_output_is_bounded(command: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(children, "MAX_OUTPUT_BYTES", 3 << 20)
    async with manager() as held:
        flood = held.start("verify_script", command("flood"), key=("a",))
        await held.wait(flood, 20, silent)
        noise = held.start("verify_script", command("noise"), key=("b",))
        await held.wait(noise, 20, silent)
    assert "printed more than" in str(flood.error)
    assert noise.value is not None


async def test_a_program_that_is_not_there(tmp_path: Path):
    async with manager() as held:
        job = held.start("fix_oom", Command(("/nonexistent/python",), tmp_path / "x"), key=("a",))
        await held.wait(job, 20, silent)
    assert "could not be started" in str(job.error)


async def test_real_runs_take_turns(command: Any):
    async with manager() as held:
        first = held.start("verify_script", command("short"), key=("a",), real=True)
        second = held.start("verify_script", command("ok"), key=("b",), real=True)
        await anyio.sleep(0.5)
        assert second.update.phase == "waiting"
        await held.wait(second, 20, silent)
        assert first.done.is_set() and second.value is not None


async def test_too_many_jobs_are_refused(command: Any):
    async with manager() as held:
        for number in range(jobs.MAX_UNFINISHED):
            held.start("fix_oom", command("slow"), key=(str(number),))
        last = command("slow")
        with pytest.raises(InputError, match="unfinished"):
            held.start("fix_oom", last, key=("last",))
        assert not last.folder.exists()


async def test_finished_jobs_are_forgotten(command: Any):
    async with manager() as held:
        for number in range(jobs.MAX_FINISHED + 5):
            job = held.start("fix_oom", Command(("/nonexistent",), Path("/nonexistent")), key=(str(number),))
            await held.wait(job, 20, silent)
        assert len(held) <= jobs.MAX_FINISHED + 1


async def test_jobs_belong_to_their_tool(command: Any):
    async with manager() as held:
        job = held.start("fix_oom", command("slow"), key=("a",))
        with pytest.raises(InputError, match="belongs to fix_oom"):
            held.get(job.id, "verify_script")
        with pytest.raises(InputError, match="no job"):
            held.get("\x1b[31mffff", "fix_oom")


async def test_a_call_answers_running_and_goes_on_by_id(serve: Any, connect: Any, script: str, tmp_path: Path):
    heard: list[str] = []
    gate = tmp_path / "gate"
    script = f"# {gate}\n{script}"

    async def listen(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message or "")

    async with connect(serve("gate")) as client:
        first = await client.call_tool("fix_oom", {"script": script, "wait_s": 2}, progress_callback=listen)
        running = first.structured_content
        assert running["status"] == "running" and running["job_id"] in running["next_step"]
        assert "none_fits" not in running and "patch" not in running
        wrong = await client.call_tool("verify_script", {"job_id": running["job_id"]})
        assert wrong.is_error and "fix_oom" in wrong.content[0].text
        again = await client.call_tool("fix_oom", {"script": script, "wait_s": 0})
        assert again.structured_content["job_id"] == running["job_id"]
        gate.touch()
        done = await client.call_tool("fix_oom", {"job_id": running["job_id"]}, progress_callback=listen)
    assert done.structured_content["status"] == "done"
    assert done.structured_content["job_id"] == running["job_id"]
    assert any("decoding 67%" in message for message in heard)


async def test_a_cancelled_call_ends_its_child(serve: Any, connect: Any, script: str):
    before = family()
    async with connect(serve("family")) as client:
        with anyio.move_on_after(1.5):
            await client.call_tool("fix_oom", {"script": script})
        assert await all_gone(before)


async def test_leaving_ends_what_runs(serve: Any, connect: Any, script: str):
    before = family()
    async with connect(serve("family")) as client:
        await client.call_tool("fix_oom", {"script": script, "wait_s": 0.5})
        assert family() - before
    assert await all_gone(before)
