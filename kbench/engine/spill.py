"""An array too large for memory, written batch by batch; a killed writer continues after its finished batches."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kbench.engine.runtime import Runtime

_FLUSH_SECONDS = 20.0


class Spill:
    """A .npy file that the processes of a run fill together.

    Until `forget`, a file beside it marks the batches that are on disk.

    Args:
        path: the file; what an earlier call left there is kept where it fits.
        shape, dtype: of the array.
        batches: how many there are; batch b belongs to process b mod processes.
        runtime: the processes.

    Raises:
        OSError: no room for the file; it is reserved in full, so that a full disk shows here, not as a bus error.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype, batches: int, runtime: Runtime):
        self._marks_path = path.with_suffix(".done")
        self._runtime = runtime
        if runtime.is_main and not _reserved(path, shape, dtype, self._marks_path, batches):
            self._marks_path.unlink(missing_ok=True)
            _reserve(path, shape, dtype)
            fresh = self._marks_path.with_suffix(".new")
            fresh.write_bytes(bytes(batches))
            fresh.replace(self._marks_path)
        runtime.barrier()
        self.array: np.ndarray = np.load(path, mmap_mode="r+", allow_pickle=False)
        self._begin, self._row = row_places(self.array)
        self._file = path.open("r+b")
        self._marks = np.memmap(self._marks_path, dtype=np.uint8, mode="r+")

    def left(self) -> Iterator[int]:
        """This process's batches that are not on disk; each must be in `array` before the next is asked for."""
        pending: list[int] = []
        flushed = time.monotonic()
        for index in range(self._runtime.rank, len(self._marks), self._runtime.processes):
            if self._marks[index]:
                continue
            yield index
            pending.append(index)
            if self._runtime.stop.is_set() or time.monotonic() - flushed > _FLUSH_SECONDS:
                self._flush(pending)
                flushed = time.monotonic()
                self._runtime.check_stop()
        self._flush(pending)

    def put(self, first: int, rows: np.ndarray) -> None:
        """Write neighbouring rows past `array`: what is mapped counts as this process's memory."""
        self._file.seek(self._begin + first * self._row)
        self._file.write(np.ascontiguousarray(rows, dtype=self.array.dtype).data)

    def close(self) -> None:
        """Every batch of every process is there; call when `left` has ended."""
        self._file.close()
        self._runtime.barrier()

    def forget(self) -> None:
        """Take the marks away: all that is to be written is there."""
        if self._runtime.is_main:
            self._marks_path.unlink()

    def _flush(self, pending: list[int]) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self.array.flush()  # type: ignore[attr-defined]
        self._marks[pending] = 1
        self._marks.flush()
        pending.clear()


def row_places(array: np.ndarray) -> tuple[int, int]:
    """Where in its file a memory-mapped array's first row begins, and the bytes of a row."""
    return int(array.offset), int(np.prod(array.shape[1:])) * array.itemsize  # type: ignore[attr-defined]


def _reserved(path: Path, shape: tuple[int, ...], dtype: np.dtype, marks: Path, batches: int) -> bool:
    """Whether an earlier call left both files whole."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        return (found.shape, found.dtype) == (shape, dtype) and marks.stat().st_size == batches
    except (OSError, ValueError):
        return False


def _reserve(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
    np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape).flush()
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
