"""Nothing lands anywhere but on the virtual card: small scripts as people write them, each checking itself.

Most of these once failed or went around the card, in C++ bindings that look at the device before any dispatch.
"""

from __future__ import annotations

import textwrap

import pytest
from oomdoctor.trial import Zygote, run_virtual
from oomdoctor.values import Card

START = """
import torch
MIB = 1 << 20
def taken():
    return torch.cuda.memory_allocated()
def on_card(*tensors):
    return all(t.is_cuda and t.device == torch.device("cuda", 0) for t in tensors)
"""

SCRIPTS = {
    "a thread": """
        import threading
        out = []
        def work():
            x = torch.randn(1024, 1024, device="cuda")
            out.append((x @ x).relu())
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert on_card(*out) and taken() >= 4 * MIB
    """,
    "an executor": """
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(lambda i: torch.zeros(1 << 20, device="cuda") + i, range(4)))
        assert on_card(*made) and taken() == 16 * MIB
    """,
    "cuda() of plain modules": """
        model = torch.nn.Sequential(torch.nn.Linear(1024, 1024), torch.nn.BatchNorm1d(1024)).cuda().eval()
        assert on_card(*model.parameters(), *model.buffers()) and taken() > 4 * MIB
        assert on_card(model(torch.ones(2, 1024).cuda()))
    """,
    "moves under inference mode": """
        with torch.inference_mode():
            model = torch.nn.Linear(512, 512)
            model.to("cuda")
            model.half()
            y = model(torch.zeros(1, 512, device="cuda", dtype=torch.float16))
            assert on_card(y) and y.dtype == torch.float16 and y.is_inference()
            model.to("cpu")
            assert not model.weight.is_cuda
        model = torch.nn.Linear(512, 512).cuda()
        with torch.inference_mode():
            model.to("cpu")
            model.to("cuda")
            assert on_card(model(torch.zeros(1, 512, device="cuda")))
    """,
    "the fast path of attention layers": """
        attention = torch.nn.MultiheadAttention(64, 4, batch_first=True).cuda().eval()
        layers = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(64, 4, batch_first=True), 2).cuda().eval()
        x = torch.zeros(2, 10, 64, device="cuda")
        with torch.no_grad():
            a, _ = attention(x, x, x, need_weights=False)
            b, weights = attention(x, x, x)
            c = layers(x)
        assert on_card(a, b, c, weights) and a.shape == c.shape == x.shape and weights.shape == (2, 10, 10)
    """,
    "pinned memory": """
        x = torch.ones(1 << 20).pin_memory()
        assert x.is_pinned() and not x.is_cuda
        y = x.to("cuda", non_blocking=True)
        z = torch.empty(1 << 20, pin_memory=True)
        assert on_card(y) and z.is_pinned()
        z.copy_(y)
        small = torch.tensor([1, 2, 3]).pin_memory()
        assert small.is_pinned() and small.tolist() == [1, 2, 3]
    """,
    "torch.save and torch.load": """
        import io
        made = {"large": torch.ones(1 << 20, device="cuda"), "ids": torch.arange(4)}
        torch.save(made, "made.pt")
        del made
        assert taken() == 0
        back = torch.load("made.pt", map_location="cuda")
        assert on_card(*back.values()) and back["ids"].tolist() == [0, 1, 2, 3] and taken() >= 4 * MIB
        assert not torch.load("made.pt", map_location="cpu")["large"].is_cuda
        buffer = io.BytesIO()
        torch.save(torch.nn.Linear(4, 4).state_dict(), buffer)
        buffer.seek(0)
        assert torch.load(buffer, weights_only=True)["weight"].shape == (4, 4)
    """,
    "safetensors straight to the card": """
        from safetensors import safe_open
        from safetensors.torch import load_file, save, save_file
        with open("plain.safetensors", "wb") as file:
            file.write(save({"w": torch.ones(1024, 1024)}))
        assert on_card(load_file("plain.safetensors", device="cuda")["w"]) and taken() == 0
        for device in ("cuda", 0, "cuda:0"):
            with safe_open("plain.safetensors", framework="pt", device=device) as file:
                assert on_card(file.get_tensor("w"), file.get_slice("w")[:10])
        save_file({"w": torch.zeros(8, 8, dtype=torch.float16)}, "again.safetensors")
        assert load_file("again.safetensors", device="cuda:0")["w"].dtype == torch.float16
    """,
    "bindings that look at the device": """
        x = torch.arange(12.0, device="cuda").reshape(3, 4)
        assert on_card(x[1], x[:, None], x[..., -1], x[[0, 2]], x[torch.tensor([0, 1])])
        assert x[1, 2].item() == 6 and x[x > 5].tolist() == [6, 7, 8, 9, 10, 11]
        assert on_card(x.t().contiguous(), 1 - x, 2**x, x / 3, x // 2, -x, torch.where(x > 3, x, 0.0))
        assert (float(x.sum()), int(x.max()), bool((x >= 0).all())) == (66.0, 11, True)
        z = torch.empty_like(x)
        z.copy_(x.cpu())
        z[0] = 5
        z[1, 1] = 7.5
        z[:, 0].fill_(1)
        assert z.tolist()[1][:2] == [1, 7.5]
        assert (x.half().float() == x).all() and x.int().dtype == torch.int32 and x.pow(2)[0, 3].item() == 9
        x += 1
        x *= 2
        assert x.tolist()[0] == [2, 4, 6, 8] and [row.tolist() for row in x][0] == [2, 4, 6, 8]
        assert torch.stack([x, x], 1).shape == (3, 2, 4) and x.numpy(force=True).shape == (3, 4)
        assert on_card(x.type(torch.cuda.HalfTensor)) and x.type() == "torch.cuda.FloatTensor"
    """,
    "factories inside composites": """
        from torch.nn import functional as F
        from torch.nn.utils.rnn import pad_sequence
        assert pad_sequence([torch.ones(3, device="cuda"), torch.ones(5, device="cuda")], True).shape == (2, 5)
        x = torch.randn(2, 3, 8, 8, device="cuda")
        q = torch.randn(1, 2, 16, 8, device="cuda")
        ids = torch.tensor([1, 1, 2], device="cuda")
        assert on_card(
            F.interpolate(x, scale_factor=2), F.interpolate(x, size=(4, 4), mode="bilinear", antialias=True),
            F.scaled_dot_product_attention(q, q, q, attn_mask=torch.ones(16, 16, device="cuda").tril().bool()),
            F.one_hot(ids, 4), torch.fft.rfft2(x), F.pad(x, (1, 1, 1, 1), mode="reflect"), torch.quantile(x, 0.5),
            *torch.meshgrid(ids, ids, indexing="ij"), torch.einsum("bchw,bchw->bc", x, x), torch.linalg.norm(x),
            F.grid_sample(x, torch.zeros(2, 4, 4, 2, device="cuda"), align_corners=False), torch.cdist(x, x),
            torch.nn.LSTM(8, 8).cuda()(torch.zeros(3, 2, 8, device="cuda"))[0],
        )
        assert torch.bincount(ids).tolist() == [0, 2, 1] and torch.unique(ids).tolist() == [1, 2]
        assert torch.nonzero(ids - 1).tolist() == [[2]]
    """,
    "a script that names its card": """
        import os
        os.environ["CUDA_VISIBLE_DEVICES"] = "0"
        assert torch.cuda.is_available() and torch.cuda.device_count() == 1 and torch.version.cuda
        free, total = torch.cuda.mem_get_info()
        assert 0 < free < total == torch.cuda.get_device_properties(0).total_memory
        assert on_card(torch.zeros(1, device="cuda")) and torch.cuda.get_device_name(0)
    """,
    "factories": """
        on = {"device": "cuda"}
        made = [
            torch.zeros(4, **on), torch.rand(4, **on), torch.randint(0, 5, (4,), **on), torch.arange(4, **on),
            torch.linspace(0, 1, 4, **on), torch.eye(2, **on), torch.full((2,), 3, **on), torch.randperm(4, **on),
            torch.tensor(1.0, **on), torch.normal(0.0, 1.0, (4,), **on), torch.zeros_like(torch.ones(2), **on),
            torch.logspace(0, 1, 4, **on), torch.hann_window(8, **on), torch.complex(torch.ones(2, **on), torch.ones(2, **on)),
            torch.ones(2, **on).new_zeros(3), torch.cuda.FloatTensor(3), torch.multinomial(torch.ones(4, **on), 2),
        ]
        assert on_card(*made)
        with torch.device("cuda"):
            assert on_card(torch.ones(2), torch.nn.Linear(2, 2).weight)
        torch.set_default_device("cuda")
        assert on_card(torch.ones(2), torch.nn.Linear(2, 2).weight)
    """,
    "generators": """
        from diffusers.utils.torch_utils import randn_tensor
        for place in ("cpu", "cuda"):
            generator = torch.Generator(place).manual_seed(0)
            assert torch.randn(4, generator=generator, device=place).device.type == place
            assert on_card(randn_tensor((1, 4), generator=generator, device=torch.device("cuda")))
        torch.cuda.manual_seed_all(0)
        torch.cuda.set_rng_state(torch.cuda.get_rng_state())
    """,
    "autocast and streams": """
        model = torch.nn.Linear(64, 64).cuda()
        with torch.autocast("cuda", dtype=torch.float16):
            assert model(torch.ones(1, 64, device="cuda")).dtype == torch.float16
        stream, start, end = torch.cuda.Stream(), *(torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        with torch.cuda.stream(stream):
            y = model(torch.ones(1, 64, device="cuda"))
        torch.cuda.current_stream().wait_stream(stream)
        y.record_stream(torch.cuda.current_stream())
        end.record()
        torch.cuda.synchronize()
        assert on_card(y) and start.elapsed_time(end) >= 0
    """,
    "an error that is caught": """
        try:
            torch.empty(200 << 30, dtype=torch.uint8, device="cuda")
        except torch.cuda.OutOfMemoryError as error:
            assert "Tried to allocate 200.00 GiB" in str(error)
        else:
            raise SystemExit("it fitted")
    """,
    "empty tensors": """
        nothing, something = torch.empty(0, device="cuda"), torch.empty(4, device="cuda")
        del something
        model = torch.nn.Identity()
        model.register_buffer("nothing", nothing)
        x = torch.zeros(1, device=torch.device(0))
        assert on_card(model(x), model.nothing) and taken() == 512
    """,
    "del and empty_cache": """
        import gc
        x = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
        assert taken() == 1 << 30
        del x
        gc.collect()
        assert taken() == 0 and torch.cuda.memory_reserved() == 1 << 30
        torch.cuda.empty_cache()
        assert torch.cuda.memory_reserved() == 0
    """,
    "a training step": """
        model = torch.nn.Linear(256, 256).cuda()
        optimizer = torch.optim.AdamW(model.parameters())
        for _ in range(2):
            model(torch.randn(8, 256, device="cuda")).pow(2).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        assert taken() > 3 * 256 * 256 * 4
    """,
    "compiled by TorchScript": """
        @torch.jit.script
        def double(x):
            return x * 2 + 1
        assert on_card(double(torch.ones(3, device="cuda")), torch.vmap(lambda a: a * 2)(torch.ones(3, 2, device="cuda")))
    """,
    "copies of a model": """
        import copy
        model = torch.nn.Linear(8, 8).cuda()
        other = copy.deepcopy(model)
        assert on_card(other.weight) and other.weight.data_ptr() != model.weight.data_ptr()
        other.load_state_dict(model.state_dict())
        other.load_state_dict({name: t.cpu() for name, t in model.state_dict().items()}, assign=True)
        assert not other.weight.is_cuda
    """,
    "numpy": """
        import numpy
        x = torch.ones(3, device="cuda")
        try:
            numpy.array(x)
        except TypeError:
            pass
        else:
            raise SystemExit("numpy took a tensor of the card")
        assert (x.cpu().numpy() * 2).sum() == 6 and on_card(x * numpy.float32(2), torch.from_numpy(numpy.ones(3)).cuda())
    """,
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_nothing_escapes(zygote: Zygote, card: Card, name: str) -> None:
    source = START + textwrap.dedent(SCRIPTS[name])
    trial = run_virtual(zygote, source, card=card, ran="script", path="script.py", timeout=120.0)
    assert trial.outcome == "ok", trial.error


def test_two_cards_do_not_mix(zygote: Zygote, card: Card) -> None:
    source = START + textwrap.dedent("""
        a = torch.ones(4, device="cuda:0")
        b = a.to("cuda:1")
        assert b.device.index == 1 and torch.cuda.memory_allocated(1) == 512 and torch.cuda.device_count() == 2
        try:
            a + b
        except RuntimeError as error:
            assert "same device" in str(error)
        else:
            raise SystemExit("cards were mixed")
    """)
    trial = run_virtual(zygote, source, card=card, ran="script", path="script.py", timeout=120.0, count=2)
    assert trial.outcome == "ok", trial.error


def test_a_traceback_shows_the_lines_of_the_script(zygote: Zygote, card: Card) -> None:
    source = "import torch\nlarge = torch.empty(100 << 30, dtype=torch.uint8, device='cuda')\n"
    trial = run_virtual(zygote, source, card=card, ran="script", path="script.py", timeout=60.0)
    assert trial.outcome == "oom" and "large = torch.empty(100 << 30" in (trial.error or "")
