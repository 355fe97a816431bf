"""Files of text with mentions: every form, every kind of broken one, and where they are looked for."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from kbench.config.compose import compose
from kbench.config.corpus import LINKERS, AliasOptions, Corpus, Linker
from kbench.errors import DataError, Problem
from kbench.knowledge import corpus_files
from kbench.knowledge.corpora import PARTS, Document, content, documents, locate_corpus

from ..conftest import SHARED_DATA

VOCABULARY = ["[PAD]", "ada", "##lo", "##ve", "##lace", "knew", "bab", "##bage", "."]


def write(path: Path, text: str | bytes) -> Path:
    """A file, packed if its name says so."""
    raw = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def read(reader: str, **files: Path | list[Path]) -> list[Document]:
    parts = {name: tuple(found) if isinstance(found, list) else (found,) for name, found in files.items()}
    return list(documents(reader, parts))


def problems_of(reader: str, **files: Path | list[Path]) -> list[Problem]:
    with pytest.raises(DataError) as raised:
        read(reader, **files)
    return raised.value.problems


def shown(found: list[Document]) -> list[tuple[str, list[tuple[str, list[tuple[str, int | None, float]]]]]]:
    """Title, sentences and the words of their mentions."""
    return [
        (
            one.title,
            [
                (each.text, [(each.text[span.start : span.end], span.number, span.score) for span in each.spans])
                for each in one.sentences
            ],
        )
        for one in found
    ]


# jsonl: ours.


def lines(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_jsonl(name: str, tmp_path: Path) -> None:
    ada, babbage = {"start": 0, "end": 3, "qid": "Q7259"}, {"start": 2, "end": 4, "qid": "Q46633", "score": 0.5}
    text = lines(
        {"text": "Ada wrote.", "title": "Ada", "mentions": [ada]},
        {"tokens": ["She", "knew", "Charles", "Babbage", "."], "title": "Ada", "mentions": [babbage], "source": "x"},
        {"text": "Ünïcode 𝔸 counts as one.", "mentions": [{"start": 8, "end": 9, "qid": "Q1"}]},
        {"text": "Alone."},
    )
    assert shown(read("jsonl", text=write(tmp_path / name, "\ufeff" + text + "\n"))) == [
        (
            "Ada",
            [("Ada wrote.", [("Ada", 7259, 1.0)]), ("She knew Charles Babbage .", [("Charles Babbage", 46633, 0.5)])],
        ),
        ("", [("Ünïcode 𝔸 counts as one.", [("𝔸", 1, 1.0)])]),
        ("", [("Alone.", [])]),
    ]


def mention(**more: Any) -> dict[str, Any]:
    return {"text": "Ada", "mentions": [{"start": 0, "end": 3, "qid": "Q1", **more}]}


@pytest.mark.parametrize(
    ("record", "where", "what"),
    [
        ([], "", "has not one of text and tokens"),
        ({"title": "x"}, "", "has not one of text and tokens"),
        ({"text": "x", "tokens": ["x"]}, "", "has not one of text and tokens"),
        ({"text": 3}, "", "has a text that is no text"),
        ({"tokens": "Ada"}, "", "has tokens that are no list of texts"),
        ({"tokens": ["Ada", 3]}, "", "has tokens that are no list of texts"),
        ({"text": "x", "title": 3}, "", "has a title that is no text"),
        ({"text": "x", "mentions": {}}, "", "has mentions that are no list"),
        ({"text": "x\ud800y"}, "", "has half a character (\\ud800) at 1"),
        ({"text": "x", "mentions": ["Q1"]}, ", mention 1", "has no whole numbers start and end"),
        (mention(start="0"), ", mention 1", "has no whole numbers start and end"),
        (mention(end=True), ", mention 1", "has no whole numbers start and end"),
        (mention(end=4), ", mention 1", "covers 0 to 4 of 3 characters"),
        (mention(start=3), ", mention 1", "covers 3 to 3 of 3 characters"),
        (mention(start=-1), ", mention 1", "covers -1 to 3 of 3 characters"),
        ({"tokens": ["Ada"], "mentions": mention(end=2)["mentions"]}, ", mention 1", "covers 0 to 2 of 1 tokens"),
        ({"tokens": [""], "mentions": mention(end=1)["mentions"]}, ", mention 1", "covers 0 to 1 of 1 tokens"),
        (mention(qid="P19"), ", mention 1", "'P19' is no id of an entity"),
        (mention(qid=None), ", mention 1", "None is no id of an entity"),
        (mention(qid="Q-1"), ", mention 1", "'Q-1' is no id of an entity"),
        (mention(qid="Q" + "1" * 19), ", mention 1", f"'Q{'1' * 19}' is no id of an entity"),
        (mention(score="high"), ", mention 1", "'high' is no score"),
        (mention(score=float("nan")), ", mention 1", "nan is no score"),
    ],
)
def test_jsonl_with_a_wrong_line(record: Any, where: str, what: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", lines({"text": "fine"}, record))
    (problem,) = problems_of("jsonl", text=path)
    assert (problem.where, problem.what) == (f"{path}, line 2{where}", what)


def test_problems_of_a_file_are_told_together_but_five_at_most(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", lines({"text": "fine"}, {}, {"text": "fine"}, {"text": 3}) + "{not json\n")
    assert [(problem.where, problem.what) for problem in problems_of("jsonl", text=path)[:2]] == [
        (f"{path}, line 2", "has not one of text and tokens"),
        (f"{path}, line 4", "has a text that is no text"),
    ]
    last = problems_of("jsonl", text=path)[2]
    assert last.where == f"{path}, line 5" and last.what.startswith("is no JSON: Expecting property name")
    many = write(tmp_path / "b.jsonl", lines(*[{}] * 9))
    assert [problem.where for problem in problems_of("jsonl", text=many)] == [f"{many}, line {n}" for n in range(1, 6)]


@pytest.mark.parametrize(("reader", "part"), [("jsonl", "text"), ("text", "text"), ("docred", "documents")])
def test_empty_damaged_and_wrongly_encoded_files(reader: str, part: str, tmp_path: Path) -> None:
    empty = write(tmp_path / "empty", " \n")
    (problem,) = problems_of(reader, **{part: empty})
    assert (problem.where, problem.what) == (str(empty), "is empty")
    latin = write(
        tmp_path / "latin", b'[{"title": "x",\n "sents": [["B\xfccher"]]}]' if reader == "docred" else b"{}\nB\xfc"
    )
    (problem,) = problems_of(reader, **{part: latin})
    assert (problem.where, problem.what) == (f"{latin}, line 2", "is not UTF-8 (byte 0xfc)")
    whole = gzip.compress(json.dumps([{"sents": [], "vertexSet": []}] * 50).encode())
    cut = tmp_path / "cut.gz"
    cut.write_bytes(whole[: len(whole) // 2])
    (problem,) = problems_of(reader, **{part: cut})
    assert problem.where == f"{cut}, after line {1 if reader == 'docred' else 0}"
    assert problem.what.startswith("is a damaged gzip file")


def test_long_documents_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_files, "LONGEST", 3)
    path = write(tmp_path / "a.txt", "1\n2\n3\n4\n5\n6\n7\n\n8\n")
    sizes = [[each.text for each in one.sentences] for one in read("text", text=path)]
    assert sizes == [["1", "2", "3"], ["4", "5", "6"], ["7"], ["8"]]


# text.


def test_text(tmp_path: Path) -> None:
    first = write(tmp_path / "a.txt", "\n\none.\r\n  two. \n\n \nthree.\n")
    second = write(tmp_path / "b.txt.gz", "four.")
    found = read("text", text=[first, second])
    assert shown(found) == [
        ("", [("one.", []), ("two.", [])]),
        ("", [("three.", [])]),
        ("", [("four.", [])]),
    ]


# ernie.


def ernie(folder: Path, tokens: str, entities: str) -> dict[str, Path]:
    return {
        "tokens": write(folder / "wiki_token", tokens),
        "entities": write(folder / "wiki_entity", entities),
        "vocabulary": write(folder / "vocab.txt", "\n".join(VOCABULARY) + "\n"),
    }


def fields(*sentences: str) -> str:
    """A line: sentences with spaces between their fields."""
    parts = [str(len(sentences))]
    for one in sentences:
        parts += [str(len(one.split())), *one.split()]
    return "\t".join(parts) + "\n"


def test_ernie_joins_pieces_and_lets_mentions_cover_words(tmp_path: Path) -> None:
    # "adalove" is marked at its first piece only, "babbage" at both; "ada ada" is one run
    tokens = fields("1 2 3 1 2 4 5 6 7 8", "1 1") + fields("2 6") + fields("6 7 5")
    entities = fields("Q7 #UNK# #UNK# #UNK# Q8 #UNK# #UNK# Q46 Q46 #UNK#", "Q7 Q7") + fields("#UNK# #UNK#")
    entities += fields("Q46 #UNK# Q46")
    first, second, third = read("ernie", **ernie(tmp_path, tokens, entities))
    assert shown([first]) == [
        (
            "",
            [
                (
                    "adalove adalolace knew babbage .",
                    [("adalove", 7, 1.0), ("adalolace", 8, 1.0), ("babbage", 46, 1.0)],
                ),
                ("ada ada", [("ada ada", 7, 1.0)]),
            ],
        )
    ]
    assert [each.text for each in second.sentences] == ["##lo bab"]  # a piece that continues nothing stays as it is
    assert shown([third])[0][1] == [("babbage knew", [("babbage", 46, 1.0), ("knew", 46, 1.0)])]


def test_a_word_with_two_runs_of_an_entity_has_one_mention(tmp_path: Path) -> None:
    made = ernie(tmp_path, fields("1 2 3 5"), fields("Q7 #UNK# Q7 #UNK#"))
    (found,) = read("ernie", **made)
    assert shown([found])[0][1] == [("adalove knew", [("adalove", 7, 1.0)])]


GOOD = fields("1 5")


@pytest.mark.parametrize(
    ("tokens", "entities", "file", "line", "what"),
    [
        (GOOD + GOOD, fields("Q1 Q1"), "wiki_entity", 2, "is not there, but in wiki_token"),
        (GOOD, fields("Q1 Q1") * 2, "wiki_token", 2, "is not there, but in wiki_entity"),
        (GOOD, fields("Q1"), "wiki_entity", 1, "has other numbers of sentences or pieces than wiki_token"),
        ("x\t1\n", GOOD, "wiki_token", 1, "'x' is no number of sentences"),
        ("2\t1\t5\n", GOOD, "wiki_token", 1, "sentence 2 has no number of pieces"),
        ("1\tfive\n", GOOD, "wiki_token", 1, "sentence 1 has no number of pieces: 'five'"),
        ("1\t3\t5\t5\n", GOOD, "wiki_token", 1, "sentence 1 has 2 pieces, but says 3"),
        ("1\t1\t5\t5\n", GOOD, "wiki_token", 1, "has 1 fields after its last sentence"),
        (fields("1 9"), fields("Q1 Q1"), "wiki_token", 1, "'9' in sentence 1 is no piece of the vocabulary"),
        (fields("1 ada"), fields("Q1 Q1"), "wiki_token", 1, "'ada' in sentence 1 is no piece of the vocabulary"),
        (GOOD, fields("Q1 P7"), "wiki_entity", 1, "'P7' in sentence 1 is no id of an entity"),
    ],
)
def test_ernie_with_a_wrong_line(tokens: str, entities: str, file: str, line: int, what: str, tmp_path: Path) -> None:
    (problem,) = problems_of("ernie", **ernie(tmp_path, tokens, entities))
    assert (problem.where, problem.what) == (f"{tmp_path / file}, line {line}", what)


def test_ernie_without_lines_and_with_files_left_over(tmp_path: Path) -> None:
    files = ernie(tmp_path, "", "")
    (problem,) = problems_of("ernie", **files)
    assert (problem.where, problem.what) == (str(files["tokens"]), "is empty")
    (problem,) = problems_of("ernie", **{**files, "tokens": [files["tokens"]] * 2})
    assert problem.what == "find 2 files of tokens and 1 of entities"


# docred.


def paragraph(*mentions: dict[str, Any], **more: Any) -> dict[str, Any]:
    sents = [["Ada", "Lovelace", "wrote", "."], ["She", "knew", "Babbage"]]
    return {"title": "Ada", "sents": sents, "vertexSet": [list(mentions)], "labels": [], **more}


AT = {"sent_id": 1, "pos": [2, 3], "name": "Babbage", "type": "PER"}


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("indent", [None, 1])
def test_docred_is_read_in_pieces(
    block: int, indent: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_files, "_BLOCK", block)
    made = [paragraph({"sent_id": 0, "pos": [0, 2]}, AT), paragraph(title='"Übel" \\ \n𝔸 [', sents=[["x"]])]
    path = write(tmp_path / "dev.json", json.dumps(made, indent=indent))
    first = (
        "Ada",
        [("Ada Lovelace wrote .", [("Ada Lovelace", None, 1.0)]), ("She knew Babbage", [("Babbage", None, 1.0)])],
    )
    assert shown(read("docred", documents=path)) == [first, ('"Übel" \\ \n𝔸 [', [("x", [])])]


@pytest.mark.parametrize(
    ("document", "what"),
    [
        ([], "has no sents or no vertexSet"),
        ({"sents": []}, "has no sents or no vertexSet"),
        (paragraph(sents=["Ada wrote"]), "has sents that are no lists of tokens"),
        (paragraph(sents=[["\udc00"]]), "has half a character (\\udc00) at 0"),
        (paragraph({"pos": [0, 1]}), "entity 0 has a mention without sent_id and pos"),
        (paragraph({"sent_id": 0, "pos": "ab"}), "entity 0 has a mention without sent_id and pos"),
        (
            paragraph({"sent_id": 1, "pos": [2, 4]}),
            "entity 0 has a mention at 2 to 4 of sentence 1, which is not there",
        ),
        (
            paragraph({"sent_id": 2, "pos": [0, 1]}),
            "entity 0 has a mention at 0 to 1 of sentence 2, which is not there",
        ),
    ],
)
def test_docred_with_a_wrong_document(document: Any, what: str, tmp_path: Path) -> None:
    path = write(tmp_path / "dev.json", json.dumps([paragraph(AT), document]))
    (problem,) = problems_of("docred", documents=path)
    assert (problem.where, problem.what) == (f"{path}, document 2", what)


@pytest.mark.parametrize("block", [16, 1 << 20])
@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ('{"sents": []}', 1, "is no list of documents"),
        ('[{"sents": [], "vertexSet": []},\n{"sents": oops, "more": "      "}]', 2, "is no JSON: Expecting value"),
        ('[{"sents": [], "vertexSet": []},\n\n', 3, "ends inside the list"),
        ('[\n{"sents": [], "vertexSet": [], "title": "cut of', 2, "ends inside the list"),
    ],
)  # fmt: skip
def test_docred_that_is_no_json(
    text: str, line: int, what: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_files, "_BLOCK", block)
    path = write(tmp_path / "dev.json", text)
    (problem,) = problems_of("docred", documents=path)
    assert (problem.where, problem.what) == (f"{path}, line {line}", what)


# Where they are.


def corpus(path: Path | None = None, reader: str = "jsonl", **files: str) -> Corpus:
    where = None if path is None else str(path)
    return Corpus(
        name="mine", reader=reader, linker=Linker.prelinked, alias=AliasOptions(4, 0, False), files=files,
        folder="texts", path=where, documents=None, pack=True, min_mentions=1, licence="", cite="https://example.org",
    )  # fmt: skip


def problem_of(made: Corpus) -> Problem:
    with pytest.raises(DataError) as raised:
        locate_corpus(made)
    (problem,) = raised.value.problems
    return problem


def test_files_are_found_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "texts").mkdir()
    paths = [write(tmp_path / "texts" / name, "{}") for name in ("b.jsonl.gz", "a.jsonl", "c.txt")]
    assert locate_corpus(corpus(tmp_path / "texts", text="*.jsonl*")) == {"text": (paths[1], paths[0])}
    monkeypatch.setenv("KBENCH_DATA", str(tmp_path))
    assert locate_corpus(corpus(text="*.txt")) == {"text": (paths[2],)}
    assert locate_corpus(corpus(reader="toy_corpus")) == {}


def test_what_is_missing_is_named_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KBENCH_DATA", raising=False)
    assert problem_of(corpus(text="*.jsonl", more="x")).what == "has unknown parts: more"
    problem = problem_of(corpus(reader="ernie", tokens="x", vocabulary="x"))
    assert (problem.where, problem.what) == ("knowledge.corpus.files", "does not say where entities are")
    problem = problem_of(corpus(text="*.jsonl"))
    assert (problem.where, problem.what) == ("the corpus mine", "is not on this machine")
    assert problem.hint == (
        "from files: knowledge.corpus.path=FOLDER with *.jsonl (text)\n"
        "or KBENCH_DATA=ROOT with them in ROOT/texts\nsource: https://example.org"
    )
    problem = problem_of(corpus(tmp_path / "none", text="*.jsonl"))
    assert problem.where == f"knowledge.corpus.path={tmp_path / 'none'}"
    problem = problem_of(corpus(tmp_path, text="*.jsonl"))
    assert (problem.where, problem.what) == (str(tmp_path), "holds no file *.jsonl")
    for name in ("a.jsonl", "a.jsonl.gz"):
        write(tmp_path / name, "{}")
    problem = problem_of(corpus(tmp_path, text="*.jsonl*"))
    assert (problem.where, problem.what) == (str(tmp_path / "a.jsonl"), "stands beside its own packed copy")
    monkeypatch.setenv("KBENCH_DATA", str(tmp_path / "none"))
    assert problem_of(corpus(text="*")).where == "KBENCH_DATA"


def test_the_content_is_that_of_files_wherever_they_stand(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    one, other = write(tmp_path / "a.txt", "one\n"), write(tmp_path / "x" / "b.txt", "one\n")
    assert content("text", {"text": (one,)}) == content("text", {"text": (other,)})
    write(other, "two\n")
    assert content("text", {"text": (one,)}) != content("text", {"text": (other,)})
    assert content("toy_corpus", {}) == {"toy_corpus": 1}


@pytest.mark.parametrize("name", ["toy", "ernie_sample", "redocred", "wikipedia"])
def test_what_is_shipped_is_a_whole_configuration(name: str) -> None:
    knowledge = compose([f"knowledge={name}", "method=kmlm"]).knowledge
    assert knowledge.name == name and knowledge.check() == []
    made = knowledge.corpus
    assert set(made.files) == set(PARTS[made.reader])
    assert made.linker in LINKERS[made.reader] and knowledge.languages[0] == "en"


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="no real data")
@pytest.mark.parametrize("name", ["ernie_sample", "redocred"])
def test_real_files_are_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KBENCH_DATA", str(SHARED_DATA))
    knowledge = compose([f"knowledge={name}", "method=kmlm"]).knowledge
    assert locate_corpus(knowledge.corpus).keys() == knowledge.corpus.files.keys()


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="no real data")
def test_real_files() -> None:
    folder = SHARED_DATA / "ernie-wiki-sample"
    found = read(
        "ernie", tokens=folder / "wiki_token.gz", entities=folder / "wiki_entity.gz",
        vocabulary=folder / "bert-base-uncased-vocab.txt",
    )  # fmt: skip
    sentences = [one for document in found for one in document.sentences]
    assert (len(found), len(sentences)) == (100, 16365)  # the README's own count
    assert len({span.number for one in sentences for span in one.spans}) == 11251
    assert sentences[0].text.startswith("anarchism is a political philosophy that advocates self - governed societies")
    assert [sentences[0].text[span.start : span.end] for span in sentences[0].spans[:2]] == [
        "political philosophy", "self - governed",
    ]  # fmt: skip
    found = read("docred", documents=SHARED_DATA / "redocred" / "dev_revised.json.gz")
    assert len(found) == 500
    assert sum(len(one.spans) for document in found for one in document.sentences) == 13189
