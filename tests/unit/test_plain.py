"""Plain text: every form of file, every kind of broken one, and its lines as a stream."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kbench.config.knowledge import Knowledge, PlainText
from kbench.engine.counter import mixed
from kbench.errors import DataError, Problem
from kbench.knowledge import plain
from kbench.knowledge.masking import Masking
from kbench.knowledge.plain import locate, plain_stage, text_lines, write_plain
from kbench.knowledge.streams import PlainStream
from kbench.knowledge.tokens import Vocabulary
from kbench.stages.stage import Stage

PACKED = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
CONLLU = """# sent_id = 1
# text = The cat sat.
# text_en = not this
1\tThe\tthe\tDET\t_\t_\t2\tdet\t_\t_

# text =" No space before it
#text = not this either
# text =\u0020
# newpar
# text = # text = twice
"""


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Letters as pieces, words split at spaces and punctuation."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789.[]"]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    inner = Tokenizer(models.WordPiece({piece: place for place, piece in enumerate(pieces)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, mask_token="[MASK]", **special)


def knowledge(files: dict[str, str], path: Path | None = None, lines: int | None = None, seed: int = 1) -> Knowledge:
    where = None if path is None else str(path)
    text = PlainText(folder="texts", path=where, files="{lang}", languages=list(files), spelt=files, lines=lines)
    return Knowledge(name="toy", seed=seed, text=text, languages=["en", "de"])


def write(path: Path, content: str | bytes) -> Path:
    """A file, packed as its name says."""
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(PACKED.get(path.suffix, bytes)(raw))
    return path


def problem_of(call: Any, *arguments: Any) -> Problem:
    """The one problem that a call ends with."""
    with pytest.raises(DataError) as raised:
        call(*arguments)
    (problem,) = raised.value.problems
    return problem


def rows_of(folder: Path, lang: str) -> list[list[int]]:
    """The ids of each line."""
    ids = np.fromfile(folder / f"{lang}.ids", dtype=np.int32)
    ends = np.fromfile(folder / f"{lang}.ends", dtype=np.int64)
    assert ends[-1] == len(ids)
    return [part.tolist() for part in np.split(ids, ends[:-1])]


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


# Files.


@pytest.mark.parametrize("ending", PACKED)
def test_lines_of_every_packing(ending: str, tmp_path: Path) -> None:
    path = write(
        tmp_path / f"text.txt{ending}", "\ufeffone line.\r\n\n   \n # text = as it is\t\nzwei Wörter\u2028hier"
    )
    assert list(text_lines(path)) == ["one line.", "# text = as it is", "zwei Wörter\u2028hier"]


@pytest.mark.parametrize("ending", PACKED)
def test_of_a_treebank_the_texts_are_read(ending: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a-ud-train.conllu{ending}", CONLLU)
    assert list(text_lines(path)) == ["The cat sat.", '" No space before it', "# text = twice"]


@pytest.mark.parametrize("ending", PACKED)
def test_a_wrong_encoding_names_file_and_line(ending: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"text.txt{ending}", b"fine\n\nB\xfccher\n")
    problem = problem_of(list, text_lines(path))
    assert problem.where == f"{path}, line 3"
    assert problem.what == "is not UTF-8 (byte 0xfc)"
    assert "UTF-8" in problem.hint


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz"])
@pytest.mark.parametrize("broken", ["cut", "garbage", "flipped"])
def test_a_damaged_file_is_named(ending: str, broken: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"text.txt{ending}", "".join(f"line {mixed(row)}\n" for row in range(5000)))
    raw = path.read_bytes()
    half = len(raw) // 2
    flipped = raw[:half] + bytes(255 - one for one in raw[half : half + 40]) + raw[half + 40 :]
    path.write_bytes({"cut": raw[:half], "garbage": b"no packed file at all", "flipped": flipped}[broken])
    problem = problem_of(list, text_lines(path))
    if (ending, broken) == (".xz", "flipped"):  # xz gives letters out before it checks them
        assert problem.where.startswith(f"{path}, line ")
        assert problem.what.startswith("is not UTF-8") and "damaged" in problem.hint
        return
    assert problem.where.startswith(f"{path}, after line ")
    assert problem.what.startswith(f"is a damaged {ending} file")


# Where they are.


def test_files_are_found_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in ("de_b.txt", "de_a.txt.gz", "en.conllu", "other.txt"):
        write(folder / name, "x\n")
    files = {"en": "en.conllu", "de": "de_*.txt*"}
    wanted = {"en": (folder / "en.conllu",), "de": (folder / "de_a.txt.gz", folder / "de_b.txt")}
    assert locate(knowledge(files, folder)) == wanted
    monkeypatch.setenv("KBENCH_DATA", str(tmp_path))
    assert locate(knowledge(files)) == wanted
    assert locate(knowledge({})) == {}


def test_what_is_absent_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"de": "de*.txt"}
    monkeypatch.delenv("KBENCH_DATA", raising=False)
    problem = problem_of(locate, knowledge(files))
    assert problem.where == "knowledge=toy"
    assert "knowledge.text.path=FOLDER with de*.txt (de)" in problem.hint and "KBENCH_DATA" in problem.hint

    problem = problem_of(locate, knowledge(files, tmp_path / "nowhere"))
    assert problem.where == f"knowledge.text.path={tmp_path / 'nowhere'}"
    assert "no folder" in problem.what and "de*.txt (de)" in problem.hint

    monkeypatch.setenv("KBENCH_DATA", str(tmp_path))
    assert problem_of(locate, knowledge(files)).where == "KBENCH_DATA/texts"

    write(tmp_path / "en.txt", "x\n")
    with pytest.raises(DataError) as raised:
        locate(knowledge({"en": "en.txt", **files, "fr": "fr.txt"}, tmp_path))
    assert [problem.where for problem in raised.value.problems] == [str(tmp_path)] * 2
    assert "de*.txt" in raised.value.problems[0].what and "of fr" in raised.value.problems[1].what


def test_a_file_beside_its_packed_copy_is_refused(tmp_path: Path) -> None:
    for name in ("en.txt", "en.txt.xz"):
        write(tmp_path / name, "x\n")
    problem = problem_of(locate, knowledge({"en": "en.txt*"}, tmp_path))
    assert problem.where == str(tmp_path / "en.txt.xz")
    assert "stands beside en.txt" in problem.what
    assert locate(knowledge({"en": "en.txt"}, tmp_path)) == {"en": (tmp_path / "en.txt",)}


# Token ids.


def test_lines_become_ids_and_are_cut(tokenizer: Any, tmp_path: Path) -> None:
    lines = ["ab", "abc def ghi jkl.", "[MASK] is text. [SEP]", "über"]
    files = {
        "en": [write(tmp_path / "1.txt", "\n".join(lines[:2])), write(tmp_path / "2.txt.gz", "\n\n".join(lines[2:]))],
        "de": [write(tmp_path / "de.conllu", CONLLU.lower())],
    }
    out = tmp_path / "out"
    out.mkdir()
    write_plain(files, tokenizer, None, 0, 10, out)
    found = rows_of(out, "en")
    assert found[0] == ids_of(tokenizer, "ab")
    assert found[1] == ids_of(tokenizer, lines[1])[:8]
    assert found[2] == tokenizer.convert_tokens_to_ids(["[", "[UNK]", "]", "i", "##s", "t", "##e", "##x"])
    assert found[3] == [tokenizer.unk_token_id]
    assert len(rows_of(out, "de")) == 3
    told = json.loads((out / "tokens.json").read_text())
    assert told["lines"] == told["found"] == {"en": 4, "de": 3}
    assert told["tokens"]["en"] == sum(map(len, found))
    assert told["unknown"]["en"] == 2


@pytest.mark.parametrize("chunk", [1, 7, 1000])
@pytest.mark.parametrize("lines", [None, 30])
def test_ids_do_not_depend_on_the_chunks(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, lines: int | None
) -> None:
    files = {"en": [write(tmp_path / "en.txt", "".join(f"line {row}\n\n" for row in range(100)))]}
    for name in ("usual", "other"):
        (tmp_path / name).mkdir()
        write_plain(files, tokenizer, lines, 5, 20, tmp_path / name)
        monkeypatch.setattr(plain, "_BATCH", chunk)
    for name in ("en.ids", "en.ends", "tokens.json"):
        assert (tmp_path / "usual" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_some_lines_are_drawn_by_seed(tokenizer: Any, tmp_path: Path) -> None:
    texts = [f"line {row}" for row in range(200)]
    names = {tuple(ids_of(tokenizer, text)): row for row, text in enumerate(texts)}
    files = {"en": [write(tmp_path / "en.txt", "\n".join(texts))], "de": [write(tmp_path / "de.txt", "\n".join(texts))]}

    def drawn(lines: int | None, seed: int, lang: str = "en") -> list[int]:
        out = tmp_path / f"{lines}-{seed}"
        out.mkdir(exist_ok=True)
        write_plain(files, tokenizer, lines, seed, 20, out)
        return [names[tuple(row)] for row in rows_of(out, lang)]

    some = drawn(50, 1)
    assert len(some) == 50 and some == sorted(set(some))
    assert 60 < np.mean(some) < 140  # from everywhere
    assert set(some) < set(drawn(80, 1))
    assert some != drawn(50, 2)
    assert some != drawn(50, 1, "de")
    assert drawn(None, 1) == drawn(200, 1) == drawn(900, 1) == list(range(200))
    assert json.loads((tmp_path / "50-1" / "tokens.json").read_text())["found"]["en"] == 200


@pytest.mark.parametrize("content", ["", "\n \n\t\n"])
@pytest.mark.parametrize("lines", [None, 5])
def test_a_language_without_a_line_is_an_error(tokenizer: Any, tmp_path: Path, content: str, lines: int | None) -> None:
    files = {"en": [write(tmp_path / "en.txt", "x\n")], "de": [write(tmp_path / "de.txt", content)]}
    problem = problem_of(write_plain, files, tokenizer, lines, 0, 10, tmp_path)
    assert problem.where == str(tmp_path / "de.txt")
    assert "no line of text in de" in problem.what


def test_the_stage_is_made_from_the_files_content(tokenizer: Any, tmp_path: Path) -> None:
    def build(work: Path, folders: Mapping[str, Path]) -> None: ...

    first, copy = write(tmp_path / "a.txt", "one\ntwo\n"), write(tmp_path / "b.txt", "one\ntwo\n")
    other, bank = write(tmp_path / "c.txt", "one\n"), write(tmp_path / "a.conllu", "one\ntwo\n")
    asked: list[Path | None] = []

    def load(folder: Path | None) -> Any:
        asked.append(folder)
        return tokenizer

    def stage(path: Path = first, backbone: Any = "hub id", length: int = 10, **of: Any) -> Stage:
        return plain_stage(knowledge({}, **of), {"en": [path]}, load, backbone, "auto", length)

    assert stage().key == stage(copy).key == stage(seed=2).key  # without a limit nothing is drawn
    keys = [stage(), stage(other), stage(bank), stage(length=11), stage(backbone="another"), stage(lines=1)]
    keys += [stage(lines=1, seed=2), stage(backbone=Stage("tiny", 1, {}, build))]
    assert len({one.key for one in keys}) == 8
    work = tmp_path / "work"
    work.mkdir()
    keys[-1].build(work, {"backbone": tmp_path})
    assert rows_of(work, "en") == [ids_of(tokenizer, "one"), ids_of(tokenizer, "two")]
    assert asked == [tmp_path]
    with pytest.raises(ValueError, match="no plain text"):
        plain_stage(knowledge({}), {}, load, "hub id", "auto", 10)
    # what a broken file left is taken away
    with pytest.raises(DataError):
        stage(bank).build(work, {})
    assert not work.exists()


# The stream.


@pytest.fixture
def stream(tokenizer: Any, tmp_path: Path) -> PlainStream:
    """30 English lines of 1 to 30 words, then 20 German ones."""
    texts = {"en": [" ".join(["ab"] * (1 + row)) for row in range(30)], "de": [f"zeile {row}." for row in range(20)]}
    files = {lang: [write(tmp_path / f"{lang}.txt", "\n".join(lines))] for lang, lines in texts.items()}
    out = tmp_path / "out"
    out.mkdir()
    write_plain(files, tokenizer, None, 0, 64, out)
    return PlainStream(out, Vocabulary.of(tokenizer), 32, Masking())


def test_a_line_is_what_the_tokenizer_makes_of_it(stream: PlainStream, tokenizer: Any) -> None:
    texts = [" ".join(["ab"] * (1 + row)) for row in range(30)] + [f"zeile {row}." for row in range(20)]
    wanted = [tokenizer(text, truncation=True, max_length=32)["input_ids"] for text in texts]
    assert len(stream) == 50
    rows = np.argsort(mixed(1, np.arange(50)))
    made = stream.assembled(rows)
    assert stream.lengths(rows).tolist() == [len(wanted[row]) for row in rows]
    batch = stream.batch(rows, mixed(2, rows))
    assert batch.attention_mask.sum(1).tolist() == [len(wanted[row]) for row in rows]
    for row, ids in zip(rows, made.ids.tolist(), strict=True):
        assert ids == wanted[row] + [tokenizer.pad_token_id] * (made.ids.shape[1] - len(wanted[row]))
    restored = batch.input_ids.reshape(-1).copy()
    restored[batch.positions] = batch.labels
    assert (restored.reshape(made.ids.shape) == made.ids).all()


def test_a_line_is_masked_alike_in_any_batch(stream: PlainStream) -> None:
    rows = np.tile(np.arange(50), 200)
    keys = mixed(3, np.arange(len(rows)))
    whole = stream.batch(rows, keys)
    width = whole.input_ids.shape[1]
    spoken = int(whole.attention_mask.sum()) - 2 * len(rows)
    assert len(whole.positions) / spoken == pytest.approx(0.15, abs=0.005)
    places = whole.positions % width
    assert places.min() == 1 and (places < whole.attention_mask.sum(1)[whole.positions // width] - 1).all()
    for row in range(0, 200, 7):
        alone = stream.batch(rows[[row]], keys[[row]])
        size = alone.input_ids.shape[1]
        assert alone.input_ids[0].tolist() == whole.input_ids[row, :size].tolist()
        own = whole.positions // width == row
        assert alone.positions.tolist() == (whole.positions[own] % width).tolist()
        assert alone.labels.tolist() == whole.labels[own].tolist()


# The real files.


def test_the_texts_of_real_treebanks(real_data: Path, tokenizer: Any, tmp_path: Path) -> None:
    folder = real_data / "ud-treebanks"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    files = locate(knowledge({"de": "de_gsd-ud-*.conllu.gz", "vi": "vi_vtb-ud-dev.conllu.gz"}, folder))
    for paths in files.values():
        for path in paths:
            blocks = gzip.decompress(path.read_bytes()).decode().strip().split("\n\n")
            assert len(list(text_lines(path))) == len(blocks)
    write_plain({"vi": files["vi"]}, tokenizer, 100, 1, 128, tmp_path)
    assert len(PlainStream(tmp_path, Vocabulary.of(tokenizer), 128, Masking())) == 100
