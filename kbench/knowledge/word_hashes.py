"""Hashes of pieces of text, from sums over all of it: of any two places at once, with or without regard to case.

Character c at place i of a text adds R(c) * B^i, modulo 2^64, with R a table of random numbers and B an odd base. The
sum between two places, divided by the power of B at the first, does not depend on where the piece stands (Karp and
Rabin, with random numbers for the letters, so that like strings have unlike sums).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np

from kbench.engine.counter import mixed
from kbench.knowledge.streams import ragged

PORTION = 1 << 18  # characters that are well looked at together

_BASE = 0x9E3779B97F4A7C15  # odd, so that it can be divided by
_SPARSE = 16  # bits of a filter for each hash in it


class HashedText:
    """Some texts one after another, in characters, words and the sums that hashes are made of.

    Attributes:
        begins, ends: where each text begins and ends, int64.
        starts, stops: where each word or single sign begins and ends, int64.
        letters, spaces: how many letters and spaces there are before a place.
    """

    def __init__(self, texts: Sequence[str]):
        kinds = _kinds()
        joined = "\n".join(texts)
        # half a character, which a text read from JSON may have, is one like any other here
        codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.intp)
        lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        self.ends = np.cumsum(lengths + 1) - 1
        self.begins = self.ends - lengths
        self._codes, lower = codes, kinds.lower[codes]
        self._powers, self._inverse = _powers(len(codes))
        self._sums = _before(_numbers()[lower] * self._powers[: len(codes)])
        self._capitals = _before(lower != codes)
        word, space = kinds.word[codes], kinds.space[codes]
        self.letters, self.spaces = _before(kinds.letter[codes]), _before(space)
        inner = np.zeros(len(codes) + 1, dtype=bool)
        inner[1:-1] = word[1:] & word[:-1]
        self.starts, self.stops = np.flatnonzero(~space & ~inner[:-1]), np.flatnonzero(~space & ~inner[1:]) + 1

    def hashes(self, begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """A number for what stands between two places, whatever its case, uint64."""
        found: np.ndarray = (self._sums[ends] - self._sums[begins]) * self._inverse[begins]
        return found

    def spelt(self, begins: np.ndarray | None = None, ends: np.ndarray | None = None) -> np.ndarray:
        """The same, but another one where case differs. None: of each text."""
        begins, ends = (self.begins, self.ends) if begins is None or ends is None else (begins, ends)
        lengths = ends - begins
        places = ragged(begins, lengths)
        values = _numbers()[self._codes[places]] * self._powers[places - np.repeat(begins, lengths)]
        sums = _before(values)
        stops = np.cumsum(lengths)
        found: np.ndarray = sums[stops] - sums[stops - lengths]
        return found

    def capitals(self, begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """How many characters between two places have a form in lower case."""
        return self.count(self._capitals, begins, ends)

    def count(self, sums: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """How many of a kind stand between two places."""
        found: np.ndarray = sums[ends] - sums[begins]
        return found

    def prefixes(self, chosen: np.ndarray) -> np.ndarray:
        """Hashes of some texts' beginnings of whole words, the whole text among them."""
        text = np.searchsorted(self.begins, self.starts, side="right") - 1
        wanted = chosen[text]
        return np.unique(self.hashes(self.begins[text[wanted]], self.stops[wanted]))


class _Kinds:
    """Of every character: its form in lower case where that is one character; whether it belongs to a word."""

    def __init__(self) -> None:
        size = 0x110000
        characters = [chr(code) for code in range(size)]
        lower = [one.lower() for one in characters]
        self.lower = np.array([ord(new) if len(new) == 1 else old for old, new in enumerate(lower)], dtype=np.intp)
        kind = np.array([unicodedata.category(one)[0] for one in characters])
        self.letter = kind == "L"
        self.word = self.letter | (kind == "M") | (kind == "N")
        self.word[ord("_")] = True
        self.space = np.fromiter((one.isspace() for one in characters), dtype=bool, count=size)


@cache
def _kinds() -> _Kinds:
    return _Kinds()


@cache
def _numbers() -> np.ndarray:
    """A number for each character, uint64, whose bits have nothing to do with each other."""
    return mixed(1, np.arange(0x110000))


_held: list[np.ndarray] = []


def _powers(count: int) -> tuple[np.ndarray, np.ndarray]:
    """The powers 0 .. count of the hash's base, and of its inverse, modulo 2^64."""
    if not _held or len(_held[0]) <= count:
        size = max(count + 1, 2 * PORTION)
        _held[:] = []
        for base in (_BASE, pow(_BASE, -1, 1 << 64)):
            factors = np.full(size, base, dtype=np.uint64)
            factors[0] = 1
            _held.append(np.multiply.accumulate(factors))
    return _held[0], _held[1]


def _before(values: np.ndarray) -> np.ndarray:
    """The sum of what stands before each place, one place more than there are values."""
    kind = np.int32 if values.dtype == bool else values.dtype
    sums = np.zeros(len(values) + 1, dtype=kind)
    np.cumsum(values, dtype=kind, out=sums[1:])
    return sums


class HashFilter:
    """A set of hashes as bits; what is not in it is taken for one of it now and then."""

    def __init__(self, hashes: np.ndarray):
        bits = max(16, (_SPARSE * len(hashes)).bit_length())
        self._shift = np.uint64(64 - bits)
        self._bits = np.zeros(1 << (bits - 3), dtype=np.uint8)
        places = (hashes >> self._shift).astype(np.intp)
        np.bitwise_or.at(self._bits, places >> 3, np.left_shift(1, places & 7).astype(np.uint8))

    def may_have(self, hashes: np.ndarray) -> np.ndarray:
        """Whether a hash may be in the set."""
        places = (hashes >> self._shift).astype(np.intp)
        found: np.ndarray = (self._bits[places >> 3] >> (places & 7).astype(np.uint8)) & 1 > 0
        return found
