"""Video: frames are not to be cut."""

from __future__ import annotations

from oomdoctor_evals.generator.family import NO_QUANT, Family, Variant
from oomdoctor_evals.generator.prompts import MOTIONS
from oomdoctor_evals.values import Provenance

LTX = Family(
    name="ltx_clip",
    script='''import torch
from diffusers import LTXPipeline
from diffusers.utils import export_to_video

pipe = LTXPipeline.from_pretrained("Lightricks/LTX-Video", torch_dtype=torch.bfloat16)
pipe.to("cuda")

video = pipe(
    prompt="{prompt}",
    negative_prompt="worst quality, inconsistent motion, blurry",
    width={width},
    height={height},
    num_frames={frames},
    num_inference_steps={steps},
).frames[0]
export_to_video(video, "clip.mp4", fps=24)
''',
    place='pipe.to("cuda")',
    load="torch_dtype=torch.bfloat16",
    big=("text_encoder",),
    knobs={"prompt": MOTIONS, "width": (704, 768), "height": (480, 512), "frames": (161, 129), "steps": (30, 40)},
    wrong={"fewer-frames": (("num_frames={frames}", "num_frames=49"), ('pipe.to("cuda")', "pipe.enable_model_cpu_offload()"))},
    variants=(
        Variant("12gb", "video", "rtx-3060-12gb", 48, preference=NO_QUANT, root_cause="load_time"),
        Variant("8gb", "video", "rtx-4060-8gb", 48, preference=NO_QUANT, root_cause="load_time", style="log"),
    ),
)  # fmt: skip

COGVIDEO = Family(
    name="cogvideox_two_billion",
    provenance=Provenance(
        kind="issue",
        url="https://github.com/zai-org/CogVideo/issues/92",
        note="Text to video on a card that should be large enough, without any offloading.",
    ),
    script='''import torch
from diffusers import CogVideoXPipeline
from diffusers.utils import export_to_video

pipe = CogVideoXPipeline.from_pretrained("zai-org/CogVideoX-2b", torch_dtype=torch.float16)
pipe.enable_model_cpu_offload()

video = pipe(
    prompt="{prompt}",
    num_inference_steps={steps},
    num_frames={frames},
    guidance_scale=6,
    generator=torch.Generator(device="cuda").manual_seed(42),
).frames[0]
export_to_video(video, "output.mp4", fps=8)
''',
    place="pipe.enable_model_cpu_offload()",
    dtype="torch.float16",
    load="torch_dtype=torch.float16",
    big=("text_encoder",),
    knobs={"prompt": MOTIONS, "frames": (49,), "steps": (20, 30)},
    variants=(
        Variant("12gb", "video", "rtx-3060-12gb", 48, preference=NO_QUANT),
    ),
)  # fmt: skip

FAMILIES = (LTX, COGVIDEO)
