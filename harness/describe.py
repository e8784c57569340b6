"""Describes this harness for a session, as one JSON object: the command `python -m harness.describe`.

Makes the embedded data first if the profile has no data. Does not know what a session does with the description.
"""

import inspect
import json

import harness
from harness import cache, clock, profiles, scorer
from harness.errors import run_command
from harness.profiles import Profile


def describe() -> dict[str, object]:
    """Profile, limits, hardware key, data hash, and the scorer's command.

    `environment` fixes these choices for every run. `retry_out_of_memory` is added to it when a run that ran out of
    memory is tried again. `secret` says that the scorer draws its rows with AUTORESEARCH_SECRET.
    """
    profile = profiles.profile()
    device_batch = clock.device_batch_of_environment()
    data = _data(profile)
    data.check()
    return {
        "profile": profile.name,
        "device": profile.device,
        "budget_seconds": profile.budget_seconds,
        "memory_limit_mb": profile.memory_limit_mb,
        "hardware_key": hardware_key(profile),
        "data_hash": data.data_hash,
        "sequence_length": profile.sequence_length,
        "vocab_size": profile.vocab_size,
        "evaluation_tokens": data.evaluation_tokens,
        "audit_tokens": data.audit_tokens,
        "pool_tokens": data.pool_rows * data.sequence_length,
        "secret": True,
        "visible_documents": data.visible_documents,
        "score": ["python", "-m", "harness.scorer"],
        "score_waits": True,
        "scorer_prints": list(scorer.PRINTS),
        "training_rows": str(data.folder / cache.TRAINING),
        "data_files": [str(path) for path in data.files],
        "hidden": list(data.taken_from),
        "environment": {
            "AUTORESEARCH_PROFILE": profile.name,
            "AUTORESEARCH_SEQ_LEN": str(profile.sequence_length),
            "AUTORESEARCH_CACHE": str(cache.root()),
            "AUTORESEARCH_DATA": data.folder.name,
            **({"AUTORESEARCH_DEVICE_BATCH": str(device_batch)} if device_batch else {}),
        },
        "audit_environment": {"AUTORESEARCH_ROWS": "audit"} if data.audit_tokens else {},
        "retry_out_of_memory": {"AUTORESEARCH_HALVE_BATCH": "1"},
        "interface": interface(),
    }


def interface() -> str:
    """The documentation of the names that a training script may use: the package's docstring, then each name's."""
    parts = [inspect.getdoc(harness) or ""]
    for name in harness.__all__:
        thing = getattr(harness, name)
        said = (inspect.getdoc(thing) or "") if callable(thing) else f"= {thing!r}"
        head = f"harness.{name}{inspect.signature(thing) if inspect.isfunction(thing) else ''}"
        parts.append(head + "".join(f"\n    {line}".rstrip() for line in said.splitlines()))
    return "\n\n".join(parts)


def hardware_key(profile: Profile) -> str:
    """Results are compared only if their keys are equal: the device, and on a CPU the number of cores."""
    if profile.device == "cpu":
        return f"{profile.device_name}, {profiles.usable_cores()} cores"
    return profile.device_name


def _data(profile: Profile) -> cache.Data:
    """The data to use; made from the embedded corpus if no data were chosen."""
    name = cache.chosen(profile)
    if name and cache.load(cache.root() / name):
        return cache.find(profile)
    # Imported here, because it is slow to import and rarely needed.
    from harness.prepare import embedded_folder, prepare

    return prepare(profile) if name in (None, embedded_folder(profile).name) else cache.find(profile)


def main() -> None:
    """The command line."""
    print(json.dumps(describe(), indent=2))


if __name__ == "__main__":
    run_command(main)
