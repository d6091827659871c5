"""Files that a script writes outside its scratch folder appear there instead, and are found again where it put them.

Python's own doors only (``open``, ``os``, ``pathlib``, ``shutil``): this keeps a run from leaving things behind by
accident. Child side.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

COPIED_AT_MOST = 64 << 20
"""Bytes of an existing file that are copied when a script opens it to change it."""

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Overlay:
    """The scratch folder laid over the file system. ``install()`` puts it in place for the rest of the process."""

    def __init__(self, scratch: str) -> None:
        self.scratch = os.path.realpath(scratch)
        self.below = os.path.join(self.scratch, "written")
        self.redirected: dict[str, str] = {}
        """Path as the script gave it -> where its content really is."""
        self.kept: dict[str, None] = {}
        """What the script would have removed, renamed or changed, and what is still there."""

    # ------------------------------------------------------------------ where things are
    def outside(self, path: str) -> bool:
        return not (path == self.scratch or path.startswith((self.scratch + os.sep, "/dev/", "/proc/self/fd/")))

    def shadow(self, path: str) -> str:
        """Where the content of an outside ``path`` goes."""
        return os.path.join(self.below, os.path.relpath(path, os.path.splitdrive(path)[0] + os.sep))

    def existing(self, path: Any) -> Any:
        """For reading: the shadow where there is one, else ``path`` itself."""
        name = _name(path)
        if name is None:
            return path
        full = os.path.abspath(name)
        if self.redirected and self.outside(full):
            shadow = self.shadow(full)
            if _real["lexists"](shadow) and not (os.path.isdir(shadow) and _real["lexists"](full)):
                return shadow
        return path

    def both(self, path: Any) -> tuple[Any, str | None]:
        """A folder and, when it has one, the folder in scratch with what the script put into it."""
        name = _name(path)
        there = self.existing(path)
        if name is None or not self.redirected or there is not path:
            return there, None
        shadow = self.shadow(os.path.abspath(name))
        return path, shadow if _real["lexists"](shadow) else None

    def for_writing(self, path: Any, *, keep: bool, fresh: bool = False) -> Any:
        """For writing: the shadow, with its folder made. ``keep``: what is in the file matters (append, update)."""
        name = _name(path)
        if name is None:
            return path
        full = os.path.abspath(name)
        if not self.outside(full):
            return path
        shadow = self.shadow(full)
        if fresh and _real["lexists"](full):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        parent = os.path.dirname(full)
        if not _real["lexists"](parent) and not _real["lexists"](self.shadow(parent)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        self._make_folders(os.path.dirname(shadow))
        if keep and not _real["lexists"](shadow) and os.path.isfile(full):
            if os.path.getsize(full) > COPIED_AT_MOST:
                raise PermissionError(errno.EFBIG, "too large to be changed in a virtual run", name)
            shutil.copyfile(full, shadow)
        self.redirected.setdefault(name, shadow)
        return shadow

    def _make_folders(self, folder: str) -> None:
        missing = []
        while not _real["lexists"](folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        for path in reversed(missing):
            _real["mkdir"](path)

    # ------------------------------------------------------------------ the doors
    def install(self) -> None:
        """Replace the doors."""
        for name in ("stat", "lstat", "access", "readlink", "statvfs", "listxattr", "getxattr"):
            if hasattr(os, name):
                _put(name, self._reader(_original(name)))
        _put("listdir", self._listdir(_original("listdir")))
        _put("scandir", self._scandir(_original("scandir")))
        for name in ("chmod", "utime", "chown", "lchown", "truncate", "setxattr", "removexattr"):
            if hasattr(os, name):
                _put(name, self._changer(_original(name)))
        for name in ("remove", "unlink", "rmdir"):
            _put(name, self._remover(_original(name)))
        for name in ("rename", "replace", "link", "symlink"):
            _put(name, self._mover(_original(name)))
        _put("open", self._os_open(os.open))
        _put("mkdir", self._mkdir(_original("mkdir")))
        opening = self._open(builtins.open)
        builtins.open = opening
        io.open = opening
        _put_in_pathlib("open", opening)

    def _open(self, real: Callable[..., Any]) -> Any:
        def guarded(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if _name(file) is not None:
                if any(c in mode for c in "wax+"):
                    file = self.for_writing(file, keep="w" not in mode, fresh="x" in mode)
                else:
                    file = self.existing(file)
            return real(file, mode, *args, **kwargs)

        return guarded

    def _os_open(self, real: Callable[..., Any]) -> Any:
        def guarded(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            path = _absolute(path, dir_fd)
            temporary = getattr(os, "O_TMPFILE", 0)
            if flags & _WRITES and not (temporary and flags & temporary == temporary):
                fresh = bool(flags & os.O_EXCL and flags & os.O_CREAT)
                path = self.for_writing(path, keep=not flags & os.O_TRUNC, fresh=fresh)
            else:
                path = self.existing(path)
            return int(real(path, flags, mode))

        return guarded

    def _mkdir(self, real: Callable[..., Any]) -> Any:
        def guarded(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
            real(self.for_writing(_absolute(path, dir_fd), keep=False, fresh=True), mode)

        return guarded

    def _reader(self, real: Callable[..., Any]) -> Any:
        def guarded(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
            return real(self.existing(path) if kwargs.get("dir_fd") is None else path, *args, **kwargs)

        return guarded

    def _listdir(self, real: Callable[..., Any]) -> Any:
        def guarded(path: Any = ".") -> list[Any]:
            there, more = self.both(path)
            names = list(real(there))
            if more is not None:
                names += [n for n in real(os.fsencode(more) if isinstance(path, bytes) else more) if n not in names]
            return names

        return guarded

    def _scandir(self, real: Callable[..., Any]) -> Any:
        def guarded(path: Any = ".") -> Any:
            there, more = self.both(path)
            return real(there) if more is None else _TwoFolders(real(there), real(more))

        return guarded

    def _changer(self, real: Callable[..., Any]) -> Any:
        def guarded(path: Any, *args: Any, dir_fd: int | None = None, **kwargs: Any) -> None:
            there = self.existing(_absolute(path, dir_fd))
            if self._ours(there):
                real(there, *args, **kwargs)

        return guarded

    def _remover(self, real: Callable[..., Any]) -> Any:
        def guarded(path: Any, *, dir_fd: int | None = None) -> None:
            there = self.existing(_absolute(path, dir_fd))
            if self._ours(there):
                real(there)
            else:
                _real["lstat"](there)  # what is not there cannot be removed: the real error
                self.kept.setdefault(os.fsdecode(there))

        return guarded

    def _mover(self, real: Callable[..., Any]) -> Any:
        symbolic = real is _real.get("symlink")

        def guarded(
            src: Any, dst: Any, *args: Any, src_dir_fd: int | None = None, dst_dir_fd: int | None = None, **kwargs: Any
        ) -> None:
            source = src if symbolic else self.existing(_absolute(src, src_dir_fd))
            target = self.for_writing(_absolute(dst, kwargs.pop("dir_fd", dst_dir_fd)), keep=False)
            if symbolic or self._ours(source):
                real(source, target, *args, **kwargs)
            else:
                _real["lstat"](source)
                self.kept.setdefault(os.fsdecode(source))
                if os.path.isfile(source) and os.path.getsize(source) <= COPIED_AT_MOST:
                    shutil.copyfile(source, target)

        return guarded

    def _ours(self, path: Any) -> bool:
        """Whether a path (not a descriptor, which was opened through us) is in scratch."""
        name = _name(path)
        return name is None or not self.outside(os.path.abspath(name))

    def sizes(self) -> list[tuple[str, int]]:
        """(path as the script gave it, bytes) of the files that were redirected and still exist."""
        found = []
        for name, shadow in self.redirected.items():
            with contextlib.suppress(OSError):
                if os.path.isfile(shadow):
                    found.append((name, os.path.getsize(shadow)))
        return found


class _TwoFolders:
    """What ``os.scandir`` gives, for a folder and what lies over it."""

    def __init__(self, first: Any, second: Any) -> None:
        self.parts = (first, second)
        over = {entry.name: entry for entry in second}
        self._entries = iter([over.pop(e.name, e) for e in first] + list(over.values()))

    def __iter__(self) -> _TwoFolders:
        return self

    def __next__(self) -> Any:
        return next(self._entries)

    def close(self) -> None:
        for part in self.parts:
            part.close()

    def __enter__(self) -> _TwoFolders:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


_real: dict[str, Any] = {"lexists": os.path.lexists, "mkdir": os.mkdir, "lstat": os.lstat}


def _lexists(path: str) -> bool:
    try:
        _real["lstat"](path)
    except (OSError, ValueError):
        return False
    return True


_real["lexists"] = _lexists


def _original(name: str) -> Any:
    return _real.setdefault(name, getattr(os, name))


def _put(name: str, function: Any) -> None:
    """Replace ``os.name`` wherever it is known."""
    original = getattr(os, name)
    function.__name__ = name
    setattr(os, name, function)
    for known in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks, os.supports_effective_ids):
        if original in known:
            known.add(function)
    if name != "open":  # pathlib's is io.open
        _put_in_pathlib(name, function)


def _put_in_pathlib(name: str, function: Any) -> None:
    """Python 3.10's pathlib has kept the functions of ``os`` and ``io`` that were there when it was imported."""
    accessor = getattr(pathlib, "_NormalAccessor", None)
    if accessor is not None and name in vars(accessor):
        setattr(accessor, name, staticmethod(function))


def _name(path: Any) -> str | None:
    """A path as text; None for a descriptor or anything else."""
    if isinstance(path, (str, bytes, os.PathLike)):
        return os.fsdecode(path)
    return None


def _absolute(path: Any, dir_fd: int | None) -> Any:
    """``path`` counted from an open folder. Raises PermissionError when that folder's name cannot be found out."""
    name = _name(path)
    if dir_fd is None or name is None or os.path.isabs(name):
        return path
    try:
        folder = os.readlink(f"/proc/self/fd/{dir_fd}")
    except OSError:
        raise PermissionError(errno.EPERM, "a virtual run changes nothing by way of an open folder", name) from None
    return os.path.join(folder, name)
