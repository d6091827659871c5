import torch
from diffusers import AutoencoderKLWan, BitsAndBytesConfig, WanPipeline, WanTransformer3DModel
from diffusers.utils import export_to_video
from transformers import BitsAndBytesConfig as TextEncoderConfig
from transformers import UMT5EncoderModel

model_id = "Wan-AI/Wan2.1-T2V-14B-Diffusers"
transformer = WanTransformer3DModel.from_pretrained(
    model_id,
    subfolder="transformer",
    quantization_config=BitsAndBytesConfig(load_in_8bit=True),
    torch_dtype=torch.bfloat16,
)
text_encoder = UMT5EncoderModel.from_pretrained(
    model_id, subfolder="text_encoder", quantization_config=TextEncoderConfig(load_in_8bit=True), torch_dtype=torch.bfloat16
)
vae = AutoencoderKLWan.from_pretrained(model_id, subfolder="vae", torch_dtype=torch.float32)
pipe = WanPipeline.from_pretrained(
    model_id, transformer=transformer, text_encoder=text_encoder, vae=vae, torch_dtype=torch.bfloat16
)
pipe.to("cuda")

video = pipe(prompt="A cat walks on the grass, realistic", height=480, width=832, num_frames=33, guidance_scale=5.0).frames[0]
export_to_video(video, "output.mp4", fps=16)
