"""Reads back what a tracker wrote, as JSON: `python read_trackers.py TRACKER PATH TAG`.

A process of its own: these packages are slow to import, and some cannot be imported twice.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

BLOCK = 32768  # a .wandb file is LevelDB's log behind a header of seven bytes
FULL, FIRST, LAST = 1, 2, 4


def mlflow(path: Path, tag: str) -> dict[int, dict[str, object]]:
    """By number: the tags and the metrics of each run."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{path / 'mlflow.db'}")
    found = client.get_experiment_by_name(f"autoresearch-{tag}")
    assert found is not None
    runs = [run.data for run in client.search_runs([found.experiment_id])]
    return {int(run.tags["number"]): {**run.tags, **run.metrics} for run in runs}


def wandb(path: Path, tag: str) -> dict[int, dict[str, object]]:
    """By step: what was logged, and the id of the run."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    steps: dict[int, dict[str, object]] = {}
    for file in sorted((path / "wandb").glob("offline-run-*/*.wandb")):
        run = ""
        for data in entries(file.read_bytes()):
            record = Record.FromString(data)
            if record.WhichOneof("record_type") == "run":
                run = record.run.run_id
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                values = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in items}
                steps[values.get("_step", record.history.step.num)] = {**values, "run": run, "file": file.parent.name}
    return steps


def entries(log: bytes) -> Iterator[bytes]:
    """The entries of LevelDB's log: whole, or in parts where a block ends."""
    at, parts = 7, b""
    while at + 7 <= len(log):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        length, kind = struct.unpack_from("<HB", log, at + 4)
        parts = (b"" if kind in (FULL, FIRST) else parts) + log[at + 7 : at + 7 + length]
        if kind in (FULL, LAST):
            yield parts
        at += 7 + length


def tensorboard(path: Path, tag: str) -> dict[int, dict[str, object]]:
    """By step: the scalars, and under `text` what was said, behind the name that it has."""
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    read = EventAccumulator(str(path / "experiments" / "runs" / "tensorboard" / tag))
    read.Reload()
    steps: dict[int, dict[str, object]] = {}
    for name in read.Tags()["scalars"]:
        for event in read.Scalars(name):
            steps.setdefault(event.step, {})[name] = round(event.value, 6)
    for name in read.Tags()["tensors"]:
        for event in read.Tensors(name):
            steps[event.step]["status"] = name.partition("/")[0]
            steps[event.step]["text"] = event.tensor_proto.string_val[0].decode()
    return steps


if __name__ == "__main__":
    reader = {"mlflow": mlflow, "wandb": wandb, "tensorboard": tensorboard}[sys.argv[1]]
    print(json.dumps(reader(Path(sys.argv[2]), sys.argv[3])))
