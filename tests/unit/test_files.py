"""Hashes of files: those of large ones are remembered, and no change of the file is missed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from kbench import files


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file that counts as large, and a cache of its own."""
    monkeypatch.setattr(files, "_LARGE", 10)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "file"
    path.write_bytes(b"a" * 20)
    return path


def forgetful_hash(path: Path) -> str:
    """As in another process."""
    files._hash.cache_clear()
    return files.hash_file(path)


def test_a_large_file_is_read_once(large: Path, tmp_path: Path) -> None:
    first = forgetful_hash(large)
    assert first == hashlib.sha256(b"a" * 20).hexdigest()
    (kept,) = (tmp_path / "cache" / "kbench" / "hashes").iterdir()
    kept.write_text("remembered")
    assert forgetful_hash(large) == "remembered"


def test_a_changed_file_is_read_again(large: Path) -> None:
    before = forgetful_hash(large)
    large.write_bytes(b"b" * 20)
    os.utime(large, ns=(1, 1))
    assert forgetful_hash(large) == hashlib.sha256(b"b" * 20).hexdigest() != before


def test_a_small_file_leaves_nothing(large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_LARGE", 100)
    forgetful_hash(large)
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_is_none(large: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    assert forgetful_hash(large) == hashlib.sha256(b"a" * 20).hexdigest()
