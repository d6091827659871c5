"""Script text -> :class:`oomdoctor.values.Script`: what it loads, where it puts it, how it calls it.

Nothing of the script is executed or imported; it is parsed and read like a person would read it.
"""

from __future__ import annotations

from oomdoctor.script.reader import SourceFile, read_file, read_script

__all__ = ["SourceFile", "read_file", "read_script"]
