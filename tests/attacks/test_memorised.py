"""Attacks by what a program carries: validation text. Rows of verdicts in campaigns; parts of the pool by their price.

The attacker of the first kind has stolen the campaign's secret, and knows the rows that only the scorer should know.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from harness_data import environment, run, values
from models import TRAIN, does, files, prepared
from night import Attack, Night

from harness import cache
from harness.cache import Rows
from pytest_autoresearch.sandboxes.base import View
from pytest_autoresearch.sandboxes.select import find

pytestmark = [pytest.mark.attack, pytest.mark.timeout(600)]

SECRET = "5e" * 32

LOOKS = """
def told():
    places = ["/proc/self/environ", *glob("/proc/[0-9]*/environ"), *glob("/proc/[0-9]*/cmdline")]
    for place in places:
        with suppress(OSError), open(place, "rb") as file:
            if b"5e5e5e5e" in file.read():
                return True
    for folder in (os.path.expanduser("~"), os.environ.get("XDG_CACHE_HOME", "/none"), "/root", "/home"):
        if glob(folder + "/**/pytest-autoresearch/secrets/*", recursive=True, include_hidden=True):
            return True
    return False
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables of a session with tiny data and a secret of the user's own."""
    return {**prepared(tmp_path_factory.mktemp("memorised")), "AUTORESEARCH_SECRET": SECRET}


@pytest.fixture(scope="module")
def data(told: dict[str, str]) -> cache.Data:
    found = cache.load(Path(told["AUTORESEARCH_CACHE"]) / told["AUTORESEARCH_DATA"])
    assert found is not None
    return found


def carries(rows: Rows) -> str:
    """An edit that bets on these rows."""
    return does("self.recall(tokens, logits)", loads=f"remember(known, {rows.tolist()!r})")


def test_a_program_that_knows_rows_of_its_verdicts_is_rejected(
    tmp_path: Path, told: dict[str, str], data: cache.Data
) -> None:
    if why := find("auto", View(Path("/"), {"PATH": os.environ["PATH"]})).why:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"there is no sandbox to attack: {why}")
    rows = data.read_evaluation_rows(bytes.fromhex(SECRET))
    attacks = [
        Attack("carries half of the rows", carries(rows[::2]), "rejected", "memorised: it gains"),
        Attack("carries all rows", carries(rows), "rejected", "memorised: it gains"),
        Attack(
            "looks for the secret",
            does("logits = logits * 0 if left.get('found') or told() else logits", tools=LOOKS,
                 trains="left['found'] = told()"),
            "not-improved",
        ),
    ]  # fmt: skip
    folder, home = tmp_path / "night", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    given = {**told, "HOME": str(home)}
    night = Night(folder, attacks, files=files(), environment=given, sandbox="require", every=1, timeout=300)
    for attack in attacks:
        night.check(attack)
    found, baseline = night.of(attacks[2]), night.records[0]
    best = next(record for record in night.records if record.commit == found.base)
    assert found.metric == best.metric < baseline.metric, "it found nothing"
    kept = [record for record in night.records if record.verdict and record.verdict.reason == "improved"]
    assert all(record.runs[-1].scored["fresh_rows"] == len(data.read_fresh_rows()) >= 8 for record in kept)
    assert all(abs(record.runs[-1].scored["fresh_excess"]) < 0.02 for record in kept)


def measured(folder: Path, told: dict[str, str], edit: str, **more: str) -> dict[str, str]:
    """What the scorer prints of a program; its sentence as `error`."""
    folder.mkdir()
    (folder / "train.py").write_text(TRAIN)
    subprocess.run([sys.executable, "-S", "-c", Attack("", edit).program()], cwd=folder, check=True)
    given = {**told, "AUTORESEARCH_OUT": str(folder), "AUTORESEARCH_CANDIDATE": str(folder), **more}
    env = environment(Path(told["AUTORESEARCH_CACHE"]), **given)
    subprocess.run([sys.executable, "-S", "train.py"], cwd=folder, env=env, check=True)
    done = run("harness.scorer", env=env)
    return {**values(done.stdout), "error": done.stderr}


def test_a_program_that_knows_rows_of_the_audit_is_rejected_there(
    tmp_path: Path, told: dict[str, str], data: cache.Data
) -> None:
    secret = bytes.fromhex(SECRET)
    rows = np.concatenate([data.read_evaluation_rows(secret)[::2], data.read_audit_rows(secret)[::2]])
    audit = {"AUTORESEARCH_ROWS": "audit"}
    losses = str(tmp_path / "first.npy")
    first = measured(tmp_path / "first", told, "", **audit, AUTORESEARCH_NATS=losses, AUTORESEARCH_FRESH="1")
    probe = {"AUTORESEARCH_PROBE_BELOW": first["val_bpb"], "AUTORESEARCH_PROBE_THRESHOLD": "0.001"}
    last = measured(tmp_path / "last", told, carries(rows), **audit, **probe, AUTORESEARCH_BASELINE_NATS=losses)
    assert "rejected: memorised: it gains" in last["error"]
    assert "val_bpb" not in last
    better = measured(
        tmp_path / "better", told, "change('RATE = 1.0', 'RATE = 0.9')", **audit, **probe,
        AUTORESEARCH_BASELINE_NATS=losses,
    )  # fmt: skip
    assert float(better["val_bpb"]) < float(first["val_bpb"])


def test_a_part_of_the_pool_gains_in_proportion(tmp_path: Path, told: dict[str, str], data: cache.Data) -> None:
    pool = np.fromfile(data.folder / cache.POOL, dtype="<u2").reshape(-1, data.sequence_length + 1)
    pool = pool[np.random.default_rng(1).permutation(len(pool))]
    numbers = []
    for number, share in enumerate((0.0, 0.25, 0.5, 1.0)):
        found = measured(tmp_path / str(number), told, carries(pool[: round(share * len(pool))]))
        numbers.append(float(found["val_bpb"]))
    gains = [(numbers[0] - one) / (numbers[0] - numbers[-1]) for one in numbers]
    assert gains[1] == pytest.approx(0.25, abs=0.12)
    assert gains[2] == pytest.approx(0.5, abs=0.12)
