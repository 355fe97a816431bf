"""Plain text for pre-training: lines of text files as token ids, one line a sample, never joined.

A file holds one sentence a line, or it is a treebank, `.conllu`, whose lines `# text = ...` are read. Both may be
packed with gzip, bzip2 or xz. Empty lines are dropped.

<lang>.ids     the ids of all lines one after another, raw int32, no special tokens
<lang>.ends    int64, raw: where each line ends in <lang>.ids
tokens.json    per language its lines, the lines that were found, and its tokens
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from kbench.config.knowledge import Knowledge
from kbench.data.source import ENVIRONMENT
from kbench.engine.counter import permuted
from kbench.engine.seeding import derive
from kbench.errors import DataError, Problem
from kbench.files import hash_file
from kbench.knowledge.tokens import Vocabulary, tokenised
from kbench.stages.stage import Stage

Files = Mapping[str, Sequence[Path]]

_BATCH = 5000
_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_TREEBANK = ".conllu"
_TEXT = b"# text ="  # some treebanks have no space after it
_BOM = b"\xef\xbb\xbf"


def locate(knowledge: Knowledge) -> dict[str, tuple[Path, ...]]:
    """The text files of each language, in order; {} where there is no text.

    Raises:
        DataError: the folder or the files of a language are absent.
    """
    text, patterns = knowledge.text, knowledge.text.patterns(knowledge.languages)
    if not patterns:
        return {}
    root = os.environ.get(ENVIRONMENT)
    wanted = ", ".join(f"{pattern} ({lang})" for lang, pattern in patterns.items())
    if text.path is not None:
        where, folder = f"knowledge.text.path={text.path}", Path(text.path).expanduser()
    elif root:
        where, folder = f"{ENVIRONMENT}/{text.folder}", Path(root) / text.folder
    else:
        hint = f"knowledge.text.path=FOLDER with {wanted}\nor {ENVIRONMENT}=ROOT with them in ROOT/{text.folder}"
        raise DataError(Problem(f"knowledge={knowledge.name}", "has plain text that is not on this machine", hint))
    if not folder.is_dir():
        raise DataError(Problem(where, f"there is no folder {folder}", f"it should hold {wanted}"))
    found, problems = {}, []
    for lang, pattern in patterns.items():
        found[lang] = tuple(sorted(path for path in folder.glob(pattern) if path.is_file()))
        if not found[lang]:
            others = ",".join(one for one in patterns if one != lang)
            hint = f"put it there, or name others: knowledge.text.languages=[{others}]"
            problems.append(Problem(str(folder), f"holds no file {pattern} for the plain text of {lang}", hint))
        copies = {path.with_name(f"{path.name}{ending}") for path in found[lang] for ending in _OPENERS}
        problems += [
            Problem(str(path), f"stands beside {path.with_suffix('').name}, of which it is a packed copy", "remove one")
            for path in sorted(copies & set(found[lang]))
        ]
    if problems:
        raise DataError(*problems)
    return found


def plain_stage(
    knowledge: Knowledge,
    files: Files,
    tokenizer: Callable[[Path | None], Any],
    backbone: Stage | str,
    kind: str,
    max_length: int,
) -> Stage:
    """The stage that turns plain text into token ids.

    Args:
        knowledge: says how many lines of a language are taken, and the seed they are drawn by.
        files: the files of each language, as `locate` finds them; at least one language.
        tokenizer: gives the tokenizer, from the backbone's stage folder where it has one.
        backbone: the stage that builds the backbone, or the identity of one that stands ready.
        kind: how the backbone's files are read.
        max_length: longest sample in tokens, special tokens included; a line is cut, never joined with the next.
    """
    if not files:
        raise ValueError("there is no plain text: no files")
    lines, seed = knowledge.text.lines, knowledge.seed
    chosen: dict[str, Any] = {
        "files": [[lang, [[_is_treebank(path), hash_file(path)] for path in paths]] for lang, paths in files.items()],
        "lines": lines,
        "max_length": max_length,
        "tokenizer": kind,
    }
    if lines is not None:
        chosen["seed"] = seed
    parents = {"backbone": backbone} if isinstance(backbone, Stage) else {}
    if isinstance(backbone, str):
        chosen["backbone"] = backbone

    def build(work: Path, folders: Mapping[str, Path]) -> None:
        try:
            write_plain(files, tokenizer(folders.get("backbone")), lines, seed, max_length, work)
        except DataError:
            shutil.rmtree(work)  # mended files have another key: nobody would continue this
            raise

    return Stage("plain_tokens", 1, chosen, build, parents, alone=True)


def write_plain(files: Files, tokenizer: Any, lines: int | None, seed: int, max_length: int, folder: Path) -> None:
    """Write the token ids of the lines of each language into a folder.

    Args:
        files: the files of each language.
        tokenizer: one of transformers.
        lines: lines of each language at most; None: all. Which ones is a keyed choice among their numbers, so a larger
            number takes the same ones and more.
        seed: key of that choice.
        max_length: tokens of a line at most, the two special ones included.

    Raises:
        DataError: a file cannot be read, or a language has no line.
    """
    vocabulary = Vocabulary.of(tokenizer)
    info: dict[str, dict[str, int]] = {"lines": {}, "found": {}, "tokens": {}, "unknown": {}}
    for lang, paths in files.items():
        # with a limit the lines are counted first, so that the choice needs no list of them
        found = None if lines is None else sum(1 for _ in _all_lines(paths))
        kept, tokens, unknown, read = 0, 0, 0, 0
        with (folder / f"{lang}.ids").open("wb") as ids_file, (folder / f"{lang}.ends").open("wb") as ends_file:
            source = _all_lines(paths)
            while chunk := list(islice(source, _BATCH)):
                numbers = np.arange(read, read + len(chunk))
                read += len(chunk)
                if found is not None and lines is not None and lines < found:
                    taken = permuted(numbers, found, derive(seed, "plain text", lang)) < lines
                    chunk = [line for line, take in zip(chunk, taken, strict=True) if take]
                if not chunk:
                    continue
                ids, lengths = tokenised(tokenizer, vocabulary, chunk)
                ids, lengths = _cut(ids, lengths, max_length - 2)
                ids.tofile(ids_file)
                (tokens + np.cumsum(lengths)).tofile(ends_file)
                kept, tokens = kept + len(lengths), tokens + len(ids)
                unknown += int((ids == vocabulary.unknown).sum())
        if not kept:
            names = ", ".join(map(str, paths))
            raise DataError(Problem(names, f"holds no line of text in {lang}", f"take {lang} out, or bring its text"))
        info["lines"][lang], info["found"][lang] = kept, read
        info["tokens"][lang], info["unknown"][lang] = tokens, unknown
    (folder / "tokens.json").write_text(json.dumps(info, indent=1), encoding="utf-8")


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a file that are not blank, without blanks at their ends; of a treebank its `# text =` lines.

    Raises:
        DataError: the file is not UTF-8, or a packed file is damaged or cut off.
    """
    treebank = _is_treebank(path)
    opener = _OPENERS.get(path.suffix, open)
    number = 0
    try:
        with opener(path, "rb") as file:
            for number, raw in enumerate(file, start=1):
                line = raw.removeprefix(_BOM) if number == 1 else raw
                if treebank and not line.startswith(_TEXT):
                    continue
                text = line.removeprefix(_TEXT if treebank else b"").decode("utf-8").strip()
                if text:
                    yield text
    except UnicodeDecodeError as error:
        what = f"is not UTF-8 (byte 0x{error.object[error.start]:02x})"
        hint = "convert the file to UTF-8" + ("" if opener is open else ", or fetch it again if it is damaged")
        raise DataError(Problem(f"{path}, line {number}", what, hint)) from error
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise _damaged(path, number, error) from error
    except OSError as error:
        if error.errno is not None:  # the disk's own trouble; bzip2 gives a bare OSError for damaged data
            raise
        raise _damaged(path, number, error) from error


def _damaged(path: Path, number: int, error: Exception) -> DataError:
    what = f"is a damaged {path.suffix} file: {error}"
    return DataError(Problem(f"{path}, after line {number}", what, "fetch or pack it again"))


def _all_lines(paths: Sequence[Path]) -> Iterator[str]:
    for path in paths:
        yield from text_lines(path)


def _is_treebank(path: Path) -> bool:
    return path.name.removesuffix(path.suffix if path.suffix in _OPENERS else "").endswith(_TREEBANK)


def _cut(ids: np.ndarray, lengths: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Keep the first tokens of each text; texts without any are dropped."""
    starts = np.cumsum(lengths) - lengths
    kept = (np.arange(len(ids)) - np.repeat(starts, lengths)) < limit
    return ids[kept], np.minimum(lengths, limit)[lengths > 0]
