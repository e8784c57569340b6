"""How often an honest model is rejected, with all looks at once: a campaign of small models, each better than the last.

    python benchmarks/honest.py [--models N]

Training counts which token follows which, so a run takes seconds; the harness, the rows and the sandbox are those of a
session (`tests/attacks/models.py`). Each model is better than the best so far, so that each is probed and compared with
fresh rows, and each later run of a kept one may be probed. Prints every verdict that is not a keep.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "attacks"))

from models import files, prepared
from night import Attack, Night

from pytest_autoresearch.core.experiment import Status


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Honest models that are rejected.")
    parser.add_argument("--models", type=int, default=200, metavar="N", help="honest models (200)")
    count = parser.parse_args().models
    with tempfile.TemporaryDirectory() as folder:
        home, place = Path(folder, "home"), Path(folder, "night")
        told = {**prepared(Path(folder)), "XDG_CACHE_HOME": str(home)}
        place.mkdir()
        models = [Attack(f"model {number}", better(1 - 0.2 * number / count)) for number in range(1, count)]
        begun = time.monotonic()
        night = Night(
            place, models, files=files(), environment=told, sandbox="require", every=count, timeout=600.0 + 60.0 * count
        )
        seconds = time.monotonic() - begun
        records = night.records[1:]
        verdicts = [record.verdict for record in records if record.verdict is not None]
        for record, verdict in zip(records, verdicts, strict=True):
            if verdict.status is not Status.KEEP:
                print(f"{record.number:04d} {verdict.reason}: {verdict.message}")
        crashed = sum(verdict.status is Status.CRASH for verdict in verdicts)
        looked = [run.scored for record in records for run in record.runs if "fresh_excess" in run.scored]
        print(
            f"{crashed} of {len(records)} crashed or rejected; {len(looked)} looks at fresh rows, "
            f"largest excess {max(one['fresh_excess'] for one in looked):+.3f} bits per byte; "
            f"{sum('probe_cuts' in run.scored for record in records for run in record.runs)} probes; "
            f"{seconds / len(records):.1f} s an experiment, median peak "
            f"{statistics.median(run.peak_memory_mb for record in records for run in record.runs):.0f} MB"
        )


def better(rate: float) -> str:
    """An edit that sets the constant, whatever its value is now."""
    return f"import re\ntrain.write_text(re.sub('RATE = .*', 'RATE = {rate:.5f}', train.read_text(), count=1))"


if __name__ == "__main__":
    main()
