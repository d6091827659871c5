"""What the script shows, and what the text shows about memory kept between runs."""

from __future__ import annotations

from oomdoctor.diagnosis import diagnose
from oomdoctor.diagnosis.accidents import accidents
from oomdoctor.values import (
    Call,
    Kind,
    Known,
    Loaded,
    Optimisation,
    PipelineUse,
    Placement,
    Script,
    Span,
    Stage,
)

_OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 64.00 MiB"


def span(line: int, end: int | None = None) -> Span:
    return Span(line=line, column=0, end_line=end or line, end_column=40)


def known(value: object) -> Known:
    return Known(value=value, certainty="literal")


def use(**more: object) -> PipelineUse:
    fields: dict[str, object] = {
        "variable": "pipe",
        "class_name": "FluxPipeline",
        "loader": "from_pretrained",
        "dtype": known("torch.bfloat16"),
        "load_span": span(4),
        "load_statement": span(4),
    }
    return PipelineUse.model_validate(fields | more)


def script(*uses: PipelineUse, **more: object) -> Script:
    return Script.model_validate({"sha256": "0" * 64, "pipelines": uses} | more)


_SIZED = {"height": known(1024), "width": known(1024)}
_TO = Placement(kind="to", device=known("cuda"), target="pipe", span=span(5))


def _found(s: Script) -> list[str]:
    return [f.accident for f in accidents(s)]


def test_a_careful_script_shows_nothing() -> None:
    assert _found(script(use(placements=(_TO,), calls=(Call(pipeline="pipe", arguments=_SIZED, span=span(9)),)))) == []
    assert accidents(None) == ()


def test_no_dtype_means_float32() -> None:
    assert _found(script(use(dtype=Known(certainty="default")))) == ["dtype"]
    assert _found(script(use(dtype=known("torch.float32")))) == ["dtype"]
    assert _found(script(use(dtype=Known(certainty="unknown")))) == []
    cast = Placement(kind="to", device=known("cuda"), dtype=known("torch.float16"), target="pipe", span=span(5))
    assert _found(script(use(dtype=Known(certainty="default"), placements=(cast,)))) == []
    part = Loaded(name="transformer", loader="from_pretrained", dtype=Known(certainty="default"))
    assert "transformer" in accidents(script(use(components=(part,))))[0].text


def test_moved_before_offloading() -> None:
    offload = Optimisation(method="enable_model_cpu_offload", target="pipe", span=span(6))
    assert _found(script(use(placements=(_TO,), optimisations=(offload,)))) == ["place"]
    early = offload.model_copy(update={"span": span(3)})
    assert _found(script(use(placements=(_TO,), optimisations=(early,)))) == []
    to_cpu = _TO.model_copy(update={"device": known("cpu")})
    assert _found(script(use(placements=(to_cpu,), optimisations=(offload,)))) == []
    never = offload.model_copy(update={"runs": False})
    assert _found(script(use(placements=(_TO,), optimisations=(never,)))) == []


def test_size_batch_and_kept_results() -> None:
    call = Call(pipeline="pipe", arguments={"num_images_per_prompt": known(4), "prompt": known(["a", "b"])}, span=span(9),
                in_loop=True, kept_on_device=True)  # fmt: skip
    assert _found(script(use(calls=(call,)))) == ["size", "batch", "batch", "kept"]
    image = Call(pipeline="pipe", arguments={"image": Known()}, span=span(9))
    assert _found(script(use(calls=(image,)))) == []


def test_a_missing_no_grad_comes_before_tiling() -> None:
    text = (
        'Traceback (most recent call last):\n  File "a.py", line 7, in <module>\n    x = vae.decode(latents)\n' + _OOM
    )
    d = diagnose(text, script=script(no_grad_missing=True))
    assert d.stage is Stage.VAE_DECODE and "inference_mode" in d.next_step


def test_the_accident_that_explains_the_failure_is_the_next_step() -> None:
    offload = Optimisation(method="enable_model_cpu_offload", target="pipe", span=span(6))
    s = script(use(placements=(_TO,), optimisations=(offload,), dtype=Known(certainty="default")), path="/w/a.py")
    d = diagnose(f'Traceback (most recent call last):\n  File "/w/a.py", line 5, in <module>\n{_OOM}', script=s)
    assert (d.kind, d.stage, d.script_line) == (Kind.LOAD_TIME, Stage.PLACE, 5)
    assert "Remove it" in d.next_step and d.fix_families[0] == "dtype"
    assert not any("enable_model_cpu_offload" in text for text in d.not_helpful)


def test_the_scripts_own_line_tells_the_stage() -> None:
    call = Call(pipeline="pipe", arguments=_SIZED, span=span(9, 12))
    part = Call(pipeline="pipe.vae.decode", span=span(14))
    s = script(use(calls=(call,), part_calls=(part,), placements=(_TO,)), path="a.py")

    def stage(line: int) -> tuple[Stage, str | None]:
        d = diagnose(f'Traceback (most recent call last):\n  File "a.py", line {line}, in <module>\n{_OOM}', script=s)
        return d.stage, d.component

    assert stage(4) == (Stage.LOAD, None)
    assert stage(5) == (Stage.PLACE, None)
    assert stage(11) == (Stage.DENOISE, "transformer")
    assert stage(14) == (Stage.VAE_DECODE, "vae")


def test_model_offload_is_on_already() -> None:
    offload = Optimisation(method="enable_model_cpu_offload", target="pipe", span=span(5))
    s = script(use(optimisations=(offload,), calls=(Call(pipeline="pipe", arguments=_SIZED, span=span(9)),)))
    text = (
        'Traceback (most recent call last):\n  File "/v/site-packages/diffusers/pipelines/flux/pipeline_flux.py", line 9, '
        f"in __call__\n    noise_pred = self.transformer(\n{_OOM}"
    )
    found = diagnose(text, script=s)
    assert any("largest component" in t for t in found.not_helpful)
    assert "enable_group_offload" in found.next_step and "enable_model_cpu_offload" not in found.next_step
    assert found.fix_families[0] == "group_offload" and "offload" not in found.fix_families
    assert "enable_model_cpu_offload" in diagnose(text).next_step
    assert not any("largest component" in t for t in diagnose(text).not_helpful)


def test_an_error_while_handling_an_error_keeps_the_first_ones_tensors() -> None:
    first = f'Traceback (most recent call last):\n  File "a.py", line 7, in <module>\n{_OOM}\n'
    d = diagnose(f"{first}\nDuring handling of the above exception, another exception occurred:\n\n{first}")
    assert any("except block" in text for text in d.warnings)
    assert not any("except block" in text for text in diagnose(first).warnings)


def test_a_second_run_that_fails_names_what_the_first_kept() -> None:
    done = "100%|██████████| 28/28 [00:30<00:00,  1.1s/it]\n"
    again = "  0%|          | 0/28 [00:00<?, ?it/s]\n"
    assert any("earlier run" in text for text in diagnose(done + again + _OOM).warnings)
    assert not any("earlier run" in text for text in diagnose(again + done + _OOM).warnings)
    loading = "Loading checkpoint shards: 100%|██████████| 2/2 [00:03<00:00,  1.1s/it]\n"
    assert not any("earlier run" in text for text in diagnose(loading + loading.replace("2/2", "1/2") + _OOM).warnings)
