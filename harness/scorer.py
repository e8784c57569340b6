"""The trusted scorer: a process of its own that measures what a training run left behind. The command
`python -m harness.scorer`. It computes every loss itself; the candidate's code gives logits and nothing else. May not
know of sessions, git or the keep rule."""

import argparse
import contextlib
import importlib.util
import os
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from harness import cache, profiles
from harness.errors import HarnessError, run_command

if TYPE_CHECKING:
    from harness.metric import Logits

_CHECKOUT = Path(__file__).resolve().parent.parent


def main() -> None:
    """The command line."""
    start = time.monotonic()
    model_path, train_path = _arguments()
    _keep_candidate_off_the_import_path(train_path.parent)
    sys.dont_write_bytecode = True
    with _prints_sent_to_stderr():
        val_bpb, tokens = measure(model_path, train_path)
    print(f"val_bpb: {val_bpb:.6f}")
    print(f"score_seconds: {time.monotonic() - start:.1f}")
    print(f"evaluation_tokens: {tokens}")


def measure(model_path: Path, train_path: Path) -> tuple[float, int]:
    """Bits per byte of a model, as the training script beside it restores it, and the number of targets.

    Raises:
        HarnessError: Something is missing, cannot be loaded, or gives no score.
    """
    for path in (train_path, model_path):
        if not path.is_file():
            raise HarnessError(f"there is no {path} to score.")
    # GNU OpenMP's threads spin while they wait, which beside another busy process makes scoring several times slower.
    # Read once, when torch loads the library.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    import torch

    from harness.metric import MetricError, evaluate

    profile = profiles.profile()
    data = cache.find(profile)
    rows = torch.from_numpy(data.read_evaluation_rows().astype("int64")).to(profile.device)
    token_bytes = torch.from_numpy(data.read_token_bytes()).to(profile.device)
    batch_rows = max(1, _logits_at_once(profile) // (profile.sequence_length * profile.vocab_size))
    torch.manual_seed(0)
    logits_of = _candidate(model_path, train_path, profile.device)
    with torch.inference_mode():
        try:
            return evaluate(logits_of, rows, token_bytes, batch_rows), data.evaluation_tokens
        except MetricError as error:
            raise HarnessError(f"{model_path} has no score: {error}.") from None
        except (Exception, SystemExit) as error:
            raise HarnessError(f"the model of {train_path} fails when called: {_in_words(error)}.") from error


def _logits_at_once(profile: profiles.Profile) -> int:
    """Logits of one batch, which are the scorer's memory."""
    if profile.device == "cpu":
        return 2**22  # 16 MB in float32, which stay near the cache
    # A twentieth of the device, since a model that is not compiled holds several copies, and at most 1 GB.
    return min(2**28, profile.memory_limit_mb * 2**20 // 4 // 20)


def _candidate(model_path: Path, train_path: Path, device: str) -> "Logits":
    """The candidate's model, as its own `load_model` restores it."""
    from torch.nn import Module

    spec = importlib.util.spec_from_file_location("candidate_train", train_path)
    if spec is None or spec.loader is None:
        raise HarnessError(f"{train_path} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise HarnessError(f"{train_path} cannot be imported: {_in_words(error)}.") from error
    if not hasattr(module, "load_model"):
        raise HarnessError(f"{train_path} has no function load_model(path, device) that gives the trained model back.")
    try:
        model = module.load_model(model_path, device)
    except (Exception, SystemExit) as error:
        raise HarnessError(f"{train_path} cannot load {model_path}: {_in_words(error)}.") from error
    if not isinstance(model, Module):
        raise HarnessError(f"load_model of {train_path} gave {type(model).__name__} and not a torch Module.")
    return model.eval()


def _arguments() -> tuple[Path, Path]:
    parser = argparse.ArgumentParser(
        prog="python -m harness.scorer",
        description="Measure val_bpb, the bits a model needs for a byte of the validation text.",
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
    raise HarnessError(f"nothing says which {name} to score; give {option} PATH or set {variable}.")


def _keep_candidate_off_the_import_path(folder: Path) -> None:
    """The candidate's tree has a copy of `harness`, and maybe files named like installed modules: let none be found."""
    if folder != _CHECKOUT:
        sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != folder]


@contextlib.contextmanager
def _prints_sent_to_stderr() -> Iterator[None]:
    """What the candidate prints may not be taken for the score."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _in_words(error: BaseException) -> str:
    """An error of the candidate on one line, not too long for a report."""
    message = textwrap.shorten(str(error), 300, placeholder=" [...]")
    return f"{type(error).__name__}: {message.rstrip('.')}"


if __name__ == "__main__":
    run_command(main)
