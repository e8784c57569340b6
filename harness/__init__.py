"""The trusted part of this repository: data, batches, the clock and the metric. It is the same for every experiment.

Knows nothing of pytest or the plugin: they communicate through command lines, files and environment variables. A
training script may use only the names on this page.

    import harness

    profile = harness.profile()                # sequence length, vocabulary, device, budget
    model = compile_and_warm_up(profile)       # on made-up tokens
    rows = harness.begin()                     # starts the clock
    for inputs, targets in harness.batches(rows, 32, profile.device, harness.seed()):
        ...
"""

import sys

from harness.errors import say_what_is_missing

if sys.argv[:1] == ["-m"]:  # one of the harness's commands is being started
    sys.excepthook = say_what_is_missing

from harness.batching import batches
from harness.cache import FORMAT_VERSION
from harness.clock import begin, budget_seconds, device_batch, out_folder, seed
from harness.errors import HarnessError
from harness.packing import BOS
from harness.process import tune_process
from harness.profiles import Profile, profile
from harness.scoring import score

__all__ = [
    "BOS",
    "FORMAT_VERSION",
    "HarnessError",
    "Profile",
    "batches",
    "begin",
    "budget_seconds",
    "device_batch",
    "out_folder",
    "profile",
    "score",
    "seed",
    "tune_process",
]
