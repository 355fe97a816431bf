"""A memory bank in files, of millions of entities, that a killed run takes up again with the same bytes.

    bank.json        what it is a bank of
    rows             a record for each entity that was written, in the order in which they first were: stamp int32,
                     count int32, global float32 [d], local float16 or float32 [d]
    owners           the entity of each record, int32
    undo-00000120    what the records that changed since the checkpoint of step 120 held at it

An undo file begins with its step, the epoch, the number of records then, and the CRC-32 of these; then come entries:
how many records, the CRC-32 of the rest; their places in `rows`, int64; their bytes. A record's old bytes are in the
file before its new ones are in `rows`; records that are new are cut off again. So whatever a killed process left half
done can be taken back. To outlive the fall of the machine, not only of the process, needs `durable`, at a wait for the
disk in every step.

Rows are read and written past the memory map: what is mapped counts as this process's memory, and a full disk would end
it by a signal. One process at a time may use a folder.
"""

from __future__ import annotations

import errno
import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kbench.errors import DataError, Problem, StageError, is_disk_full
from kbench.files import write_atomically
from kbench.methods.banks import Initial, OwnBank, Rows

LOCALS = ("float16", "float32")
_VERSION = 1
_HEAD = struct.Struct("<qqq")  # step, epoch, records
_ENTRY = struct.Struct("<qI")  # records, CRC
_SUM = struct.Struct("<I")
_OWNER = np.dtype("<i4")
_HINT = "remove the folder and the checkpoints of the run: it then starts anew"


class MappedBank(OwnBank):
    """A bank in files, for the entities of a graph. What it holds in memory is 5 bytes an entity.

    A new folder is at step 0, with nothing in it; a bank that is found is at no step before `rollback`.

    Args:
        folder: of the files; made where it is absent.
        entities: of the graph, 0 to entities - 1.
        width: d, of a row.
        initial: as of `OwnBank`.
        graph: the graph's content hash; a bank of another graph is refused.
        local: "float16" or "float32" of the local memory; the global mean, whose steps get ever smaller, is float32.
        durable: wait for the disk at every write and checkpoint, so that the bank outlives the machine's fall, too.
        others: as of `OwnBank`.

    Raises:
        DataError: the folder holds a bank of other things, or a broken one.
        StageError: the disk is full.
    """

    def __init__(
        self,
        folder: Path,
        entities: int,
        width: int,
        initial: Initial,
        *,
        graph: str,
        local: str = "float16",
        durable: bool = False,
        **others: Any,
    ):
        super().__init__(width, initial, **others)
        if local not in LOCALS:
            raise ValueError(f"local is {' or '.join(LOCALS)}, not {local!r}")
        self.folder = folder
        parts = [("stamp", "<i4"), ("count", "<i4"), ("global", "<f4", (width,)), ("local", np.dtype(local), (width,))]
        self._dtype = np.dtype(parts)
        self._entities, self._durable = entities, durable
        self._step: int | None = None
        self._undo: Any = None
        # place of each entity's record, -1: none; how many there are, were at the checkpoint; which changed since
        self._places = np.full(entities, -1, dtype=_OWNER)
        self._count = self._old = 0
        self._logged = np.zeros(entities, dtype=bool)
        about = {"version": _VERSION, "graph": graph, "entities": entities, "width": width, "local": local}
        made = not (folder / "bank.json").exists()
        folder.mkdir(parents=True, exist_ok=True)
        if not made:
            _check(folder, about)
        self._rows, self._owners = (
            os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o666) for name in ("rows", "owners")
        )
        if made:
            self.rollback(0)
            write_atomically(folder / "bank.json", json.dumps(about, indent=1))

    def tensors(self) -> dict[str, Tensor]:
        """None: the bank is in its files (`prepare`)."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing: `rollback` has done it."""

    def prepare(self, step: int) -> None:
        """See `Bank`. Also says that the checkpoint before stands; its undo file is kept until `commit`."""
        at = self._at()
        if step < at:
            raise ValueError(f"the bank is at a checkpoint of step {at}, behind {step}")
        if step > at:
            if self._durable:
                self._flush()
            self._begin(step)
            self.commit(at)

    def commit(self, step: int) -> None:
        """Remove the undo files of steps before `step`."""
        for base in self._bases():
            if base < step:
                self._path(base).unlink()

    def rollback(self, step: int) -> None:
        """See `Bank`. May itself be killed and made again.

        Raises:
            DataError: the folder holds no state of that step.
        """
        bases = self._bases()
        self._step = None
        self.epoch = self._count = 0
        if step and step not in bases:
            known = ", ".join(map(str, bases)) or "none"
            what = f"holds no state of step {step}; of these it does: {known}"
            raise DataError(Problem(str(self.folder), what, _HINT))
        for base in reversed(bases):
            if 0 < step <= base:
                self.epoch, self._count = self._put_back(base)
        for file, name, size in ((self._rows, "rows", self._dtype.itemsize), (self._owners, "owners", _OWNER.itemsize)):
            if os.fstat(file).st_size < self._count * size:
                raise DataError(Problem(str(self.folder / name), "was cut", _HINT))
            os.ftruncate(file, self._count * size)
        owners = np.fromfile(self.folder / "owners", dtype=_OWNER)
        if len(owners) and not 0 <= owners.min() <= owners.max() < self._entities:
            raise DataError(Problem(str(self.folder / "owners"), "was changed", _HINT))
        self._places[:] = -1
        self._places[owners] = np.arange(self._count, dtype=_OWNER)
        self._flush()
        for base in reversed(bases):  # the one of the step itself last, so that this can be made again
            if base > step:
                self._path(base).unlink()
        self._begin(step)
        self.commit(step)

    def close(self) -> None:
        """Let go of the files."""
        if self._undo is not None:
            self._undo.close()
        os.close(self._rows)
        os.close(self._owners)
        self._step = None

    def _take(self, entities: np.ndarray) -> Rows:
        self._at()
        places = self._places_of(entities)
        found = np.zeros(len(entities), dtype=self._dtype)
        there = np.flatnonzero(places >= 0)
        found[there] = self._read(places[there])
        local, overall = (
            torch.from_numpy(found[name].astype(np.float32)).to(self.device) for name in ("local", "global")
        )
        return Rows(local, overall, found["count"].astype(np.int64), found["stamp"].astype(np.int64))

    def _put(self, entities: np.ndarray, rows: Rows) -> None:
        self._at()
        made = np.empty(len(entities), dtype=self._dtype)
        made["stamp"], made["count"] = rows.stamps, rows.counts
        made["local"], made["global"] = rows.local.cpu().numpy(), rows.overall.cpu().numpy()
        places = self._places_of(entities)
        fresh = np.flatnonzero(places < 0)
        places[fresh] = self._count + np.arange(len(fresh))
        try:
            self._log(places[(places < self._old) & ~self._logged[places]])
            _written(self._owners, entities[fresh].astype(_OWNER), self._count * _OWNER.itemsize)
            self._write(places, made)
        except OSError as error:
            if is_disk_full(error):
                what, hint = "the disk is full; the last checkpoint stands", "free some space and repeat"
                raise StageError(Problem(str(self.folder), what, hint)) from error
            raise
        self._places[entities[fresh]] = places[fresh]
        self._count += len(fresh)

    def _log(self, places: np.ndarray) -> None:
        """Add what records hold to the undo file."""
        if not len(places):
            return
        content = places.tobytes() + self._read(places).tobytes()
        self._undo.write(_ENTRY.pack(len(places), zlib.crc32(content)) + content)
        self._undo.flush()
        if self._durable:
            os.fdatasync(self._undo.fileno())
        self._logged[places] = True

    def _put_back(self, base: int) -> tuple[int, int]:
        """Give records what they held at a checkpoint; gives the epoch it was in and how many there were."""
        path = self._path(base)
        with path.open("rb") as file:
            found = _head(file.read(_HEAD.size + _SUM.size), path, base)
            for places, content in _entries(file, path, self._dtype.itemsize):
                self._write(places, np.frombuffer(content, dtype=self._dtype))
        return found

    def _begin(self, step: int) -> None:
        """Begin an empty undo file, in place of one of the same step."""
        if self._undo is not None:
            self._undo.close()
        packed = _HEAD.pack(step, self.epoch, self._count)
        write_atomically(self._path(step), packed + _SUM.pack(zlib.crc32(packed)))
        self._undo = self._path(step).open("ab")
        self._step, self._old = step, self._count
        self._logged[:] = False

    def _flush(self) -> None:
        """Wait until rows and owners are on the disk."""
        os.fsync(self._rows)
        os.fsync(self._owners)

    def _at(self) -> int:
        """The step of the undo file that is written."""
        if self._step is None:
            raise RuntimeError("the bank was found on disk and is at no step: rollback(step) comes first")
        return self._step

    def _bases(self) -> list[int]:
        return sorted(int(path.name.removeprefix("undo-")) for path in self.folder.glob("undo-[0-9]*"))

    def _path(self, base: int) -> Path:
        return self.folder / f"undo-{base:08d}"

    def _places_of(self, entities: np.ndarray) -> np.ndarray:
        """Where the records of entities are, int64; -1: nowhere."""
        if len(entities) and not 0 <= entities.min() <= entities.max() < self._entities:
            last = self._entities - 1
            raise ValueError(f"the bank is of entities 0 to {last}, not {entities.min()} to {entities.max()}")
        return self._places[entities].astype(np.int64)

    def _read(self, places: np.ndarray) -> np.ndarray:
        """Records, in one buffer."""
        size = self._dtype.itemsize
        found = np.empty(len(places), dtype=self._dtype)
        for row, place in zip(_bytes(found), (places * size).tolist(), strict=True):
            if os.preadv(self._rows, [row], place) != size:
                raise DataError(Problem(str(self.folder / "rows"), "was cut", _HINT))
        return found

    def _write(self, places: np.ndarray, records: np.ndarray) -> None:
        """Put records where they belong, neighbours at once."""
        ends = np.flatnonzero(np.diff(places) != 1) + 1
        for start, end in zip([0, *ends.tolist()], [*ends.tolist(), len(places)], strict=True):
            _written(self._rows, records[start:end], int(places[start]) * self._dtype.itemsize)


def _written(file: int, content: np.ndarray, place: int) -> None:
    """Write an array at a place of a file."""
    if len(content) and os.pwrite(file, _bytes(content), place) != content.nbytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _bytes(records: np.ndarray) -> Any:
    """The records' own bytes, a row each."""
    return records.view(np.uint8).reshape(len(records), records.dtype.itemsize)


def _check(folder: Path, about: Mapping[str, Any]) -> None:
    """Whether a folder holds the bank that is wanted."""
    hint = "remove the folder, or give another"
    path = folder / "bank.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        differ = [name for name in about if found[name] != about[name]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(Problem(str(path), f"is no head of a memory bank: {error}", hint)) from error
    problems = [Problem(str(path), f"is a bank of {name} {found[name]}, not {about[name]}", hint) for name in differ]
    if problems:
        raise DataError(*problems)


def _head(raw: bytes, path: Path, base: int) -> tuple[int, int]:
    """The epoch and the number of records in the head of an undo file."""
    if len(raw) == _HEAD.size + _SUM.size and _SUM.unpack(raw[_HEAD.size :])[0] == zlib.crc32(raw[: _HEAD.size]):
        step, epoch, count = _HEAD.unpack(raw[: _HEAD.size])
        if step == base:
            return epoch, count
    raise DataError(Problem(str(path), "is no undo file of a memory bank", _HINT))


def _entries(file: Any, path: Path, size: int) -> Iterator[tuple[np.ndarray, bytes]]:
    """Places and bytes of records; ends where a killed writer was: what it had not noted it had not touched."""
    left = path.stat().st_size - file.tell()
    while left >= _ENTRY.size:
        count, sum_ = _ENTRY.unpack(file.read(_ENTRY.size))
        left -= _ENTRY.size + count * (8 + size)
        content = file.read(count * (8 + size)) if left >= 0 else b""
        if zlib.crc32(content) != sum_ or left < 0:
            if left <= 0:
                return
            raise DataError(Problem(str(path), "was changed", _HINT))
        yield np.frombuffer(content, dtype=np.int64, count=count), content[count * 8 :]
