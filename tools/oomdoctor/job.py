"""What the doctor works on: a script that was read, and the file around it."""

from __future__ import annotations

from dataclasses import dataclass

from oomdoctor.errors import NoPipeline
from oomdoctor.script import SourceFile, read_script
from oomdoctor.values import Script


@dataclass(frozen=True)
class Job:
    """One script, read."""

    source: str
    script: Script
    path: str = "script.py"
    argv: tuple[str, ...] = ()
    file: SourceFile | None = None
    """The file that it was read from, which knows its encoding, or the notebook around the code."""

    def encoded(self, source: str) -> bytes:
        """An edited script as the bytes of a file like the one that was read."""
        return self.file.encode(source) if self.file is not None else source.encode()


def read_job(source: str, path: str | None = None, argv: tuple[str, ...] = (), file: SourceFile | None = None) -> Job:
    """A script ready for work; ``file``: where it was read from. Raises :class:`NotPython`, :class:`NoPipeline`."""
    script = file.script if file is not None else read_script(source, path=path)
    if script.main is None:
        raise NoPipeline(
            "No diffusers pipeline was found in the script: nothing like `pipe = SomePipeline.from_pretrained(...)` "
            "that is then called. Give the script that loads and calls the pipeline; if it is hidden behind a function "
            "of another file, give that file."
        )
    return Job(source, script, path or "script.py", argv, file)
