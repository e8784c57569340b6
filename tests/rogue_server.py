"""A model server that misbehaves as its first argument says, started as the prefix of the real one's command. It speaks
the protocol in numpy alone, so that it starts in a moment."""

import fcntl
import mmap
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from harness import exchange
from harness.exchange import Failure, Job

READY = b"ready float32 memory\n"
STARTS = {
    "babbles": b"x" * 10_000,
    "says something else": b"val_bpb: 0.1\n",
    "claims a device": b"ready float32 device\n",
    "claims another type": b"ready bfloat16 memory\n",
    "answers before it is asked": READY + b"\0",
    "fails with escapes": b"failed load \x1b[2Jval_bpb: 0.1\r<b>\xff\n",
}
BYTES = {
    "raised": bytes([Failure.RAISED]),
    "out of memory": bytes([Failure.OUT_OF_MEMORY]),
    "other shape": bytes([Failure.OTHER_SHAPE]),
    "another number": b"\x05",
    "an unknown failure": b"\xff",
}


def honest(tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    """Logits that prefer the tokens just above the one they follow: float32 [rows, sequence, vocab]."""
    return (-0.25 * ((np.arange(vocab_size) - tokens[..., None]) % vocab_size)).astype(np.float32)


def attack_memory(tokens: int, logits: int, job: Job) -> list[str]:
    """Try all that would change the memory behind the scorer's back; returns what was not refused."""
    size = job.rows * job.sequence_length * exchange.TOKEN.itemsize
    attempts = {
        "cut the logits": lambda: os.ftruncate(logits, 0),
        "grow the logits": lambda: os.ftruncate(logits, 2**20),
        "cut the tokens": lambda: os.ftruncate(tokens, 0),
        "seal the logits": lambda: fcntl.fcntl(logits, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE),
        "write tokens": lambda: os.pwrite(tokens, b"\0\0\0\1", 0),
        "map tokens to write": lambda: mmap.mmap(tokens, size),
        "open tokens to write": lambda: mmap.mmap(os.open(f"/proc/self/fd/{tokens}", os.O_RDWR), size),
    }
    done = []
    for name, attempt in attempts.items():
        try:
            attempt()
        except (OSError, ValueError):
            continue
        done.append(name)
    return done


def main() -> None:
    """Serve, in that way."""
    name, end = sys.argv[1], socket.socket(fileno=int(sys.argv[-1]))
    if name == "never is up":
        time.sleep(60)
    end.sendall(exchange.UP if name != "is something else" else b"no\n")
    job, token_file, logit_file = exchange.receive_job(end)
    tokens = exchange.map_tokens(token_file, job)
    memory = np.frombuffer(exchange.map_logits(logit_file, job), np.float32)
    logits = memory.reshape(job.rows, job.sequence_length, job.vocab_size)
    match name:
        case "hangs at the start":
            time.sleep(60)
        case "ends at the start":
            return
        case "tells its environment":
            end.sendall(exchange.failed_line(exchange.Stage.LOAD, " ".join(sorted(os.environ))))
        case "tells an open file":
            end.sendall(exchange.failed_line(exchange.Stage.LOAD, os.read(int(sys.argv[2]), 100).decode()))
        case "leaves a child":
            child = subprocess.Popen(["sleep", "60"])
            end.sendall(exchange.failed_line(exchange.Stage.LOAD, str(child.pid)))
        case "changes the memory":
            if done := attack_memory(token_file, logit_file, job):
                end.sendall(exchange.failed_line(exchange.Stage.LOAD, ", ".join(done)))
    end.sendall(STARTS.get(name, READY))
    batch = 0
    while number := end.recv(1):
        batch += 1
        answer = honest(tokens, job.vocab_size)
        if name == "looks ahead":
            answer[:, :-1, :] = np.roll(answer[:, 1:, :], -1, axis=2)
        if name == "keeps state":
            answer[..., 1] += 0.1 * batch
        if batch == 2:
            match name:
                case "ends":
                    return
                case "hangs":
                    time.sleep(60)
                case "leaves the last batch in place":
                    end.sendall(number)
                    continue
                case "leaves a row out":
                    answer[-1] = np.nan
                case "writes one NaN":
                    answer[0, 3, 5] = np.nan
                case "writes one infinity":
                    answer[0, 3, 5] = np.inf
                case "calls all impossible":
                    answer[0, 3] = -np.inf
                case "bets everything":
                    answer[:] = -np.inf
                    answer[..., 0] = 0.0
                case "answers twice":
                    number += number
                case "prints":
                    for descriptor in (1, 2):
                        os.write(descriptor, b"val_bpb: 0.1\n")
        logits[:] = answer
        if batch == 2 and name == "changes the memory":
            os.posix_fallocate(logit_file, 0, 4)
        end.sendall(BYTES.get(name, number) if batch == 2 else number)


if __name__ == "__main__":
    main()
