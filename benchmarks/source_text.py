"""Text for a GPU without a network: the source code in tar archives, as parquet shards.

    apt-get download linux-source-6.12=6.12.117-1~deb12u1 gcc-12-source=12.2.0-14+deb12u1
    python benchmarks/source_text.py FOLDER linux-source-6.12.tar.xz gcc-12.2.0-dfsg.tar.xz
    python -m harness.prepare --source FOLDER --profile h200

Archives in the same order give the same documents in the same shards. One folder of source files in nine is for
validation. Files above 256 KiB are skipped: most are generated tables. No text occurs twice.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tarfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from harness.shards import shard_name, write_shard

SUFFIXES = (
    ".c", ".h", ".s", ".cc", ".cpp", ".cxx", ".hpp", ".inc", ".d", ".go", ".adb", ".ads", ".f", ".f90", ".f95", ".m",
    ".mm", ".rs", ".py", ".sh", ".pl", ".awk", ".md", ".opt", ".def", ".rst", ".txt", ".texi", ".dts", ".dtsi", ".dtso",
    ".yaml", ".json", ".tbl", ".lds", ".exp", ".am", ".in",
)  # fmt: skip
NAMES = ("Makefile", "Kconfig", "ChangeLog")
LARGEST = 2**18  # bytes of a file
ONE_IN = 9  # folders
TRAINING_SHARDS = 48

Document = tuple[bool, str]  # whether it is for validation, and its text


def documents(archive: Path) -> list[Document]:
    """The source files of an archive that are UTF-8, in its order."""
    found: list[Document] = []
    with tarfile.open(archive, "r|*") as members:
        for member in members:
            path = PurePosixPath(member.name)
            wanted = path.suffix.lower() in SUFFIXES or path.name in NAMES
            if not (wanted and member.isfile() and 0 < member.size <= LARGEST):
                continue
            file = members.extractfile(member)
            try:
                text = file.read().decode("utf-8") if file else ""
            except UnicodeDecodeError:
                continue
            number = int.from_bytes(hashlib.sha256(str(path.parent).encode()).digest()[:4])
            found.append((number % ONE_IN == 0, text))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("archives", type=Path, nargs="+")
    given = parser.parse_args()
    if given.folder.exists():
        sys.exit(f"{given.folder} exists already: name a new folder")
    with ProcessPoolExecutor(len(given.archives)) as processes:
        found = [document for part in processes.map(documents, given.archives) for document in part]
    unique = list(dict.fromkeys(found))
    training = [text for held_out, text in unique if not held_out]
    known = set(training)
    validation = [text for held_out, text in unique if held_out and text not in known]
    # Each shard has files from everywhere, so that they take equally long and give the tokenizer the same mixture.
    parts = [*(training[number::TRAINING_SHARDS] for number in range(TRAINING_SHARDS)), validation]
    given.folder.mkdir(parents=True)
    with ThreadPoolExecutor() as threads:
        list(threads.map(write_shard, (given.folder / shard_name(number) for number in range(len(parts))), parts))
    for name, texts in (("training", training), ("validation", validation)):
        print(f"{name}: {len(texts)} documents, {sum(map(len, texts)) / 1e6:.1f} million characters")


if __name__ == "__main__":
    main()
