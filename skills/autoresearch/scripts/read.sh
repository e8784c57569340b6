#!/usr/bin/env bash
# Shows a campaign, or one of its experiments.
set -euo pipefail

usage() {
  echo "usage: read.sh [--tag TAG] [--top N] [--kept-only] [--grep TEXT] [--since WHEN] [--json] [RESULTS.TSV]"
  echo "       read.sh [--tag TAG] --show NUMBER"
  echo "Lists the experiments of a campaign (the last one worked on), or shows one with its change and its log."
}

rest=()
show=
while (($#)); do
  case $1 in
    --help) usage; exit 0 ;;
    --show)
      [[ $# -ge 2 ]] || { usage >&2; exit 4; }
      show=$2; shift 2 ;;
    *) rest+=("$1"); shift ;;
  esac
done

if [[ -n $show ]]; then
  exec autoresearch show "$show" --diff --log ${rest[@]+"${rest[@]}"}
fi
exec autoresearch results ${rest[@]+"${rest[@]}"}
