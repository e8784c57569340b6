"""What a session must know of this harness, as one JSON object: the command `python -m harness.describe`. Makes the
embedded data first where the profile has none. May not know what a session does with it."""

import inspect
import json

import harness
from harness import cache, clock, profiles
from harness.errors import run_command
from harness.profiles import Profile


def describe() -> dict[str, object]:
    """Profile, limits, hardware key, data hash, the scorer's command, the environment that fixes them, and what to add
    to it when a run that crashed for want of memory is tried once more."""
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
        "score": ["python", "-m", "harness.scorer"],
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
    """What a training script may use, for whoever writes one: the page of the package, then each name of it."""
    parts = [inspect.getdoc(harness) or ""]
    for name in harness.__all__:
        thing = getattr(harness, name)
        said = (inspect.getdoc(thing) or "") if callable(thing) else f"= {thing!r}"
        head = f"harness.{name}{inspect.signature(thing) if inspect.isfunction(thing) else ''}"
        parts.append(head + "".join(f"\n    {line}".rstrip() for line in said.splitlines()))
    return "\n\n".join(parts)


def hardware_key(profile: Profile) -> str:
    """What must be equal for two results to be compared: the device, and on a CPU its cores."""
    if profile.device == "cpu":
        return f"{profile.device_name}, {profiles.usable_cores()} cores"
    return profile.device_name


def _data(profile: Profile) -> cache.Data:
    """The data to use, made from the embedded corpus if nothing else was ever chosen."""
    name = cache.chosen(profile)
    if name and cache.load(cache.root() / name):
        return cache.find(profile)
    # Slow to import, and seldom needed.
    from harness.prepare import embedded_folder, prepare

    return prepare(profile) if name in (None, embedded_folder(profile).name) else cache.find(profile)


def main() -> None:
    """The command line."""
    print(json.dumps(describe(), indent=2))


if __name__ == "__main__":
    run_command(main)
