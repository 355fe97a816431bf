"""A .npy file that is written row by row, when how many rows it will have is not known yet."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np

_HEADER = 256  # bytes kept free for the header; its length must be a multiple of 64


class RowFile:
    """Rows of one type, appended in pieces; `np.load` reads the file, memory-mapped or not, once it is closed."""

    def __init__(self, path: Path, dtype: np.dtype):
        self.dtype, self.rows = np.dtype(dtype), 0
        self._file = path.open("wb")
        self._file.write(self._header())

    def append(self, rows: np.ndarray) -> None:
        """Write further rows [k]."""
        self._file.write(np.ascontiguousarray(rows, dtype=self.dtype).data)
        self.rows += len(rows)

    def close(self) -> None:
        """Say in the header how many rows there are."""
        self._file.seek(0)
        self._file.write(self._header())
        self._file.close()

    def _header(self) -> bytes:
        """The header of the format's version 1.0: magic, its own length, a dictionary filled up with spaces."""
        spelt = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": (self.rows,)}
        length = _HEADER - 10
        return b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + repr(spelt).ljust(length - 1).encode() + b"\n"

    def __enter__(self) -> RowFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close() if kind is None else self._file.close()
