"""A real server over stdio whose command line is the stand-in: ``python stand_in.py MODE ROOT [print]``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio
from oomdoctor_mcp.config import Config
from oomdoctor_mcp.stdio import serve_config

HERE = Path(__file__).parent

if __name__ == "__main__":
    mode, root, *more = sys.argv[1:]
    if more == ["print"]:  # a library that talks while a tool runs
        from oomdoctor.diagnosis import reading

        quiet = reading.diagnose

        def diagnose(*args, **kwargs):
            print("a stray print")
            os.write(1, b"and one below Python\n")
            os.system("echo from a child")
            return quiet(*args, **kwargs)

        import oomdoctor.diagnosis

        oomdoctor.diagnosis.diagnose = diagnose
    command = (sys.executable, str(HERE / "fake_cli.py"), mode)
    anyio.run(serve_config, Config(roots=(Path(root).resolve(),), command=command))
