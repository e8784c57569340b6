"""Validation documents that training can read on this machine are found by their content."""

from __future__ import annotations

import gzip
import json
import os
import sys
import zipfile
from pathlib import Path

import pytest
from harness_data import environment, run, values
from repo import Repo

from harness import cache, exposed
from harness.shards import write_shard


def document(name: str, lines: int = 60) -> str:
    """A document like no other."""
    return "\n".join(
        f"    {name} has its own line {number} with {number * 7919 % 1000} in it" for number in range(lines)
    )


POOL = [document(name) for name in ("whole", "half", "indented", "zipped", "packed", "secret", "idioms")]
POOL[-1] += "\nimport unittest\nif __name__ == '__main__':\n    unittest.main()\n"


@pytest.fixture
def shown(tmp_path: Path) -> Path:
    """A folder of which a sandbox shows everything but `covered`."""
    folder = tmp_path / "shown"
    for name in ("pypy/test", "share", "covered", "bin"):
        (folder / name).mkdir(parents=True)
    (folder / "pypy/test/test_whole.py").write_text(POOL[0])
    (folder / "share/notes").write_text("notes\n" * 50 + POOL[1][: len(POOL[1]) // 2])
    (folder / "share/moved.txt").write_text("\r\n".join(line.strip() + "  " for line in POOL[2].splitlines()) + "\n\n")
    with zipfile.ZipFile(folder / "share/tests.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inside/test.py", POOL[3])
    (folder / "share/text.gz").write_bytes(gzip.compress(POOL[4].encode()))
    (folder / "covered/test_secret.py").write_text(POOL[5])
    (folder / "bin/program").write_bytes(b"\x7fELF\0" + POOL[5].encode())
    (folder / "share/mine.py").write_text("import unittest\nif __name__ == '__main__':\n    unittest.main()\n")
    (folder / "share/broken.zip").write_bytes(b"PK no archive")
    os.mkfifo(folder / "share/fifo")
    return folder


@pytest.mark.parametrize("processes", [0, 2])
def test_a_document_that_is_visible_whole_or_in_part_is_found(shown: Path, processes: int) -> None:
    seen = exposed.Visible((shown, shown / "share"), (shown / "covered",))
    assert exposed.exposed(POOL, sum(map(len, POOL)), seen, processes) == (0, 1, 2, 3, 4)


def test_of_a_large_pool_a_sample_is_enough(shown: Path) -> None:
    seen = exposed.Visible((shown,), (shown / "covered",))
    assert exposed.exposed(POOL, 8 * 32 * 400_000, seen, 0) == (0, 1, 2, 3, 4)


def test_the_sandbox_says_what_it_shows(tmp_path: Path) -> None:
    hidden = tmp_path / "tests"
    seen = exposed.visible([hidden])
    assert Path(sys.base_prefix).resolve() in [path.resolve() for path in seen.shown]
    assert Path("/usr") not in seen.shown
    assert hidden in seen.covered


def test_such_documents_leave_the_pool_and_are_counted(shown: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    write_shard(texts / "a.parquet", [document(f"training {number}", 200) for number in range(20)])
    kept = [document(f"validation {number}", 200) for number in range(20)]
    write_shard(texts / "b.parquet", [kept[0], POOL[0], *kept[1:], POOL[1]])
    options = ("--source", str(texts), "--seq-len", "32")
    plain = values(run("harness.prepare", *options, env=environment(tmp_path / "plain")).stdout)
    env = environment(tmp_path / "cache") | {"AUTORESEARCH_VISIBLE": str(shown)}
    done = run("harness.prepare", *options, env=env)
    said = values(done.stdout)
    assert (plain["visible_documents"], said["visible_documents"]) == ("0", "2")
    assert "2 of 22 validation documents are left out, because files that training can read" in done.stderr
    assert said["data_hash"] != plain["data_hash"]
    described = json.loads(run("harness.describe", env=env | {"AUTORESEARCH_SEQ_LEN": "32"}).stdout)
    assert described["visible_documents"] == 2
    data = cache.load(Path(said["folder"]))
    assert data is not None
    assert data.visible_documents == 2
    write_shard(texts / "b.parquet", kept)
    same = values(run("harness.prepare", *options, env=environment(tmp_path / "same")).stdout)
    assert same["data_hash"] == said["data_hash"]


def test_the_header_of_a_session_has_their_number(repo: Repo) -> None:
    repo.write("description", json.dumps({"visible_documents": 3}))
    settings = (repo.path / "pytest.ini").read_text()
    repo.write("pytest.ini", settings + "autoresearch_describe = cat description\nautoresearch_frozen = description\n")
    repo.commit("A harness")
    repo.run("--max", "0").stdout.fnmatch_lines(["*data: *3 validation documents left out, visible to training*"])
