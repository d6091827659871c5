"""A child for tests: the program of a real run in a process whose GPU is the virtual one."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

ROOT = sys.argv[1]
sys.path.insert(0, str(Path(ROOT) / "trial" / "real"))

import child  # noqa: E402

child._make_package(ROOT)

import torch  # noqa: E402
from oomdoctor.loading.install import install  # noqa: E402
from oomdoctor.vgpu import VirtualCard, virtual_gpu  # noqa: E402

setup = json.loads(os.environ["HF_TEST_SETUP"])
torch.cuda.device_count()
with virtual_gpu(VirtualCard.from_dict(setup["card"]), replay=False):
    install(setup["loading"], [])
    child.main(ROOT, int(sys.argv[2]), int(sys.argv[3]))
