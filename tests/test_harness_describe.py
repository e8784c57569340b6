"""`describe`, over one real preparation of the embedded corpus that it makes itself and that all these tests read."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from harness_data import CHECKOUT, environment, run, values, write_folder

from harness import cache, corpus, describe
from harness.errors import HarnessError
from harness.scorer import PRINTS

pytestmark = pytest.mark.training


@pytest.fixture(scope="module")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("embedded")


@pytest.fixture(scope="module")
def described(cache_folder: Path) -> dict[str, object]:
    done = run("harness.describe", env=environment(cache_folder))
    assert done.returncode == 0, done.stderr
    assert "reading the Python source on this machine" in done.stderr
    said: dict[str, object] = json.loads(done.stdout)
    return said


@pytest.fixture(scope="module")
def embedded(described: dict[str, object], cache_folder: Path) -> cache.Data:
    environment = described["environment"]
    assert isinstance(environment, dict)
    data = cache.load(cache_folder / environment["AUTORESEARCH_DATA"])
    assert data is not None
    return data


def test_describe_says_what_a_session_must_know(
    described: dict[str, object], embedded: cache.Data, cache_folder: Path
) -> None:
    assert described.pop("hardware_key")
    names = (
        "manifest.json",
        *sorted((cache.TRAINING, cache.POOL, cache.TOKEN_BYTES, cache.TOKENIZER)),
    )
    assert described.pop("data_files") == [str(embedded.folder / name) for name in names]
    *shard, first = (hidden := described.pop("hidden"))[:2]  # type: ignore[index]
    assert shard == [str(max((embedded.folder / "shards").glob("*.parquet")))]
    assert Path(first).name in corpus.VALIDATION_FOLDERS
    assert all(Path(path).exists() for path in hidden)  # type: ignore[attr-defined]
    interface = described.pop("interface")
    assert isinstance(interface, str)
    assert "harness.begin() -> " in interface
    assert "harness.HarnessError\n" in interface
    assert described == {
        "profile": "cpu",
        "device": "cpu",
        "budget_seconds": 15.0,
        "memory_limit_mb": 4096,
        "data_hash": embedded.data_hash,
        "sequence_length": 256,
        "vocab_size": 2048,
        "evaluation_tokens": 65_536,
        "audit_tokens": 65_536,
        "pool_tokens": embedded.pool_rows * 256,
        "secret": True,
        "visible_documents": 0,
        "score": ["python", "-m", "harness.scorer"],
        "score_waits": True,
        "scorer_prints": list(PRINTS),
        "training_rows": str(embedded.folder / cache.TRAINING),
        "environment": {
            "AUTORESEARCH_PROFILE": "cpu",
            "AUTORESEARCH_SEQ_LEN": "256",
            "AUTORESEARCH_CACHE": str(cache_folder),
            "AUTORESEARCH_DATA": embedded.folder.name,
        },
        "audit_environment": {"AUTORESEARCH_ROWS": "audit"},
        "retry_out_of_memory": {"AUTORESEARCH_HALVE_BATCH": "1"},
    }


def test_described_again_it_is_the_same_and_silent(described: dict[str, object], cache_folder: Path) -> None:
    again = run("harness.describe", env=environment(cache_folder))
    assert again.stderr == ""
    assert json.loads(again.stdout)["data_hash"] == described["data_hash"]


@pytest.mark.parametrize(
    ("batch", "passed_on"), [("16", {"AUTORESEARCH_DEVICE_BATCH": "16"}), ("", {}), ("many", None)]
)
def test_a_device_batch_of_the_user_s_holds_for_the_campaign(
    described: dict[str, object], cache_folder: Path, monkeypatch: pytest.MonkeyPatch, batch: str, passed_on: object
) -> None:
    for name, value in environment(cache_folder, AUTORESEARCH_DEVICE_BATCH=batch).items():
        monkeypatch.setenv(name, value)
    if passed_on is None:
        with pytest.raises(HarnessError, match="AUTORESEARCH_DEVICE_BATCH='many' is not a number of rows above 0"):
            describe.describe()
    else:
        assert describe.describe()["environment"] == {**described["environment"], **passed_on}


def test_data_removed_by_hand_are_made_again_and_are_equal(
    described: dict[str, object], embedded: cache.Data, cache_folder: Path
) -> None:
    (embedded.folder / "manifest.json").unlink()
    again = run("harness.describe", env=environment(cache_folder))
    assert json.loads(again.stdout)["data_hash"] == described["data_hash"]


def test_data_that_were_changed_are_not_described(embedded: cache.Data, cache_folder: Path, tmp_path: Path) -> None:
    copied = tmp_path / embedded.folder.name
    shutil.copytree(embedded.folder, copied)
    rows = bytearray((copied / cache.TRAINING).read_bytes())
    rows[1000] ^= 1
    (copied / cache.TRAINING).write_bytes(rows)
    done = run("harness.describe", env=environment(tmp_path, AUTORESEARCH_DATA=embedded.folder.name))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{copied / cache.TRAINING} is damaged; run `" in done.stderr


def test_no_document_is_in_both_training_and_validation(embedded: cache.Data) -> None:
    *training, validation = sorted((embedded.folder / "shards").glob("*.parquet"))
    trained = {text for path in training for text in pq.read_table(path)["text"].to_pylist()}
    validated = set(pq.read_table(validation)["text"].to_pylist())
    assert len(trained) > 300
    assert len(validated) > 50
    assert not trained & validated


def test_there_is_text_for_more_than_a_night_of_steps(embedded: cache.Data) -> None:
    assert embedded.training_rows * 256 > 2_000_000


def test_data_of_another_source_that_were_removed_are_a_sentence_and_not_replaced(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "text", 500, 500)
    made = run("harness.prepare", "--source", str(source), env=environment(tmp_path))
    shutil.rmtree(values(made.stdout)["folder"])
    done = run("harness.describe", env=environment(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    command = f"python -m harness.prepare --source {source} --profile cpu --seq-len 256"
    assert done.stderr.endswith(f"run `{command}`.\n")
    assert len(done.stderr.splitlines()) == 1


def test_describing_what_is_prepared_imports_nothing_slow(described: dict[str, object], cache_folder: Path) -> None:
    program = (
        "import sys, harness.describe; harness.describe.describe();"
        "print(sorted({'torch', 'pyarrow', 'tokenizers', 'pytest', 'pytest_autoresearch'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=CHECKOUT,
        env=environment(cache_folder),
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_no_module_of_the_harness_knows_pytest_or_the_plugin() -> None:
    stems = {path.stem for path in (CHECKOUT / "harness").glob("[a-z]*.py")}
    if importlib.util.find_spec("triton") is None:  # comes with PyTorch for CUDA
        stems.remove("device_loss")
    names = ", ".join(f"harness.{stem}" for stem in sorted(stems))
    program = f"import sys, {names}; print({{'pytest', 'pytest_autoresearch'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")
