#!/usr/bin/env bash
# Looks up each locked package in a public list of known vulnerabilities: scripts/audit.sh [LOCK...]
# Exit codes: 0 no vulnerability is known, 1 some are known, 2 the list could not be reached: nothing is known.
# It is not a part of CI, since its result changes without the code.  pip-audit goes into a folder of its own (locks/audit.txt:
# echo 'pip-audit>=2.7' | uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -).
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
./scripts/venv.sh runtime || exit 2
[ $# -gt 0 ] || set -- locks/runtime.txt locks/dev.txt
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

not_asked() {
    echo "NOT AUDITED: $1" >&2
    echo "  This says nothing about the packages, neither good nor bad. Run the script where the list can be reached." >&2
    exit 2
}

UV_PYTHON_DOWNLOADS=never .venv/bin/uv venv --quiet --python .venv/bin/python "$scratch/venv" || not_asked "no venv could be made"
.venv/bin/uv pip install --quiet --python "$scratch/venv/bin/python" --require-hashes -r locks/audit.txt ||
    not_asked "pip-audit could not be installed"
worst=0
for lock; do
    echo "--- $lock"
    "$scratch/venv/bin/pip-audit" --require-hashes --disable-pip --progress-spinner off -r "$lock" \
        >"$scratch/said" 2>"$scratch/errors"
    status=$?
    unasked="$(grep -c 'could not be audited' "$scratch/said")"
    if [ "$unasked" -gt 0 ]; then
        not_asked "the list of vulnerabilities cannot be reached: it gave no answer for $unasked packages of $lock"
    elif grep -qE 'Found [1-9][0-9]* known vulnerabilit' "$scratch/errors"; then
        cat "$scratch/said"
        worst=1
    elif [ $status -ne 0 ]; then
        not_asked "the list of vulnerabilities cannot be reached: $(tail -n 1 "$scratch/errors" | cut -c1-200)"
    else
        cat "$scratch/errors"
    fi
done
exit $worst
