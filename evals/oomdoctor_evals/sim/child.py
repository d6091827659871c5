"""The grader's zygote: oomdoctor's own child, and around each run an observer of what the script really does.

Started as a file in the interpreter that has torch. The observer is put in once, before the first fork; each fork
has its own copy, so nothing that a script does reaches the next run.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from types import ModuleType
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))


def _module(name: str, path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _put_observer_in() -> None:
    from oomdoctor.trial import running

    observer = _module("_grader_observer", os.path.join(HERE, "observer.py"))
    real_run = running.run

    def run(request: dict[str, Any], notes: list[str], tell: Any) -> dict[str, Any]:
        watch = observer.Observer(request.get("observe") or {})
        watch.install()
        answer: dict[str, Any] = real_run(request, notes, tell)
        answer["workload"] = {**watch.report(), "saved": answer.get("files") or []}
        if answer.get("seconds") is not None:
            answer["seconds"] -= watch.extra_seconds
        return answer

    running.run = run


def main(root: str, fd: int, life: int, parent: int) -> None:
    """Serve like oomdoctor's child, with the observer in every run."""
    child = _module("_oomdoctor_child", os.path.join(root, "trial", "child.py"))
    child._make_package(root)
    from oomdoctor.trial import forking

    obey = forking.Zygote.obey

    def observed(self: Any) -> None:
        _put_observer_in()
        obey(self)

    forking.Zygote.obey = observed  # type: ignore[method-assign]
    child._serve(fd, life, parent)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
