#!/usr/bin/env bash
# Gets a verdict on the edit in this checkout: exit status 0 kept, 1 not kept, 2 and above no verdict.
set -euo pipefail

if [[ $# -lt 1 || $1 == --help ]]; then
  echo "usage: try.sh DESCRIPTION [OPTION OF pytest]..."
  echo "Tries the uncommitted edit of the editable files: exit status 0 kept, 1 not kept, 2 and above no verdict."
  [[ ${1:-} == --help ]] && exit 0
  exit 4
fi
description=$1
shift
exec pytest --autoresearch --max 1 --autoresearch-proposer checkout --autoresearch-json \
  --autoresearch-description "$description" "$@"
