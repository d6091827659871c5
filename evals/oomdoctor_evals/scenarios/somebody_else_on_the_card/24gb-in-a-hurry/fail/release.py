import torch
from diffusers import StableDiffusion3Pipeline

pipe = StableDiffusion3Pipeline.from_pretrained("stabilityai/stable-diffusion-3.5-medium", torch_dtype=torch.bfloat16)

prompt = ("a lighthouse on a cliff at dusk, oil painting")
encoders = (pipe.text_encoder, pipe.text_encoder_2, pipe.text_encoder_3)
for encoder in encoders:
    encoder.to("cuda")
with torch.no_grad():
    prompt_embeds, negative_prompt_embeds, pooled_prompt_embeds, negative_pooled_prompt_embeds = pipe.encode_prompt(prompt, prompt_2=None, prompt_3=None, device="cuda")
del encoder, encoders
pipe.text_encoder = pipe.text_encoder_2 = pipe.text_encoder_3 = None
torch.cuda.empty_cache()
pipe.to("cuda")
out = pipe(prompt_embeds=prompt_embeds, negative_prompt_embeds=negative_prompt_embeds, pooled_prompt_embeds=pooled_prompt_embeds, negative_pooled_prompt_embeds=negative_pooled_prompt_embeds, num_inference_steps=28, guidance_scale=4.5)
out.images[0].save("shared.png")
