"""Preparing data: the command, damage, interruption, two at once."""

import contextlib
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from harness_data import CHECKOUT, environment, run, start, values, write_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from harness import cache, draw, rows, workers
from harness.packing import BOS
from harness.prepare import prepare as make
from harness.profiles import named
from harness.shards import Shard

SECRET = b"a" * 32


def prepare(source: Path, cache_folder: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    return run("harness.prepare", "--source", str(source), "--seq-len", "32", *more, env=environment(cache_folder))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("source") / "text", 3000, 3000, 3000)


@pytest.fixture(scope="module")
def prepared(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the command printed, and its messages under `said`."""
    done = prepare(source, tmp_path_factory.mktemp("cache"))
    assert done.returncode == 0, done.stderr
    return values(done.stdout) | {"said": done.stderr}


def test_a_folder_of_parquet_files_becomes_rows_of_both_kinds(prepared: dict[str, str]) -> None:
    data = cache.load(Path(prepared["folder"]))
    assert data is not None
    training, evaluation = data.open_training_rows(), data.read_evaluation_rows()
    for found in (training, evaluation):
        assert found.dtype == np.uint16
        assert found.shape[1] == 33
        assert (found[:, 0] == BOS).all()
        assert found.max() < 2048
        assert not found.flags.writeable
    assert len(training) * 32 == int(prepared["training_tokens"])
    assert len(evaluation) * 32 == data.evaluation_tokens == int(prepared["evaluation_tokens"])
    assert len(data.read_audit_rows()) * 32 == data.audit_tokens == int(prepared["audit_tokens"])
    assert data.read_token_bytes().shape == (2048,)


def test_progress_is_plain_lines_without_a_terminal(prepared: dict[str, str]) -> None:
    lines = prepared["said"].splitlines()
    assert all(line.startswith("harness: ") for line in lines)
    assert "\r" not in prepared["said"]
    assert any("learning a vocabulary of 2048" in line for line in lines)
    assert any("tokenising and packing" in line for line in lines)


def test_a_validation_shard_with_too_little_text_is_said(prepared: dict[str, str]) -> None:
    assert int(prepared["evaluation_tokens"]) < 65_536
    pool, metric, audit = (int(prepared[f"{name}_tokens"]) // 32 for name in ("pool", "evaluation", "audit"))
    assert f"has only {32 * pool:,} tokens; profile cpu needs 65,536 for the metric and as many" in prepared["said"]
    assert metric == pool - 2 * (pool // 5)
    assert 0 < audit < pool - metric, "the rest is fresh"


def test_equal_text_elsewhere_gives_equal_data(prepared: dict[str, str], source: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(source)
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in source.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    again = values(prepare(copy, tmp_path / "cache").stdout)
    assert again["data_hash"] == prepared["data_hash"]
    assert again["folder"] != prepared["folder"]


def test_what_is_made_is_not_made_again_unless_forced(prepared: dict[str, str], source: Path) -> None:
    folder = Path(prepared["folder"])
    made = (folder / cache.TRAINING).stat().st_ino
    again = prepare(source, folder.parent)
    assert (again.returncode, again.stderr) == (0, "")
    assert (folder / cache.TRAINING).stat().st_ino == made
    forced = prepare(source, folder.parent, "--force")
    assert "tokenising" in forced.stderr
    assert values(forced.stdout)["data_hash"] == prepared["data_hash"]


def test_the_tokenizer_never_sees_the_validation_shard(prepared: dict[str, str], tmp_path: Path) -> None:
    # Another validation text must leave tokenizer and training rows as they are.
    folder = Path(prepared["folder"])
    data = cache.load(folder)
    other = write_folder(tmp_path / "text", 3000, 3000, 3000)
    pq.write_table(pa.table({"text": ["zyxwv zyxwv zyxwv " * 500]}), other / "shard_00002.parquet")
    printed = values(prepare(other, tmp_path / "cache").stdout)
    changed = cache.load(Path(printed["folder"]))
    assert data is not None
    assert changed is not None
    for name in (cache.TOKENIZER, cache.TRAINING, cache.TOKEN_BYTES):
        assert changed.sha256[name] == data.sha256[name]
    assert changed.sha256[cache.POOL] != data.sha256[cache.POOL]


def test_evaluation_rows_are_as_many_as_asked_for_and_spread_over_the_shard(tmp_path: Path) -> None:
    source = tmp_path / "text"
    source.mkdir()
    numbers = [" ".join(str(number) for number in range(part, part + 2000)) for part in range(0, 100_000, 2000)]
    pq.write_table(pa.table({"text": numbers[:10]}), source / "a.parquet")
    pq.write_table(pa.table({"text": numbers}), source / "b.parquet")
    done = run("harness.prepare", "--source", str(source), env=environment(tmp_path / "cache"))
    data = cache.load(Path(values(done.stdout)["folder"]))
    assert data is not None
    words = Tokenizer.from_file(str(data.folder / cache.TOKENIZER))
    kinds = [(65_536, data.read_evaluation_rows(SECRET)), (data.audit_tokens, data.read_audit_rows(SECRET))]
    for tokens, found in kinds:
        assert tokens == 65_536
        assert len(found) == 256
        text = [words.decode(row) for row in found.tolist()]
        for thousand in range(10, 100, 10):
            assert any(f" {thousand}{hundred}" in row for row in text for hundred in range(10))
    metric, audit = ({row.tobytes() for row in found} for _, found in kinds)
    assert len(metric) == len(audit) == 256  # all numbers differ
    assert not metric & audit
    fresh, later = ({row.tobytes() for row in data.read_fresh_rows(SECRET, audit=audits)} for audits in (False, True))
    assert len(fresh) == len(later) == 64
    assert not (fresh | later) & (metric | audit)
    assert not fresh & later


@given(pool=st.integers(1, 5000), wanted=st.integers(1, 1000), secret=st.binary(min_size=32, max_size=32))
@settings(deadline=None, max_examples=50)
def test_a_secret_parts_the_pool_into_rows_of_one_use_each(pool: int, wanted: int, secret: bytes) -> None:
    shares = draw.counts(pool, wanted)
    # As from a manifest, which holds what the metric got.
    assert draw.counts(pool, shares.metric) == replace(shares, audit=min(shares.audit, shares.metric))
    assert 0 < shares.metric <= wanted
    parts = [draw.metric_rows(pool, wanted, secret), draw.audit_rows(pool, wanted, secret)]
    parts += [draw.fresh_rows(pool, wanted, secret, audit) for audit in (False, True)]
    drawn = np.concatenate(parts).tolist()
    assert len(set(drawn)) == len(drawn) <= pool
    assert [len(part) for part in parts] == [shares.metric, shares.audit, shares.fresh, shares.fresh]
    if pool >= 10 * wanted:
        assert shares.metric == shares.audit == wanted


def test_another_secret_draws_other_rows_and_the_same_one_the_same() -> None:
    first, again, other = (
        set(draw.metric_rows(30_000, 256, secret).tolist()) for secret in (SECRET, SECRET, b"b" * 32)
    )
    assert first == again
    assert len(first & other) < 20, "two of 256 by chance"
    assert first != set(draw.metric_rows(30_000, 256, b"").tolist())


def test_the_hash_of_the_data_covers_the_pool(prepared: dict[str, str]) -> None:
    data = cache.load(Path(prepared["folder"]))
    assert data is not None
    other = replace(data, sha256=data.sha256 | {cache.POOL: "0" * 64})
    assert other.data_hash != data.data_hash
    assert data.folder / cache.POOL in data.files
    with pytest.raises(cache.HarnessError, match=r"validation\.bin is damaged"):
        other.check()
    with pytest.raises(cache.HarnessError, match=r"validation\.bin is damaged"):
        other.read_audit_rows()


def test_one_row_of_text_is_the_metric_s(tmp_path: Path) -> None:
    tokens = np.arange(33, dtype="<u2")
    tokens.tofile(tmp_path / "part.bin")
    count, _ = rows.join(tmp_path / "pool", [tmp_path / "part.bin"], named("cpu", 32), "validation shard has")
    assert rows.shares_of(count, named("cpu", 32)) == draw.Counts(metric=1, audit=0, fresh=0)
    assert (tmp_path / "pool").read_bytes() == tokens.tobytes()


def test_no_more_validation_text_is_read_than_the_pool_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(draw, "LEAST_POOL_TOKENS", 131_072)
    monkeypatch.setattr(draw, "POOL_FACTOR", 2)
    source = tmp_path / "text"
    source.mkdir()
    pq.write_table(pa.table({"text": ["internationalisation " * 100] * 10}), source / "a.parquet")
    # Two tokens for 21 bytes, fewer than a first look reckons with.
    pq.write_table(
        pa.table({"text": ["internationalisation " * 100] * 3000}), source / "b.parquet", use_dictionary=False
    )
    data = make(named("cpu", 32), str(source))
    said = re.findall(r"tokenising and packing, ([\d,]+) documents", capsys.readouterr().err)
    assert data.evaluation_tokens == 65_536
    assert data.pool_rows * 32 > 131_072
    assert [500 < int(count.replace(",", "")) < 2500 for count in said] == [True, True]


def test_the_data_do_not_depend_on_the_number_of_processes(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(rows, "_PART_BYTES", 4000)
    by_itself = make(named("cpu", 32), str(source))
    monkeypatch.setattr(workers, "_TEXT_BYTES_OF_A_PROCESS", 1)
    for processes in (1, 3):
        assert make(named("cpu", 32), str(source), processes=processes, force=True) == by_itself


def cut_short(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)


def replace_type(path: Path) -> None:
    pq.write_table(pa.table({"text": [1, 2]}), path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut_short, "is damaged"),
        (flip_a_byte, "is damaged"),
        (replace_type, "no column `text` of strings"),
    ],
)
def test_a_damaged_shard_is_one_sentence_that_names_it_and_what_to_type(
    tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    source = write_folder(tmp_path / "text", 500, 500, 500)
    damage(source / "shard_00001.parquet")
    done = prepare(source, tmp_path / "cache")
    assert done.returncode == 1
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith(f"harness: {source / 'shard_00001.parquet'} ")
    assert words in sentence
    assert f"run `python -m harness.prepare --source {source} --profile cpu --seq-len 32`" in sentence
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder / "none", "there is no folder"),
        (lambda folder: write_folder(folder / "one", 100), "has 1 parquet files; at least 2 are needed"),
        (lambda folder: write_folder(folder / "small", 5000, 1), "validation shard has too little text"),
    ],
)
def test_a_source_that_cannot_work_is_one_sentence(tmp_path: Path, make: Callable[[Path], Path], words: str) -> None:
    done = run(
        "harness.prepare", "--source", str(make(tmp_path)), "--seq-len", "2000", env=environment(tmp_path / "cache")
    )
    assert done.returncode == 1
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_killed_preparation_goes_on_where_it_was(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "text", 2000, 100_000, 100_000, 2000)
    whole = values(prepare(source, tmp_path / "whole").stdout)
    process = start("harness.prepare", "--source", str(source), "--seq-len", "32", env=environment(tmp_path / "cache"))
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("cache/*/parts/00000-0000.bin")):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.communicate()
    (folder,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    assert cache.load(folder) is None

    # The finished stages are done with this shard: were any of them done again, its text would be found damaged.
    flip_a_byte(source / "shard_00000.parquet")
    done = prepare(source, tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    assert "learning" not in done.stderr
    assert values(done.stdout)["data_hash"] == whole["data_hash"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [cache.TRAINING, cache.POOL, cache.TOKEN_BYTES, cache.TOKENIZER, "manifest.json"]
    )


def test_two_preparations_at_once_make_the_data_once(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "text", 20_000, 20_000)
    arguments = ("harness.prepare", "--source", str(source))
    both = [start(*arguments, env=environment(tmp_path / "cache")) for _ in range(2)]
    printed = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert printed[0][0] == printed[1][0]
    assert sum("tokenising" in err for _, err in printed) == 1
    assert sum("learning" in err for _, err in printed) == 1


def test_a_preparation_waits_for_another_and_says_so(prepared: dict[str, str], source: Path) -> None:
    folder = Path(prepared["folder"])
    with cache.locked(folder, on_wait=lambda: pytest.fail("nobody else should hold it")):
        process = start("harness.prepare", "--source", str(source), "--seq-len", "32", env=environment(folder.parent))
        assert process.stderr is not None
        assert process.stderr.readline() == "harness: waiting for another preparation of the same data\n"
        assert process.poll() is None
    out, _ = process.communicate(timeout=60)
    assert values(out)["data_hash"] == prepared["data_hash"]


def test_damaged_rows_are_one_sentence_with_the_command_that_makes_them_anew(source: Path, tmp_path: Path) -> None:
    folder = Path(values(prepare(source, tmp_path).stdout)["folder"])
    data = cache.load(folder)
    assert data is not None
    command = f"run `python -m harness.prepare --source {source} --profile cpu --seq-len 32 --force`"
    cut_short(folder / cache.TRAINING)
    flip_a_byte(folder / cache.POOL)
    (folder / cache.TOKEN_BYTES).unlink()
    for read in (data.open_training_rows, data.read_evaluation_rows, data.read_token_bytes):
        with pytest.raises(cache.HarnessError, match=" is damaged; ") as caught:
            read()
        assert command in str(caught.value)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(cache.HarnessError, match=f"run `rm -r {folder}`"):
        cache.load(folder)


def test_a_cache_that_cannot_be_written_is_one_sentence(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = prepare(source, tmp_path / "file" / "cache")
    assert done.returncode == 1
    assert str(tmp_path / "file") in done.stderr
    assert "AUTORESEARCH_CACHE=FOLDER" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_data_prepared_last_are_used_unless_the_environment_names_others(
    prepared: dict[str, str], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_folder(tmp_path / "other", 800, 800)
    first = Path(values(prepare(source, tmp_path / "cache").stdout)["folder"])
    second = Path(values(prepare(other, tmp_path / "cache").stdout)["folder"])
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("AUTORESEARCH_DATA", raising=False)
    profile = named("cpu", 32)
    assert cache.find(profile).folder == second
    monkeypatch.setenv("AUTORESEARCH_DATA", first.name)
    assert cache.find(profile).folder == first
    monkeypatch.delenv("AUTORESEARCH_DATA")
    prepare(source, tmp_path / "cache")
    assert cache.find(profile).folder == first
    monkeypatch.setenv("AUTORESEARCH_DATA", "nowhere")
    with pytest.raises(cache.HarnessError, match=r"there is no nowhere in .*; unset AUTORESEARCH_DATA and run"):
        cache.find(profile)
    monkeypatch.setenv("AUTORESEARCH_DATA", second.name)
    with pytest.raises(cache.HarnessError, match="do not fit profile cpu with sequence length 64"):
        cache.find(named("cpu", 64))


def test_help_reads_like_a_tool(tmp_path: Path) -> None:
    done = run("harness.prepare", "--help", env=environment(tmp_path))
    assert done.returncode == 0
    for words in (
        "--source",
        "--workers",
        "--force",
        "default: climbmix",
        "examples:",
        "AUTORESEARCH_CACHE",
        "HF_HOME",
    ):
        assert words in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 90
    assert not list(tmp_path.iterdir())


def test_a_bar_is_drawn_on_a_terminal(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "text", 500, 500)
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "harness.prepare", "--source", str(source)],
        cwd=CHECKOUT,
        env=environment(tmp_path / "cache"),
        stdout=subprocess.DEVNULL,
        stderr=end,
    )
    os.close(end)
    printed = b""
    # A terminal whose last program has ended gives an input/output error.
    with contextlib.suppress(OSError):
        while received := os.read(terminal, 65536):
            printed += received
    os.close(terminal)
    assert process.wait(timeout=60) == 0
    assert b"tokenising and packing: 100%|" in printed


def test_validation_text_is_shared_out_in_parts_that_hold_the_same_documents_in_the_same_order() -> None:
    def taken(text_bytes: int) -> tuple[int, list[int]]:
        shard = Shard(Path("shard"), "text", documents=1000, text_bytes=text_bytes, remedy="")
        parts = rows._validation(Path("parts"), shard, text_bytes // 2)
        assert len({part.path for part in parts}) == len(parts)
        return len(parts), [document for part in parts for one in part.rows for document in one]

    few, many = taken(rows._PART_BYTES), taken(20 * rows._PART_BYTES)
    assert (few[0], many[0]) == (1, 10)
    assert few[1] == many[1]
    assert taken(10_000 * rows._PART_BYTES)[0] == 32
