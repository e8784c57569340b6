#!/usr/bin/env bash
# Runs experiments: in the background with a log, or in the foreground.
set -euo pipefail

usage() {
  cat <<'END'
usage: run.sh [--max N] [--hours H] [--cost USD] [--tag TAG] [--description TEXT] [--proposer NAME] [--budget SECONDS]
              [--foreground] [-- OPTION OF pytest...]
Starts `pytest --autoresearch` in the background with its output in autoresearch.log and prints the process id;
with --foreground it waits, and its exit status is pytest's. --max 0 means until something else stops it.
END
}

given=()
background=yes
while (($#)); do
  case $1 in
    --help) usage; exit 0 ;;
    --foreground) background=; shift ;;
    --max | --hours | --cost | --tag | --description | --proposer | --budget)
      [[ $# -ge 2 ]] || { echo "run.sh: $1 needs a value" >&2; exit 4; }
      given+=("--autoresearch-${1#--}" "$2"); shift 2 ;;
    --) shift; given+=("$@"); break ;;
    *) usage >&2; exit 4 ;;
  esac
done

echo "+ pytest --autoresearch ${given[*]}"
if [[ -z $background ]]; then
  exec pytest --autoresearch --autoresearch-json ${given[@]+"${given[@]}"}
fi
nohup pytest --autoresearch --autoresearch-json ${given[@]+"${given[@]}"} > autoresearch.log 2>&1 &
pid=$!
for _ in {1..300}; do  # until it has begun, or said in a sentence what to put right
  grep -qs '^autoresearch: campaign' autoresearch.log && break
  kill -0 "$pid" 2> /dev/null || break
  sleep 0.1
done
if ! kill -0 "$pid" 2> /dev/null && ! wait "$pid"; then
  tail -n 5 autoresearch.log >&2
  exit 4
fi
echo "running as $pid; look with read.sh, stop with: kill -TERM $pid; log: autoresearch.log"
