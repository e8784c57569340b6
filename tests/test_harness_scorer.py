"""The scorer as a session runs it: a process of its own, real files, models whose metric is known in closed form."""

import json
import math
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from harness_data import environment, run, values, write_folder

import harness
from harness import cache, model_server, probe, scorer
from harness.exchange import Job
from harness.memorised import LEAST_ROWS
from harness.scorer import measure, rows_of_environment
from harness.scorer_options import ScorerOptions, deadlines_of_environment, options_of_environment
from harness.server_process import Deadlines

pytestmark = pytest.mark.training

VOCAB = 2048
SEQUENCE = 32

TABLE_MODEL = """
import harness
import torch

print("val_bpb: 0.000001")


class Model(torch.nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(logits)

    def forward(self, tokens):
        return self.logits.expand(*tokens.shape, -1)


def load_model(path, device):
    print("val_bpb: 0.000001", flush=True)
    return Model(torch.load(path)).to(device)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> cache.Data:
    folder = tmp_path_factory.mktemp("scorer")
    source = write_folder(folder / "text", 5000, 3000)
    done = run("harness.prepare", "--source", str(source), env=score_environment(folder))
    found = cache.load(Path(values(done.stdout)["folder"]))
    assert found is not None
    return found


@pytest.fixture
def candidate(tmp_path: Path) -> Path:
    """A folder as a run leaves it: `train.py`, and `model.pt` with uniform logits."""
    import torch

    folder = tmp_path / "candidate"
    folder.mkdir()
    (folder / "train.py").write_text(TABLE_MODEL)
    torch.save(torch.zeros(VOCAB), folder / "model.pt")
    return folder


def score_environment(cache_folder: Path, **more: str) -> dict[str, str]:
    return environment(cache_folder, AUTORESEARCH_SEQ_LEN=str(SEQUENCE), **more)


@pytest.fixture
def under_profile(data: cache.Data, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in score_environment(data.folder.parent).items():
        monkeypatch.setenv(name, value)


def scored(candidate: Path, data: cache.Data, **more: str) -> "tuple[int, str, str]":
    given = {"AUTORESEARCH_OUT": str(candidate), "AUTORESEARCH_CANDIDATE": str(candidate)}
    done = run("harness.scorer", env=score_environment(data.folder.parent, **given, **more))
    return done.returncode, done.stdout, done.stderr


def closed_form(data: cache.Data, logits: np.ndarray, rows: "np.ndarray | None" = None) -> float:
    """bits per byte of a model that gives the same logits everywhere, on the metric's rows where none are given."""
    targets = (data.read_evaluation_rows() if rows is None else rows)[:, 1:].astype(int).ravel()
    sizes = data.read_token_bytes()[targets]
    nats = np.log(np.exp(logits).sum()) - logits
    return float(nats[targets][sizes > 0].sum() / math.log(2) / sizes.sum())


def test_a_uniform_model_scores_log2_of_the_vocabulary(candidate: Path, data: cache.Data) -> None:
    code, out, err = scored(candidate, data)
    assert code == 0, err
    printed = values(out)
    seconds = ["score_seconds", "load_seconds", "evaluation_seconds"]
    assert list(printed) == ["val_bpb", *seconds, "evaluation_tokens", "score_transport"]
    assert 0 < float(printed["evaluation_seconds"]) < float(printed["score_seconds"])
    assert printed["val_bpb"] == f"{closed_form(data, np.zeros(VOCAB)):.6f}"
    assert int(printed["evaluation_tokens"]) == data.evaluation_tokens
    # What the candidate prints goes nowhere: the model server has seen validation text.
    assert err == ""


@pytest.mark.usefixtures("under_profile")
def test_a_model_of_token_frequencies_scores_their_cross_entropy(candidate: Path, data: cache.Data) -> None:
    import torch

    counts = np.bincount(data.open_training_rows().ravel(), minlength=VOCAB) + 1.0
    logits = np.log(counts)
    torch.save(torch.from_numpy(logits).float(), candidate / "model.pt")
    score = measure(candidate / "model.pt", candidate / "train.py")
    assert score.val_bpb == pytest.approx(closed_form(data, logits), abs=2e-6)
    assert score.evaluation_tokens == data.evaluation_tokens
    assert closed_form(data, logits) < closed_form(data, np.zeros(VOCAB)) - 0.5


def test_an_audit_scores_on_other_rows_and_is_the_same_otherwise(candidate: Path, data: cache.Data) -> None:
    code, out, err = scored(candidate, data, AUTORESEARCH_ROWS="audit")
    assert (code, err) == (0, "")
    usual, audit = values(scored(candidate, data)[1]), values(out)
    assert list(audit) == list(usual)
    zeros = np.zeros(VOCAB)
    assert audit["val_bpb"] == f"{closed_form(data, zeros, data.read_audit_rows()):.6f}" != usual["val_bpb"]
    assert int(audit["evaluation_tokens"]) == data.audit_tokens
    assert (audit["score_transport"], data.audit_tokens > 0) == (usual["score_transport"], True)


@pytest.mark.usefixtures("under_profile")
def test_rows_that_there_are_not_are_a_sentence(data: cache.Data, monkeypatch: pytest.MonkeyPatch) -> None:
    metric, audit = (
        {row.tobytes() for row in found} for found in (data.read_evaluation_rows(), data.read_audit_rows())
    )
    assert not metric & audit
    assert len(rows_of_environment(data)) == len(data.read_evaluation_rows())
    monkeypatch.setenv("AUTORESEARCH_ROWS", "all")
    with pytest.raises(harness.HarnessError, match="AUTORESEARCH_ROWS='all' is not valid; set it to `audit`"):
        rows_of_environment(data)
    monkeypatch.setenv("AUTORESEARCH_ROWS", "audit")
    monkeypatch.setattr(cache.Data, "read_audit_rows", lambda self, secret: np.empty((0, SEQUENCE + 1), np.uint16))
    with pytest.raises(harness.HarnessError, match="too little text for audit rows; unset AUTORESEARCH_ROWS"):
        rows_of_environment(data)


@pytest.mark.usefixtures("under_profile")
def test_a_training_script_run_by_hand_gets_the_same_numbers_or_the_scorer_s_sentence(
    candidate: Path, data: cache.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(candidate)
    printed = harness.score("model.pt", "train.py")
    assert printed["val_bpb"] == pytest.approx(closed_form(data, np.zeros(VOCAB)), abs=1e-6)
    assert printed["evaluation_tokens"] == data.evaluation_tokens
    with pytest.raises(harness.HarnessError, match=f"there is no {candidate / 'nothing.pt'} to score"):
        harness.score("nothing.pt", "train.py")


def test_the_candidate_s_copy_of_the_harness_is_never_used(candidate: Path, data: cache.Data) -> None:
    (candidate / "harness").mkdir()
    for name in ("__init__", "metric", "scorer", "cache"):
        (candidate / "harness" / f"{name}.py").write_text("print('val_bpb: 0.5'); raise SystemExit(0)\n")
    (candidate / "torchvision.py").write_text("raise SystemExit('a module of the candidate was imported')\n")
    (candidate / "train.py").write_text(
        "import sys, harness, harness.metric\n"
        "try:\n    import torchvision\nexcept ImportError:\n    pass\n" + TABLE_MODEL
    )
    code, out, err = scored(candidate, data, PYTHONPATH=str(candidate))
    assert code == 0, err
    assert values(out)["val_bpb"] == f"{closed_form(data, np.zeros(VOCAB)):.6f}"
    assert not (candidate / "__pycache__").exists()


FORWARD = "class M(torch.nn.Module):\n    def forward(self, tokens):\n        "
LOAD = "\n\n\ndef load_model(path, device):\n    return M()\n"


@pytest.mark.parametrize(
    ("train", "stage", "words"),
    [
        ("def load_model(path, device)\n", "import", "SyntaxError"),
        ("raise SystemExit(0)\n", "import", "SystemExit: 0"),
        ("x = 1\n", "import", r"no function load_model\(path, device\)"),
        ("def load_model(path, device):\n    return torch.load('nowhere')\n", "load", "FileNotFoundError"),
        ("def load_model(path, device):\n    return 3\n", "load", "returned int, not a torch Module"),
        (
            FORWARD + "return torch.zeros(*tokens.shape, 5)" + LOAD,
            "answer",
            r"shape \[2, 32, 5\], not \[2, 32, 2048\]",
        ),
        (FORWARD + "return torch.zeros(2, 32, 2048, dtype=int)" + LOAD, "answer", "logits of type torch.int64"),
        (FORWARD + "return (tokens, None)" + LOAD, "answer", "tuple, not a tensor"),
        (FORWARD + "return tokens @ tokens" + LOAD, "call", "RuntimeError"),
    ],
)
def test_what_is_wrong_with_a_model_is_found_before_it_sees_text(
    candidate: Path, train: str, stage: str, words: str
) -> None:
    (candidate / "train.py").write_text("import torch\n\n\n" + train)
    job = Job(str(candidate / "train.py"), str(candidate / "model.pt"), "cpu", 2, SEQUENCE, VOCAB)
    with pytest.raises(model_server.NotReady, match=words) as caught:
        model_server.rehearse(model_server.load(job), job)
    assert caught.value.stage == stage


@pytest.mark.usefixtures("under_profile")
@pytest.mark.parametrize(
    ("train", "words"),
    [
        (
            "raise ValueError('first\\n  second ' + 'third ' * 100)\n",
            r"train.py cannot be imported: ValueError: first second (third )+\[\.\.\.\]\.$",
        ),
        (
            # Only text, unlike the made-up tokens of the rehearsal, is taken for NaN.
            FORWARD + "return torch.full((*tokens.shape, 2048), float('nan') if tokens.any() else 0.0)" + LOAD,
            r"model.pt has no score: the model's logits are not finite\.$",
        ),
    ],
)
def test_a_model_that_cannot_be_scored_is_one_sentence(candidate: Path, train: str, words: str) -> None:
    (candidate / "train.py").write_text("import torch\n\n\n" + train)
    with pytest.raises(harness.HarnessError, match=words) as caught:
        measure(candidate / "model.pt", candidate / "train.py")
    assert "\n" not in str(caught.value)


def test_a_missing_model_is_one_sentence_and_exit_code_1(candidate: Path, data: cache.Data) -> None:
    (candidate / "model.pt").unlink()
    sentence = f"harness: there is no {candidate / 'model.pt'} to score.\n"
    assert scored(candidate, data) == (1, "", sentence)
    done = run("harness.scorer", env=score_environment(data.folder.parent))
    assert (done.returncode, done.stdout) == (1, "")
    assert "give --model PATH or set AUTORESEARCH_OUT" in done.stderr


def test_validation_rows_that_were_changed_are_refused(
    candidate: Path, data: cache.Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = tmp_path / "cache" / data.folder.name
    shutil.copytree(data.folder, copied)
    rows = np.fromfile(copied / cache.POOL, dtype="<u2")
    rows[5] = 1
    rows.tofile(copied / cache.POOL)
    changed = score_environment(tmp_path / "cache", AUTORESEARCH_DATA=data.folder.name)
    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(harness.HarnessError, match=f"{copied / cache.POOL} is damaged"):
        measure(candidate / "model.pt", candidate / "train.py")


@pytest.fixture
def served_by(data: cache.Data, under_profile: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Chooses a server in place of the real one, from those that speak the protocol in numpy alone."""

    def choose(name: str) -> None:
        rogue = Path(__file__).with_name("rogue_server.py")
        monkeypatch.setenv("AUTORESEARCH_SERVER_PREFIX", json.dumps([sys.executable, str(rogue), name]))

    return choose


def test_every_number_that_the_scorer_prints_is_named() -> None:
    printed = re.findall(r'print\(f"(\w+):', Path(scorer.__file__).read_text("utf-8"))
    assert sorted(printed) == sorted(scorer.PRINTS)


def test_a_model_below_the_mark_is_believed_after_a_probe(
    candidate: Path, data: cache.Data, tmp_path: Path, served_by: Callable[[str], None]
) -> None:
    served_by("behaves")
    files = candidate / "model.pt", candidate / "train.py"
    first = measure(*files, ScorerOptions(nats=tmp_path / "nats.npy", calibrate=True, probe_below=0.0))
    assert first.probe_threshold == probe.SMALLEST_THRESHOLD
    assert first.probe is None
    nats = np.load(tmp_path / "nats.npy")
    sizes = data.read_token_bytes()[data.read_evaluation_rows()[:, 1:].astype(int)]
    assert nats.dtype == np.float32
    assert nats.shape == sizes.shape
    assert first.val_bpb == pytest.approx(nats.astype(float).sum() / math.log(2) / sizes.sum(), rel=1e-9)

    np.save(tmp_path / "incumbent.npy", nats + 0.1)
    options = ScorerOptions(incumbent_nats=tmp_path / "incumbent.npy", probe_below=math.inf, probe_threshold=1e-3)
    second = measure(*files, options)
    assert second.val_bpb == first.val_bpb
    assert second.probe is not None
    assert (second.probe.changed, second.probe.leaks) == (0, 0)
    assert second.probe.cuts > len(nats) // 2

    np.save(tmp_path / "incumbent.npy", nats[1:])
    with pytest.raises(harness.HarnessError, match="losses of other data; unset AUTORESEARCH_INCUMBENT_NATS"):
        measure(*files, options)


def test_a_model_that_is_better_on_its_own_rows_alone_has_no_score(
    candidate: Path, data: cache.Data, tmp_path: Path, served_by: Callable[[str], None]
) -> None:
    served_by("behaves")
    files = candidate / "model.pt", candidate / "train.py"
    usual = measure(*files, ScorerOptions(nats=tmp_path / "usual.npy"))
    measure(*files, ScorerOptions(nats=tmp_path / "first.npy", fresh=True))
    first, usual_nats = np.load(tmp_path / "first.npy"), np.load(tmp_path / "usual.npy")
    rows, fresh = len(usual_nats), len(data.read_fresh_rows())
    assert fresh >= LEAST_ROWS
    assert (len(first), usual.look) == (rows + fresh, None)
    np.testing.assert_array_equal(first[:rows], usual_nats)

    options = ScorerOptions(
        nats=tmp_path / "nats.npy", probe_below=math.inf, probe_threshold=1e-3, baseline_nats=tmp_path / "baseline.npy"
    )
    np.save(tmp_path / "baseline.npy", first + 0.1)
    found = measure(*files, options)
    assert found.look is not None
    assert (found.look.rows, found.look.excess) == (fresh, pytest.approx(0, abs=0.1))
    assert found.probe is not None
    (tmp_path / "nats.npy").unlink()

    first[:rows] += 100  # the model's losses are some 200 nats
    np.save(tmp_path / "baseline.npy", first)
    with pytest.raises(harness.HarnessError, match=r"^rejected: memorised: it gains .*\.$"):
        measure(*files, options)
    assert not (tmp_path / "nats.npy").exists()

    np.save(tmp_path / "baseline.npy", first[:rows])
    with pytest.raises(harness.HarnessError, match="losses of other data; unset AUTORESEARCH_BASELINE_NATS"):
        measure(*files, options)


@pytest.mark.parametrize("name", ["looks ahead", "keeps state"])
def test_a_model_that_the_probe_rejects_has_no_score_and_leaves_nothing(
    candidate: Path, tmp_path: Path, served_by: Callable[[str], None], name: str
) -> None:
    served_by(name)
    options = ScorerOptions(nats=tmp_path / "nats.npy", probe_below=math.inf, probe_threshold=1e-3)
    with pytest.raises(harness.HarnessError, match=rf"^rejected: {name}: .*\.$"):
        measure(candidate / "model.pt", candidate / "train.py", options)
    assert not (tmp_path / "nats.npy").exists()


def test_a_model_may_take_a_little_longer_than_the_baseline_did(monkeypatch: pytest.MonkeyPatch) -> None:
    assert deadlines_of_environment() == Deadlines()
    monkeypatch.setenv("AUTORESEARCH_BUDGET", "300")
    monkeypatch.setenv("AUTORESEARCH_BASELINE_LOAD_SECONDS", "30")
    monkeypatch.setenv("AUTORESEARCH_BASELINE_EVALUATION_SECONDS", "7")
    assert deadlines_of_environment() == Deadlines(load_seconds=66.0, total_seconds=27.0)
    monkeypatch.setenv("AUTORESEARCH_BUDGET", "15")
    monkeypatch.setenv("AUTORESEARCH_BASELINE_LOAD_SECONDS", "0.5")
    assert deadlines_of_environment().load_seconds == 6.0


@pytest.mark.usefixtures("under_profile")
def test_a_model_that_is_restored_too_slowly_has_no_score(candidate: Path) -> None:
    slow = TABLE_MODEL.replace('    print("val_bpb: 0.000001", flush=True)\n', "    import time\n    time.sleep(60)\n")
    (candidate / "train.py").write_text(slow)
    with pytest.raises(harness.HarnessError, match=r"has no score: its model was not restored in time\.$"):
        measure(candidate / "model.pt", candidate / "train.py", deadlines=Deadlines(load_seconds=0.5))


def test_a_session_s_wishes_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert options_of_environment() == ScorerOptions()
    monkeypatch.setenv("AUTORESEARCH_PROBE_BELOW", "0.98")
    with pytest.raises(harness.HarnessError, match="set AUTORESEARCH_PROBE_THRESHOLD"):
        options_of_environment()
    monkeypatch.setenv("AUTORESEARCH_PROBE_THRESHOLD", "0.002")
    monkeypatch.setenv("AUTORESEARCH_NATS", "/nats.npy")
    monkeypatch.setenv("AUTORESEARCH_INCUMBENT_NATS", "/best.npy")
    expected = ScorerOptions(Path("/nats.npy"), Path("/best.npy"), probe_below=0.98, probe_threshold=0.002)
    assert options_of_environment() == expected
    monkeypatch.setenv("AUTORESEARCH_PROBE_BELOW", "nan")
    with pytest.raises(harness.HarnessError, match="AUTORESEARCH_PROBE_BELOW='nan' is not a number"):
        options_of_environment()
