"""Reading a file of any size, packed or plain, from any place on."""

from __future__ import annotations

import bz2
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from kbench.errors import DataError, Problem

REFETCH = "fetch it again, or the rest of it; compare its size with the server's"


class Unpacked:
    """The content of a gzipped, bzip2ed or plain file, whichever its first bytes say, from any place on."""

    def __init__(self, file: BinaryIO, path: Path, block: int):
        self.file, self.path, self.block = file, path, block
        self.total = path.stat().st_size
        magic = file.read(3)
        gzipped, bzipped = magic.startswith(b"\x1f\x8b"), magic == b"BZh"
        self.packed = gzipped or bzipped
        self._machine: Callable[[], Any] = (lambda: zlib.decompressobj(31)) if gzipped else bz2.BZ2Decompressor
        self._streams = [(0, 0)]  # where streams begin: unpacked, in the file

    @property
    def read(self) -> int:
        """Bytes of the file read so far, counted from its beginning."""
        return self.file.tell()

    def stream_of(self, offset: int) -> tuple[int, int]:
        """Where the stream begins that an offset lies in: unpacked, in the file. Asked for ascending offsets."""
        while len(self._streams) > 1 and self._streams[1][0] <= offset:
            self._streams.pop(0)
        return self._streams[0]

    def blocks(self, offset: int, stream: int, unpacked: int) -> Iterator[bytes]:
        """What is unpacked from an offset on, in pieces; empty ones while it is on its way to the offset."""
        if not self.packed:
            self.file.seek(offset)
            yield from iter(lambda: self.file.read(self.block), b"")
            return
        self.file.seek(stream)
        self._streams = [(unpacked, stream)]
        machine, begun, at = self._machine(), False, unpacked
        while data := self.file.read(self.block):
            while data := data if begun else data.lstrip(b"\0"):  # zeros may fill up the end of a file
                begun = True
                try:
                    found, data = machine.decompress(data), b""
                except (zlib.error, OSError, EOFError) as error:
                    where = f"{self.path}, before byte {self.file.tell():,}"
                    raise DataError(Problem(where, f"is damaged: {error}", REFETCH)) from error
                at += len(found)
                if machine.eof:
                    data, begun, machine = machine.unused_data, False, self._machine()
                    self._streams.append((at, self.file.tell() - len(data)))
                yield found[max(0, len(found) - max(0, at - offset)) :]
        if begun:
            what = f"is cut off: it ends at byte {self.file.tell():,} inside a stream"
            raise DataError(Problem(str(self.path), what, REFETCH))
