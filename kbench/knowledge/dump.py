"""Names in any language, streamed from a Wikidata JSON dump (latest-all.json.gz, .bz2 or plain).

The dump is one JSON array with one entity a line. It is read once from beginning to end and never held: what is kept
between two lines is a buffer of the dump and one bit for each wanted id. A killed extraction goes on where it last
saved its state, and ends in the same bytes as one that was never killed.

<language>.tsv   id TAB rank TAB text; rank 0 is the label, 1.. are the aliases; in the order of the dump
names.json       what was asked for, what was found
names.state      while it is unfinished: how far it came; the tables then end in .part
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from kbench.errors import DataError, Problem
from kbench.files import write_atomically
from kbench.knowledge.packed import REFETCH, Unpacked
from kbench.knowledge.wanted import Wanted

REPORT, STATE = "names.json", "names.state"
# languages whose names Wikidata more and more stores once for all of Latin script, under `mul`
_LATIN = " ca cs da de en es et eu fi fr gl hr hu id it lt lv ms nb nl no pl pt ro sk sl sv tr vi "
_SPECIAL: Mapping[str, tuple[str, ...]] = {
    "zh": ("zh", "zh-hans", "zh-cn", "zh-sg", "zh-my", "zh-hant", "zh-tw", "zh-hk", "zh-mo"),
    "en": ("en", "mul", "en-us", "en-gb", "en-ca"),
}
_HEAD = re.compile(rb'\s*\{\s*(?:"(?:type|datatype)"\s*:\s*"[^"]*"\s*,\s*)*"id"\s*:\s*"([A-Z])([0-9]{1,18})"')
_CLAIMS = b',"claims":'  # quotes inside a text are escaped, so this is the key and nothing else
# what would break a table or a line: control characters, line and paragraph separators, halves of a letter
_UNCLEAN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_SPACES = re.compile(r"\s+")
_CODE = re.compile(r"[a-z]{2,}(?:-[a-z0-9]+)*")
_LONGEST = 1 << 28  # bytes of a line; the largest entities have about 2^22
_IDENTITY = 1 << 18  # bytes at the beginning of a dump that tell it from others: they hold the dates of its entities
_BLOCK = 1 << 18


def language_keys(language: str) -> tuple[str, ...]:
    """The keys of the dump that a language's names are looked for under; the first that has any is taken.

    zh: zh, zh-hans, zh-cn, zh-sg, zh-my, zh-hant, zh-tw, zh-hk, zh-mo (KMLM's released code reads zh-hans).
    en: en, mul, en-us, en-gb, en-ca. Other languages in Latin script: their own, then mul. All others: their own.
    """
    return _SPECIAL.get(language) or ((language, "mul") if f" {language} " in _LATIN else (language,))


def names_from_dump(
    dump: Path,
    to: Path,
    languages: Sequence[str],
    wanted: Wanted | None = None,
    say: Callable[[str], None] = print,
    keys: Mapping[str, Sequence[str]] | None = None,
    *,
    save_every: float = 60.0,
    say_every: float = 10.0,
    block: int = _BLOCK,
) -> dict[str, Any]:
    """Write `<language>.tsv` for each language into a folder; gives what `names.json` says.

    A language in which nothing has a label has no table. An entity without a label in a language has no row there,
    whatever aliases it has. Control characters, tabs and
    line breaks in a text become a space. Lines of entities that nobody wants are not parsed beyond their id.

    Args:
        dump: latest-all.json.gz, .bz2 or plain; packed files may be of several streams.
        to: folder of the tables; made if absent. An unfinished extraction in it is continued.
        languages: whose names to keep.
        wanted: the ids to keep; None: every item and property.
        say: told how far it is, a line each time.
        keys: language -> keys of the dump in the order of preference, where they are not to be `language_keys`.
        save_every: seconds between two saved states; what was read after the last one is read again.
        say_every: seconds between two lines of progress.
        block: bytes of the file read at a time.

    Raises:
        DataError: the dump is absent, cut off, damaged or something else; a line is no JSON; the folder holds tables
            of something else, or another process is writing there.
    """
    order = {language: tuple((keys or {}).get(language, language_keys(language))) for language in languages}
    if not order:
        raise DataError(Problem("languages", "none is named"))
    wrong = [language for language in order if not _CODE.fullmatch(language)]
    if wrong:  # they become names of files
        raise DataError(
            *(Problem("languages", f"{one!r} is no code of a language", "such as en, zh-hans") for one in wrong)
        )
    if not dump.is_file():
        raise DataError(Problem(str(dump), "there is no such file", "Wikidata's is latest-all.json.gz or .bz2"))
    with dump.open("rb") as file:
        identity = hashlib.sha256(file.read(_IDENTITY)).hexdigest()
    spelt = {language: list(found) for language, found in order.items()}
    asked = {"dump": identity, "languages": spelt, "wanted": wanted.content if wanted else "all"}
    to.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(to / "names.lock", timeout=0):
            state = _found_state(to, asked)
            if state is None:
                say(f"done already: {to / REPORT}")
                report: dict[str, Any] = json.loads((to / REPORT).read_text(encoding="utf-8"))
                return report
            if not state.finished:
                _Reading(dump, to, order, wanted, say, state).run(save_every, say_every, block)
            return _publish(to, state)
    except Timeout:
        raise DataError(Problem(str(to), "another process is writing here", "wait for it")) from None


@dataclass
class _State:
    """How far it came: `lines` lines and `offset` bytes of the unpacked dump are in the tables, which have `sizes`.

    stream, unpacked: where, in the file and in the unpacked dump, the stream begins that the offset lies in.
    """

    asked: dict[str, Any]
    lines: int = 0
    offset: int = 0
    stream: int = 0
    unpacked: int = 0
    entities: int = 0
    kept: int = 0
    opened: bool = False
    closed: bool = False
    finished: bool = False
    sizes: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)


class _Reading:
    """One pass over what is left of a dump."""

    def __init__(
        self,
        dump: Path,
        to: Path,
        order: Mapping[str, tuple[str, ...]],
        wanted: Wanted | None,
        say: Callable[[str], None],
        state: _State,
    ):
        self.dump, self.to, self.order, self.wanted, self.say, self.state = dump, to, order, wanted, say, state
        self.tables: dict[str, BinaryIO] = {}

    def run(self, save_every: float, say_every: float, block: int) -> None:
        """Read to the end, saving the state now and then."""
        state = self.state
        with ExitStack() as files:
            for language in self.order:
                self.tables[language] = files.enter_context(_table(self.to, language, state))
            source = Unpacked(files.enter_context(self.dump.open("rb")), self.dump, block)
            if state.offset:
                self.say(f"goes on after line {state.lines:,}")
            begun = said = saved = time.monotonic()
            rest, first = b"", state.stream if source.packed else state.offset
            for data in source.blocks(state.offset, state.stream, state.unpacked):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._line(line)
                    state.offset += len(line) + 1
                if len(rest) > _LONGEST:
                    raise self._wrong(f"has more than {_LONGEST >> 20} MiB", 1, "expected: one entity a line")
                now = time.monotonic()
                if now - saved >= save_every:
                    self._save(source)
                    saved = now
                if now - said >= say_every:
                    self.say(self._progress(source, first, now - begun))
                    said = now
            if rest.strip() or not state.lines:
                self._line(rest)
                state.offset += len(rest)
            if not state.closed:
                what = f"is cut off: it ends after line {state.lines:,} without the closing ]"
                raise DataError(Problem(str(self.dump), what, REFETCH))
            state.finished = True
            self._save(source)

    def _line(self, line: bytes) -> None:
        """Take up one line of the dump."""
        state, bare = self.state, line.strip()
        state.lines += 1
        if not bare and state.opened:
            return
        if not state.opened:
            if bare != b"[":
                hint = "its first line is [, each other one an entity: it is the JSON dump, not one of RDF or XML"
                raise self._wrong(f"is not the beginning of a Wikidata JSON dump: {_shown(bare)}", 0, hint)
            state.opened = True
            return
        if state.closed:
            raise self._wrong("stands after the closing ]")
        if bare == b"]":
            state.closed = True
            return
        found = _HEAD.match(line)
        bare = bare.removesuffix(b",")
        kind, number = (found[1], int(found[2])) if found else self._identity(bare)
        state.entities += 1
        if kind not in (b"Q", b"P") or (self.wanted is not None and not self.wanted.has(kind, number)):
            return
        state.kept += 1
        self._keep(f"{kind.decode()}{number}", self._parsed(bare))

    def _identity(self, bare: bytes) -> tuple[bytes, int]:
        """Kind and number of an entity whose id stands elsewhere than usual."""
        entity = self._json(bare)
        found = re.fullmatch(r"([A-Z])([0-9]{1,18})", str(entity.get("id", "")))
        if not found and "redirect" not in entity:  # a redirect is no entity of its own
            raise self._wrong(f"has no id: {_shown(bare)}")
        return (found[1].encode(), int(found[2])) if found else (b"", 0)

    def _parsed(self, bare: bytes) -> dict[str, Any]:
        """Labels and aliases of a line. The claims, nine tenths of it, come after them and are not parsed."""
        cut = bare.find(_CLAIMS)
        if cut >= 0 and bare.endswith(b"}"):
            try:
                found: dict[str, Any] = json.loads(bare[:cut] + b"}")
                if "labels" in found and "aliases" in found:
                    return found
            except (ValueError, RecursionError):
                pass
        return self._json(bare)

    def _json(self, bare: bytes) -> dict[str, Any]:
        try:
            entity = json.loads(bare)
        except (ValueError, RecursionError) as error:
            raise self._wrong(f"is no JSON: {error}", 0, REFETCH) from error
        if not isinstance(entity, dict):
            raise self._wrong(f"is no entity: {_shown(bare)}")
        return entity

    def _keep(self, entity: str, found: Mapping[str, Any]) -> None:
        """Write the rows of an entity. Where there are no names, PHP has left an empty list for an empty object."""
        labels, aliases = found.get("labels") or {}, found.get("aliases") or {}
        state = self.state
        try:
            for language, keys in self.order.items():
                label = next((text for key in keys if key in labels and (text := clean(labels[key]["value"]))), "")
                if not label:
                    continue
                spelt: list[Any] = next((aliases[key] for key in keys if aliases.get(key)), [])
                texts = dict.fromkeys([label, *(clean(alias["value"]) for alias in spelt)])
                texts.pop("", None)
                rows = "".join(f"{entity}\t{rank}\t{text}\n" for rank, text in enumerate(texts))
                self.tables[language].write(rows.encode())
                state.labels[language] = state.labels.get(language, 0) + 1
                state.names[language] = state.names.get(language, 0) + len(texts)
        except (TypeError, KeyError, AttributeError) as error:
            raise self._wrong(f"{entity} has labels or aliases of another form than Wikidata's") from error

    def _save(self, source: Unpacked) -> None:
        state = self.state
        for language, table in self.tables.items():
            table.flush()
            os.fsync(table.fileno())
            state.sizes[language] = table.tell()
        state.unpacked, state.stream = source.stream_of(state.offset)
        write_atomically(self.to / STATE, json.dumps(asdict(state)))

    def _progress(self, source: Unpacked, first: int, seconds: float) -> str:
        read, total = source.read, source.total
        rate = max((read - first) / max(seconds, 1e-9), 1e-9)
        left = int((total - read) / rate)
        clock = f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}" if left < 3_600_000 else "unknown time"
        return (
            f"{read / 1e9:.2f} of {total / 1e9:.2f} GB ({100 * read / max(total, 1):.1f} %), "
            f"{self.state.entities:,} entities, {self.state.kept:,} kept, {rate / 1e6:.1f} MB/s, {clock} left"
        )

    def _wrong(self, what: str, ahead: int = 0, hint: str = "") -> DataError:
        return DataError(Problem(f"{self.dump}, line {self.state.lines + ahead}", what, hint))


def clean(text: str) -> str:
    """A name without what breaks a line or a table, and with single spaces."""
    return _SPACES.sub(" ", _UNCLEAN.sub(" ", text)).strip()


def _found_state(to: Path, asked: dict[str, Any]) -> _State | None:
    """The state to go on from; None where all is done.

    Raises:
        DataError: the folder holds tables of another dump, of other languages or ids, or of another origin.
    """
    held = to / STATE if (to / STATE).is_file() else to / REPORT
    if not held.is_file():
        there = [f"{language}.tsv" for language in asked["languages"] if (to / f"{language}.tsv").exists()]
        if there:
            raise DataError(Problem(str(to), f"has a {there[0]} of another origin", "choose another folder"))
        return _State(asked)
    try:
        found = json.loads(held.read_text(encoding="utf-8"))
        same, state = found["asked"] == asked, None if held.name == REPORT else _State(**found)
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(Problem(str(held), f"is unreadable: {error}", "remove it to begin anew")) from error
    if not same:
        what = "is of another dump, or of other languages or ids"
        raise DataError(Problem(str(held), what, "choose another folder, or empty this one"))
    return state


def _table(to: Path, language: str, state: _State) -> BinaryIO:
    """A table to append to, cut to the size it had when the state was saved."""
    path, size = to / f"{language}.part", state.sizes.get(language, 0)
    if size and (not path.is_file() or path.stat().st_size < size):
        raise DataError(Problem(str(path), f"is shorter than {STATE} says", f"remove {STATE} to begin anew"))
    file = path.open("r+b" if path.is_file() else "w+b")
    file.truncate(size)
    file.seek(size)
    return file


def _publish(to: Path, state: _State) -> dict[str, Any]:
    """Give the tables their names. Killed in the middle, the next try does what is left."""
    for language in state.asked["languages"]:
        part = to / f"{language}.part"
        if part.is_file():
            part.replace(to / f"{language}.tsv") if part.stat().st_size else part.unlink()
    counts = {name: getattr(state, name) for name in ("lines", "entities", "kept", "labels", "names")}
    report = {"asked": state.asked, **counts}
    write_atomically(to / REPORT, json.dumps(report, indent=1))
    (to / STATE).unlink(missing_ok=True)
    for left in to.glob(".names.*.tmp"):  # of a kill while one of the two was written
        left.unlink()
    return report


def _shown(raw: bytes) -> str:
    return repr(raw[:40].decode("utf-8", "replace"))
