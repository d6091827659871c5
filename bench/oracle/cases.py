"""The cases that ``kernels.py`` records: operations as text, so that the recording says what it is of.

An input is ``dtype shape`` or ``dtype shape : order``, the order in which the dimensions lie in memory.
"""

from __future__ import annotations

from collections.abc import Iterator

HALVES = ("float16", "bfloat16")


def attention() -> Iterator[tuple[str, ...]]:
    """Query, key and value shapes, type, mask (shape or nothing), flags."""
    for dtype in (*HALVES, "float32"):
        for head in (40, 64, 72, 100, 128, 160, 256, 512):
            shape = f"2 8 256 {head}"
            yield shape, shape, shape, dtype, "", ""
        shape = "2 8 256 64"
        for mask in ("2 1 256 256", "1 1 1 256", "256 256", "2 256 256", "2 8 256 256"):
            yield shape, shape, shape, dtype, mask, ""
        yield shape, shape, shape, dtype, "", "causal"
        yield shape, "2 8 77 64", "2 8 77 64", dtype, "", "causal"
        yield shape, "2 8 77 64", "2 8 77 64", dtype, "", ""
        yield shape, "2 8 1 64", "2 8 1 64", dtype, "", ""
        yield shape, "2 2 256 64", "2 2 256 64", dtype, "", "grouped"
        yield shape, "2 2 256 64", "2 2 256 64", dtype, "2 1 256 256", "grouped"
        yield shape, shape, "2 8 256 128", dtype, "", ""
        yield "2 8 256 192", "2 8 256 192", shape.replace("64", "128"), dtype, "", ""
        yield "8 256 64", "8 256 64", "8 256 64", dtype, "", ""
        yield shape, "1 8 256 64", "1 8 256 64", dtype, "", ""
        yield shape, shape, shape, dtype, "", "strided"
    yield "2 8 256 64", "2 8 256 64", "2 8 256 64", "float64", "", ""


SDPA = "F.scaled_dot_product_attention"
TOKENS = "2 8 1024 64"
STRIDED = f"{TOKENS} : 0 2 1 3"

# Text of the operation, then its inputs by name.
OPERATIONS: list[tuple[str, dict[str, str]]] = [
    ("torch.sort(x)", {"x": "float32 4 65536"}),
    ("torch.sort(x)", {"x": "float32 4 1000"}),
    ("torch.sort(x)", {"x": "int64 1 262144"}),
    ("torch.sort(x, dim=0)", {"x": "float32 65536 4"}),
    ("torch.sort(x)", {"x": "float16 256 8192"}),
    ("torch.sort(x, descending=True, stable=True)", {"x": "bfloat16 1 1000000"}),
    ("torch.argsort(x)", {"x": "float32 4 65536"}),
    ("torch.topk(x, 50)", {"x": "float32 1 32000"}),
    ("torch.cumsum(x, -1)", {"x": "float32 64 4096"}),
    ("torch.cumsum(x, 0)", {"x": "float32 1048576"}),
    ("torch.cumsum(x, -1)", {"x": "bool 4 4096"}),
    ("torch.cumprod(x, 0)", {"x": "float32 1000"}),
    ("torch.quantile(x, 0.5, dim=1)", {"x": "float32 4 4096"}),
    ("x.softmax(-1)", {"x": "float16 16 1024 1024"}),
    ("x.softmax(1)", {"x": "float16 16 1024 1024"}),
    ("x.softmax(-1, dtype=torch.float32)", {"x": "float16 16 1024 1024"}),
    ("F.softmax(x, -1, dtype=torch.float32)", {"x": "bfloat16 16 1024 1024"}),
    ("F.log_softmax(x, -1)", {"x": "float32 64 32000"}),
    ("F.layer_norm(x, (3072,))", {"x": "bfloat16 1 4096 3072"}),
    ("F.layer_norm(x, (3072,), w, w)", {"x": "bfloat16 1 4096 3072", "w": "bfloat16 3072"}),
    ("F.layer_norm(x, (3072,))", {"x": "bfloat16 1 4096 3072 : 0 2 1"}),
    ("F.rms_norm(x, (128,), w, 1e-6)", {"x": "bfloat16 1 24 4096 128", "w": "bfloat16 128"}),
    ("F.rms_norm(x, (128,), None, 1e-6)", {"x": "float32 1 24 4096 128"}),
    ("F.rms_norm(x, (128,), w, 1e-6)", {"x": "bfloat16 1 24 4096 128", "w": "float32 128"}),
    ("F.group_norm(x, 32, w, w)", {"x": "float16 1 512 128 128", "w": "float16 512"}),
    ("F.group_norm(x, 32)", {"x": "float32 2 128 256 256"}),
    ("F.group_norm(x, 32, w, w)", {"x": "float16 1 512 128 128 : 0 2 3 1", "w": "float16 512"}),
    ("F.group_norm(x, 32, w, w)", {"x": "bfloat16 1 512 9 60 90", "w": "bfloat16 512"}),
    ("F.batch_norm(x, m, m, eps=1e-5)", {"x": "float32 2 64 64 64", "m": "float32 64"}),
    ("F.instance_norm(x)", {"x": "float32 2 64 64 64"}),
    ("F.normalize(x, dim=1)", {"x": "bfloat16 1 96 9 120 208"}),
    ("F.interpolate(x, scale_factor=2.0, mode='nearest')", {"x": "float16 1 512 128 128"}),
    ("F.interpolate(x, scale_factor=2.0, mode='nearest')", {"x": "float16 1 512 128 128 : 0 2 3 1"}),
    ("F.interpolate(x, scale_factor=2.0, mode='nearest-exact')", {"x": "bfloat16 1 512 128 128"}),
    ("F.interpolate(x, size=(256, 256), mode='bilinear')", {"x": "float32 1 64 128 128"}),
    ("F.interpolate(x, size=(256, 256), mode='bicubic', antialias=True)", {"x": "float32 1 64 128 128"}),
    ("F.interpolate(x, size=(64, 64), mode='area')", {"x": "float32 1 64 128 128"}),
    ("F.interpolate(x, scale_factor=2.0)", {"x": "bfloat16 1 64 8 60 90"}),
    ("F.adaptive_avg_pool2d(x, 7)", {"x": "float32 2 64 128 128"}),
    ("F.avg_pool2d(x, 2)", {"x": "float32 2 64 128 128"}),
    ("F.max_pool2d(x, 2)", {"x": "float32 2 64 128 128"}),
    ("F.pixel_shuffle(x, 2)", {"x": "float16 1 256 128 128"}),
    ("F.pixel_unshuffle(x, 2)", {"x": "float16 1 64 256 256"}),
    ("F.pad(x, (1, 1, 1, 1))", {"x": "float16 1 64 256 256"}),
    ("F.pad(x, (1, 1, 1, 1), mode='replicate')", {"x": "float16 1 64 256 256"}),
    ("F.pad(x, (1, 1, 1, 1, 2, 0), mode='replicate')", {"x": "float16 1 64 8 64 64"}),
    ("F.grid_sample(x, g)", {"x": "float32 1 64 128 128", "g": "float32 1 64 64 2"}),
    ("F.unfold(x, 3)", {"x": "float32 1 16 64 64"}),
    ("torch.cat([x, x], 1)", {"x": "bfloat16 1 4096 3072"}),
    ("torch.cat([x, y], -1)", {"x": "bfloat16 1 4096 3072", "y": "float32 1 4096 64"}),
    ("torch.stack([x, x, x])", {"x": "bfloat16 1 4096 3072"}),
    ("x[i]", {"x": "float16 32000 768", "i": "int64 77"}),
    ("x[:, i]", {"x": "float16 8 3200 768", "i": "int64 1024"}),
    ("x[i, i]", {"x": "float16 320 320 768", "i": "int64 77"}),
    ("x.index_select(0, i)", {"x": "float16 32000 768", "i": "int64 77"}),
    ("x.gather(1, i)", {"x": "float32 64 4096", "i": "int64 64 4096"}),
    ("x.scatter(1, i, 1.0)", {"x": "float32 64 4096", "i": "int64 64 4096"}),
    ("x.index_add(0, i, y)", {"x": "float32 4096 64", "i": "int64 512", "y": "float32 512 64"}),
    ("x.index_put((i,), y)", {"x": "float32 4096 64", "i": "int64 512", "y": "float32 512 64"}),
    ("x.index_put((i,), y, accumulate=True)", {"x": "float32 4096 64", "i": "int64 512", "y": "float32 512 64"}),
    ("F.embedding(i, x)", {"x": "bfloat16 32000 768", "i": "int64 1 77"}),
    ("x.masked_fill(m, 0.0)", {"x": "float16 16 1024 1024", "m": "bool 1 1024 1024"}),
    ("x.masked_fill_(m, 0.0)", {"x": "float16 16 1024 1024", "m": "bool 1 1024 1024"}),
    ("torch.where(m, x, 0.0)", {"x": "float16 16 1024 1024", "m": "bool 1 1024 1024"}),
    ("x.repeat_interleave(2, 1)", {"x": "bfloat16 1 1024 3072"}),
    ("x.repeat(2, 1, 1)", {"x": "bfloat16 1 1024 3072"}),
    ("x.roll(3, 1)", {"x": "bfloat16 1 1024 3072"}),
    ("x.flip(0)", {"x": "bfloat16 2 1024 3072"}),
    ("torch.tril(x)", {"x": "float32 1024 1024"}),
    ("x.mean(-1)", {"x": "bfloat16 1 4096 3072"}),
    ("x.mean()", {"x": "float32 4096 4096"}),
    ("x.sum()", {"x": "bfloat16 4096 4096"}),
    ("x.std()", {"x": "float32 4096 4096"}),
    ("x.std(dim=(1, 2, 3), keepdim=True)", {"x": "float16 2 16 128 128"}),
    ("x.var(-1)", {"x": "float32 4096 4096"}),
    ("x.norm(dim=-1)", {"x": "float32 4096 4096"}),
    ("x.max()", {"x": "float32 4096 4096"}),
    ("x.argmax(-1)", {"x": "float32 64 32000"}),
    ("x.amax(-1)", {"x": "float32 64 32000"}),
    ("x.all()", {"x": "bool 4096 4096"}),
    ("F.gelu(x, approximate='tanh')", {"x": "bfloat16 1 4096 12288"}),
    ("F.silu(x)", {"x": "bfloat16 1 4096 12288"}),
    ("F.glu(x)", {"x": "bfloat16 1 4096 12288"}),
    ("x.float()", {"x": "bfloat16 1 4096 12288"}),
    ("x.contiguous()", {"x": "bfloat16 1 24 4096 128 : 0 2 1 3"}),
    ("x + y", {"x": "bfloat16 1 4096 3072", "y": "float32 1 4096 3072"}),
    ("x + y", {"x": "bfloat16 1 4096 3072 : 0 2 1", "y": "bfloat16 1 4096 3072"}),
    ("x.mul_(2.0)", {"x": "bfloat16 1 4096 3072"}),
    ("torch.addcmul(x, x, x)", {"x": "bfloat16 1 4096 3072"}),
    ("torch.lerp(x, x, 0.5)", {"x": "bfloat16 1 4096 3072"}),
    ("torch.clamp(x, -1, 1)", {"x": "bfloat16 1 4096 3072"}),
    ("torch.outer(x, y)", {"x": "float32 4096", "y": "float32 64"}),
    ("torch.einsum('i,j->ij', x, y)", {"x": "float32 4096", "y": "float32 64"}),
    ("x.unbind(0)[0] * 2", {"x": "bfloat16 2 1024 64"}),
    ("torch.view_as_complex(x) * torch.view_as_complex(y)", {"x": "float32 1 24 4096 64 2", "y": "float32 4096 64 2"}),
    ("torch.polar(x, x)", {"x": "float32 4096 64"}),
    ("x @ w", {"x": "bfloat16 4096 3072", "w": "bfloat16 3072 3072"}),
    ("F.linear(x, w, b)", {"x": "bfloat16 1 4096 3072", "w": "bfloat16 3072 3072", "b": "bfloat16 3072"}),
    ("F.linear(x, w, b)", {"x": "float32 2 77 768", "w": "float32 768 768", "b": "float32 768"}),
    ("torch.addmm(b, x, w)", {"x": "float16 4096 3072", "w": "float16 3072 3072", "b": "float16 3072"}),
    (
        "torch.baddbmm(b, x, y, alpha=0.5)",
        {"x": "float16 16 1024 64", "y": "float16 16 64 1024", "b": "float16 16 1024 1024"},
    ),
    ("torch.bmm(x, y)", {"x": "float16 16 1024 64", "y": "float16 16 64 1024"}),
    ("x @ y", {"x": "float16 2 8 1024 64 : 0 2 1 3", "y": "float16 2 8 64 1024"}),
    ("torch.einsum('bhid,bhjd->bhij', x, y)", {"x": "float16 2 8 512 64", "y": "float16 2 8 512 64"}),
    *(
        (f"{SDPA}(q, k, k{more})", {"q": f"{dtype} {q}", "k": f"{dtype} {k}", **masks})
        for dtype in ("float16", "float32")
        for q, k, more, masks in (
            (TOKENS, TOKENS, "", {}),
            (STRIDED, STRIDED, "", {}),
            (TOKENS, TOKENS, ", is_causal=True", {}),
            (TOKENS, TOKENS, ", m", {"m": "bool 2 1 1024 1024"}),
            (TOKENS, TOKENS, ", m", {"m": f"{dtype} 2 1 1024 1024"}),
            (TOKENS, "2 8 1001 64", ", m", {"m": "bool 2 1 1024 1001"}),
            (TOKENS, "2 8 77 64", ", m", {"m": "bool 2 1 1 77"}),
            (TOKENS, "2 8 77 64", ", m", {"m": f"{dtype} 2 1 1 77"}),
            (TOKENS, "2 2 1024 64", ", enable_gqa=True", {}),
            (TOKENS, "2 2 1024 64", ", m, enable_gqa=True", {"m": "bool 2 1 1024 1024"}),
            ("1 1 4096 512", "1 1 4096 512", "", {}),
            ("2 8 1024 160", "2 8 1024 160", "", {}),
            ("2 8 1024 100", "2 8 1024 100", "", {}),
            ("1 2 256 64", "1 2 8192 64", "", {}),
            ("1 2 128 72", "1 2 4096 72", "", {}),
            ("8 1024 64", "8 1024 64", "", {}),
        )
    ),
    (f"{SDPA}(q, q, q)", {"q": f"bfloat16 {STRIDED}"}),
    (f"{SDPA}(q, q, q, m)", {"q": "bfloat16 1 24 512 128", "m": "bool 1 1 1 512"}),
]
