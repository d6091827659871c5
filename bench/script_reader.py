"""How fast a script is read, and whether the time is linear in its size.

    python bench/script_reader.py [--json]

A 300-line script of the usual idioms is read, then the same text 4 and 16 times over, and a real file of diffusers.
Times are the best of several, in milliseconds of processor time; the import is not counted. The bars: 100 ms for the
300 lines, and 16 times the text in no more than 32 times the time (the collector takes its share of many small values).
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from oomdoctor.script import read_script

HEAD = "import torch\nfrom diffusers import FluxPipeline, FluxTransformer2DModel\n"
BLOCK = '''
class Service{n}:
    """Serves one pipeline."""

    def __init__(self, model="black-forest-labs/FLUX.1-dev", dtype=torch.bfloat16):
        transformer = FluxTransformer2DModel.from_pretrained(model, subfolder="transformer", torch_dtype=dtype)
        transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=dtype)
        self.pipe = FluxPipeline.from_pretrained(model, transformer=transformer, torch_dtype=dtype)
        self.pipe.load_lora_weights("a/lora", weight_name="lora.safetensors", adapter_name="a")
        if torch.cuda.is_available():
            self.pipe.enable_model_cpu_offload()
        self.pipe.vae.enable_tiling()

    def generate(self, prompts, *, height=1024, width=1024, steps=28, seed=0):
        out = []
        generator = torch.Generator("cpu").manual_seed(seed)
        for i, prompt in enumerate(prompts):
            result = self.pipe(
                prompt=f"{{prompt}}, in the style of {{i}}",
                height=height,
                width=width,
                num_inference_steps=steps,
                guidance_scale=3.5,
                generator=generator,
            )
            out.append(result.images[0])
        return out

service{n} = Service{n}()
pictures{n} = service{n}.generate(["a cat", "a dog"], steps=4)
for i, picture in enumerate(pictures{n}):
    picture.save(f"picture_{n}_{{i}}.png")
'''


def script(lines: int) -> str:
    """At least that many lines of script."""
    per_block = BLOCK.count("\n")
    return HEAD + "".join(BLOCK.format(n=n) for n in range(-(-(lines - 2) // per_block)))


def best(work: Callable[[], object], repeats: int = 5) -> float:
    """Milliseconds of processor time of the fastest run."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times) * 1000


def measure() -> dict[str, float]:
    """Times in milliseconds by what was read."""
    out = {}
    for name, lines in (("300 lines", 300), ("1200 lines", 1200), ("4800 lines", 4800)):
        text = script(lines)
        out[name] = best(lambda text=text: read_script(text))  # type: ignore[misc]
    out["growth of 16 times the text"] = out["4800 lines"] / out["300 lines"]
    spec = importlib.util.find_spec("diffusers")
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / "pipelines/flux/pipeline_flux.py"
        out[f"{path.name} ({len(path.read_text().splitlines())} lines)"] = best(lambda: read_script(path.read_text()))
    big = script(300) + "x = [" + ", ".join(str(i) for i in range(150_000)) + "]\n"
    out[f"{len(big) / 1e6:.1f} MB"] = best(lambda: read_script(big), repeats=2)
    return out


def main() -> int:
    """Print the figures; 1 when a bar is missed."""
    figures = measure()
    if "--json" in sys.argv[1:]:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:36} {value:8.1f}" + ("" if name.startswith("growth") else " ms"))
    return int(figures["300 lines"] > 100 or figures["growth of 16 times the text"] > 32)


if __name__ == "__main__":
    sys.exit(main())
