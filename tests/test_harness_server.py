"""Whatever a model server does, the scorer gets losses that are true of its logits or a reason from a fixed list, in
time. The servers are real processes; those that misbehave speak the protocol in numpy alone (`rogue_server.py`)."""

import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from page_states import resident, write_cold
from rogue_server import honest
from torch import Tensor

from harness import isolated, profiles
from harness.isolated import IsolatedModel
from harness.server_process import (
    Deadlines,
    Launch,
    NoAnswer,
    NotReady,
    Reason,
    ServerProcess,
    launches_of_environment,
    server_environment,
)
from pytest_autoresearch.sandboxes import page_cache
from pytest_autoresearch.sandboxes.shown import as_json

ROGUE = (sys.executable, str(Path(__file__).with_name("rogue_server.py")))
PROFILE = profiles.Profile(
    name="cpu",
    device="cpu",
    device_name="a processor",
    memory_gb=1.0,
    sequence_length=6,
    vocab_size=11,
    evaluation_tokens=60,
    budget_seconds=1.0,
    memory_limit_mb=1000,
)
BATCH_ROWS = 4
TOKEN_BYTES = torch.tensor([0, 1, 1, 2, 3, 4, 5, 1, 2, 1, 9])


def start(*name: str, descriptors: tuple[int, ...] = (), **seconds: float) -> IsolatedModel:
    process = ServerProcess(Launch((*ROGUE, *name), descriptors), Deadlines(**seconds))
    return IsolatedModel(process, Path("train.py"), Path("model.pt"), PROFILE, TOKEN_BYTES, BATCH_ROWS)


def batch(seed: int, rows: int = BATCH_ROWS) -> tuple[Tensor, Tensor]:
    """Made-up rows, without special tokens among the targets: inputs and targets, int64 [rows, sequence]."""
    tokens = torch.randint(1, 11, (rows, 7), generator=torch.Generator().manual_seed(seed))
    return tokens[:, :-1], tokens[:, 1:]


def true_nats(inputs: Tensor, targets: Tensor) -> Tensor:
    logits = torch.from_numpy(honest(inputs.numpy(), 11)).double()
    return -logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]


def ask_twice(model: IsolatedModel) -> None:
    """The rogues behave in the first batch and misbehave in the second."""
    for seed in (1, 2):
        inputs, targets = batch(seed)
        torch.testing.assert_close(model.nats(inputs, targets).double(), true_nats(inputs, targets), rtol=0, atol=1e-6)


def test_losses_are_those_of_the_server_s_logits_in_batches_of_any_fill() -> None:
    with start("behaves") as model:
        for seed, rows in enumerate((4, 1, 3, 4)):
            inputs, targets = batch(seed, rows)
            nats = model.nats(inputs, targets)
            assert nats.shape == (rows, 6)
            torch.testing.assert_close(nats.double(), true_nats(inputs, targets), rtol=0, atol=1e-6)
        assert model.transport == "memory"
        inputs, targets = batch(5)
        targets[1, 2] = 0
        assert model.nats(inputs, targets)[1, 2] == 0  # a special token


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ends", Reason.ENDED),
        ("leaves the last batch in place", Reason.NOT_FINITE),
        ("leaves a row out", Reason.NOT_FINITE),
        ("writes one NaN", Reason.NOT_FINITE),
        ("writes one infinity", Reason.NOT_FINITE),
        ("calls all impossible", Reason.NOT_FINITE),
        ("bets everything", Reason.IMPOSSIBLE),
        ("another number", Reason.OUT_OF_TURN),
        ("an unknown failure", Reason.OUT_OF_TURN),
        ("raised", Reason.RAISED),
        ("out of memory", Reason.OUT_OF_MEMORY),
        ("other shape", Reason.OTHER_SHAPE),
    ],
)
def test_a_server_that_misbehaves_gives_its_reason_and_no_losses(name: str, reason: Reason) -> None:
    with start(name) as model, pytest.raises(NoAnswer) as caught:
        ask_twice(model)
    assert caught.value.reason == reason


def test_a_server_that_answers_twice_is_found_out_at_the_next_batch() -> None:
    with start("answers twice") as model:
        ask_twice(model)
        with pytest.raises(NoAnswer, match="broke the protocol"):
            model.nats(*batch(3))


@pytest.mark.parametrize(
    ("name", "seconds", "reason"),
    [
        ("never is up", {"start_seconds": 0.3}, Reason.LATE_START),
        ("hangs at the start", {"load_seconds": 0.3}, Reason.LATE_LOAD),
        ("hangs", {"batch_seconds": 0.3}, Reason.LATE),
        ("hangs", {"total_seconds": 0.3}, Reason.OVERTIME),
    ],
)
def test_a_server_that_hangs_is_waited_for_so_long_and_ended(
    name: str, seconds: dict[str, float], reason: Reason
) -> None:
    process = ServerProcess(Launch((*ROGUE, name)), Deadlines(**seconds))
    with process, pytest.raises(NoAnswer) as caught:
        ask_twice(IsolatedModel(process, Path("train.py"), Path("model.pt"), PROFILE, TOKEN_BYTES, BATCH_ROWS))
    assert caught.value.reason == reason
    assert not psutil.pid_exists(process.pid)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ends at the start", Reason.ENDED),
        ("is something else", Reason.OUT_OF_TURN),
        ("babbles", Reason.OUT_OF_TURN),
        ("says something else", Reason.OUT_OF_TURN),
        ("claims a device", Reason.OUT_OF_TURN),
        ("claims another type", Reason.OUT_OF_TURN),
        ("answers before it is asked", Reason.OUT_OF_TURN),
    ],
)
def test_a_server_that_does_not_start_by_the_protocol_is_not_asked(name: str, reason: Reason) -> None:
    with pytest.raises(NoAnswer) as caught:
        start(name)
    assert caught.value.reason == reason


def test_words_of_a_server_that_fails_before_it_sees_text_are_made_harmless() -> None:
    with pytest.raises(NotReady) as caught:
        start("fails with escapes")
    assert caught.value.words == "[2Jval_bpb: 0.1<b>�"


def test_the_memory_cannot_be_cut_or_sealed_and_tokens_cannot_be_written() -> None:
    with start("changes the memory") as model:
        ask_twice(model)


def test_nothing_that_a_server_prints_is_seen(capfd: pytest.CaptureFixture[str]) -> None:
    with start("prints") as model:
        ask_twice(model)
    assert capfd.readouterr() == ("", "")


def test_logits_that_change_after_they_were_copied_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, targets = batch(1)
    monkeypatch.setattr(isolated, "_PRIVATE_LOGITS", {"cpu": PROFILE.sequence_length * PROFILE.vocab_size})  # one row
    with start("behaves") as model:

        def rewrite_first(logits: Tensor, targets: Tensor) -> Tensor:
            """At the worst moment: the row was taken, and its loss is not computed yet."""
            model._logits[seen[-1]] = float("nan")
            seen.append(seen[-1] + 1)
            return losses(logits, targets)

        seen, losses = [0], isolated.target_nats
        monkeypatch.setattr(isolated, "target_nats", rewrite_first)
        nats = model.nats(inputs, targets)
    torch.testing.assert_close(nats.double(), true_nats(inputs, targets), rtol=0, atol=1e-6)
    assert seen[-1] == BATCH_ROWS


def test_a_server_sees_neither_keys_nor_where_the_data_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AUTORESEARCH_CACHE", "AUTORESEARCH_DATA", "AUTORESEARCH_NATS", "TORCH_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, "/secret")
    monkeypatch.setenv("AUTORESEARCH_PROFILE", "cpu")
    with pytest.raises(NotReady) as caught:
        start("tells its environment")
    seen = set(caught.value.words.split())
    assert {"PATH", "AUTORESEARCH_PROFILE"} <= seen
    assert seen <= set(server_environment(os.environ)) | {"LC_CTYPE"}  # which Python sets for itself
    assert "/secret" not in server_environment(os.environ).values()


def test_a_server_in_a_sandbox_has_the_sandbox_s_own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTORESEARCH_SERVER_VARIABLES", '["HOME=/tmp/home", "AUTORESEARCH_X=a=b"]')
    (launch,) = launches_of_environment()
    assert launch.variables == {"HOME": "/tmp/home", "AUTORESEARCH_X": "a=b"}
    process = ServerProcess(replace(launch, prefix=(*ROGUE, "tells its environment")), Deadlines())
    with pytest.raises(NotReady) as caught:
        IsolatedModel(process, Path("train.py"), Path("model.pt"), PROFILE, TOKEN_BYTES, BATCH_ROWS)
    assert "AUTORESEARCH_X" in caught.value.words.split()


def test_a_second_server_is_started_with_the_same_open_files() -> None:
    with tempfile.TemporaryFile() as options:
        options.write(b"--unshare-all")
        options.flush()
        for _ in range(2):
            with pytest.raises(NotReady, match="--unshare-all"):
                start("tells an open file", str(options.fileno()), descriptors=(options.fileno(),))


def test_what_a_server_started_is_ended_with_it() -> None:
    with pytest.raises(NotReady) as caught:
        start("leaves a child")
    child = int(caught.value.words)
    gone = not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
    assert gone or psutil.Process(child).wait(10) is None


def test_what_a_server_has_read_cannot_be_seen_in_the_page_cache(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    write_cold(shared / "file")
    view = as_json([shared], [])
    launch = Launch((*ROGUE, "behaves"), after=(sys.executable, "-I", page_cache.__file__, view))
    for asked in (False, True):
        model = IsolatedModel(
            ServerProcess(launch, Deadlines()), Path("train.py"), Path("model.pt"), PROFILE, TOKEN_BYTES, BATCH_ROWS
        )
        if asked:
            model.nats(*batch(1))
        model.close()
        assert resident(shared / "file") == ({True} if asked else {False})
