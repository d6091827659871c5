"""Frames are read from every style of traceback that people paste."""

from __future__ import annotations

import json

from oomdoctor.diagnosis import diagnose
from oomdoctor.diagnosis.frames import find_frames, frames_of, is_library
from oomdoctor.diagnosis.normalise import normalise
from oomdoctor.values import Kind, Stage

_OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.25 GiB"
_PACKAGES = "/opt/env/lib/python3.12/site-packages"

PYTHON = f"""Traceback (most recent call last):
  File "/home/ann/draw.py", line 31, in <module>
    main()
  File "/home/ann/draw.py", line 24, in main
    picture = pipe(prompt, height=1536, width=1536).images[0]
              ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "{_PACKAGES}/diffusers/pipelines/stable_diffusion_xl/pipeline_stable_diffusion_xl.py", line 1301, in __call__
    image = self.vae.decode(latents, return_dict=False)[0]
            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "{_PACKAGES}/torch/nn/modules/conv.py", line 549, in _conv_forward
    return F.conv2d(
{_OOM}
"""


def test_python() -> None:
    d = diagnose(PYTHON)
    assert [f.function for f in d.frames] == ["<module>", "main", "__call__", "_conv_forward"]
    assert d.frames[1].code == "picture = pipe(prompt, height=1536, width=1536).images[0]"
    assert (d.stage, d.component, d.script_line) == (Stage.VAE_DECODE, "vae", 24)
    assert d.error_type == "torch.OutOfMemoryError"
    assert d.confidence == "medium"


def test_ipython_of_today() -> None:
    d = diagnose(f"""---------------------------------------------------------------------------
OutOfMemoryError                          Traceback (most recent call last)
Cell In[7], line 3
      1 prompt = "a fox"
----> 3 image = pipe(prompt).images[0]

File {_PACKAGES}/diffusers/pipelines/flux/pipeline_flux.py:760, in FluxPipeline.__call__(self, prompt)
    758 lora_scale = None
--> 760 ) = self.encode_prompt(
    761     prompt=prompt,

File {_PACKAGES}/diffusers/pipelines/flux/pipeline_flux.py:371, in FluxPipeline.encode_prompt(self, prompt)
--> 371 prompt_embeds = self._get_t5_prompt_embeds(

OutOfMemoryError: CUDA out of memory. Tried to allocate 80.00 MiB""")
    assert next(f.file for f in d.frames) == "In[7]"
    assert d.frames[0].code == "image = pipe(prompt).images[0]"
    assert d.frames[-1].function == "FluxPipeline.encode_prompt"
    assert (d.stage, d.component) == (Stage.TEXT_ENCODE, "text_encoder_2")
    assert d.script_line == 3


def test_old_ipython_of_notebooks() -> None:
    d = diagnose("""RuntimeError                              Traceback (most recent call last)
<ipython-input-5-0f1e2d3c4b5a> in <module>
      1 pipe.enable_attention_slicing()
----> 2 pipe = pipe.to("cuda")

/usr/local/lib/python3.8/dist-packages/torch/nn/modules/module.py in to(self, *args, **kwargs)
    925 
--> 927         return self._apply(convert)

RuntimeError: CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 6.00 GiB total capacity; 5.30 GiB already allocated)
""")
    assert [f.function for f in d.frames] == ["<module>", "to"]
    assert d.frames[0].code == 'pipe = pipe.to("cuda")'
    assert d.frames[1].line == 927
    assert (d.stage, d.kind) == (Stage.PLACE, Kind.LOAD_TIME)


def test_rich_box() -> None:
    lines = [
        "/home/ann/my project/draw.py:18 in <module>",
        "",
        "   17 │ pipe = make()",
        "❱  18 │ image = pipe(prompt)",
        "",
        f"{_PACKAGES}/diffusers/models/transformers/transformer_flux.py:512 in forward",
        "",
        "❱  512 │   │   │   encoder_hidden_states, hidden_states = block(",
    ]
    box = "\n".join(f"│ {line:<90} │" for line in lines)
    d = diagnose(f"╭{'─' * 30} Traceback (most recent call last) {'─' * 29}╮\n{box}\n╰{'─' * 92}╯\n{_OOM}")
    assert [f.function for f in d.frames] == ["<module>", "forward"]
    assert d.frames[0].file == "/home/ann/my project/draw.py"
    assert d.frames[0].code == "image = pipe(prompt)"
    assert d.frames[1].code == "encoder_hidden_states, hidden_states = block("
    assert (d.stage, d.component, d.script_line) == (Stage.DENOISE, "transformer", 18)


def test_each_rank_keeps_its_own_frames() -> None:
    d = diagnose('[rank0]: Traceback (most recent call last):\n[rank1]: Traceback (most recent call last):\n[rank0]:   File "/w/a.py", line 5, in first\n[rank1]:   File "/w/a.py", line 9, in second\n[rank0]:     x = pipe.vae.encode(y)\n[rank1]:     x = pipe.vae.decode(y)\n[rank1]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.50 GiB')  # fmt: skip
    assert [f.function for f in d.frames] == ["second"]


def test_chained_exceptions_end_in_the_last_root() -> None:
    handled = f"{PYTHON}\nDuring handling of the above exception, another exception occurred:\n\n" + (
        "Traceback (most recent call last):\n"
        '  File "/home/ann/draw.py", line 40, in retry\n    pipe(prompt, height=512, width=512)\n'
        "RuntimeError: generation failed"
    )
    d = diagnose(handled)
    assert d.is_oom and d.stage is Stage.VAE_DECODE
    assert d.requested_bytes == int(2.25 * (1 << 30))


def test_a_second_memory_error_while_handling_is_the_one_that_counts() -> None:
    again = PYTHON.replace("2.25 GiB", "4.50 GiB").replace(
        "self.vae.decode(latents, return_dict=False)[0]", "self.unet("
    )
    d = diagnose(f"{PYTHON}\nDuring handling of the above exception, another exception occurred:\n\n{again}")
    assert d.stage is Stage.DENOISE and d.requested_bytes == int(4.5 * (1 << 30))


def test_a_later_error_of_another_run_is_the_failure() -> None:
    d = diagnose(
        PYTHON + "retrying with less memory\nTraceback (most recent call last):\n"
        '  File "/home/ann/draw.py", line 50, in <module>\n    pipe(prompt)\n'
        "RuntimeError: Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"
    )
    assert not d.is_oom and d.kind is Kind.NOT_MEMORY
    assert d.script_line == 50
    assert "earlier" in d.warnings[0]


def test_message_before_its_traceback() -> None:
    body = PYTHON.replace(_OOM + "\n", "")
    d = diagnose(f"CUDA out of memory. Tried to allocate 2.25 GiB\n{body}")
    assert d.stage is Stage.VAE_DECODE


def test_notebook_json_with_escapes() -> None:
    cell = {"output_type": "error", "traceback": [("\x1b[0;31mOutOfMemoryError\x1b[0m: CUDA out of memory. Tried to "
            "allocate 1.25 GiB. GPU 0 has a total capacity of 15.75 GiB\n"), "next\n"]}  # fmt: skip
    d = diagnose(json.dumps(cell, indent=1))
    assert d.requested_bytes == int(1.25 * (1 << 30))
    assert d.capacity_bytes == int(15.75 * (1 << 30))


def test_html_keeps_module_and_lambda() -> None:
    page = normalise("<div><pre>File &quot;a.py&quot;, line 1, in &lt;module&gt;<br>next</pre></div> <lambda>")
    assert page.lines[0] == 'File "a.py", line 1, in <module>'
    assert page.lines[1:] == ("next", " <lambda>")


def test_frames_of_prefers_the_traceback_above() -> None:
    page = normalise(PYTHON + "\nlater\n" + PYTHON.replace("draw.py", "other.py"))
    frames = find_frames(page)
    first = next(i for i, line in enumerate(page.lines) if line.startswith("torch.OutOfMemoryError"))
    assert {f.file for f in frames_of(frames, page, first)} & {"/home/ann/draw.py"}
    assert not {f.file for f in frames_of(frames, page, first)} & {"/home/ann/other.py"}


def test_warnings_are_not_frames() -> None:
    page = normalise(f"{_PACKAGES}/diffusers/x.py:12: FutureWarning: dtype is deprecated\n  warnings.warn(\n")
    assert find_frames(page).located == ()


def test_library_files() -> None:
    assert is_library("/opt/env/lib/python3.12/site-packages/torch/nn/modules/conv.py")
    assert is_library(r"C:\Python311\Lib\contextlib.py")
    assert is_library("diffusers/pipelines/pipeline_utils.py")
    assert not is_library("/home/ann/draw.py")
    assert not is_library("<ipython-input-3-abc>")


def test_colab_links_and_widgets() -> None:
    text = """100%
 50/50 [1:20:09&lt;00:00, 103.47s/it]
---------------------------------------------------------------------------
OutOfMemoryError                          Traceback (most recent call last)
[<ipython-input-11-f4c8>](https://localhost:8080/#) in <cell line: 0>()
----> 1 video = pipe(prompt=prompt).frames[0]

17 frames
[/usr/local/lib/python3.11/dist-packages/diffusers/models/unets/unet_2d.py](https://localhost:8080/#) in forward(self, x)
--> 195         new_f = norm_f * conv_y

OutOfMemoryError: CUDA out of memory. Tried to allocate 676.00 MiB."""
    d = diagnose(text)
    assert [(f.function, f.line) for f in d.frames] == [("<cell line: 0>", 1), ("forward", 195)]
    assert d.stage is Stage.DENOISE and d.script_line == 1
    bare = "\n".join([*text.split("\n")[:2], text.split("\n")[-1]])
    assert diagnose(bare).stage is Stage.VAE_DECODE


def test_a_quantiser_at_work_while_loading() -> None:
    d = diagnose(
        "Loading checkpoint shards:   0%|          | 0/2 [00:20<?, ?it/s]\nTraceback (most recent call last):\n"
        '  File "main.py", line 10, in <module>\n    m = Model.from_pretrained(\n'
        '  File "E:\\venv\\lib\\site-packages\\transformers\\integrations\\bitsandbytes.py", line 96, in '
        "set_module_quantized_tensor_to_device\n    new_value = bnb.nn.Int8Params(new_value).to(device)\n" + _OOM
    )
    assert (d.stage, d.script_line) == (Stage.QUANTIZE, 10)
    assert "quantised already" in d.next_step
