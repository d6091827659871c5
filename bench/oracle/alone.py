"""Importing this makes ``oomdoctor.vgpu.allocator`` importable without the rest of the virtual GPU.

The rest would replace what it is to be compared with, and needs newer libraries than the reference interpreter has.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2] / "tools"
sys.path.insert(0, str(TOOLS))
room = types.ModuleType("oomdoctor.vgpu")
room.__path__ = [str(TOOLS / "oomdoctor" / "vgpu")]
sys.modules["oomdoctor.vgpu"] = room
