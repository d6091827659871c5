"""The whole way through inspect_ai, offline: task, scripted model, scorer, log."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("inspect_ai")


def test_the_oracle_and_the_idler_through_inspect(tmp_path: Path) -> None:
    from inspect_ai import eval as evaluate
    from oomdoctor_evals.inspection import _registry  # noqa: F401
    from oomdoctor_evals.inspection.task import oom_doctor
    from oomdoctor_evals.loader import load_all

    quick = next(s.public_id for s in load_all() if s.expected.verdict == "not_oom")
    for name, score in (("oracle", 1.0), ("always_impossible", 0.0)):
        (log,) = evaluate(
            oom_doctor(condition="bare"),
            model=f"oomdoctor/{name}",
            sample_id=quick,
            log_dir=str(tmp_path),
            display="none",
        )
        assert log.status == "success", log.error
        assert log.samples is not None and log.samples[0].scores is not None
        assert log.samples[0].scores["fit"].value["fit"] == score  # type: ignore[index,call-overload]
