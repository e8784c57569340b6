#!/usr/bin/env bash
# Checks this machine and adds to the repository what a campaign needs; overwrites nothing.
set -euo pipefail

if [[ ${1:-} == --help ]]; then
  echo "usage: set-up.sh [OPTION OF autoresearch init]..."
  echo "Runs \`autoresearch doctor\` and \`autoresearch init\` in this repository, and says what comes next."
  exit 0
fi

command -v autoresearch > /dev/null || {
  echo "the command autoresearch is not on PATH: install pytest-autoresearch into this repository's environment" >&2
  exit 4
}
git rev-parse --show-toplevel > /dev/null || exit 4

echo "+ autoresearch doctor --json"
autoresearch doctor --json || echo "not ready for everything: see above" >&2
echo "+ autoresearch init $*"
autoresearch init "$@"

echo "next: write program.md, commit, and measure once with: autoresearch run"
git status --short
