"""What saves pictures, videos, sound and weights does nothing in a virtual run but say what it would have saved.

The data are zeros anyway, and encoding them would take longer than the run. Child side.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from oomdoctor.loading import hooks
from oomdoctor.loading import saved as again

KEPT_AT_MOST = 200
"""Entries of the report; a script may save in a loop."""


class Saved:
    """The list of what was not written."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.paths: set[str] = set()
        """Absolute; a marker may lie there, which is no file of the script's."""
        self.more = 0

    def add(self, path: Any, what: str, nbytes: int | None) -> None:
        """``nbytes``: of the data before any compression; None when unknown."""
        if isinstance(path, (str, os.PathLike)):
            self.paths.add(os.path.abspath(os.fspath(path)))
        if len(self.entries) >= KEPT_AT_MOST:
            self.more += 1
            return
        name = os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else "an open file"
        self.entries.append({"path": name[:400], "what": what, "bytes": nbytes, "kept": False})


def install(saved: Saved) -> None:
    """Replace the savers of what is imported, and of what will be."""
    hooks.after_import("PIL.Image", lambda m: _pictures(saved, m))
    hooks.after_import("diffusers.utils.export_utils", lambda m: _exports(saved, m))
    for name in ("imageio", "imageio.v2", "imageio.v3"):
        hooks.after_import(name, lambda m: _imageio(saved, m))
    hooks.after_import("cv2", lambda m: _cv2(saved, m))
    hooks.after_import("torchvision.utils", lambda m: _second(saved, m, ("save_image",), "picture"))
    hooks.after_import(
        "torchvision.io", lambda m: _second(saved, m, ("write_video", "write_png", "write_jpeg", "write_file"), "video")
    )
    hooks.after_import("torchaudio", lambda m: _first(saved, m, ("save",), "sound"))
    hooks.after_import("soundfile", lambda m: _first(saved, m, ("write",), "sound"))
    hooks.after_import("safetensors.torch", lambda m: _weights(saved, m))
    hooks.after_import("safetensors.numpy", lambda m: _second(saved, m, ("save_file",), "weights"))
    hooks.after_import("torch", lambda m: _objects(saved, m))


def size_of(data: Any, depth: int = 6) -> int:
    """Bytes of tensors, arrays and pictures in ``data``, containers included, each object once."""
    return _size(data, depth, set())


def _size(data: Any, depth: int, seen: set[int]) -> int:
    if id(data) in seen or depth < 0:
        return 0
    seen.add(id(data))
    if hasattr(data, "element_size") and hasattr(data, "numel"):
        return int(data.numel() * data.element_size())
    if isinstance(getattr(data, "nbytes", None), int):
        return int(data.nbytes)
    if hasattr(data, "getbands"):
        return int(data.size[0] * data.size[1] * len(data.getbands()))
    if isinstance(data, dict):
        return sum(_size(v, depth - 1, seen) for v in data.values())
    if isinstance(data, (list, tuple)):
        return sum(_size(v, depth - 1, seen) for v in data)
    if hasattr(data, "state_dict"):
        return _size(data.state_dict(), depth - 1, seen)
    return len(data) if isinstance(data, (bytes, bytearray)) else 0


def shape_of(data: Any) -> str:
    """Words for what a saver was given: ``1024x1024``, ``81 frames of 832x480``."""
    if hasattr(data, "getbands"):
        return f"{data.size[0]}x{data.size[1]} {data.mode}"
    if isinstance(data, (list, tuple)) and data:
        first = shape_of(data[0])
        return f"{len(data)} x {first}" if first else str(len(data))
    shape = getattr(data, "shape", None)
    return "x".join(map(str, shape)) if shape is not None else ""


def _put(module: Any, name: str, make: Callable[[Any], Any]) -> None:
    original = getattr(module, name, None)
    if original is not None and not getattr(original, "_oomdoctor_saver", False):
        new = make(original)
        new._oomdoctor_saver = True
        hooks.replace(module, name, new)


def _pictures(saved: Saved, module: Any) -> None:
    def save(self: Any, fp: Any = None, format: str | None = None, **params: Any) -> None:
        saved.add(fp, f"picture {shape_of(self)}", size_of(self))

    module.Image.save = save


def _exports(saved: Saved, module: Any) -> None:
    """``export_to_video(frames, path) -> path`` and its kin."""
    for name in [n for n in vars(module) if n.startswith("export_to_")]:

        def make(original: Any, name: str = name) -> Any:
            def export(frames: Any, output: Any = None, *args: Any, **kwargs: Any) -> Any:
                path = (
                    output if output is not None else next((v for k, v in kwargs.items() if k.startswith("output")), "")
                )
                saved.add(path, f"{name} {shape_of(frames)}", size_of(frames))
                return path

            return export

        _put(module, name, make)


def _first(saved: Saved, module: Any, names: tuple[str, ...], what: str) -> None:
    """Savers whose path comes first, the data second."""
    for name in names:

        def make(original: Any, name: str = name) -> Any:
            def save(path: Any = None, data: Any = None, *args: Any, **kwargs: Any) -> None:
                data = data if data is not None else kwargs.get("image", kwargs.get("ims"))
                saved.add(path if path is not None else kwargs.get("uri"), f"{what} {shape_of(data)}", size_of(data))

            return save

        _put(module, name, make)


def _second(saved: Saved, module: Any, names: tuple[str, ...], what: str) -> None:
    """Savers whose data come first; a path comes first in torchvision's video writer."""
    for name in names:

        def make(original: Any, name: str = name) -> Any:
            def save(data: Any = None, path: Any = None, *args: Any, **kwargs: Any) -> None:
                if isinstance(data, (str, os.PathLike)):
                    data, path = path, data
                path = (
                    path
                    if path is not None
                    else next((v for v in kwargs.values() if isinstance(v, (str, os.PathLike))), None)
                )
                saved.add(path, f"{what} {shape_of(data)}".strip(), size_of(data) if data is not None else None)

            return save

        _put(module, name, make)


def _objects(saved: Saved, module: Any) -> None:
    """``torch.save(data, file)``: what it holds can be loaded again in the same run."""

    def save(obj: Any, f: Any, *args: Any, **kwargs: Any) -> None:
        again.keep_object(obj, f)
        saved.add(f, f"torch.save {shape_of(obj)}".strip(), size_of(obj))

    _put(module, "save", lambda original: save)


def _weights(saved: Saved, module: Any) -> None:
    """``save_file(tensors, path)`` and ``save_model(model, path)``: likewise."""

    def save_file(tensors: Any, filename: Any, *args: Any, **kwargs: Any) -> None:
        again.keep_tensors(tensors, filename)
        saved.add(filename, f"weights {shape_of(tensors)}".strip(), size_of(tensors))

    def save_model(model: Any, filename: Any, *args: Any, **kwargs: Any) -> None:
        save_file(model.state_dict(), filename)

    _put(module, "save_file", lambda original: save_file)
    _put(module, "save_model", lambda original: save_model)


class _Writer:
    """Stands for a writer that takes frames one by one."""

    def __init__(self, saved: Saved, path: Any) -> None:
        self.saved, self.path, self.frames, self.bytes = saved, path, 0, 0

    def append_data(self, frame: Any, *args: Any, **kwargs: Any) -> None:
        self.frames += 1
        self.bytes += size_of(frame)

    write = append_data

    def isOpened(self) -> bool:
        return True

    def close(self) -> None:
        if self.frames:
            self.saved.add(self.path, f"video of {self.frames} frames", self.bytes)
        self.frames = 0

    release = close

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _imageio(saved: Saved, module: Any) -> None:
    _first(saved, module, ("imwrite", "mimwrite", "mimsave", "imsave", "volwrite", "volsave"), "picture")
    _put(module, "get_writer", lambda original: lambda uri, *args, **kwargs: _Writer(saved, uri))


def _cv2(saved: Saved, module: Any) -> None:
    def imwrite(path: Any, image: Any, *args: Any) -> bool:
        saved.add(path, f"picture {shape_of(image)}", size_of(image))
        return True

    _put(module, "imwrite", lambda original: imwrite)
    _put(module, "VideoWriter", lambda original: lambda path="", *args, **kwargs: _Writer(saved, path))
