"""Names from a Wikidata dump: the real format with its oddities, every kind of broken file, kills at any moment."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from kbench.cli import build
from kbench.errors import DataError, Problem, UserError
from kbench.knowledge.dump import REPORT, STATE, clean, language_keys, names_from_dump
from kbench.knowledge.wanted import Wanted

PACKERS: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress}


def entity(identity: str, labels: dict[str, str], aliases: dict[str, list[str]] | None = None) -> dict[str, Any]:
    """An entity as the dump spells it: keys in its order, empty lists for empty objects, names in a claim."""
    kind = "item" if identity[0] == "Q" else "property"
    claim = {"mainsnak": {"property": "P31", "datavalue": {"value": {"id": "Q5", "labels": {"en": "wrong"}}}}}
    return {
        "type": kind,
        **({"datatype": "wikibase-item"} if kind == "property" else {}),
        "id": identity,
        "labels": {key: {"language": key, "value": text} for key, text in labels.items()} or [],
        "descriptions": [],
        "aliases": {key: [{"language": key, "value": text} for text in found] for key, found in (aliases or {}).items()}
        or [],
        "claims": {"P31": [claim]},
        "sitelinks": {},
    }


def dumped(entities: Iterable[dict[str, Any]]) -> bytes:
    """The lines of a dump, written as Wikidata writes them."""
    lines = [json.dumps(one, separators=(",", ":")) for one in entities]
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode()


def write(path: Path, content: bytes, streams: int = 1) -> Path:
    """A dump packed as its name says, in several streams."""
    pack, size = PACKERS[path.suffix if path.suffix in PACKERS else ""], max(1, -(-len(content) // streams))
    path.write_bytes(b"".join(pack(content[start : start + size]) for start in range(0, len(content), size)))
    return path


def quiet(line: str) -> None:
    del line


def tables(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "names.lock"}


def problem_of(dump: Path, to: Path, **more: Any) -> Problem:
    with pytest.raises(DataError) as raised:
        names_from_dump(dump, to, ["en", "de"], say=quiet, **more)
    (problem,) = raised.value.problems
    return problem


ENTITIES = [
    entity("Q31", {"en": "Belgium", "de": "Belgien", "zh-hans": "比利时", "zh-tw": "比利時"}, {"en": ["BE", "be"]}),
    entity(
        "Q8", {"en": "happi\tness\n", "ja": "幸福"}, {"de": ["Glück"], "en": ["joy", "happi ness", "\u0007", "joy"]}
    ),
    entity("P31", {"en": "instance of", "de": "ist ein(e)"}, {"de": ["ist", 'ein "x","claims":{'], "mul": ["a"]}),
    {"type": "lexeme", "id": "L7", "lemmas": {"en": {"language": "en", "value": "first"}}},
    entity("Q42", {"mul": "Douglas Adams", "zh": " "}, {"mul": ["Adams"], "zh-hans": ["亚当斯"]}),
    entity("Q9", {}),
]


@pytest.mark.parametrize("ending", ["", ".gz", ".bz2"])
@pytest.mark.parametrize("streams", [1, 5])
@pytest.mark.parametrize("block", [7, 1 << 18])
def test_labels_and_aliases_of_items_and_properties(ending: str, streams: int, block: int, tmp_path: Path) -> None:
    dump = write(tmp_path / f"latest-all.json{ending}", dumped(ENTITIES), streams)
    found = names_from_dump(dump, tmp_path / "names", ["en", "de", "zh", "ja"], say=quiet, block=block)
    assert {name: content.decode() for name, content in tables(tmp_path / "names").items() if name != REPORT} == {
        "en.tsv": "Q31\t0\tBelgium\nQ31\t1\tBE\nQ31\t2\tbe\nQ8\t0\thappi ness\nQ8\t1\tjoy\nP31\t0\tinstance of\n"
        "P31\t1\ta\nQ42\t0\tDouglas Adams\nQ42\t1\tAdams\n",
        "de.tsv": 'Q31\t0\tBelgien\nP31\t0\tist ein(e)\nP31\t1\tist\nP31\t2\tein "x","claims":{\n'
        "Q42\t0\tDouglas Adams\nQ42\t1\tAdams\n",
        "zh.tsv": "Q31\t0\t比利时\n",
        "ja.tsv": "Q8\t0\t幸福\n",
    }
    assert (found["lines"], found["entities"], found["kept"]) == (8, 6, 5)
    assert found["labels"] == {"en": 4, "de": 3, "zh": 1, "ja": 1}
    assert found["names"] == {"en": 9, "de": 6, "zh": 1, "ja": 1}


def test_keys_of_a_language_are_tried_in_order(tmp_path: Path) -> None:
    dump = write(tmp_path / "a.json", dumped(ENTITIES))
    names_from_dump(dump, tmp_path / "names", ["zh"], say=quiet, keys={"zh": ["zh-tw", "zh-hans"]})
    assert (tmp_path / "names/zh.tsv").read_text() == "Q31\t0\t比利時\n"
    assert language_keys("zh")[:3] == ("zh", "zh-hans", "zh-cn")
    assert language_keys("de") == ("de", "mul")
    assert language_keys("ja") == ("ja",)


def test_other_spacings_and_orders_of_keys_are_read(tmp_path: Path) -> None:
    first = {"labels": {"en": {"value": "one"}}, "id": "Q1"}
    second = {"id": "Q2", "claims": [], "labels": {"en": {"value": "two"}}, "aliases": {}, "type": "item"}
    redirect = {"entity": "Q3", "redirect": "Q1"}
    lines = ",\n".join(json.dumps(one, indent=None) for one in (first, second, redirect))
    dump = write(tmp_path / "a.json", f"[\r\n{lines}\r\n\r\n]".encode())
    names_from_dump(dump, tmp_path / "names", ["en"], say=quiet)
    assert (tmp_path / "names/en.tsv").read_text() == "Q1\t0\tone\nQ2\t0\ttwo\n"


def test_only_wanted_ids_are_kept_and_the_rest_is_not_parsed(tmp_path: Path) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("Q42\nP31\nQ9\nno Q31x, aQ31\n")
    unreadable = b'{"type":"item","id":"Q31",broken,\n'
    content = dumped(ENTITIES).replace(b"[\n", b"[\n" + unreadable, 1)
    found = names_from_dump(write(tmp_path / "a.json", content), tmp_path / "n", ["en"], Wanted.of(ids), quiet)
    assert (found["entities"], found["kept"]) == (7, 3)
    assert {line.split("\t")[0] for line in (tmp_path / "n/en.tsv").read_text().splitlines()} == {"P31", "Q42"}


@pytest.mark.parametrize("packed", [False, True])
def test_wanted_ids_of_the_triples_of_a_graph(packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kbench.knowledge.wanted._PIECE", 11)  # pieces that cut lines
    ending = ".gz" if packed else ""
    for name, text in {"train": "Q1\tP2\tQ3\nQ900\tP2\tQ1\n", "test": "Q17\tP1000\tQ16"}.items():
        write(tmp_path / f"wikidata5m_transductive_{name}_triplet.txt{ending}", (text).encode())
    (tmp_path / "wikidata5m_entity.txt").write_text("Q77\tname\n")
    wanted = Wanted.of(tmp_path)
    ids = {(kind, number) for kind in (b"Q", b"P") for number in range(1200) if wanted.has(kind, number)}
    assert ids == {(b"Q", 1), (b"Q", 3), (b"Q", 16), (b"Q", 17), (b"Q", 900), (b"P", 2), (b"P", 1000)}
    assert wanted.count == 7
    listed = tmp_path / "ids"
    listed.write_text("P1000 P2 Q900 Q17 Q16 Q3 Q1")
    assert Wanted.of(listed).content == wanted.content
    listed.write_text("P1000 P2 Q900 Q17 Q16 Q3")
    assert Wanted.of(listed).content != wanted.content


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("ids.txt", b"31\n42\n", "holds no id of Wikidata"),
        ("ids.txt", b"Q9999999999\n", "9999999999 is too large to be the number of an id"),
        ("ids.txt.gz", gzip.compress(b"Q1\n" * 100, mtime=0)[:-9], "is a damaged gzip file"),
        ("absent.txt", None, "there is no such file"),
    ],
)
def test_wanted_ids_that_cannot_be_read(name: str, content: bytes | None, what: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as raised:
        Wanted.of(tmp_path / name)
    assert raised.value.problems[0].where == str(tmp_path / name)
    assert raised.value.problems[0].what.startswith(what)


def test_a_folder_without_triples_names_no_ids(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no file of triples"):
        Wanted.of(tmp_path)


def test_clean_leaves_nothing_that_breaks_a_table() -> None:
    assert clean(" a\tb\r\nc\u2028d\x85e\x00f  g\ud83dh ") == "a b c d e f g h"
    assert clean("\U0001f600 ok") == "\U0001f600 ok"


# Broken dumps.


@pytest.mark.parametrize("ending", [".gz", ".bz2"])
def test_a_packed_dump_that_is_cut_off(ending: str, tmp_path: Path) -> None:
    whole = write(tmp_path / f"whole.json{ending}", dumped(ENTITIES)).read_bytes()
    cut = tmp_path / f"cut.json{ending}"
    cut.write_bytes(whole[:-9])
    problem = problem_of(cut, tmp_path / "names")
    assert problem.where == str(cut)
    assert problem.what == f"is cut off: it ends at byte {len(whole) - 9:,} inside a stream"
    assert "fetch it again" in problem.hint
    assert not (tmp_path / "names/en.tsv").exists()


def test_a_dump_that_ends_between_streams_or_lines(tmp_path: Path) -> None:
    content = dumped(ENTITIES)
    for number, cut in enumerate((content[: content.index(b'{"type":"lexeme"')], content[:-3])):
        dump = write(tmp_path / f"{number}.json.gz", cut)
        lines = [4, 7][number]
        assert problem_of(dump, tmp_path / f"{number}").what == (
            f"is cut off: it ends after line {lines} without the closing ]"
        )


@pytest.mark.parametrize("ending", [".gz", ".bz2"])
def test_a_packed_dump_that_is_damaged(ending: str, tmp_path: Path) -> None:
    dump = write(tmp_path / f"a.json{ending}", dumped(ENTITIES))
    raw = bytearray(dump.read_bytes())
    raw[len(raw) // 2] ^= 255
    dump.write_bytes(bytes(raw))
    assert problem_of(dump, tmp_path / "names").what.startswith("is damaged")


def test_zeros_that_fill_up_a_packed_file_are_no_damage(tmp_path: Path) -> None:
    dump = write(tmp_path / "a.json.gz", dumped(ENTITIES))
    dump.write_bytes(dump.read_bytes() + bytes(100))
    assert names_from_dump(dump, tmp_path / "names", ["en"], say=quiet)["entities"] == 6


@pytest.mark.parametrize(
    ("content", "line", "what"),
    [
        (b'[\n{"type":"item","id":"Q1",\n]\n', 2, "is no JSON: "),
        (b'[\n{"id":"Q1"},\nnothing,\n]\n', 3, "is no JSON: "),
        (b'[\n{"id":"Q1"},\n\n{"type":"item"},\n]\n', 4, 'has no id: \'{"type":"item"}\''),
        (b"[\n[1],\n]\n", 2, "is no entity: '[1]'"),
        (b'[\n{"id":"Q1"}\n]\n{"id":"Q2"}\n', 4, "stands after the closing ]"),
        (b'[\n{"id":"Q1","labels":{"en":"Belgium"}}\n]\n', 2, "Q1 has labels or aliases of another form"),
        (b'[\n{"id":"Q1","labels":{"en":{"value":"\xff"}}}\n]\n', 2, "is no JSON: "),
        (b'{"id":"Q1"}\n', 1, 'is not the beginning of a Wikidata JSON dump: \'{"id":"Q1"}\''),
        (b"<mediawiki>\n", 1, "is not the beginning of a Wikidata JSON dump: '<mediawiki>'"),
        (b"", 1, "is not the beginning of a Wikidata JSON dump: ''"),
    ],
)
def test_a_line_that_is_no_line_of_a_dump(content: bytes, line: int, what: str, tmp_path: Path) -> None:
    dump = write(tmp_path / "a.json", content)
    problem = problem_of(dump, tmp_path / "names")
    assert problem.where == f"{dump}, line {line}"
    assert problem.what.startswith(what)


def test_a_file_without_lines_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kbench.knowledge.dump._LONGEST", 1 << 20)
    dump = write(tmp_path / "a.json", b"[" + b" " * (3 << 20))
    problem = problem_of(dump, tmp_path / "names")
    assert (problem.where, problem.what) == (f"{dump}, line 1", "has more than 1 MiB")


def test_a_dump_that_is_not_there(tmp_path: Path) -> None:
    assert problem_of(tmp_path / "a.json.gz", tmp_path / "names").what == "there is no such file"


# Folders.


def test_a_second_time_nothing_is_read(tmp_path: Path) -> None:
    dump = write(tmp_path / "a.json", dumped(ENTITIES))
    first = names_from_dump(dump, tmp_path / "names", ["en"], say=quiet)
    before = tables(tmp_path / "names")
    said: list[str] = []
    assert names_from_dump(dump, tmp_path / "names", ["en"], say=said.append) == first
    assert said == [f"done already: {tmp_path / 'names' / REPORT}"]
    assert tables(tmp_path / "names") == before


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    dump = write(tmp_path / "a.json", dumped(ENTITIES))
    names_from_dump(dump, tmp_path / "names", ["en"], say=quiet)
    before = tables(tmp_path / "names")
    assert problem_of(dump, tmp_path / "names").what == "is of another dump, or of other languages or ids"
    assert tables(tmp_path / "names") == before
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "en.tsv").write_text("mine")
    assert problem_of(dump, mine).what == "has a en.tsv of another origin"
    assert (mine / "en.tsv").read_text() == "mine"


def test_two_processes_do_not_write_one_folder(tmp_path: Path) -> None:
    from filelock import FileLock

    dump = write(tmp_path / "a.json", dumped(ENTITIES))
    (tmp_path / "names").mkdir()
    with FileLock(tmp_path / "names/names.lock"):
        assert problem_of(dump, tmp_path / "names").what == "another process is writing here"


# Kills.


def many(count: int) -> bytes:
    return dumped(
        entity(f"Q{number}", {"en": f"thing {number}", "de": f"Ding {number}"}, {"en": [f"t{number}", f"T-{number}"]})
        for number in range(1, count + 1)
    )


class KilledError(Exception):
    """Stands for a kill between two blocks."""


@pytest.mark.parametrize("ending", ["", ".gz", ".bz2"])
@pytest.mark.parametrize("streams", [1, 4])
@pytest.mark.parametrize("saves", [True, False])
def test_a_killed_extraction_ends_in_the_same_bytes(ending: str, streams: int, saves: bool, tmp_path: Path) -> None:
    dump = write(tmp_path / f"a.json{ending}", many(400), streams)
    block = dump.stat().st_size // 16
    names_from_dump(dump, tmp_path / "whole", ["en", "de"], say=quiet)
    save_every = 0 if saves else 1e9

    def after(blocks: int) -> Callable[[str], None]:
        """Kill when so many lines of progress were said, one for each block."""
        left = iter(range(blocks))

        def say(line: str) -> None:
            if "GB" in line and next(left, None) is None:
                raise KilledError

        return say

    kills = 0
    for blocks in (2, 0, 4, 1):
        try:
            names_from_dump(
                dump,
                tmp_path / "killed",
                ["en", "de"],
                say=after(blocks),
                save_every=save_every,
                say_every=0,
                block=block,
            )
        except KilledError:
            kills += 1
    assert kills == 4
    assert (tmp_path / "killed" / STATE).exists() == saves
    names_from_dump(dump, tmp_path / "killed", ["en", "de"], say=quiet)
    assert tables(tmp_path / "killed") == tables(tmp_path / "whole")


def test_a_kill_while_the_tables_get_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dump = write(tmp_path / "a.json", many(30))
    names_from_dump(dump, tmp_path / "whole", ["en", "de"], say=quiet)
    replace, calls = Path.replace, []

    def once(self: Path, target: Path) -> Path:
        if self.suffix == ".part":
            calls.append(self)
            if len(calls) == 2:
                raise KilledError
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", once)
    with pytest.raises(KilledError):
        names_from_dump(dump, tmp_path / "killed", ["en", "de"], say=quiet)
    assert sorted(name for name in tables(tmp_path / "killed") if name[:2] in ("de", "en")) == ["de.part", "en.tsv"]
    names_from_dump(dump, tmp_path / "killed", ["en", "de"], say=quiet)
    assert tables(tmp_path / "killed") == tables(tmp_path / "whole")


def test_an_interrupted_extraction_needs_its_tables(tmp_path: Path) -> None:
    dump = write(tmp_path / "a.json", many(100))

    def killed(line: str) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        names_from_dump(dump, tmp_path / "n", ["en", "de"], say=killed, save_every=0, say_every=0, block=9000)
    (tmp_path / "n/de.part").write_bytes(b"")
    problem = problem_of(dump, tmp_path / "n")
    assert (problem.what, problem.hint) == (f"is shorter than {STATE} says", f"remove {STATE} to begin anew")
    (tmp_path / "n" / STATE).write_text("{")
    assert problem_of(dump, tmp_path / "n").hint == "remove it to begin anew"
    (tmp_path / "n" / STATE).unlink()
    assert names_from_dump(dump, tmp_path / "n", ["en", "de"], say=quiet)["kept"] == 100


SLOW = """
import sys, time
from pathlib import Path
from kbench.knowledge.dump import names_from_dump

def say(line):
    print(line, flush=True)
    time.sleep(0.01)

names_from_dump(Path(sys.argv[1]), Path(sys.argv[2]), ["en", "de"], say=say, save_every=0.02, say_every=0, block=400)
"""


@pytest.mark.parametrize("ending", [".gz", ".bz2"])
def test_a_real_kill(ending: str, tmp_path: Path) -> None:
    dump = write(tmp_path / f"a.json{ending}", many(3000), 12)
    names_from_dump(dump, tmp_path / "whole", ["en", "de"], say=quiet)
    words = [sys.executable, "-c", SLOW, str(dump), str(tmp_path / "killed")]
    starts = []
    for lines in (9, 14, 5):
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            told = [process.stdout.readline() for _ in range(lines)]
            starts.append(told[0])
            time.sleep(0.003 * lines)
            os.kill(process.pid, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert (tmp_path / "killed" / STATE).exists()
    (tmp_path / "killed" / f".{STATE}.1.tmp").write_text("of a kill while it was written")
    assert [line.startswith("goes on after line") for line in starts] == [False, True, True]
    names_from_dump(dump, tmp_path / "killed", ["en", "de"], say=quiet)
    assert tables(tmp_path / "killed") == tables(tmp_path / "whole")


def test_progress_says_how_far_it_is(tmp_path: Path) -> None:
    dump = write(tmp_path / "a.json.gz", many(500))
    said: list[str] = []
    names_from_dump(dump, tmp_path / "names", ["en"], say=said.append, say_every=0, block=1000)
    assert len(said) > 3
    assert all("GB (" in line and "entities, " in line and "MB/s" in line and line.endswith(" left") for line in said)
    shares = [float(line.split("(")[1].split(" ")[0]) for line in said]
    assert shares == sorted(shares)
    assert shares[-1] == 100


def test_a_full_disk_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dump = write(tmp_path / "a.json", many(50))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("kbench.knowledge.dump.os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            names_from_dump(dump, tmp_path / "names", ["en"], say=quiet)
    assert not (tmp_path / "names/en.tsv").exists()
    assert names_from_dump(dump, tmp_path / "names", ["en"], say=quiet)["kept"] == 50


# The command.


def test_the_command_keeps_the_ids_of_a_graph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dump = write(tmp_path / "latest-all.json.bz2", dumped(ENTITIES))
    folder = tmp_path / "graph"
    folder.mkdir()
    (folder / "triples.tsv").write_text("Q31\tP31\tQ42\n")
    for name in ("entities", "relations"):
        (folder / f"{name}.tsv").write_text("Q31\ten\t0\tBelgium\n")
    which = ["knowledge=wikidata_mini", f"knowledge.path={folder}"]
    assert build.run(["names", str(dump), "--to", str(tmp_path / "names"), "--languages", "en,zh", *which]) == 0
    assert {line.split("\t")[0] for line in (tmp_path / "names/en.tsv").read_text().splitlines()} == {
        "Q31",
        "P31",
        "Q42",
    }
    told = capsys.readouterr().out
    assert "ids      3 wanted" in told
    assert "en                  3 labels,            4 aliases" in told
    assert build.run(["names", str(dump), "--to", str(tmp_path / "names"), "--languages", "en,zh", *which]) == 0
    assert "done already" in capsys.readouterr().out
    # without languages, those of the graph
    assert build.run(["names", str(dump), *which, "--to", str(tmp_path / "ten")]) == 0
    found = {path.stem for path in (tmp_path / "ten").glob("*.tsv")}
    assert {"en", "zh"} < found
    assert all(path.stat().st_size for path in (tmp_path / "ten").glob("*.tsv"))
    # of a language in which nothing has a label there is no table: a graph would take it for an empty one
    told = capsys.readouterr().out
    absent = {line.split()[0] for line in told.splitlines() if line.endswith("is this its code at Wikidata?")}
    assert len(absent) == 2
    assert found | absent == {"en", "vi", "nl", "de", "fr", "it", "es", "ja", "ko", "zh"}
    assert found.isdisjoint(absent)


@pytest.mark.parametrize("language", ["../en", "EN", "e", "en_us", ""])
def test_a_language_that_is_no_code_makes_no_file(language: str, tmp_path: Path) -> None:
    dump = write(tmp_path / "a.json", dumped(ENTITIES))
    with pytest.raises(DataError, match="is no code of a language"):
        names_from_dump(dump, tmp_path / "names", ["en", language])
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_that_cannot_be_made_is_a_mistake(tmp_path: Path) -> None:
    dump = write(tmp_path / "a.json", dumped(ENTITIES))
    for to, what in ((dump, "is a file"), (dump / "names", "cannot be written: Not a directory")):
        with pytest.raises(UserError, match=what):
            build.run(["names", str(dump), "--to", str(to), "--languages", "en"])
    with pytest.raises(DataError, match="there is no such file"):
        build.run(["names", str(tmp_path / "b.json"), "--to", str(tmp_path / "names"), "--languages", "en"])
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_the_command_wants_languages_and_ids_that_are_wikidatas(tmp_path: Path) -> None:
    dump = write(tmp_path / "a.json", dumped(ENTITIES))
    with pytest.raises(UserError, match="none is named"):
        build.run(["names", str(dump), "--to", str(tmp_path / "names")])
    with pytest.raises(UserError, match="is generated"):
        build.run(["names", str(dump), "--to", str(tmp_path / "names"), "knowledge=toy"])
    ids = tmp_path / "ids"
    ids.write_text("Q8")
    assert build.run(["names", str(dump), "--to", str(tmp_path / "names"), "--languages", "ja", "--ids", str(ids)]) == 0
    assert (tmp_path / "names/ja.tsv").read_text() == "Q8\t0\t幸福\n"
