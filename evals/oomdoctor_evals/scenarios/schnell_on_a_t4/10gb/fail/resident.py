import torch
from diffusers import FluxPipeline


def generate(prompt: str):
    pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-schnell", torch_dtype=torch.bfloat16)
    pipe.to("cuda")
    return pipe(
        prompt,
        guidance_scale=0.0,
        num_inference_steps=4,
        max_sequence_length=256,
        height=1024,
        width=1024,
    ).images[0]


image = generate("a lighthouse on a cliff at dusk, oil painting")
image.save("schnell.png")
