"""Measurements made by hand: module trees with plausible sizes, and the trace that one call of them would leave."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from oomdoctor.units import GIB, MIB
from oomdoctor.values import Block, Card, Component, Measurement, ModuleNode, Stage, Target, Trace


class Tree:
    """Collects module nodes and rows."""

    def __init__(self) -> None:
        self.modules: list[ModuleNode] = []
        self.rows: list[tuple[int, bool, Stage, int, int, float, int]] = []
        self.children: dict[int, list[int]] = {}

    def node(self, component: str, path: str, parent: int, shape: tuple[int, ...] = (), kind: str = "Linear",
             cast_ok: bool = True, itemsize: int = 2, bias: bool = False) -> int:  # fmt: skip
        params = 1 if shape else 0
        for side in shape:
            params *= side
        params += shape[0] if bias and shape else 0
        self.modules.append(
            ModuleNode(
                component=component, path=path, class_name=kind if shape else "Module", parent=parent,
                own_bytes=params * itemsize, own_params=params, linear=kind == "Linear" and bool(shape),
                in_features=shape[1] if kind == "Linear" and shape else 0, cast_ok=cast_ok,
            )
        )  # fmt: skip
        number = len(self.modules) - 1
        self.children[number] = []
        if parent >= 0:
            self.children[parent].append(number)
        return number

    def row(self, node: int, entered: bool, stage: Stage, live: int, peak: int, seconds: float, repeats: int) -> None:
        self.rows.append((node, entered, stage, live, max(live, peak), seconds, repeats))

    def forward(self, node: int, stage: Stage, live: int, extra: int, seconds: float, repeats: int = 1) -> None:
        """Enter, visit the children, leave; layers with weights need ``extra`` on top of ``live``."""
        self.row(node, True, stage, live, live, 0.0, repeats)
        for child in self.children[node]:
            self.forward(child, stage, live, extra, seconds, repeats)
        holds = self.modules[node].own_bytes > 0
        self.row(node, False, stage, live, live + (extra if holds else 0), seconds if holds else 0.0, repeats)

    def trace(self) -> Trace:
        c = list(zip(*self.rows, strict=True))
        return Trace(modules=tuple(self.modules), module=c[0], entered=c[1], stage=c[2], live_bytes=c[3],
                     peak_bytes=c[4], seconds=c[5], repeats=c[6])  # fmt: skip

    def component(self, name: str, class_name: str, families: tuple[str, ...] = ()) -> Component:
        own = [m for m in self.modules if m.component == name]
        blocks = []
        for family in families:
            sizes: dict[str, int] = {}
            for m in own:
                if m.path.startswith(f"{family}."):
                    key = m.path.split(".")[1]
                    sizes[key] = sizes.get(key, 0) + m.own_bytes
            blocks.append(Block(path=family, count=len(sizes), largest_bytes=max(sizes.values()),
                                total_bytes=sum(sizes.values())))  # fmt: skip
        total = sum(m.own_bytes for m in own)
        return Component(
            name=name, class_name=class_name, params=sum(m.own_params for m in own), loaded_bytes=total,
            blocks=tuple(blocks), largest_block_bytes=max((b.largest_bytes for b in blocks), default=0),
            unmatched_bytes=total - sum(b.total_bytes for b in blocks),
            largest_leaf_bytes=max((m.own_bytes for m in own), default=0), source="made by hand",
        )  # fmt: skip


def encoder(tree: Tree, name: str, layers: int, width: int, inner: int, vocabulary: int) -> int:
    root = tree.node(name, "", -1)
    tree.node(name, "embed", root, (vocabulary, width), "Embedding")
    stack = tree.node(name, "encoder", root)
    for i in range(layers):
        layer = tree.node(name, f"encoder.block.{i}", stack)
        for part in ("q", "k", "v", "o"):
            tree.node(name, f"encoder.block.{i}.{part}", layer, (width, width))
        tree.node(name, f"encoder.block.{i}.wi", layer, (inner, width))
        tree.node(name, f"encoder.block.{i}.wo", layer, (width, inner))
    return root


def make_flux(steps: int = 28, executed: int = 3, batch: int = 1, megapixels: float = 1.0) -> Measurement:
    """Shaped like FLUX.1-dev: 19 double and 38 single blocks of width 3072, T5-XXL, CLIP-L, a VAE."""
    tree = Tree()
    clip = encoder(tree, "text_encoder", 12, 768, 3072, 49408)
    t5 = encoder(tree, "text_encoder_2", 24, 4096, 10240 * 3 // 2, 32128)
    dit = tree.node("transformer", "", -1)
    tree.node("transformer", "x_embedder", dit, (3072, 64))
    tree.node("transformer", "context_embedder", dit, (3072, 4096))
    for i in range(19):
        block = tree.node("transformer", f"transformer_blocks.{i}", dit)
        for part in ("norm1.linear", "norm1_context.linear"):
            tree.node("transformer", f"transformer_blocks.{i}.{part}", block, (18432, 3072), cast_ok=False, bias=True)
        for part in ("to_q", "to_k", "to_v", "to_out", "add_q", "add_k", "add_v", "to_add_out"):
            tree.node("transformer", f"transformer_blocks.{i}.{part}", block, (3072, 3072), bias=True)
        for part in ("ff", "ff_context"):
            tree.node("transformer", f"transformer_blocks.{i}.{part}.0", block, (12288, 3072), bias=True)
            tree.node("transformer", f"transformer_blocks.{i}.{part}.2", block, (3072, 12288), bias=True)
    for i in range(38):
        block = tree.node("transformer", f"single_transformer_blocks.{i}", dit)
        tree.node("transformer", f"single_transformer_blocks.{i}.norm", block, (9216, 3072), cast_ok=False, bias=True)
        tree.node("transformer", f"single_transformer_blocks.{i}.proj_mlp", block, (12288, 3072), bias=True)
        for part in ("to_q", "to_k", "to_v"):
            tree.node("transformer", f"single_transformer_blocks.{i}.{part}", block, (3072, 3072), bias=True)
        tree.node("transformer", f"single_transformer_blocks.{i}.proj_out", block, (3072, 15360), bias=True)
    tree.node("transformer", "proj_out", dit, (64, 3072))
    vae = tree.node("vae", "", -1)
    for part in ("encoder", "decoder"):
        half = tree.node("vae", part, vae)
        for i in range(16):
            tree.node("vae", f"{part}.conv{i}", half, (512, 512, 3, 3), "Conv2d")
    unit = int(batch * megapixels * MIB)
    tree.forward(clip, Stage.TEXT_ENCODE, 0, 4 * MIB * batch, 1e-4)
    tree.forward(t5, Stage.TEXT_ENCODE, MIB, 40 * MIB * batch, 1e-4)
    for step in range(executed):
        repeats = steps - executed + 1 if step == executed - 1 else 1
        tree.forward(dit, Stage.DENOISE, 30 * unit, 430 * unit, 8e-4 * batch * megapixels, repeats)
    tree.forward(vae, Stage.VAE_DECODE, 2 * unit, 2430 * unit, 5e-3 * batch * megapixels)
    side = int((megapixels**0.5) * 1024)
    components = (
        tree.component("text_encoder", "CLIPTextModel"),
        tree.component("text_encoder_2", "T5EncoderModel"),
        tree.component("transformer", "FluxTransformer2DModel", ("transformer_blocks", "single_transformer_blocks")),
        tree.component("vae", "AutoencoderKL"),
    )
    return Measurement(
        pipeline_class="FluxPipeline", model="made/flux",
        call={"height": side, "width": side, "num_inference_steps": steps, "num_images_per_prompt": batch},
        components=components, weights_bytes=sum(c.loaded_bytes for c in components), timed_on="card",
        trace=tree.trace(), offload_sequence=("text_encoder", "text_encoder_2", "transformer", "vae"),
    )  # fmt: skip


def make_card(gib: float = 24, name: str = "card") -> Card:
    return Card(name=name, label=name, total_bytes=int(gib * GIB), compute_capability=(8, 9),
                memory_bytes_per_second=1e12, fp32_flops=8e13, fp16_flops=1.6e14, bf16_flops=1.6e14,
                fp8_flops=3.2e14, sm_count=128, pcie_generation=4, pcie_lanes=16, context_bytes=500 * MIB,
                source="made by hand")  # fmt: skip


def make_target(vram: float = 24, ram: float = 64, **more: object) -> Target:
    return Target(card=make_card(vram), vram_bytes=int(vram * GIB), ram_bytes=int(ram * GIB), **more)  # type: ignore[arg-type]


@pytest.fixture
def tree() -> Tree:
    return Tree()


@pytest.fixture(scope="session")
def flux() -> Measurement:
    return make_flux()


@pytest.fixture
def flux_of() -> Callable[..., Measurement]:
    return make_flux


@pytest.fixture
def card() -> Card:
    return make_card()


@pytest.fixture
def target_of() -> Callable[..., Target]:
    return make_target
