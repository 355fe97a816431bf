"""The store of stages: content-addressed, locked, published by one atomic rename.

<root>/<name>/<key>/            a finished stage: files and manifest.json with their hashes
<root>/<name>/<key>.work/       one being built, or left by a killed build that the next continues
<root>/<name>/<key>.lock        held while it is built or checked
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from kbench.errors import Problem, StageError, is_disk_full
from kbench.files import hash_file, write_atomically
from kbench.stages.stage import Stage

MANIFEST = "manifest.json"


class Group(Protocol):
    """The processes of one run; a stage is built by all of them, published by the main one."""

    @property
    def is_main(self) -> bool: ...

    def broadcast(self, value: Any) -> Any:
        """The main process's value, on every process."""

    def barrier(self) -> None:
        """Wait until every process is here."""

    def check_stop(self) -> None:
        """Raise where the run was asked to stop."""


class Alone:
    """A group of one process."""

    is_main = True

    def broadcast(self, value: Any) -> Any:
        return value

    def barrier(self) -> None:
        return None

    def check_stop(self) -> None:
        return None


class Store:
    """Finished stages under one folder.

    Args:
        root: folder of all stages.
        group: processes that build together.
        made_on: description of the machine, for the manifests.
        say: told what happens: `say(stage, "found" | "building" | "built" | "waiting" | "damaged", seconds)`.
    """

    def __init__(
        self,
        root: Path,
        group: Group | None = None,
        say: Callable[[Stage, str, float], None] | None = None,
        made_on: Mapping[str, Any] | None = None,
    ):
        self.root = root
        self.group: Group = group or Alone()
        self.made_on = made_on or {}
        self.say = say or (lambda stage, event, seconds: None)
        self._checked: set[str] = set()

    def folder(self, stage: Stage) -> Path:
        """Where a stage stands once it is finished."""
        return self.root / stage.name / stage.key

    def has(self, stage: Stage) -> bool:
        """Whether a stage is finished and undamaged."""
        return stage.key in self._checked or damage(self.folder(stage)) is None

    def get(self, stage: Stage) -> Path:
        """The folder of a stage, made first where it is absent or damaged. Every process of the group calls this.

        Raises:
            StageError: the disk is full; nothing was published and the next try continues.
        """
        folder = self.folder(stage)
        if stage.key in self._checked:
            return folder
        parents = {name: self.get(parent) for name, parent in stage.parents.items()}
        lock = FileLock(folder.with_suffix(".lock"))
        started = time.monotonic()
        try:
            if self.group.is_main:
                folder.parent.mkdir(parents=True, exist_ok=True)
                self._acquire(lock, stage)
            ready = self.group.broadcast(self._ready(stage) if self.group.is_main else None)
            if not ready:
                self._build(stage, parents, started)
            else:
                self.say(stage, "found", time.monotonic() - started)
        finally:
            if lock.is_locked:
                lock.release()
        self.group.barrier()
        self._checked.add(stage.key)
        return folder

    def _acquire(self, lock: FileLock, stage: Stage) -> None:
        try:
            lock.acquire(timeout=0.2)
        except Timeout:
            self.say(stage, "waiting", 0.0)
            while not lock.is_locked:
                self.group.check_stop()
                with suppress(Timeout):
                    lock.acquire(timeout=1)

    def _ready(self, stage: Stage) -> bool:
        folder = self.folder(stage)
        found = damage(folder)
        if found is None:
            return True
        if folder.exists():
            self.say(stage, f"damaged ({found})", 0.0)
            shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
        return False

    def _build(self, stage: Stage, parents: Mapping[str, Path], started: float) -> None:
        folder = self.folder(stage)
        work = folder.with_suffix(".work")
        self.say(stage, "building", 0.0)
        if self.group.is_main:
            work.mkdir(parents=True, exist_ok=True)
        self.group.barrier()
        try:
            if self.group.is_main or not stage.alone:
                stage.build(work, parents)
            self.group.barrier()
            if self.group.is_main:
                seconds = time.monotonic() - started
                _write_manifest(work, stage, seconds, self.made_on)
                work.rename(folder)
                _sync(folder.parent)
        except Exception as error:
            if is_disk_full(error):
                raise StageError(
                    Problem(
                        str(work),
                        f"the disk is full; stage {stage.name} was not published",
                        "free some space and repeat the command: it continues",
                    )
                ) from error
            raise
        self.say(stage, "built", time.monotonic() - started)


def manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished stage."""
    found: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return found


def damage(folder: Path) -> str | None:
    """What is wrong with a finished stage: None when every file has the size and hash of its manifest."""
    try:
        for name, expected in manifest(folder)["files"].items():
            path = folder / name
            if not path.is_file():
                return f"{name} is gone"
            if path.stat().st_size != expected["bytes"] or hash_file(path) != expected["sha256"]:
                return f"{name} was changed"
    except FileNotFoundError:
        return "no manifest"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "unreadable manifest"
    return None


def _write_manifest(work: Path, stage: Stage, seconds: float, made_on: Mapping[str, Any]) -> None:
    files = {}
    (work / MANIFEST).unlink(missing_ok=True)  # of a build that was killed before its rename
    for path in sorted(p for p in work.rglob("*") if p.is_file() and p.suffix != ".tmp"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        files[str(path.relative_to(work))] = {"bytes": path.stat().st_size, "sha256": hash_file(path)}
    record = {
        "stage": stage.name,
        "version": stage.version,
        "key": stage.key,
        "science": dict(stage.science),
        "parents": {name: parent.key for name, parent in stage.parents.items()},
        "seconds": round(seconds, 3),
        "made_on": dict(made_on),
        "files": files,
    }
    write_atomically(work / MANIFEST, json.dumps(record, indent=1, ensure_ascii=False, sort_keys=True))


def _sync(folder: Path) -> None:
    """Make a rename outlive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
