"""Functions, methods, classes, branches, loops, options: where values come from and what is certain."""

from __future__ import annotations

from textwrap import dedent

import pytest
from oomdoctor.script import read_script
from oomdoctor.values import PipelineUse, Script

HEAD = "import os, sys, torch\nfrom diffusers import FluxPipeline, DiffusionPipeline, AutoPipelineForText2Image\n"


def read(text: str) -> Script:
    return read_script(HEAD + dedent(text))


def main(text: str) -> PipelineUse:
    use = read(text).main
    assert use is not None
    return use


@pytest.mark.parametrize(
    ("text", "value", "certainty"),
    [
        ('M = "a/b"\np = FluxPipeline.from_pretrained(M)', "a/b", "derived"),
        ('p = FluxPipeline.from_pretrained("a" + "/" + "b")', "a/b", "derived"),
        ('n = "b"\np = FluxPipeline.from_pretrained(f"a/{n}")', "a/b", "derived"),
        ('p = FluxPipeline.from_pretrained(f"a/{sys.argv[1]}")', None, "unknown"),
        ('p = FluxPipeline.from_pretrained("a/%s" % "b")', "a/b", "derived"),
        ('p = FluxPipeline.from_pretrained("{}/{}".format("a", "b"))', "a/b", "derived"),
        ('p = FluxPipeline.from_pretrained(os.environ.get("M", "a/b"))', "a/b", "derived"),
        ('p = FluxPipeline.from_pretrained(os.environ["M"])', None, "unknown"),
        ('p = FluxPipeline.from_pretrained(os.path.join("a", "b"))', "a/b", "derived"),
        ('from pathlib import Path\nR = Path("a")\np = FluxPipeline.from_pretrained(R / "b")', "a/b", "derived"),
        ('MODELS = {"x": "a/b"}\np = FluxPipeline.from_pretrained(MODELS["x"])', "a/b", "derived"),
        ('p = FluxPipeline.from_pretrained(pretrained_model_name_or_path="a/b")', "a/b", "literal"),
        ('p = FluxPipeline.from_single_file("a.safetensors")', "a.safetensors", "literal"),
        ('if (m := "a/b"):\n    p = FluxPipeline.from_pretrained(m)', "a/b", "derived"),
        (
            (
                "import argparse\nq = argparse.ArgumentParser()\ng = q.add_argument_group('x')\n"
                "g.add_argument('-m', '--model-id', default='a/b')\na = q.parse_args()\np = FluxPipeline.from_pretrained(a.model_id)"
            ),
            "a/b",
            "derived",
        ),
        (
            (
                "import argparse\ndef parse():\n    q = argparse.ArgumentParser()\n    q.add_argument('--m', required=True)\n"
                "    return q.parse_args()\na = parse()\np = FluxPipeline.from_pretrained(a.m)"
            ),
            None,
            "unknown",
        ),
        (
            (
                "import click\n@click.command()\n@click.option('--m', default='a/b')\ndef run(m):\n"
                "    p = FluxPipeline.from_pretrained(m)\nrun()"
            ),
            "a/b",
            "derived",
        ),
        (
            "import typer\ndef run(m: str = typer.Option('a/b', help='x')):\n    p = FluxPipeline.from_pretrained(m)\ntyper.run(run)",
            "a/b",
            "derived",
        ),
        (
            "from dataclasses import dataclass\n@dataclass\nclass C:\n    m: str = 'a/b'\nc = C()\np = FluxPipeline.from_pretrained(c.m)",
            "a/b",
            "derived",
        ),
        (
            "from dataclasses import dataclass\n@dataclass\nclass C:\n    m: str = 'x'\nc = C(m='a/b')\np = FluxPipeline.from_pretrained(c.m)",
            "a/b",
            "derived",
        ),
    ],
)
def test_where_the_model_comes_from(text: str, value: object, certainty: str) -> None:
    use = main(text)
    assert (use.model.value, use.model.certainty) == (value, certainty)
    assert bool(use.uncertain) == (certainty == "unknown")


@pytest.mark.parametrize(
    ("written", "device"),
    [
        ('.to("cuda")', "cuda"), ('.to("cuda:1")', "cuda:1"), (".cuda()", "cuda"), (".cuda(1)", "cuda:1"), (".to(0)", "cuda:0"),
        ('.to(torch.device("cuda"))', "cuda"), ('.to(torch.device("cuda", 1))', "cuda:1"), ('.to(device="cuda")', "cuda"),
        ('.to("cuda" if torch.cuda.is_available() else "cpu")', "cuda"), (".to(device)", "cuda"),
        ('.to("mps" if torch.backends.mps.is_available() else "cuda" if torch.cuda.is_available() else "cpu")', "cuda"),
        (".to(torch.cuda.current_device())", "cuda:0"), (".to(accelerator.device)", "cuda"), (".to(sys.argv[1])", None),
        ('.to("cuda", torch.float16)', "cuda"), ('.to(torch.float16).to("cuda")', "cuda"), ('.to(f"cuda:{0}")', "cuda:0"),
    ],
)  # fmt: skip
def test_where_it_goes(written: str, device: str | None) -> None:
    head = 'from accelerate import Accelerator\naccelerator = Accelerator()\ndevice = "cuda" if torch.cuda.is_available() else "cpu"\n'
    for text, chained in (
        (f'p = FluxPipeline.from_pretrained("a"){written}', True),
        (f'p = FluxPipeline.from_pretrained("a")\np{written}', False),
    ):
        use = main(head + text)
        placement = use.placements[-1]
        assert placement.device.value == device
        assert placement.target == "p"
        assert placement.chained == (chained or written.count(".to(") == 2)


def test_device_by_an_if_statement_takes_the_branch_of_a_card() -> None:
    use = main("""
        if torch.cuda.is_available():
            device, dtype = "cuda", torch.float16
        elif torch.backends.mps.is_available():
            device, dtype = "mps", torch.float16
        else:
            device, dtype = "cpu", torch.float32
        p = FluxPipeline.from_pretrained("a", torch_dtype=dtype).to(device)
    """)
    assert (use.dtype.value, use.placements[0].device.value) == ("float16", "cuda")
    assert use.dtype.certainty == use.placements[0].device.certainty == "derived"


def test_branches_that_cannot_be_decided_keep_both_values() -> None:
    use = main("""
        if len(sys.argv) > 1:
            size = 512
        else:
            size = 1024
        p = FluxPipeline.from_pretrained("a")
        p("x", height=size)
    """)
    height = use.calls[0].arguments["height"]
    assert (height.value, height.certainty, height.alternatives) == (None, "unknown", (512, 1024))


def test_option_defaults_decide_branches_and_say_so() -> None:
    use = main("""
        import argparse
        q = argparse.ArgumentParser()
        q.add_argument("--low-vram", action="store_true")
        args = q.parse_args()
        p = FluxPipeline.from_pretrained("a")
        if args.low_vram:
            p.enable_model_cpu_offload()
        else:
            p.to("cuda")
    """)
    (offload,) = use.optimisations
    (placement,) = use.placements
    assert (offload.runs, offload.condition) == (False, "args.low_vram")
    assert (placement.runs, placement.condition) == (True, "not (args.low_vram)")


def test_methods_share_self() -> None:
    script = read("""
        class Predictor:
            size = 768

            def predict(self, prompt: str, steps: int = 20):
                return self.pipe(prompt, num_inference_steps=steps, height=self.size).images[0]

            def setup(self):
                self.pipe: FluxPipeline = FluxPipeline.from_pretrained("a", torch_dtype=torch.bfloat16)
                self.pipe.to("cuda")
    """)
    use = script.main
    assert use is not None
    assert (use.variable, use.scope) == ("self.pipe", "Predictor.setup")
    assert use.placements[0].target == "self.pipe"
    (call,) = use.calls
    assert call.scope == "Predictor.predict"
    assert {n: k.value for n, k in call.arguments.items()} == {"num_inference_steps": 20, "height": 768}
    assert call.arguments["height"].certainty == "derived"


def test_a_loading_function_and_inheritance() -> None:
    use = main("""
        def load(name="a/b", *, dtype=torch.float16):
            return FluxPipeline.from_pretrained(name, torch_dtype=dtype).to("cuda")

        class Base:
            def run(self, **options):
                return self.pipe(**options)

        class Child(Base):
            def __init__(self):
                super().__init__()
                self.pipe = load(dtype=torch.bfloat16)

        if __name__ == "__main__":
            Child().run(prompt="x", height=640)
    """)
    assert (use.variable, use.scope, use.dtype.value) == ("self.pipe", "load", "bfloat16")
    assert use.bound_statement is not None and use.bound_statement.line > use.load_statement.line
    assert use.calls[0].arguments["height"].value == 640
    assert use.calls[0].condition is None


def test_one_function_that_loads_two() -> None:
    script = read("""
        def load(name):
            p = DiffusionPipeline.from_pretrained(name)
            p.enable_model_cpu_offload()
            return p
        base, refiner = load("base"), load("refiner")
        base("x", height=512)
        refiner("y", height=1024)
    """)
    assert [u.model.value for u in script.pipelines] == ["base", "refiner"]
    assert [[c.arguments["height"].value for c in u.calls] for u in script.pipelines] == [[512], [1024]]
    assert all(len(u.optimisations) == 1 for u in script.pipelines)


def test_a_function_that_is_handed_the_pipeline() -> None:
    use = main("""
        def draw(pipe, prompt, size=512):
            return pipe(prompt, height=size).images[0]
        p = FluxPipeline.from_pretrained("a")
        draw(p, "x")
        draw(p, "y", 1024)
    """)
    (call,) = use.calls
    assert call.arguments["height"].alternatives == (512, 1024)
    assert call.pipeline == "pipe"


def test_a_pipeline_in_code_that_is_not_read() -> None:
    use = main("""
        import gradio, mylib
        p = FluxPipeline.from_pretrained("a")
        mylib.speed_up(p)
    """)
    assert use.uncertain == ("line 6: it is handed to `mylib.speed_up`, which was not followed",)


def test_globals_and_lazy_loading() -> None:
    use = main("""
        PIPE = None
        def get():
            global PIPE
            if PIPE is None:
                PIPE = FluxPipeline.from_pretrained("a")
            return PIPE
        def handler(event):
            pipe = get()
            return pipe(event["prompt"], num_images_per_prompt=4)
    """)
    assert (use.variable, use.scope, len(use.calls)) == ("PIPE", "get", 1)
    assert use.calls[0].arguments["num_images_per_prompt"].value == 4


def test_loops_and_comprehensions() -> None:
    use = main("""
        p = FluxPipeline.from_pretrained("a")
        for prompt in ["x", "y"]:
            p(prompt)
        pictures = [p(q).images[0] for q in ("x", "y")]
        while True:
            p("z")
        p("alone")
    """)
    assert [c.in_loop for c in use.calls] == [True, True, True, False]
    assert [c.loop_line for c in use.calls] == [5, 7, 8, None]
    assert use.calls[0].positional[0].alternatives == ("x", "y")
    assert not any(c.kept_on_device for c in use.calls)


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ("out.append(p('x', output_type='pt').images)", True),
        ("out.append(p('x', output_type='latent').images[0])", True),
        ("r = p('x', output_type='latent'); out += [r.images]", True),
        ("out.append(p('x', output_type='pt').images.cpu())", False),
        ("out.append(p('x', output_type='pt').images.to('cpu'))", False),
        ("out.append(p('x').images[0])", False),
        ("out.append(p('x', output_type='np').images)", False),
    ],
)
def test_results_that_stay_on_the_card(body: str, kept: bool) -> None:
    script = read(f"p = FluxPipeline.from_pretrained('a')\nout = []\nfor i in range(9):\n    {body}\n")
    assert script.main is not None
    assert script.main.calls[0].kept_on_device is kept
    assert any("stay on the card" in w for w in script.warnings) is kept


def test_async_decorators_match_walrus_with() -> None:
    use = main("""
        import asyncio, spaces
        p = FluxPipeline.from_pretrained("a").to("cuda")

        @spaces.GPU(duration=60)
        @torch.inference_mode()
        async def generate(kind: str = "big"):
            match kind:
                case "big":
                    size = 1024
                case _:
                    size = 512
            with torch.autocast("cuda"):
                if (out := await asyncio.to_thread(p, "x", height=size)):
                    return out
    """)
    (call,) = use.calls
    assert (call.pipeline, call.arguments["height"].value, call.autocast, call.scope) == ("p", 1024, True, "generate")
    assert call.positional[0].value == "x"


def test_keyword_dictionaries_are_followed() -> None:
    use = main("""
        size = dict(height=512, width=512)
        options = {"num_inference_steps": 4, **size}
        options["guidance_scale"] = 3.5
        options.update(eta=0.0)
        p = FluxPipeline.from_pretrained("a", **{"variant": "fp16"})
        p("x", **options, **later())
    """)
    assert {n: k.value for n, k in use.calls[0].arguments.items()} == {
        "num_inference_steps": 4, "height": 512, "width": 512, "guidance_scale": 3.5, "eta": 0.0,
    }  # fmt: skip
    assert use.calls[0].arguments["height"].span is None
    assert use.variant.value == "fp16"
    assert len(use.uncertain) == 1 and "later()" in use.uncertain[0]


def test_aliases_subclasses_and_star_imports() -> None:
    assert main("import diffusers as d\np = d.FluxPipeline.from_pretrained('a')").class_name == "FluxPipeline"
    assert main("from diffusers import FluxPipeline as F\np = F.from_pretrained('a')").class_name == "FluxPipeline"
    star = read_script("from diffusers import *\np = FluxPipeline.from_pretrained('a')").main
    assert star is not None and star.uncertain == ()
    bare = read_script("p = FluxPipeline.from_pretrained('a')").main
    assert bare is not None and "not imported" in bare.uncertain[0]
    own = main("class My(FluxPipeline):\n    pass\np = My.from_pretrained('a')")
    assert own.class_name == "FluxPipeline" and "subclass" in own.uncertain[0]


def test_from_pipe_and_constructors() -> None:
    script = read("""
        from diffusers import StableDiffusionImg2ImgPipeline as I, AutoPipelineForImage2Image as A, AutoencoderKL
        base = DiffusionPipeline.from_pretrained("a", torch_dtype=torch.float16)
        one = I(**base.components)
        two = A.from_pipe(base)
        three = I.from_pipe(base)
        vae = AutoencoderKL.from_pretrained("v", torch_dtype=torch.float16)
        four = I(vae=vae, unet=base.unet, text_encoder=base.text_encoder)
    """)
    by = {u.variable: u for u in script.pipelines}
    assert [by[n].from_variable for n in ("one", "two", "three", "four")] == ["base"] * 4
    assert [by[n].model.value for n in ("one", "two", "three")] == ["a"] * 3
    assert [by[n].dtype.value for n in ("one", "two", "three")] == ["float16", "float16", "float32"]
    assert [(p.name, p.variable) for p in by["four"].components] == [
        ("vae", "vae"), ("unet", "base.unet"), ("text_encoder", "base.text_encoder"),
    ]  # fmt: skip
