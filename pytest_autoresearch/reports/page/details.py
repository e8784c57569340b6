"""The details of every experiment, packed. The page unpacks them when an experiment is opened.

A pack holds the details of some experiments as JSON, compressed and in base64: ten thousand diffs and logs fit into a
file, and none of their text can become markup. Pure: records and artifacts in, text out.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_autoresearch.core.experiment import Experiment
from pytest_autoresearch.core.run import Run
from pytest_autoresearch.reports.page.artifacts import DIFF_CHARACTERS, NOTHING, Artifact, shortened
from pytest_autoresearch.reports.page.contents import cut, stages
from pytest_autoresearch.reports.page.curves import Curve
from pytest_autoresearch.reports.page.sentence import sentence
from pytest_autoresearch.reports.plain import line, plain, visible

PACK = 50  # experiments
_TEXT = 4000
_RUNS = 40
_LEVEL = 6
_ENOUGH = 10  # packs from which the total size is estimated
_SMALLEST = 1 << 12


class Packs:
    """A cache of packs: records do not change, so a full pack is made once for many pages."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, int, int, int], str] = {}
        self._share = 1

    def of(
        self, records: Sequence[Experiment], artifacts: Mapping[int, Artifact], decimals: int, most: int
    ) -> list[str]:
        """The packs of the records, in order. If they are too large, all texts are cut shorter.

        Args:
            most: Size limit of all packs together, in bytes.
        """
        while (packs := self._all(records, artifacts, decimals, most)) is None:
            self._share *= 2
        return packs

    def _all(
        self, records: Sequence[Experiment], artifacts: Mapping[int, Artifact], decimals: int, most: int
    ) -> list[str] | None:
        """The packs; None if they exceed `most` bytes, or would by the size of the first ones."""
        made: dict[tuple[int, int, int, int], str] = {}
        packs: list[str] = []
        size, count = 0, -(-len(records) // PACK)
        for start in range(0, len(records), PACK):
            some = records[start : start + PACK]
            have = sum(one.number in artifacts for one in some)
            key = (hash(tuple(one.number for one in some)), have, decimals, self._share)
            made[key] = self._made.get(key) or _packed(some, artifacts, decimals, self._share)
            packs.append(made[key])
            size += len(made[key])
            seen = len(packs)
            if self._share < _SMALLEST and size > min(1.2 * most * seen / count if seen >= _ENOUGH else most, most):
                return None
        self._made = made
        return packs


def _packed(
    some: Sequence[Experiment], artifacts: Mapping[int, Artifact], decimals: int, share: int
) -> str:  # fmt: skip
    documents = [detail(one, artifacts.get(one.number, NOTHING), decimals, share) for one in some]
    text = json.dumps(documents, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), _LEVEL, mtime=0)).decode()


def detail(experiment: Experiment, artifact: Artifact, decimals: int, share: int = 1) -> dict[str, Any]:
    """All details of one experiment, without empty fields.

    Args:
        share: Divisor of the size limits of texts and curves, for large campaigns.
    """
    proposal, ruling, usage = experiment.proposal, experiment.verdict, experiment.usage
    text = _TEXT // share
    document: dict[str, Any] = {
        "text": cut(proposal.description, max(text, 200)),
        "sentence": line(sentence(experiment, decimals)),
        "message": plain(ruling.message)[:text] if ruling and not experiment.decision.evidence else "",
        "evidence": plain(experiment.decision.evidence)[:text],
        "hypothesis": plain(proposal.hypothesis)[:text],
        "expected": plain(proposal.expected)[:text],
        "area": cut(proposal.area, 200),
        "notes": plain(experiment.notes)[: text // 2],
        "proposer": cut(" · ".join(one for one in (proposal.proposer, usage.model) if one), 200),
        "margin": _finite(experiment.margin),
        "commit": experiment.commit,
        "base": experiment.base,
        "runs": [_run(run) for run in experiment.runs[:_RUNS]],
        "repairs": [[line(one.stage), plain(str(one.crash))[: text // 4]] for one in experiment.repairs[:20]],
        "constants": {
            cut(name, 80): cut(value, 80) if isinstance(value, str) else _finite(value)
            for name, value in list(experiment.constants.items())[:40]
        },
        "stages": {name: round(seconds, 2) for name, seconds in stages(experiment).items() if seconds >= 0.005},
        "usage": {
            "requests": usage.requests,
            "input": usage.input_tokens,
            "cache_read": usage.cache_read_tokens,
            "cache_write": usage.cache_write_tokens,
            "output": usage.output_tokens,
            "cost": _finite(usage.cost_usd),
        } if usage.requests else None,
        "diff": shortened(visible(artifact.diff), max(DIFF_CHARACTERS // share, 200)),
        "log": visible(artifact.log)[-max(3000 // share, 200) :],
        "curves": [_curve(one, share) for one in artifact.curves[: max(1, 6 // share)]],
    }  # fmt: skip
    return {name: value for name, value in document.items() if value not in ("", None, [], {})}


def _run(run: Run) -> dict[str, Any]:
    document = {
        "role": line(run.role),
        "seed": run.seed,
        "metric": _finite(run.metric),
        "reported": _finite(run.reported) if run.reported != run.metric else None,
        "commit": run.commit[:10],
        "training": round(run.training_seconds, 2),
        "total": round(run.total_seconds, 2),
        "memory": round(run.peak_memory_mb),
        "steps": _finite(run.metrics.get("num_steps")),
        "exit": run.exit_status,
        "crash": cut(str(run.crash), 300) if run.crash else "",
        "hopeless": cut(run.hopeless, 300),
        "inconclusive": cut(run.inconclusive, 300),
        "others": [cut(one, 80) for one in (run.others or ())[:4]],
        "throttling": {cut(name, 60): round(part, 3) for name, part in (run.throttling or {}).items() if part},
        "device": cut(run.device, 60),
        "lane": run.lane,
    }
    return {name: value for name, value in document.items() if value not in ("", None, [], {})}


def _curve(curve: Curve, share: int) -> list[Any]:
    """Name, steps, losses and shares of the budget; every `share`-th point, including the last."""
    step = min(share, 8)
    places = [place for place in range(len(curve.steps)) if (len(curve.steps) - 1 - place) % step == 0]
    columns = (curve.steps, curve.losses, curve.shares)
    return [curve.log, *([column[place] for place in places] if column else [] for column in columns)]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
