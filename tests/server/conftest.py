"""Servers and clients for the tests: in memory, in both protocol eras, with a stand-in for the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.server import MCPServer
from oomdoctor_mcp.app import build
from oomdoctor_mcp.config import Config

HERE = Path(__file__).parent
SCRIPT = """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.to("cuda")
image = pipe("a cat", height=1024, width=1024).images[0]
image.save("cat.png")
"""
TRACEBACK = """\
Traceback (most recent call last):
  File "/home/me/flux.py", line 5, in <module>
    pipe.to("cuda")
  File "/venv/lib/python3.11/site-packages/diffusers/pipelines/pipeline_utils.py", line 545, in to
    module.to(device, dtype)
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 72.00 MiB. GPU 0 has a total capacity of 11.76 GiB of \
which 58.69 MiB is free. Including non-PyTorch memory, this process has 11.69 GiB memory in use. Of the allocated \
memory 11.56 GiB is allocated by PyTorch, and 12.43 MiB is reserved by PyTorch but unallocated.
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def script() -> str:
    return SCRIPT


@pytest.fixture
def traceback() -> str:
    return TRACEBACK


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "flux.py").write_text(SCRIPT)
    return folder


@pytest.fixture
def config(root: Path) -> Callable[..., Config]:
    """Settings with the stand-in in a mode: ``config("slow", allow_exec=True)``."""

    def make(mode: str = "ok", **settings: Any) -> Config:
        command = (sys.executable, str(HERE / "fake_cli.py"), mode)
        return Config(**({"roots": (root,), "command": command} | settings))

    return make


@pytest.fixture
def serve(config: Callable[..., Config]) -> Callable[..., MCPServer[Any]]:
    """A server: ``serve("slow")``."""
    return lambda mode="ok", **settings: build(config(mode, **settings))


@pytest.fixture(params=["auto", "legacy"])
def connect(request: pytest.FixtureRequest) -> Callable[..., Client]:
    """A client of a server, in each era of the protocol."""
    return lambda server, **options: Client(server, mode=request.param, **options)
