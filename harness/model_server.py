"""The model server: restores `model.pt` with the candidate's own `train.py`, and answers tokens with logits.

`harness.scorer` starts this program, in a sandbox if there is one. It runs the candidate's code, so it is untrusted. It
sees inputs, but no targets, losses or row numbers, and its output is discarded.
"""

import importlib.util
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

# Import this harness, not an installed one and not the candidate's.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from harness import exchange
from harness.device_buffer import open_device_buffer, pin
from harness.exchange import BrokenExchange, Failure, Job, Ready, Stage

_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}

Model = Callable[[Tensor], Tensor]
"""From tokens int64 [rows, sequence] to logits [rows, sequence, vocab]."""


class NotReady(Exception):
    """The model cannot be used; has the stage that failed and an error message."""

    def __init__(self, stage: Stage, words: str) -> None:
        super().__init__(words)
        self.stage = stage


def main() -> None:
    """Serve the scorer over a socket; the only command-line argument is its file descriptor."""
    with socket.socket(fileno=int(sys.argv[1])) as end:
        end.sendall(exchange.UP)
        job, tokens, memory = exchange.receive_job(end)
        with torch.inference_mode():
            try:
                torch.manual_seed(0)
                model = load(job)
                logit_type = rehearse(model, job)
            except NotReady as error:
                end.sendall(exchange.failed_line(error.stage, str(error)))
                return
            serve(end, job, tokens, memory, model, logit_type)


def load(job: Job) -> Model:
    """Restore the candidate's model with its own `load_model`."""
    spec = importlib.util.spec_from_file_location("candidate_train", job.train)
    if spec is None or spec.loader is None:
        raise NotReady(Stage.IMPORT, "it is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise NotReady(Stage.IMPORT, in_words(error)) from error
    if not hasattr(module, "load_model"):
        raise NotReady(Stage.IMPORT, "it has no function load_model(path, device) that returns the trained model")
    try:
        model = module.load_model(Path(job.model), job.device)
    except (Exception, SystemExit) as error:
        raise NotReady(Stage.LOAD, in_words(error)) from error
    if not isinstance(model, torch.nn.Module):
        raise NotReady(Stage.LOAD, f"load_model returned {type(model).__name__}, not a torch Module")
    return model.eval()


def rehearse(model: Model, job: Job) -> torch.dtype:
    """Run the model on one made-up batch. This compiles it, and finds errors before the server has seen any text.

    Returns:
        The type of the logits to return.
    """
    tokens = torch.zeros((job.rows, job.sequence_length), dtype=torch.int64, device=job.device)
    try:
        logits = model(tokens)
        if job.device == "cuda":
            torch.cuda.synchronize()
    except (Exception, SystemExit) as error:
        raise NotReady(Stage.CALL, in_words(error)) from error
    shape = (job.rows, job.sequence_length, job.vocab_size)
    if not isinstance(logits, Tensor):
        raise NotReady(Stage.ANSWER, f"{type(logits).__name__}, not a tensor of logits")
    if tuple(logits.shape) != shape:
        raise NotReady(Stage.ANSWER, f"logits of shape {list(logits.shape)}, not {list(shape)}")
    if not logits.is_floating_point():
        raise NotReady(Stage.ANSWER, f"logits of type {logits.dtype}")
    # On a CPU the scorer only reads float32, because there is no transfer to save.
    return logits.dtype if job.device == "cuda" and logits.dtype in _NAMES else torch.float32


def serve(
    end: socket.socket, job: Job, tokens_descriptor: int, memory_descriptor: int, model: Model, logit_type: torch.dtype
) -> None:
    """Report that the server is ready, then answer batches until the scorer closes the socket."""
    tokens = exchange.map_tokens(tokens_descriptor, job)
    buffer = open_device_buffer(job, logit_type)
    on_device = buffer is not None
    if buffer is None:
        memory = torch.frombuffer(exchange.map_logits(memory_descriptor, job), dtype=torch.uint8)
        if job.device == "cuda":
            pin(memory)
        buffer = memory.view(logit_type)[: job.logits].view(job.rows, job.sequence_length, job.vocab_size)
    end.sendall(Ready(_NAMES[logit_type], on_device).line().encode() + b"\n")
    while number := end.recv(1):
        end.sendall(number if (failure := answer(model, tokens, job.device, buffer)) is None else bytes([failure]))


def answer(model: Model, tokens: npt.NDArray[np.int32], device: str, buffer: Tensor) -> Failure | None:
    """Write the logits of the tokens in shared memory to the buffer; returns a failure, or None on success."""
    try:
        logits = model(torch.from_numpy(tokens.astype("int64")).to(device))
        if not isinstance(logits, Tensor) or logits.shape != buffer.shape or not logits.is_floating_point():
            return Failure.OTHER_SHAPE
        buffer.copy_(logits)
        if device == "cuda":
            torch.cuda.synchronize()
    except (torch.OutOfMemoryError, MemoryError):
        return Failure.OUT_OF_MEMORY
    except (Exception, SystemExit):
        return Failure.RAISED
    return None


def in_words(error: BaseException) -> str:
    """An exception of the candidate's code, as text."""
    return f"{type(error).__name__}: {error}"


def run() -> NoReturn:
    """Serve; exit silently if the scorer is gone."""
    try:
        main()
    except (BrokenExchange, BrokenPipeError, ConnectionResetError):
        sys.exit(1)
    sys.exit(0)


if __name__ == "__main__":
    run()
