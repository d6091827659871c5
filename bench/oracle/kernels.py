"""What PyTorch's own kernels take and which ones it chooses: read off over the stub driver, and recorded.

    python bench/oracle/kernels.py --cuda-python PATH --record tests/tools/vgpu/recorded

PATH is an interpreter with a CUDA build of torch; no GPU is needed, nothing is computed. Two files are written per torch
version: ``attention-VERSION.json``, the attention kernel for every case and card, and ``temporaries-VERSION.json``, the
requests and frees of single operations. The ordinary tests hold the virtual GPU's rules against both.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from run import build, environment, torch_version

HERE = Path(__file__).resolve().parent
VRAM = 64 << 30
# Compute capability and the shared memory a block may opt in to, which decides between kernels of one kind.
CARDS = {70: 98304, 75: 65536, 80: 166912, 86: 101376, 89: 101376, 90: 232448, 100: 232448, 120: 101376}
TEMPORARIES_ON = (75, 89, 90)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuda-python", type=Path, required=True)
    parser.add_argument("--record", type=Path, required=True, help="folder for the recordings")
    parser.add_argument("--build", help="where the stub libraries are built and kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        build_dir = Path(options.build or folder).resolve()
        build(options.cuda_python, build_dir)
        major, minor, cuda = torch_version(options.cuda_python, build_dir)
        env = environment(build_dir, VRAM, ORACLE_CUDA=str(cuda), TORCH_CPP_LOG_LEVEL="ERROR", PYTHONWARNINGS="ignore")
        options.record.mkdir(parents=True, exist_ok=True)
        for what, cards in (("attention", [*CARDS]), ("temporaries", [*TEMPORARIES_ON])):
            wanted = [f"{card}:{CARDS[card]}" for card in cards]
            command = [options.cuda_python, str(HERE / "kernels_inside.py"), what, *wanted]
            done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True)
            found = {}
            for line in done.stdout.splitlines():
                if line.startswith("{"):
                    found.update(json.loads(line))
            rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in sorted(found.items()))
            path = options.record / f"{what}-{major}.{minor}.json"
            path.write_text("{\n" + rows + "\n}\n")
            print(f"{path}: {len(found)} entries")
    return 0


if __name__ == "__main__":
    sys.exit(main())
