"""Records of schema 1 as earlier sessions wrote them: a campaign that was begun with them goes on.

`records/experiments/NAME.json` is a record, `NAME.again.json` what it is when read and written again, where that is not
the same: earlier versions wrote fewer fields, or other words in a sentence. None of these files may change.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_autoresearch.core import records
from pytest_autoresearch.keeprule import audit

FOLDER = Path(__file__).parent / "records"
WRITTEN = [path for path in sorted(FOLDER.glob("*/*.json")) if not path.stem.endswith(".again")]


@pytest.mark.parametrize("written", WRITTEN, ids=[f"{path.parent.name}-{path.stem}" for path in WRITTEN])
def test_a_record_of_schema_1_is_read_and_written_again_as_ever(written: Path) -> None:
    codec = audit if written.parent.name == "audits" else records
    again = written.with_suffix(".again.json")
    expected = (again if again.exists() else written).read_bytes()
    assert codec.encode(codec.decode(written.read_text("utf-8"))).encode() == expected
