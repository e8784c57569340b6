"""Models measured as upstream does it: trained, restored and called in the evaluator's own process.

    python upstream.py PROGRAM...

Prints a JSON object of what each program comes to, by its file's name. Each gets a process with everything at hand,
forked from one that holds the validation rows; a program's folder is its tree, its output folder, and what it finds
there again. The losses of the first one lie in a folder beside the others', as those of the best do in a repository.
"""

import importlib.util
import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import numpy as np
import torch
from torch import Tensor

from harness import cache, metric, probe, profiles
from harness.exchange import TOKEN

BATCH_ROWS = 64
DATA = cache.find(profiles.profile())
ROWS = torch.from_numpy(DATA.read_evaluation_rows().astype("int64"))
SIZES = torch.from_numpy(DATA.read_token_bytes())[ROWS[:, 1:]]


def main() -> None:
    """The command line."""
    torch.set_num_threads(1)  # other threads would not live on in a fork
    found = {}
    for program in map(Path, sys.argv[1:]):
        answer = program.with_suffix(".json")
        if os.fork() == 0:
            with redirect_stdout(sys.stderr):
                answer.write_text(json.dumps(measure(program)))
            os._exit(0)
        os.wait()
        found[program.stem] = json.loads(answer.read_text())
    print(json.dumps(found))


def measure(program: Path) -> dict[str, object]:
    """What a program comes to."""
    os.chdir(program.parent)
    os.environ["AUTORESEARCH_OUT"] = str(program.parent)
    # As in a model server, but that nothing is sealed.
    for size in (BATCH_ROWS * SIZES.shape[1] * TOKEN.itemsize, 2**24):
        os.truncate(os.memfd_create("autoresearch", os.MFD_ALLOW_SEALING), size)
    module = load(program)
    module.main()
    with torch.inference_mode():
        try:
            first, sizes = losses(module, ROWS[:, :-1], ROWS[:, 1:])
        except RuntimeError as error:
            return {"raised": str(error)}
        number = metric.bits_per_byte(first, sizes)
        if first.shape != SIZES.shape:
            return {"number": number}
        if not (best := program.parents[1] / "losses" / "best.npy").exists():
            best.parent.mkdir()
            np.save(best, first.numpy())
        asked = probe.plan(ROWS, SIZES, torch.zeros_like(first), BATCH_ROWS, seed=1)
        again, _ = losses(load(program), asked.inputs, ROWS[asked.source, 1:])
        moved = again - first[asked.source]
        return {"number": number, "believed": not probe.judge(asked, moved, probe.SMALLEST_THRESHOLD).rejected}


def load(program: Path) -> ModuleType:
    """The program as a module."""
    spec = importlib.util.spec_from_file_location("candidate_train", program)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def losses(module: ModuleType, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Of each target that the model gives logits for: nats and bytes, [rows, sequence]."""
    model = module.load_model(Path("model.pt").absolute(), "cpu").eval()
    nats, sizes = [], []
    for block, wanted in zip(torch.split(inputs, BATCH_ROWS), torch.split(targets, BATCH_ROWS), strict=True):
        logits = model(block)
        answered = wanted[: len(logits), : logits.shape[1]]
        size = torch.from_numpy(DATA.read_token_bytes())[answered]
        found = metric.target_nats(logits.flatten(0, 1), answered.flatten()).view(answered.shape)
        nats.append(metric.of_text(found, size))
        sizes.append(size)
    return torch.cat(nats), torch.cat(sizes)


if __name__ == "__main__":
    main()
