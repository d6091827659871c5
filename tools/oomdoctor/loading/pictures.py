"""Images and videos that cannot be read, or would be fetched, become blank ones of a stated size."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

from oomdoctor.loading import hooks, session

FRAMES = 81
VIDEO_SIZE = (480, 832)
_NOT_PICTURES = (
    ".json",
    ".txt",
    ".md",
    ".yaml",
    ".yml",
    ".csv",
    ".html",
    ".py",
    ".safetensors",
    ".bin",
    ".ckpt",
    ".gguf",
)


def image_size() -> tuple[int, int]:
    """(height, width) of the images that stand in: the bundle's ``image_size``, 1024 x 1024 unless it says."""
    height, width = session.current().image_size
    return height, width


def blank(what: str) -> Any:
    """A blank RGB image in place of ``what``."""
    import PIL.Image

    height, width = image_size()
    session.current().note(f"{what} cannot be read here; a blank image of {height}x{width} stands in for it.")
    return PIL.Image.new("RGB", (width, height))


def _is_address(place: Any) -> bool:
    return isinstance(place, str) and place.startswith(("http://", "https://"))


def patch_pil(module: ModuleType) -> None:
    """After ``import PIL.Image``: a path that is not there opens as a blank image."""
    original: Callable[..., Any] = module.open
    if getattr(original, "__oomdoctor__", False):
        return

    def open_image(fp: Any, *args: Any, **options: Any) -> Any:
        if isinstance(fp, (str, os.PathLike)) and not os.path.exists(fp):
            return blank(f"the image {os.fspath(fp)}")
        return original(fp, *args, **options)

    open_image.__oomdoctor__ = True  # type: ignore[attr-defined]
    module.open = open_image  # type: ignore[attr-defined]


def patch_diffusers(module: ModuleType) -> None:
    """After ``import diffusers.utils.loading_utils``."""
    load_image, load_video = module.load_image, module.load_video

    def image(image: Any, convert_method: Any = None) -> Any:
        if isinstance(image, str) and not os.path.isfile(image):
            image = blank(f"the image {image}")
        return load_image(image, convert_method) if convert_method is not None else load_image(image)

    def video(video: Any, convert_method: Any = None, **options: Any) -> Any:
        if os.path.isfile(str(video)):
            return load_video(video, convert_method, **options)
        import PIL.Image

        height, width = VIDEO_SIZE
        session.current().note(
            f"the video {video} cannot be read here; {FRAMES} blank frames of {height}x{width} stand in for it."
        )
        frames = [PIL.Image.new("RGB", (width, height)) for _ in range(FRAMES)]
        frames = frames if convert_method is None else convert_method(frames)
        return (frames, 16.0) if options.get("return_fps") else frames

    hooks.replace(module, "load_image", image)
    hooks.replace(module, "load_video", video)


def patch_requests(module: ModuleType) -> None:
    """After ``import requests``: a virtual run fetches nothing; what may be a picture is answered with a blank one."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def request(self: Any, method: str, url: str, *args: Any, **options: Any) -> Any:
            if method.upper() != "GET" or url.lower().split("?")[0].endswith(_NOT_PICTURES):
                raise module.exceptions.ConnectionError(f"a virtual run has no network: {method} {url}")
            raw = io.BytesIO()
            blank(f"the image {url}").save(raw, "PNG")
            response = module.Response()
            response.status_code, response.url, response.reason = 200, url, "OK"
            response.headers["Content-Type"] = "image/png"
            response._content = raw.getvalue()
            response.raw = io.BytesIO(raw.getvalue())
            return response

        return request

    hooks.wrap_method(module.Session, "request", make)
