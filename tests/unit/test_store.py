"""The store of stages: keys, one build for all, damage, a full disk, two processes at once."""

from __future__ import annotations

import errno
import json
import multiprocessing
import time
from pathlib import Path

import pytest

from kbench.errors import StageError
from kbench.stages.stage import Stage
from kbench.stages.store import Store, damage, manifest


def stage(science=None, text="result", parents=None, version=1, built=None):
    def build(work: Path, folders) -> None:
        if built is not None:
            built.append(work)
        (work / "inner").mkdir(exist_ok=True)
        (work / "inner" / "out.txt").write_text(text + "".join(p.name for p in folders.values()))

    return Stage("thing", version, science or {"a": 1}, build, parents or {})


def test_a_key_is_its_science_version_and_parents():
    base = stage().key
    assert stage().key == base and len(base) == 16
    assert stage({"a": 2}).key != base
    assert stage(version=2).key != base
    child = stage(parents={"up": stage()})
    assert child.key != stage(parents={"up": stage({"a": 2})}).key
    assert stage({"a": 1, "b": 2}).key == stage({"b": 2, "a": 1}).key


def test_a_stage_is_built_once_and_found_again(tmp_path):
    built: list[Path] = []
    folder = Store(tmp_path).get(stage(built=built))
    assert (folder / "inner" / "out.txt").read_text() == "result"
    assert Store(tmp_path).get(stage(built=built)) == folder
    assert len(built) == 1
    assert manifest(folder)["science"] == {"a": 1}
    assert not list(tmp_path.rglob("*.work"))


def test_parents_are_built_first(tmp_path):
    events = []
    store = Store(tmp_path, say=lambda s, event, seconds: events.append((s.science["a"], event)))
    store.get(stage({"a": "child"}, parents={"up": stage({"a": "parent"})}))
    assert [e for e in events if e[1] == "built"] == [("parent", "built"), ("child", "built")]


@pytest.mark.parametrize("harm", ["change", "remove", "truncate", "manifest"])
def test_damage_is_seen_and_mended(tmp_path, harm):
    folder = Store(tmp_path).get(stage())
    out = folder / "inner" / "out.txt"
    if harm == "change":
        out.write_text("Result")
    elif harm == "remove":
        out.unlink()
    elif harm == "truncate":
        out.write_text("")
    else:
        (folder / "manifest.json").write_text("{half")
    assert damage(folder) is not None
    events = []
    again = Store(tmp_path, say=lambda s, event, seconds: events.append(event)).get(stage())
    assert (again / "inner" / "out.txt").read_text() == "result"
    assert any(event.startswith("damaged") for event in events) and "built" in events


def test_a_failed_build_publishes_nothing_and_the_next_continues_its_work(tmp_path):
    def half(work: Path, folders) -> None:
        done = work / "part"
        if not done.exists():
            done.write_text("first half")
            raise RuntimeError("stopped")
        (work / "whole").write_text(done.read_text() + ", second half")

    broken = Stage("thing", 1, {}, half)
    with pytest.raises(RuntimeError):
        Store(tmp_path).get(broken)
    assert not Store(tmp_path).has(broken)
    assert (Store(tmp_path).get(broken) / "whole").read_text() == "first half, second half"


def test_a_full_disk_is_a_message_and_nothing_is_published(tmp_path):
    def full(work: Path, folders) -> None:
        (work / "part").write_text("x")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StageError, match=r"disk is full.*not published"):
        Store(tmp_path).get(Stage("thing", 1, {}, full))
    assert not [p for p in (tmp_path / "thing").iterdir() if p.is_dir() and p.suffix != ".work"]


def _build_slowly(root: str, log: str) -> None:
    def slow(work: Path, folders) -> None:
        with Path(log).open("a") as file:
            file.write("built\n")
        time.sleep(0.5)
        (work / "out").write_text("x")

    Store(Path(root)).get(Stage("thing", 1, {}, slow))


def test_two_processes_build_one(tmp_path):
    context = multiprocessing.get_context("fork")
    log = tmp_path / "log"
    both = [context.Process(target=_build_slowly, args=(str(tmp_path / "s"), str(log))) for _ in range(3)]
    for process in both:
        process.start()
    for process in both:
        process.join(20)
        assert process.exitcode == 0
    assert log.read_text() == "built\n"


@pytest.mark.parametrize("text", ['{"files": []}', '{"files": {"inner/out.txt": {}}}', "[]", "null", ""])
def test_a_manifest_that_is_no_manifest_is_damage(tmp_path, text):
    folder = Store(tmp_path).get(stage())
    (folder / "manifest.json").write_text(text)
    assert damage(folder) == "unreadable manifest"
    assert (Store(tmp_path).get(stage()) / "inner" / "out.txt").exists()


def test_a_file_where_a_stage_should_stand_is_mended(tmp_path):
    folder = Store(tmp_path).folder(stage())
    folder.parent.mkdir(parents=True)
    folder.write_text("what is this")
    assert (Store(tmp_path).get(stage()) / "inner" / "out.txt").exists()


def test_a_build_killed_between_manifest_and_rename_is_published_whole(tmp_path):
    work = Store(tmp_path).folder(stage()).with_suffix(".work")
    work.mkdir(parents=True)
    (work / "manifest.json").write_text('{"files": {}}')
    (work / ".manifest.json.7.tmp").write_text("half")
    folder = Store(tmp_path).get(stage())
    assert damage(folder) is None
    assert list(manifest(folder)["files"]) == ["inner/out.txt"]


def test_the_manifest_lists_every_file_with_its_hash(tmp_path):
    folder = Store(tmp_path).get(stage())
    files = json.loads((folder / "manifest.json").read_text())["files"]
    assert list(files) == ["inner/out.txt"]
    assert files["inner/out.txt"]["bytes"] == len("result")
