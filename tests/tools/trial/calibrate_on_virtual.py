"""A child for tests: the measuring program in a process whose GPU is the virtual one."""

from __future__ import annotations

import json
import os
import sys
import types
from pathlib import Path

ROOT = Path(os.environ["HF_TEST_ROOT"])
package = types.ModuleType("oomdoctor")
package.__path__ = [str(ROOT)]
sys.modules["oomdoctor"] = package
sys.path.insert(0, str(ROOT / "trial" / "calibration"))

import child  # noqa: E402
from oomdoctor.vgpu import VirtualCard, virtual_gpu  # noqa: E402

with virtual_gpu(VirtualCard.from_dict(json.loads(os.environ["HF_TEST_CARD"]))):
    child.main(int(sys.argv[1]))
