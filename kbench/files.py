"""Small things about files that every layer needs: a hash, and writing in one step."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

_CHUNK = 1 << 22


# from this size on a hash is remembered from command to command: text for pre-training may be hundreds of gigabytes
_LARGE = 1 << 28


def hash_file(path: Path) -> str:
    """SHA-256 of a file's content; read once a process as long as size and time of change stay, a large one once."""
    state = path.stat()
    return _hash(path, state.st_ino, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=4096)
def _hash(path: Path, inode: int, size: int, changed: int) -> str:
    remembered = _remembered(path, inode, size, changed) if size >= _LARGE else None
    if remembered is not None:
        with suppress(OSError):
            return remembered.read_text(encoding="ascii")
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    if remembered is not None:
        with suppress(OSError):  # a cache that cannot be written is none
            remembered.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(remembered, found.hexdigest())
    return found.hexdigest()


def _remembered(path: Path, *state: int) -> Path:
    """Where the hash of a file in this state is kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = hashlib.sha256("\x1f".join([str(path.resolve()), *map(str, state)]).encode()).hexdigest()
    return cache / "kbench" / "hashes" / name


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a small file so that a reader sees the old or the new content, never half of one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
