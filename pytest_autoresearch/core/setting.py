"""The conditions of a measurement. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Setting:
    """The conditions of a measurement. `core.conditions` says which of them must be equal to compare results.

    Attributes:
        profile: The hardware class.
        hardware_key: Identifies the hardware.
        harness_hash: Hash of the frozen paths.
        data_hash: Hash of the prepared data.
        rows: A fingerprint of the secret that draws the rows of the evaluation; empty without one.
        sandbox: The sandbox of the training process, in words; they begin with `none` if there was no sandbox.
        command: The training command; empty in records of earlier versions.
        environment: The variables for training that can change a result; None in records of earlier versions.
        readable: A fingerprint of each path in `autoresearch_readable`; None in records of earlier versions.
        python: The version of Python; empty if unknown.
        packages: A digest of the installed packages and their versions; empty if unknown.
        driver: The GPU's driver; empty without a GPU.
    """

    profile: str = ""
    hardware_key: str = ""
    harness_hash: str = ""
    data_hash: str = ""
    rows: str = ""
    sandbox: str = "none"
    command: str = ""
    environment: Mapping[str, str] | None = None
    readable: Mapping[str, str] | None = None
    python: str = ""
    packages: str = ""
    driver: str = ""

    @property
    def confined(self) -> bool:
        """Whether training ran in a sandbox."""
        return self.sandbox.partition(" ")[0] != "none"
