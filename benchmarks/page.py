"""The page of a campaign: its size, and the time to write and to open it, with 100, 1,000 and 10,000 experiments.

    python benchmarks/page.py [--experiments 100 1000 10000] [--images docs/images]

The campaign is simulated with the effects of a real night (`effects.npz`, repeated with smaller effects for more
experiments): each proposal changes this repository's `train.py`, its runs are drawn around its true effect, and the
project's own keep rule decides. Times are measured in Chromium: from opening the file to the first picture, and from a
search to the filtered table. `--images` writes the screenshots of the documents instead.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from random import Random

import numpy as np

from pytest_autoresearch.core.experiment import BASELINE, Decision, Experiment, Proposal, Reason, Usage
from pytest_autoresearch.core.history import chain
from pytest_autoresearch.core.run import Crash, CrashClass, Limits, Role, Run
from pytest_autoresearch.core.setting import Setting
from pytest_autoresearch.keeprule import verdict
from pytest_autoresearch.keeprule.noise import VAL_BPB_ON_A_GPU
from pytest_autoresearch.keeprule.rule import STANDARD
from pytest_autoresearch.measure import confirm
from pytest_autoresearch.measure.confirm import Wanted
from pytest_autoresearch.reports.page import About, Artifact, page
from pytest_autoresearch.reports.page.curves import curve
from pytest_autoresearch.reports.progress import draw

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SD, BUDGET, BEGAN = 0.0004, 300.0, 1_795_561_200.0
WHY = {
    "MATRIX_LR": "Muon's step is normalized, so the right rate depends on the batch, which was changed earlier",
    "EMBEDDING_LR": "rare tokens get few updates in five minutes and need larger ones",
    "UNEMBEDDING_LR": "the head moves ahead of the features that it reads",
    "RESIDUAL_LR": "the residual weights hardly leave their start within the budget",
    "SKIP_LR": "early blocks could use more of the embedding",
    "WARMDOWN_FRACTION": "a longer fall averages more of the noise out of the last steps",
    "LR_FLOOR": "the last steps at a rate above nothing keep learning",
    "MOMENTUM": "short runs see few gradients, and older ones mislead",
    "MATRIX_DECAY": "weights that stay small leave room for the last steps",
    "VALUE_DECAY": "value embeddings of rare tokens are overfitted",
    "ROPE_BASE": "rows are short, so slow pairs carry nothing",
    "INIT_SCALE": "blocks that begin small let the stream through",
    "LOGIT_CAP": "the cap holds confident tokens back",
    "MLP_RATIO": "more steps are worth more than wider blocks in this budget",
    "SKIP_INIT": "a share of the embedding from the start",
    "WINDOW_DIVISOR": "most of what helps is near",
    "MOMENTUM_RAMP_FRACTION": "an earlier full momentum steadies the fast phase",
    "DEPTH_SCALE": "fewer blocks give more steps, more blocks better ones",
    "BATCH_SCALE": "smaller batches give more steps in the same time",
}
CRASHES = (
    (CrashClass.OOM, "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has 79.1 GiB, of which 1.2 GiB is free"),
    (CrashClass.EXIT, "RuntimeError: mat1 and mat2 shapes cannot be multiplied (4096x768 and 640x768)", 1),
    (CrashClass.NAN, "the loss is nan at step 212"),
    (CrashClass.TIMEOUT, "it was ended after 600 s"),
    (CrashClass.SYNTAX, "SyntaxError: '(' was never closed (train.py, line 233)"),
)


@cache
def source() -> list[str]:
    return (ROOT / "train.py").read_text("utf-8").splitlines()


@dataclass(slots=True)
class World:
    """The true effects of the commits, and the random numbers."""

    chance: Random
    truth: dict[str, float]


def edit(chance: Random, settings: dict[str, str]) -> tuple[Proposal, str, dict[str, float]]:
    """A proposal that changes one constant of the current `train.py`, and its patch."""
    name = chance.choice(list(WHY))
    place, line = next((at, text) for at, text in enumerate(source()) if text.startswith(f"{name} = "))
    old = settings.get(name, re.split(r" = |  #", line)[1].strip())
    number = float(old.replace("_", ""))
    value = number * chance.choice((0.5, 0.7, 0.8, 1.25, 1.4, 2.0)) if number else chance.choice((0.02, 0.05))
    new = f"{value:.3g}" if "e" not in f"{value:.3g}" else f"{value:,.0f}".replace(",", "_")
    settings[name] = new
    context = source()[place - 3 : place], source()[place + 1 : place + 4]
    said = line.partition("  #")[2]
    patch = [
        "diff --git a/train.py b/train.py", "index 3f1c2aa..9b0d7e1 100644", "--- a/train.py", "+++ b/train.py",
        f"@@ -{place - 2},7 +{place - 2},7 @@ {source()[place - 4][:40]}",
        *(f" {text}" for text in context[0]), f"-{name} = {old}  #{said}", f"+{name} = {new}  #{said}",
        *(f" {text}" for text in context[1]),
    ]  # fmt: skip
    proposal = Proposal(
        f"{name} {old} -> {new}", f"{WHY[name][0].upper()}{WHY[name][1:]}.", "anthropic",
        expected=f"{chance.choice((2, 5, 10))}e-4 lower",
        area=chance.choice(("optimizer", "schedule", "architecture", "initialisation")),
    )  # fmt: skip
    return proposal, "\n".join(patch), {name: value}


def log_of(chance: Random, metric: float, steps: int, crash: Crash | None = None) -> str:
    """The output of a run, in the format of this repository's `train.py`."""
    lines = ["profile h100, 300 s, 12 blocks of width 768, 124.4 M parameters", "compiled in 21.3 s"]
    last = steps if crash is None else chance.randrange(1, max(2, steps // 3))
    wander = 0.0
    for step in range(1, last + 1):
        share = step / steps
        wander = 0.9 * wander + chance.gauss(0, 0.012)
        loss = 2.26 + (metric - 1.0) * 3.2 + 3.2 * math.exp(-9 * share) + 0.55 * (1 - share) ** 1.6 + wander
        rate = min(1.0, (1 - share) / 0.7)
        lines.append(
            f"step {step:05d} ({100 * share:.1f}%) | loss: {loss:.6f} | lrm: {rate:.2f} | dt: 318ms "
            f"| tok/sec: 1,648,220 | mfu: 41.3% | remaining: {BUDGET * (1 - share):.0f}s"
        )
    if crash is not None:
        trace = ["Traceback (most recent call last):", '  File "train.py", line 648, in <module>', "    main()"]
        return "\n".join([*lines, *trace, crash.message]) + "\n"
    block = {"training_seconds": 299.41, "peak_vram_mb": 45_312.5, "mfu_percent": 41.2, "num_steps": steps}
    return "\n".join([*lines, "", "---", *(f"{name}: {value}" for name, value in block.items())]) + "\n"


def campaign(count: int, seed: int = 7, tag: str = "nov27") -> tuple[list[Experiment], dict[int, Artifact]]:
    """A night with a number of experiments, and its artifacts."""
    chance = Random(seed)
    effects = np.load(ROOT / "benchmarks" / "effects.npz")["D"]
    night = list(effects[seed % len(effects)])
    world = World(chance, {})
    records: list[Experiment] = []
    artifacts: dict[int, Artifact] = {}
    settings: dict[str, str] = {}
    now = BEGAN
    for number in range(count + 1):
        effect = night[(number - 1) % len(night)] / (1 + (number - 1) // len(night)) ** 1.5 if number else 0.0
        if number > len(night) and effect < 0:
            effect *= 0.3  # the easy gains are found
        experiment, artifact = one(number, tag, world, records, settings, float(effect))
        now += experiment.seconds
        records.append(replace(experiment, finished_at=now))
        artifacts[number] = artifact
    return records, artifacts


def one(
    number: int, tag: str, world: World, records: list[Experiment], settings: dict[str, str], effect: float
) -> tuple[Experiment, Artifact]:
    """One experiment, judged by the project's own rule."""
    chance, truth = world.chance, world.truth
    commit = hashlib.sha1(f"{tag}{number}".encode()).hexdigest()
    line = chain(records[:1]) if len(records) == 1 else [world_head(records)] if records else []
    like = Experiment(
        number, tag, commit, line[-1].commit if line else commit, commit[::-1], Proposal("baseline"),
        limits=Limits(BUDGET, 60, 600, 80 * 1024),
        setting=Setting("h100", "NVIDIA H100 80GB HBM3, driver 575.57", "a1", "b2", "bubblewrap"),
    )  # fmt: skip
    logs: dict[str, str] = {}

    def draw() -> int:
        return chance.randrange(2**31)

    def run(wanted: Wanted, next_ones: Iterable[Wanted] = ()) -> tuple[Run, ...]:
        commit, seed, role = wanted.commit, wanted.seed, wanted.role
        metric = round(truth[commit] + chance.gauss(0, SD), 6)
        steps = chance.randrange(935, 950)
        if role is not Role.INCUMBENT and (role in (Role.BASELINE, Role.SCREEN) or number < 200):
            logs["train" if not logs else f"{role}-{len(logs)}"] = log_of(chance, metric, steps // 4)
        return (
            Run(
                seed, metric, None, {"num_steps": steps}, BUDGET - chance.random(), chance.uniform(24, 30),
                chance.uniform(18, 21), BUDGET + chance.uniform(52, 56), 45_312.5 + chance.gauss(0, 30), "by process",
                exit_status=0, role=role, commit=commit if commit != like.commit else "",
            ),
        )  # fmt: skip

    if number == BASELINE:
        truth[commit] = 0.9979
        experiment = confirm.baseline(
            like, STANDARD, VAL_BPB_ON_A_GPU,
            lambda count: tuple(made for _ in range(count) for made in run(Wanted(commit, draw(), Role.BASELINE))),
        )  # fmt: skip
        patch = ""
        usage = Usage()
    else:
        head = line[-1]
        trial = dict(settings)
        proposal, patch, constants = edit(chance, trial)
        like = replace(like, proposal=proposal, constants=constants, lines_added=1, lines_removed=1)
        truth[commit] = truth[head.commit] + effect
        usage = Usage(
            "claude-fable-5-2", 2, 1200, 900 + chance.randrange(1500), 21_000, 800, chance.uniform(0.02, 0.09)
        )
        if effect > 0.03 or chance.random() < 0.04:
            crash = Crash(*chance.choice(CRASHES))
            log = log_of(chance, 1.0, 900 // 4, crash)
            logs["train"] = log
            failed = Run(42, None, training_seconds=chance.uniform(1, 120), startup_seconds=25, total_seconds=150,
                         peak_memory_mb=46_000, exit_status=1, crash=crash, log=log[-2000:])  # fmt: skip
            experiment = replace(like, runs=(failed,), decision=Decision(head.metric))
        else:
            known = records if len(records) < 200 else [records[0], *records[-60:], head]
            experiment = confirm.candidate(like, head, known, STANDARD, VAL_BPB_ON_A_GPU, run, draw)
    seconds = math.fsum(each.total_seconds for each in experiment.runs)
    timings = {"run": seconds, **({"propose": chance.uniform(15, 60)} if number else {})}
    experiment = replace(experiment, timings=timings, usage=usage)
    if experiment.crash:
        ruling = verdict.crashed(experiment.crash)
    elif number == BASELINE or experiment.decision.decided in (Reason.IMPROVED, Reason.SIMPLER):
        ruling = verdict.kept(experiment)
        settings.update(trial if number else {})
    else:
        ruling = verdict.discarded(experiment, "")
    curves = tuple(drawn for name, text in logs.items() if (drawn := curve(name, text, 120)))
    tail = "\n".join(next(iter(reversed(logs.values())), "").splitlines()[-14:])
    return experiment.judged(ruling, 0), Artifact(patch, tail, curves)


def world_head(records: Sequence[Experiment]) -> Experiment:
    """The last keep."""
    return next(one for one in reversed(records) if one.verdict and one.verdict.status == "keep")


def made(count: int) -> tuple[str, float]:
    """The page for a number of experiments, and the seconds that it took to make."""
    records, artifacts = campaign(count)
    began = time.perf_counter()
    text = page(records, artifacts, About(written_at=records[-1].finished_at))
    return text, time.perf_counter() - began


def measure(counts: Sequence[int]) -> None:
    """Print the table."""
    from playwright.sync_api import sync_playwright

    print(f"{'experiments':>11} {'page':>9} {'making it':>10} {'opening it':>11} {'a search':>9} {'a sort':>8}")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for count in counts:
            text, making = made(count)
            path = Path(folder) / f"{count}.html"
            path.write_text(text, "utf-8")
            looks = [look(browser, path) for _ in range(5)]
            opening, search, sort = (statistics.median(column) for column in zip(*looks, strict=True))
            size = f"{len(text.encode()) / 1e6:.2f} MB"
            print(
                f"{count:>11,} {size:>9} {making:>8.2f} s {opening:>9.2f} s {search:>6.0f} ms {sort:>5.0f} ms",
                flush=True,
            )
        browser.close()


def look(browser: object, path: Path) -> tuple[float, float, float]:
    """Seconds to the first picture, milliseconds of a search and of a sort, once."""
    tab = browser.new_page(viewport={"width": 1280, "height": 900})  # type: ignore[attr-defined]
    tab.goto(path.as_uri())
    tab.wait_for_selector("html[data-ready]")
    opening = float(tab.evaluate("document.documentElement.dataset.ready")) / 1000
    timed = (
        "() => { const began = performance.now(); %s; document.body.offsetHeight; return performance.now() - began }"
    )
    typed = "const box = document.getElementById('query'); box.value = 'rate'; box.dispatchEvent(new Event('input'))"
    search = tab.evaluate(timed % typed)
    tab.evaluate("document.getElementById('query').value = ''")
    sort = tab.evaluate(timed % "document.querySelector('[data-key=metric]').click()")
    tab.close()
    return opening, float(search), float(sort)


def images(folder: Path, count: int = 125) -> None:
    """The screenshots of the documents."""
    from playwright.sync_api import sync_playwright

    folder.mkdir(parents=True, exist_ok=True)
    records, artifacts = campaign(count)
    draw(records, folder / "progress.png")
    best = world_head(records).number
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        path = Path(scratch) / "report.html"
        path.write_text(page(records, artifacts, About(written_at=records[-1].finished_at)), "utf-8")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name, size, scheme, address, section in (
            ("report-light", (1280, 1400), "light", "", ""),
            ("report-dark", (1280, 1400), "dark", "", ""),
            ("report-table", (1280, 900), "light", "", "curves"),
            ("report-experiment", (1280, 1400), "light", f"#{best:04d}", ""),
            ("report-phone", (390, 844), "light", "", ""),
            ("report-phone-table", (390, 844), "light", "", "experiments"),
            ("report-phone-experiment", (390, 844), "dark", f"#{best:04d}", ""),
        ):
            tab = browser.new_page(
                viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, timezone_id="UTC",
                device_scale_factor=2 if size[0] < 500 else 1.5,
            )  # fmt: skip
            tab.goto(path.as_uri() + address)
            tab.wait_for_selector("html[data-ready]")
            if section:
                tab.evaluate("(id) => document.getElementById(id).scrollIntoView()", section)
            tab.wait_for_timeout(500)
            tab.screenshot(path=folder / f"{name}.png")
            small(folder / f"{name}.png")
            tab.close()
        browser.close()


def small(path: Path) -> None:
    """Reduce the picture to 256 colours: a third of its size, without a visible difference."""
    from PIL import Image

    with Image.open(path) as image:
        reduced = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    reduced.save(path, optimize=True)


def main() -> None:
    """Print the table, or write the images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=int, nargs="+", default=[100, 1000, 10_000], metavar="N")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="write screenshots there (none)")
    given = parser.parse_args()
    if given.images:
        images(given.images)
    else:
        measure(given.experiments)


if __name__ == "__main__":
    main()
