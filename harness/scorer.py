"""The trusted scorer: measures the model that a training run wrote. The command `python -m harness.scorer`.

It has the validation rows and computes every loss itself. The candidate's code runs in another process, the model
server, which returns only logits. Knows nothing of sessions, git or the keep rule.
"""

import argparse
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness import cache, draw, profiles
from harness.errors import HarnessError, run_command
from harness.exchange import Stage
from harness.scorer_options import ScorerOptions, deadlines_of_environment, options_of_environment
from harness.server_process import Deadlines, NoAnswer, NotReady, Reason, ServerProcess, launches_of_environment
from harness.servers import Servers
from harness.turn import await_turn, turn_of_environment

if TYPE_CHECKING:
    from socket import socket

    from torch import Tensor

    from harness.isolated import IsolatedModel
    from harness.memorised import Look
    from harness.probe import Evidence

_NOT_READY = {
    Stage.IMPORT: "{train} cannot be imported: {words}.",
    Stage.LOAD: "{train} cannot load {model}: {words}.",
    Stage.CALL: "the model of {train} fails when called: {words}.",
    Stage.ANSWER: "the model of {train} returned {words}.",
}
_WORDS = 300

PRINTS = (
    *("val_bpb", "score_seconds", "load_seconds", "evaluation_seconds", "evaluation_tokens", "score_transport"),
    *("fresh_rows", "fresh_excess", "fresh_excess_allowed"),
    *("probe_threshold", "probe_cuts", "probe_leaks", "probe_replayed", "probe_changed", "probe_drift"),
)
"""The names that this command may print; a session keeps no number of these names that training prints."""


@dataclass(frozen=True, slots=True)
class Score:
    """The result of scoring.

    Attributes:
        val_bpb: Bits per byte.
        evaluation_tokens: Number of targets.
        load_seconds: Time to restore the model.
        evaluation_seconds: Time to evaluate the model.
        transport: How logits were transferred; see `IsolatedModel`.
        probe_threshold: The calibrated threshold in nats; None without calibration.
        probe: The probe's result; None if the model was not probed.
        look: What the look for memorised text found; None without one.
        seconds: Time from the start, or from the turn, to the result.
    """

    val_bpb: float
    evaluation_tokens: int
    load_seconds: float
    evaluation_seconds: float
    transport: str
    probe_threshold: float | None = None
    probe: "Evidence | None" = None
    look: "Look | None" = None
    seconds: float = 0.0


def main() -> None:
    """The command line."""
    told = options_of_environment(), deadlines_of_environment()
    score = measure(*_arguments(), *told, turn_of_environment())
    print(f"val_bpb: {score.val_bpb:.6f}")
    print(f"score_seconds: {score.seconds:.1f}")
    print(f"load_seconds: {score.load_seconds:.2f}")
    print(f"evaluation_seconds: {score.evaluation_seconds:.2f}")
    print(f"evaluation_tokens: {score.evaluation_tokens}")
    print(f"score_transport: {score.transport}")
    if score.probe_threshold is not None:
        print(f"probe_threshold: {score.probe_threshold:.6f}")
    if score.look is not None:
        print(f"fresh_rows: {score.look.rows}")
        print(f"fresh_excess: {score.look.excess:.6f}")
        print(f"fresh_excess_allowed: {score.look.most:.6f}")
    if score.probe is not None:
        print(f"probe_cuts: {score.probe.cuts}")
        print(f"probe_leaks: {score.probe.leaks}")
        print(f"probe_replayed: {score.probe.replayed}")
        print(f"probe_changed: {score.probe.changed}")
        print(f"probe_drift: {score.probe.drift:.6f}")


def measure(
    model_path: Path,
    train_path: Path,
    options: ScorerOptions | None = None,
    deadlines: Deadlines | None = None,
    turn: "socket | None" = None,
) -> Score:
    """Score the model at `model_path`; the training script at `train_path` restores it.

    Args:
        turn: Says when training has ended; None if it has. Until then nothing is read but code.

    Raises:
        HarnessError: A file is missing, the model cannot be loaded or gives no score, or the probe rejects it.
    """
    options, deadlines = options or ScorerOptions(), deadlines or Deadlines()
    if turn is None:
        _check_files(train_path, model_path)
    start = time.monotonic()
    # Started first, so that all processes import torch at the same time: it takes seconds.
    with Servers(launches_of_environment(), deadlines, options.may_ask_again) as servers:
        # Before torch is imported: OpenMP's threads would spin while the server works.
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
        import torch

        from harness.isolated import IsolatedModel  # noqa: F401 - loaded before the turn
        from harness.metric import MetricError
        from harness.recheck import ScoredModel  # noqa: F401 - loaded before the turn

        try:
            servers.await_up()
            if turn is not None:
                await_turn(turn)
                start = time.monotonic()
                _check_files(train_path, model_path)
            with torch.inference_mode():
                return replace(_score(servers, model_path, train_path, options), seconds=time.monotonic() - start)
        except NotReady as error:
            raise HarnessError(_sentence(error, model_path, train_path)) from None
        except (NoAnswer, MetricError) as error:
            raise HarnessError(f"{model_path} has no score: {error}.") from None


def _score(servers: Servers, model_path: Path, train_path: Path, options: ScorerOptions) -> Score:
    import torch

    from harness.isolated import IsolatedModel
    from harness.metric import bits_per_byte
    from harness.recheck import ScoredModel, looked

    profile = profiles.profile()
    data, batch_rows = cache.find(profile), batch_rows_of(profile)
    token_bytes = torch.from_numpy(data.read_token_bytes())
    evaluation_rows = torch.from_numpy(rows_of_environment(data).astype("int64"))
    fresh_rows = torch.from_numpy(fresh_rows_of_environment(data).astype("int64"))
    sizes, fresh_sizes = (token_bytes[rows[:, 1:]] for rows in (evaluation_rows, fresh_rows))

    def open_model(process: ServerProcess) -> IsolatedModel:
        return IsolatedModel(process, train_path, model_path, profile, token_bytes, batch_rows)

    def open_again() -> IsolatedModel:
        try:
            return open_model(servers.take())
        except NotReady:  # its message may come from what the first server has seen
            raise NoAnswer(Reason.NOT_AGAIN) from None

    process = servers.take()
    with open_model(process) as model:
        begun = time.monotonic()
        nats = evaluate(model, evaluation_rows, batch_rows)
        seconds = process.load_seconds, time.monotonic() - begun
        score = Score(bits_per_byte(nats, sizes), sizes.numel(), *seconds, model.transport)
        # Rounded as in the output, because the session uses the printed value.
        best = options.probe_below is not None and round(score.val_bpb, 6) < options.probe_below
        every = nats
        if len(fresh_rows) and (options.fresh or best):
            every = torch.cat([nats, evaluate(model, fresh_rows, batch_rows)])
    if best:
        every_size = torch.cat([sizes, fresh_sizes])
        score = replace(score, look=looked(every, options.baseline_nats, every_size, len(nats)))
    scored = ScoredModel(open_again, evaluation_rows, sizes, nats, batch_rows)
    if options.calibrate:
        score = replace(score, probe_threshold=scored.threshold())
    if best:
        score = replace(score, probe=scored.probe(options.incumbent_nats, options.probe_threshold))
    if options.nats:
        content = every.numpy()
        cache.write_atomically(options.nats, lambda file: np.save(file, content))
    return score


def evaluate(model: "IsolatedModel", rows: "Tensor", batch_rows: int) -> "Tensor":
    """Loss of every target: float32 [rows, sequence].

    Args:
        rows: int64 [rows, sequence + 1]. All tokens but the last are inputs, all but the first are targets.
    """
    import torch

    blocks = torch.split(rows, batch_rows)
    return torch.cat([model.nats(block[:, :-1], block[:, 1:]) for block in blocks])


def batch_rows_of(profile: profiles.Profile) -> int:
    """Rows in every batch for the model server."""
    return max(1, _logits_at_once(profile) // (profile.sequence_length * profile.vocab_size))


def _logits_at_once(profile: profiles.Profile) -> int:
    """Logits in one batch; they determine the scorer's memory."""
    if profile.device == "cpu":
        return 2**22  # 16 MB in float32, small enough for the cache
    # At most a twentieth of the device, because a model that is not compiled makes several copies, and at most 1 GB.
    return min(2**28, profile.memory_limit_mb * 2**20 // 4 // 20)


def _check_files(*paths: Path) -> None:
    for path in paths:
        if not path.is_file():
            raise HarnessError(f"there is no {path} to score.")


def _sentence(error: NotReady, model_path: Path, train_path: Path) -> str:
    words = error.words if len(error.words) <= _WORDS else error.words[:_WORDS] + " [...]"
    return _NOT_READY[error.stage].format(train=train_path, model=model_path, words=words.rstrip("."))


def _arguments() -> tuple[Path, Path]:
    parser = argparse.ArgumentParser(
        prog="python -m harness.scorer",
        description="Measure val_bpb: the bits that a model needs to encode a byte of the validation text.",
    )
    parser.add_argument("--model", type=Path, metavar="PATH", help="default: $AUTORESEARCH_OUT/model.pt")
    parser.add_argument("--train", type=Path, metavar="PATH", help="default: $AUTORESEARCH_CANDIDATE/train.py")
    given = parser.parse_args()
    model = given.model or _below("AUTORESEARCH_OUT", "model.pt", "--model")
    train = given.train or _below("AUTORESEARCH_CANDIDATE", "train.py", "--train")
    return model.resolve(), train.resolve()


def _below(variable: str, name: str, option: str) -> Path:
    if folder := os.environ.get(variable):
        return Path(folder) / name
    raise HarnessError(f"there is no {name} to score; give {option} PATH or set {variable}.")


def rows_of_environment(data: cache.Data) -> cache.Rows:
    """The rows to score on: those for the metric, or with AUTORESEARCH_ROWS=audit those that no verdict uses.

    AUTORESEARCH_SECRET draws them.
    """
    secret = draw.secret_of_environment()
    rows = data.read_audit_rows(secret) if _is_audit() else data.read_evaluation_rows(secret)
    if not len(rows):
        raise HarnessError("the validation shard has too little text for audit rows; unset AUTORESEARCH_ROWS.")
    return rows


def fresh_rows_of_environment(data: cache.Data) -> cache.Rows:
    """The fresh rows beside those of the metric or of the audit; none in a small pool."""
    return data.read_fresh_rows(draw.secret_of_environment(), _is_audit())


def _is_audit() -> bool:
    wanted = os.environ.get("AUTORESEARCH_ROWS") or "metric"
    if wanted not in ("metric", "audit"):
        raise HarnessError(f"AUTORESEARCH_ROWS={wanted!r} is not valid; set it to `audit`, or unset it for the metric.")
    return wanted == "audit"


if __name__ == "__main__":
    run_command(main)
