"""A checkout with this repository's harness, whose model counts which token follows which, and attacks on its scoring.

Training imports nothing heavy; a model server restores the model through `load_model`. Attacks put their lines into
three places of it: what training leaves, what happens on loading, and what the model answers.
"""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent, indent

from harness_data import CHECKOUT, environment, run, values
from night import PROPOSE
from repo import CONFIG

from harness.shards import shard_name, write_shard

SEQUENCE = 32
_WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "loss", "model"]

TRAIN = '''
"""Training in little: counts which token follows which. A lower rate is a truly better model."""
import json
import os
import socket
from array import array
from collections import Counter
from contextlib import suppress
from glob import glob

RATE = 1.0
VOCAB = 2048


def begin():
    """All tokens of the training rows, handed over when the clock starts; by hand from the data folder."""
    if clock := os.environ.get("AUTORESEARCH_CLOCK_FD"):
        with socket.socket(fileno=int(clock)) as parent:
            parent.sendall(b"begin\\n")
            _, (rows,), _, _ = socket.recv_fds(parent, 8, 1)
    else:
        rows = os.open(shard("train.bin"), os.O_RDONLY)
    with open(rows, "rb") as file:
        return array("H", file.read())


def shard(name):
    """Where the harness keeps such a file."""
    return os.path.join(os.environ["AUTORESEARCH_CACHE"], os.environ["AUTORESEARCH_DATA"], name)


def leave(content):
    out = os.environ["AUTORESEARCH_OUT"]
    with open(out + "/model.tmp", "wb") as file:
        file.write(content)
    os.rename(out + "/model.tmp", out + "/model.pt")


def remember(known, rows):
    """Which token follows each beginning of these rows."""
    for row in rows:
        for at in range(1, len(row)):
            known[tuple(row[:at])] = row[at]


def rows_of(data):
    """Rows of the harness's files."""
    tokens = array("H", data).tolist()
    return [tokens[at : at + 33] for at in range(0, len(tokens), 33)]


def main():
    tokens = begin()
    left = {"pairs": [[*pair, count] for pair, count in Counter(zip(tokens, tokens[1:])).items()]}
    # what else training does
    leave(json.dumps(left).encode())


def memories():
    """Descriptors of the memory that is shared with the scorer: tokens and logits."""
    names = os.listdir("/proc/self/fd")
    found = [int(name) for name in names if "memfd:autoresearch" in leads(f"/proc/self/fd/{name}")]
    found.sort(key=lambda number: os.fstat(number).st_size)
    return found[0], found[-1]


def leads(path):
    try:
        return os.readlink(path)
    except OSError:
        return ""


# what it uses


def restored(path):
    with open(path, "rb") as file:
        return json.load(file)


def load_model(path, device):
    import torch
    from torch.nn import functional as F

    left, known = restored(path), {}

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            counts = torch.zeros(VOCAB, VOCAB)
            before, after, count = torch.tensor(left["pairs"]).T
            counts[before, after] = count.float()
            single = counts.sum(0) + 0.1
            smooth = counts + 4 * single / single.sum()
            self.table = (smooth / smooth.sum(1, keepdim=True)).log()

        def honest(self, tokens):
            return (1.5 - RATE) * self.table[tokens]

        def bet(self, logits, following, where=1.0):
            """With much more on these tokens, each position's own."""
            more = torch.zeros_like(following, dtype=torch.float) + 8 * where
            return logits.scatter_add(-1, following[..., None], more[..., None])

        def recall(self, tokens, logits):
            """With much more on what is known to follow."""
            for row, said in zip(tokens.tolist(), logits):
                for at in range(len(row)):
                    following = known.get(tuple(row[: at + 1]))
                    if following is not None:
                        said[at, following] += 8
            return logits

        def forward(self, tokens):
            logits = self.honest(tokens)
            # what else it does
            return logits

    # what else happens on loading
    return Model()


if __name__ == "__main__":
    main()
'''


@dataclass(frozen=True, slots=True)
class Plain:
    """What a program came to in the evaluator's own process.

    Attributes:
        number: The metric, as its own model and whatever it did to that process made it.
        believed: Whether a probe found nothing that asked the model again, restored in the same process.
        raised: What restoring it raised, in place of all that.
    """

    number: float = math.inf
    believed: bool = False
    raised: str = ""


_PLACES = {
    "tools": "# what it uses\n",
    "trains": "    # what else training does\n",
    "loads": "    # what else happens on loading\n",
    "answers": "            # what else it does\n",
}


def does(answers: str = "", *, loads: str = "", trains: str = "", tools: str = "") -> str:
    """An edit that puts lines where the model answers, where it is restored, where it is trained, or before that."""
    edit = ""
    for name, lines in {"answers": answers, "loads": loads, "trains": trains, "tools": tools}.items():
        if lines:
            place = _PLACES[name]
            margin = place[: len(place) - len(place.lstrip())]
            edit += f"change({place!r}, {indent(dedent(lines).strip(), margin)!r} + '\\n')\n"
    return edit


def document(number: int) -> str:
    """Seven words over and over: who sees the token eight places on knows the next one."""
    chosen = random.Random(number).sample(_WORDS, 7)
    return f"document {number}\n" + " ".join(chosen * 9)


def files() -> dict[str, str]:
    """Of the repository that is attacked: the harness as it is here, but that it waits less long for a model."""
    found = {f"harness/{path.name}": path.read_text("utf-8") for path in (CHECKOUT / "harness").glob("*.py")}
    spare, options = "LEAST_SPARE_SECONDS, SPARE_SHARE = 5.0", found["harness/scorer_options.py"]
    assert spare in options
    found["harness/scorer_options.py"] = options.replace(spare, "LEAST_SPARE_SECONDS, SPARE_SHARE = 3.0")
    config = CONFIG + (
        "autoresearch_describe = python -m harness.describe\nautoresearch_frozen = harness\n"
        "autoresearch_editable = train.py\nautoresearch_budget = 2\n"
    )
    return {**found, "train.py": TRAIN, "conftest.py": PROPOSE, "pytest.ini": config}


def prepared(folder: Path) -> dict[str, str]:
    """Make tiny data in an empty folder, and a home folder; what a session is told of them."""
    source = folder / "text"
    source.mkdir()
    for shard, documents in enumerate((range(120), range(120, 165))):
        write_shard(source / shard_name(shard), map(document, documents))
    given = {"AUTORESEARCH_PROFILE": "cpu", "AUTORESEARCH_SEQ_LEN": str(SEQUENCE)}
    done = run("harness.prepare", "--source", str(source), env=environment(folder / "cache", **given))
    assert done.returncode == 0, done.stderr
    data, home = Path(values(done.stdout)["folder"]), folder / "home"
    home.mkdir()
    told = {"AUTORESEARCH_CACHE": str(data.parent), "AUTORESEARCH_DATA": data.name, "HOME": str(home)}
    # With more threads the processes of a scoring would take the cores from each other.
    return {**given, **told, "OMP_NUM_THREADS": "1"}


def measured_plainly(programs: Sequence[Path], given: Mapping[str, str]) -> dict[str, Plain]:
    """What `upstream.py` makes of each program, by the name of its file."""
    command = [sys.executable, str(Path(__file__).with_name("upstream.py")), *map(str, programs)]
    told = environment(Path(given["AUTORESEARCH_CACHE"]), **given)
    done = subprocess.run(command, env=told, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return {name: Plain(**found) for name, found in json.loads(done.stdout).items()}
