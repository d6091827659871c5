"""The only door to files that a client names: inside the roots, no symlink on the way, never over an existing file.

A path is resolved and compared first (for a clear message), then opened component by component from the root's own
descriptor with ``O_NOFOLLOW``: a folder that turns into a symlink in between makes the open fail, not escape.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from oomdoctor.errors import InputError, OutsideRoots, UnreadableFile, WouldOverwrite
from oomdoctor.units import human

SCRIPT_SUFFIXES = (".py", ".ipynb")
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_BINARY = getattr(os, "O_BINARY", 0)
_WALKS = os.open in os.supports_dir_fd and bool(_NOFOLLOW)


@dataclass(frozen=True)
class Roots:
    """The folders the server may touch, resolved."""

    folders: tuple[Path, ...]

    def find(self, text: str) -> Path:
        """The absolute path that ``text`` means, inside a root; a relative one counts from the first root.

        Raises :class:`OutsideRoots`, in the same words whether or not there is something out there.
        """
        if not self.folders:
            raise OutsideRoots(
                "This server was started without a folder, so it reads no files. Pass the content as text instead, or "
                "start it with --root DIR."
            )
        if not text.isprintable() or not text.strip():
            raise InputError("That is not a path. Give the path of a file inside the server's folder.")
        try:
            wanted = Path(text).expanduser()
        except RuntimeError:
            wanted = Path(text)
        try:
            path = (self.folders[0] / wanted).resolve()
        except (OSError, RuntimeError):  # a loop of symlinks
            path = Path(os.devnull)
        if not any(path.is_relative_to(root) for root in self.folders):
            allowed = ", ".join(str(root) for root in self.folders)
            raise OutsideRoots(
                f"{text} is outside the folders this server may touch ({allowed}). Pass the content as text instead, "
                "or start the server with another --root."
            )
        return path

    def read(self, text: str, *, suffixes: tuple[str, ...] | None, max_bytes: int) -> tuple[Path, bytes]:
        """Path and content of a regular file inside a root.

        ``suffixes`` are the endings it may have (None: any). Raises :class:`OutsideRoots` and :class:`UnreadableFile`.
        """
        path = self.find(text)
        if suffixes and path.suffix.lower() not in suffixes:
            raise UnreadableFile(f"{text} is not a {' or '.join(suffixes)} file. Name the script itself.")
        try:
            with self._folder_of(path) as (folder, name):
                flags = os.O_RDONLY | _NOFOLLOW | _BINARY | getattr(os, "O_NONBLOCK", 0)
                with os.fdopen(os.open(name, flags, dir_fd=folder), "rb") as file:
                    about = os.fstat(file.fileno())
                    if not stat.S_ISREG(about.st_mode):
                        raise UnreadableFile(f"{text} is not a file. Name the script or the log itself.")
                    if about.st_size > max_bytes:
                        raise UnreadableFile(
                            f"{text} has {human(about.st_size)}; at most {human(max_bytes)} are read. Hand over the "
                            "part that matters as text: the script alone, or the end of the log."
                        )
                    return path, file.read(max_bytes)
        except FileNotFoundError:
            near = f" (relative paths count from {self.folders[0]})" if not Path(text).is_absolute() else ""
            raise UnreadableFile(f"{text} does not exist{near}. Check the path.") from None
        except OSError as error:
            raise UnreadableFile(f"{text} cannot be read: {error.strerror}. Check what it is.") from None

    def target(self, text: str) -> Path:
        """Where a script may be written: its folder exists inside a root and its ending is a script's."""
        path = self.find(text)
        if path.suffix.lower() not in SCRIPT_SUFFIXES:
            raise InputError(f"{text}: only .py and .ipynb files are written. Choose such a name.")
        if path.is_dir() or not path.parent.is_dir():
            raise InputError(f"{text}: there is no folder {path.parent} for it. Choose a folder that exists.")
        return path

    def write(self, path: Path, data: bytes, *, replace: bool) -> Path | None:
        """Writes ``data`` to ``path`` (from :meth:`target`). An existing file is only replaced when ``replace`` says
        that a person agreed, and is then kept beside it; the copy's path is returned.

        Raises :class:`WouldOverwrite` when the file exists and ``replace`` is False.
        """
        with self._folder_of(path) as (folder, name):
            if not replace:
                self._create(folder, name, data)
                return None
            old = self._content(folder, name)
            if old is None:
                self._create(folder, name, data)
                return None
            content, mode = old
            kept = self._keep(folder, name, content)
            temporary = f".{name}.{secrets.token_hex(4)}"
            self._create(folder, temporary, data, mode)
            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            return path.with_name(kept)

    def _create(self, folder: int | None, name: str, data: bytes, mode: int = 0o666) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW | _BINARY
        try:
            descriptor = os.open(name, flags, mode, dir_fd=folder)
        except FileExistsError:
            raise WouldOverwrite(f"{Path(name).name} exists already; nothing was written. Choose a new name.") from None
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def _keep(self, folder: int | None, name: str, content: bytes) -> str:
        for number in range(1000):
            kept = f"{name}.bak{number or ''}"
            try:
                self._create(folder, kept, content)
                return kept
            except WouldOverwrite:
                continue
        raise WouldOverwrite(f"{Path(name).name} has a thousand old copies beside it already. Remove some.")

    def _content(self, folder: int | None, name: str) -> tuple[bytes, int] | None:
        try:
            descriptor = os.open(name, os.O_RDONLY | _NOFOLLOW | _BINARY, dir_fd=folder)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            return file.read(), stat.S_IMODE(os.fstat(file.fileno()).st_mode)

    @contextmanager
    def _folder_of(self, path: Path) -> Iterator[tuple[int | None, str]]:
        """A descriptor of the folder that holds ``path``, reached without following a symlink, and the name in it.

        Where the platform cannot do that (Windows): None and the whole path.
        """
        if not _WALKS:
            yield None, str(path)
            return
        root = next(root for root in self.folders if path.is_relative_to(root))
        here = os.open(root, os.O_RDONLY | os.O_DIRECTORY | _NOFOLLOW)
        try:
            *folders, name = path.relative_to(root).parts or (".",)
            for part in folders:
                there = os.open(part, os.O_RDONLY | os.O_DIRECTORY | _NOFOLLOW, dir_fd=here)
                os.close(here)
                here = there
            yield here, name
        finally:
            os.close(here)
