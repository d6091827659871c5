"""Nothing lands on a real card, or on the CPU uncounted: each way out that was seen in trials."""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from oomdoctor.vgpu import VirtualTensor, World  # noqa: E402

MIB = 1 << 20


def allocated(world: World) -> int:
    return world.gpu.allocator.allocated


def big(rows: int = 1024) -> torch.Tensor:
    """A tensor too large to keep its values, 4 MiB for 1024 rows."""
    return torch.empty(rows, 1024, device="cuda")


def test_an_operation_in_another_thread_is_counted(world: World) -> None:
    x = big()
    found: list[torch.Tensor] = []
    thread = threading.Thread(target=lambda: found.append(x * 2))
    thread.start()
    thread.join()
    assert isinstance(found[0], VirtualTensor)
    assert allocated(world) == 8 * MIB


def test_an_executor_makes_tensors_on_the_card(world: World) -> None:
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        kept = list(pool.map(lambda n: torch.zeros(n, 1024, device="cuda"), [1024, 2048]))
    assert all(isinstance(t, VirtualTensor) for t in kept)
    assert allocated(world) == 12 * MIB


@pytest.mark.parametrize("move", [lambda m: m.cuda(), lambda m: m.to("cuda"), lambda m: m.to("cuda:0")])
def test_plain_modules_move(world: World, move: object) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(1024, 1024, bias=False), torch.nn.BatchNorm1d(16))
    move(module)  # type: ignore[operator]
    assert {p.device for p in module.parameters()} == {torch.device("cuda", 0)}
    assert {b.device for b in module.buffers()} == {torch.device("cuda", 0)}
    assert allocated(world) >= 4 * MIB


def test_modules_move_under_inference_mode(world: World) -> None:
    module = torch.nn.Linear(1024, 1024, bias=False)
    with torch.inference_mode():
        module.to("cuda")
        y = module(torch.ones(4, 1024, device="cuda"))
    assert module.weight.device.type == "cuda"
    assert y.device.type == "cuda"
    module.to("cpu")
    assert module.weight.device.type == "cpu"
    assert isinstance(module.weight, torch.nn.Parameter)


def test_multihead_attention_has_no_fast_way_past(world: World) -> None:
    attention = torch.nn.MultiheadAttention(256, 4, batch_first=True).eval().cuda()
    x = torch.empty(2, 512, 256, device="cuda")
    with torch.no_grad():
        y, _ = attention(x, x, x, need_weights=False)
    assert isinstance(y, VirtualTensor)
    assert y.shape == x.shape


def test_transformer_encoder_layer_has_no_fast_way_past(world: World) -> None:
    layer = torch.nn.TransformerEncoderLayer(256, 4, batch_first=True).eval().cuda()
    with torch.inference_mode():
        y = layer(torch.empty(2, 512, 256, device="cuda"))
    assert isinstance(y, VirtualTensor)


def test_pinned_memory_is_counted_apart(world: World) -> None:
    plain = torch.empty(3 * MIB, dtype=torch.uint8)
    assert not plain.is_pinned()
    pinned = plain.pin_memory()
    assert pinned.is_pinned()
    assert pinned.device.type == "cpu"
    assert world.host.by_kind["pinned"] == 4 * MIB, "rounded up to a power of two"
    moved = pinned.to("cuda", non_blocking=True)
    assert moved.device.type == "cuda"


@pytest.mark.parametrize("where", ["cuda", torch.device("cuda", 0), {"cpu": "cuda:0"}])
def test_torch_load_in_all_forms_of_map_location(world: World, tmp_path: Path, where: object) -> None:
    shared = torch.zeros(1024, 1024)
    torch.save({"a": shared, "b": [shared, 3], "c": torch.ones(2)}, tmp_path / "w.pt")
    loaded = torch.load(tmp_path / "w.pt", map_location=where)
    assert loaded["a"].device == loaded["c"].device == torch.device("cuda", 0)
    assert loaded["a"] is loaded["b"][0]
    assert loaded["c"].tolist() == [1, 1]
    assert torch.load(tmp_path / "w.pt")["a"].device.type == "cpu"


def test_bindings_that_guard_the_device_first(world: World) -> None:
    x = torch.arange(12, device="cuda").reshape(3, 4)
    assert x[1, 2].item() == 6
    assert x[:, torch.tensor([0, 2])].tolist() == [[0, 2], [4, 6], [8, 10]]
    assert x[x > 9].tolist() == [10, 11]
    assert x.t().contiguous().is_contiguous()
    x[0, 0] = 7
    assert int(x[0, 0]) == 7
    assert bool((x == 7).any())
    assert (x + 1).float().device.type == "cuda"
    assert (2.0 - x.half()).dtype == torch.float16
    assert x.double().long().device.type == "cuda"
    y = torch.zeros_like(x)
    y.copy_(x)
    assert y.tolist() == x.tolist()
    assert len(x) == 3
    assert [int(row.sum()) for row in x] == [13, 22, 38]
    assert x.numpy(force=True).shape == (3, 4)
    assert "cuda" in repr(x)


def test_large_tensors_go_through_the_same_bindings(world: World) -> None:
    x = big()
    assert x[0:10].shape == (10, 1024)
    assert x[:, None].shape == (1024, 1, 1024)
    assert x[..., 5].shape == (1024,)
    x[0] = 1.0
    x[:, 0] += 2
    assert (1 - x).shape == x.shape
    assert x.t().contiguous().stride() == (1024, 1)
    assert x.half().cpu().device.type == "cpu"
    assert "cuda" in repr(x)


def test_factories_inside_composites(world: World) -> None:
    rows = [torch.empty(n, 512, device="cuda") for n in (100, 200)]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    assert isinstance(padded, VirtualTensor)
    assert padded.shape == (2, 200, 512)
    eye = torch.eye(1024, device="cuda")
    assert torch.kron(torch.ones(1, 2, device="cuda"), eye).device.type == "cuda"
    assert torch.block_diag(eye, eye).device.type == "cuda"


def test_new_tensors_stay_on_the_card_of_their_source(world: World) -> None:
    x = big()
    for made in (x.new_zeros(8, 1024, 1024), x.new_empty(8), torch.zeros_like(x), torch.randn_like(x), x.clone()):
        assert made.device == x.device


def test_default_device(world: World) -> None:
    with torch.device("cuda"):
        x = torch.empty(1024, 1024)
        layer = torch.nn.Linear(8, 8)
    assert x.device.type == "cuda"
    assert layer.weight.device.type == "cuda"


def test_autocast_casts_on_the_card(world: World) -> None:
    layer = torch.nn.Linear(1024, 1024).cuda()
    with torch.autocast("cuda", dtype=torch.float16), torch.no_grad():
        y = layer(torch.empty(64, 1024, device="cuda"))
    assert y.dtype == torch.float16
    assert y.device.type == "cuda"


def test_mixed_devices_are_refused_in_torchs_words(world: World) -> None:
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        big() @ torch.empty(1024, 1024)


def test_a_card_that_is_not_there(world: World) -> None:
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        torch.empty(1, device="cuda:3")


def test_an_operation_without_a_rule_is_named(world: World) -> None:
    library = torch.library.Library("oomdoctor_test", "DEF")
    library.define("mystery(Tensor x) -> Tensor")
    library.impl("mystery", lambda x: x.clone(), "CPU")
    with pytest.raises(RuntimeError, match="oomdoctor_test.mystery"):
        torch.ops.oomdoctor_test.mystery(big())


def test_a_value_that_nobody_has_is_taken_as_zero_and_said(world: World) -> None:
    assert big().sum().item() == 0.0
    assert any("taken as zero" in sentence for sentence in world.assumptions)


def test_everything_is_as_before_afterwards() -> None:
    from oomdoctor.vgpu import VirtualCard, virtual_gpu

    before = (torch.cuda.is_available, torch.Generator, torch.nn.Module.__call__, torch.cuda.Stream)
    with virtual_gpu(VirtualCard("a", "A", total_bytes=1 << 30)):
        assert torch.cuda.is_available()
    assert (torch.cuda.is_available, torch.Generator, torch.nn.Module.__call__, torch.cuda.Stream) == before
    assert type(torch.zeros(3)) is torch.Tensor


def test_a_script_that_sets_its_own_visible_devices() -> None:
    """The variable is read when torch first counts cards; the child has counted before the script starts."""
    source = textwrap.dedent(
        """
        import os
        os.environ["CUDA_VISIBLE_DEVICES"] = "0"
        import torch
        from oomdoctor.vgpu import VirtualCard, virtual_gpu
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        torch.cuda.device_count()
        with virtual_gpu(VirtualCard("a", "Card A", total_bytes=1 << 30)):
            os.environ["CUDA_VISIBLE_DEVICES"] = "0,1"
            assert torch.cuda.device_count() == 1
            assert torch.cuda.get_device_name() == "Card A"
            x = torch.ones(2, device="cuda")
            assert x.tolist() == [1, 1]
        assert not torch.cuda.is_initialized()
        """
    )
    path = os.pathsep.join(str(p) for p in sys.path if p)
    done = subprocess.run([sys.executable, "-c", source], env={**os.environ, "PYTHONPATH": path}, check=False)
    assert done.returncode == 0
