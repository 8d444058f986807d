# Sourced by each run.sh: a workspace of its own, and nothing left behind.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[1]}")"
work=$(mktemp -d)
export FIELDPOST_WORKSPACE="${FIELDPOST_WORKSPACE:-$work/workspace}"
started=()
finish() {
  for name in "${started[@]}"; do fieldpost deployment stop "$name" >/dev/null 2>&1 || true; done
  rm -rf "$work"
}
trap finish EXIT
