"""Where it happened: stage and component, from frames, from the text around them, and what that rests on."""

from __future__ import annotations

import re
from dataclasses import dataclass

from oomdoctor.diagnosis.frames import is_library
from oomdoctor.diagnosis.normalise import Page
from oomdoctor.diagnosis.stage_rules import LOADING_BARS, PHRASES, RULES, Rule
from oomdoctor.values import Frame, Stage

_COMPONENT = re.compile(
    r"\b(?:self\.|pipe\w{0,10}\.|pipeline\.)?"
    r"(text_encoder(?:_\d)?|image_encoder|transformer(?:_\d)?|unconditional_transformer|unet|controlnet|audio_vae|vae|movq|"
    r"vqvae|vqgan|vocoder|prior|prompt_enhancer|safety_checker|connectors|vision_language_encoder)s?\b(?:\[\d\])?[.(,)]"
)
_CLASSES = (
    (re.compile(r"\bAutoencoder\w*|\bVQModel\b"), "vae"),
    (
        re.compile(r"\bT5EncoderModel|\bUMT5EncoderModel|\bCLIPTextModel\w*|\bLlamaModel|\bQwen2\w*Model"),
        "text_encoder",
    ),
    (re.compile(r"\b\w*Transformer(?:2D|3D)?Model"), "transformer"),
    (re.compile(r"\bUNet\w*Model"), "unet"),
    (re.compile(r"\bControlNet\w*Model"), "controlnet"),
)
_T5_IS = {"flux": "text_encoder_2", "stable_diffusion_3": "text_encoder_3", "hidream": "text_encoder_3"}
_SURE = 65
_FAIR = 40


@dataclass(frozen=True)
class Place:
    """Stage and component with the weight of what decided them (0 to 100) and the line to quote."""

    stage: Stage
    weight: int
    component: str | None = None
    quote: str | None = None

    @property
    def sure(self) -> bool:
        return self.weight >= _SURE

    @property
    def fair(self) -> bool:
        return self.weight >= _FAIR


NOWHERE = Place(Stage.UNKNOWN, 0)


def place(frames: tuple[Frame, ...], page: Page, error_line: int) -> Place:
    """The stage of the error on ``error_line`` whose frames are ``frames``."""
    best = max(
        (
            by_frames(frames),
            by_progress(page, error_line),
            by_words(page.around(error_line, before=20_000, after=4_000, head=4_000)),
        ),
        key=lambda p: p.weight,
    )
    if best.component is None:
        best = Place(best.stage, best.weight, component(frames, best.stage), best.quote)
    return best


def by_frames(frames: tuple[Frame, ...]) -> Place:
    """What the traceback says."""
    best = NOWHERE
    for frame in frames:
        file = frame.file.replace("\\", "/")
        for rule in RULES:
            if rule.weight >= best.weight and _matches(rule, file, frame):
                best = Place(rule.stage, rule.weight, None, quote(frame))
    return best


def _matches(rule: Rule, file: str, frame: Frame) -> bool:
    if rule.file is not None and not rule.file.search(file):
        return False
    if rule.function is not None and not (frame.function and rule.function.search(frame.function)):
        return False
    return rule.code is None or bool(frame.code and rule.code.search(frame.code))


def by_progress(page: Page, error_line: int) -> Place:
    """The last progress bar before the error: loading, in the middle of the steps, or after the last of them."""
    bars = [p for p in page.progress if p.line <= error_line]
    if not bars:
        return NOWHERE
    bar = bars[-1]
    said = f"{bar.label} {bar.n}/{bar.of}".strip()
    if LOADING_BARS.search(bar.label):
        return Place(Stage.LOAD, 56, None, said) if bar.n < bar.of else NOWHERE
    if bar.of < 2:
        return NOWHERE
    if bar.n >= bar.of:
        return Place(Stage.VAE_DECODE, 54, "vae", said)
    return Place(Stage.DENOISE, 52, None, said)


def by_words(text: str) -> Place:
    """Log lines, node names, a report's own words."""
    best = NOWHERE
    lowered = text.lower()
    for phrase in PHRASES:
        if phrase.weight <= best.weight or not any(needle in lowered for needle in phrase.needles):
            continue
        if m := phrase.pattern.search(text):
            best = Place(phrase.stage, phrase.weight, None, m.group().strip())
    return best


def component(frames: tuple[Frame, ...], stage: Stage) -> str | None:
    """The pipeline attribute at work, by source lines, then class names, then files."""
    for frame in reversed(frames):
        if frame.code and (m := _COMPONENT.search(frame.code)) and _fits(m.group(1), stage):
            return m.group(1)
    for frame in reversed(frames):
        for pattern, name in _CLASSES:
            if frame.code and pattern.search(frame.code):
                return name
    names = " ".join(f"{f.file} {f.function or ''} {f.code or ''}".replace("\\", "/") for f in frames)
    if stage is Stage.TEXT_ENCODE:
        if "t5" in names.lower():
            return next((name for family, name in _T5_IS.items() if family in names), "text_encoder")
        return "text_encoder"
    if stage in (Stage.VAE_DECODE, Stage.VAE_ENCODE):
        return "vae"
    if stage is Stage.IMAGE_ENCODE:
        return "image_encoder"
    if stage is Stage.DENOISE:
        for part, name in (("controlnet", "controlnet"), ("unet", "unet"), ("models/transformers/", "transformer")):
            if part in names:
                return name
    return None


_STAGE_PARTS = {
    Stage.TEXT_ENCODE: ("text_encoder", "prompt_enhancer", "vision_language"),
    Stage.IMAGE_ENCODE: ("image_encoder",),
    Stage.VAE_DECODE: ("vae", "movq", "vqvae", "vqgan", "audio_vae"),
    Stage.VAE_ENCODE: ("vae", "movq", "vqvae", "vqgan", "audio_vae"),
    Stage.DENOISE: ("transformer", "unet", "controlnet", "prior", "unconditional"),
}


def _fits(name: str, stage: Stage) -> bool:
    parts = _STAGE_PARTS.get(stage)
    return parts is None or name.startswith(parts)


def quote(frame: Frame) -> str:
    """A frame as one line for the evidence."""
    where = f"{frame.file}:{frame.line}" if frame.line else frame.file
    what = f" in {frame.function}" if frame.function else ""
    return f"{where}{what}" + (f": {frame.code}" if frame.code else "")


def user_line(frames: tuple[Frame, ...], script_path: str | None) -> int | None:
    """The line of the user's own script that was running: by the script's name, else the innermost user frame."""
    if script_path:
        name = script_path.replace("\\", "/").rsplit("/", 1)[-1]
        for frame in reversed(frames):
            if frame.line and frame.file.replace("\\", "/").rsplit("/", 1)[-1] == name:
                return frame.line
    for frame in reversed(frames):
        if frame.line and not is_library(frame.file):
            return frame.line
    return None
