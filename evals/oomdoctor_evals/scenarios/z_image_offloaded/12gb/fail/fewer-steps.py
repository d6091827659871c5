import sys

import torch
from diffusers import ZImagePipeline


def main():
    pipe = ZImagePipeline.from_pretrained("Tongyi-MAI/Z-Image-Turbo", torch_dtype=torch.bfloat16)
    pipe.enable_group_offload(onload_device=torch.device("cuda"), offload_type="leaf_level", use_stream=True)
    image = pipe(
        prompt="a lighthouse on a cliff at dusk, oil painting",
        height=1024,
        width=1024,
        num_inference_steps=2,
        guidance_scale=0.0,
    ).images[0]
    image.save("z.png")


if __name__ == "__main__":
    main()
