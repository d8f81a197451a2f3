#!/usr/bin/env bash
# Runs everything that CI runs, or only the parts that you name: scripts/test.sh [PART...]
# Parts: lint, and each folder of tests/ that holds tests (unit, contract, simulation, ...); what follows -- goes to pytest.
# torch: its engine alone, once scripts/torch.sh has put 4 GB into .venv; a run of everything has it when it is there.
# training: what needs torch and the readers of databases, once scripts/training.sh has installed them; likewise.
# Three processes share the tests (scripts/lanes.py); -- -n 0 runs them in one, e.g. for a debugger.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
./scripts/venv.sh dev
export PATH="$PWD/.venv/bin:$PATH" PYTHON="$PWD/.venv/bin/python" PYTHONDONTWRITEBYTECODE=
demand="${HATHI_DEMAND_SERVERS:-}" # 1: a server that cannot be had is a failure, as in CI
unset "${!HATHI_@}" # a person's own settings are not what is tested
export HATHI_DEMAND_SERVERS="$demand"
export OMP_WAIT_POLICY=passive # threads that wait leave the core to those that work: there are more than cores

# Quick ones first. A folder that is not in the list runs too, at the end; benchmarks are for people.
known=(unit contract simulation integration crash spark fuzz acceptance) # fuzz: 2 s of a core for each reader
not_in_ci=(benchmarks golden kube) # kube: its servers take 11 minutes of a core to compile; CI has no room for them yet
with_servers=(contract integration crash spark acceptance kube)

has_tests() { [ -n "$(find "tests/$1" -name 'test_*.py' -print -quit 2>/dev/null)" ]; }
one_of() { local word="$1" other; shift; for other; do [ "$word" = "$other" ] && return 0; done; return 1; }
step() { echo "--- $*"; }

generated_code_is_current() {
    local fresh status=0 file
    fresh="$(mktemp -d)"
    scripts/generate.sh "$fresh" >/dev/null || return 1
    while read -r file; do
        if ! cmp -s "$fresh/$file" "$file"; then
            echo "$file differs from what scripts/generate.sh makes from proto/: run it and commit the result" >&2
            status=1
        fi
    done < <(cd "$fresh" && find . -type f -name '*_pb2.py*' | sed 's,^\./,,')
    rm -rf "$fresh"
    return $status
}

lint() {
    local status=0
    step "ruff check" && ruff check . || status=1
    step "ruff format --check" && ruff format --check --output-format concise . || status=1
    step "mypy --strict" && mypy --strict pipeline hathi tests examples || status=1
    step "lint-imports" && lint-imports --no-logo --config .importlinter || status=1
    step "generated code" && generated_code_is_current && echo "current" || status=1
    return $status
}

parts=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do parts+=("$1"); shift; done
if [ $# -gt 0 ]; then shift; fi

everything=no
if [ ${#parts[@]} -eq 0 ]; then
    everything=yes
    parts=(lint)
    for part in "${known[@]}"; do
        if has_tests "$part"; then parts+=("$part"); else echo "LEFT OUT: $part: tests/$part holds no tests yet"; fi
    done
    for folder in tests/*/; do
        part="$(basename "$folder")"
        if one_of "$part" "${not_in_ci[@]}"; then continue; fi
        if ! one_of "$part" "${known[@]}" && has_tests "$part"; then parts+=("$part"); fi
    done
    if has_tests benchmarks || [ -n "$(ls -A tests/benchmarks 2>/dev/null)" ]; then
        echo "LEFT OUT: benchmarks: they measure and assert nothing; see tests/benchmarks"
    fi
    echo "LEFT OUT: kube: real servers of Kubernetes are compiled for minutes; scripts/test.sh kube runs them"
    if ! .venv/bin/python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)'; then
        echo "LEFT OUT: torch: it is not installed, so its engine is not tested; scripts/test.sh torch installs it (4 GB)"
    fi
    for reader in lmdb h5py google_crc32c; do
        if ! .venv/bin/python -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$reader') is None)"; then
            echo "LEFT OUT: training: $reader is not installed, so its data layers are not tested; scripts/test.sh training installs it"
            break
        fi
    done
fi

timed_lint() {
    local status=0 started=$SECONDS
    echo "=== lint"
    lint || status=1
    echo "=== lint took $((SECONDS - started)) s"
    return $status
}

failed=()
folders=()
for part in "${parts[@]}"; do
    if [ "$part" = lint ]; then
        continue # beside the tests, see below
    elif [ "$part" = torch ]; then
        ./scripts/torch.sh
        folders+=("tests/unit/nets/test_torch.py" tests/unit/training/test_engine_*.py)
    elif [ "$part" = training ]; then
        ./scripts/training.sh
        ./scripts/linear.sh
        folders+=("tests/unit/training")
        if has_tests integration/training; then folders+=("tests/integration/training"); fi
    elif has_tests "$part"; then
        folders+=("tests/$part")
    elif has_tests "unit/$part"; then # a room: nets, images, fetch, codec
        folders+=("tests/unit/$part")
        if has_tests "integration/$part"; then folders+=("tests/integration/$part"); fi
    else
        echo "no such part: $part (lint, or a folder of tests/ or tests/unit/ with tests)" >&2
        exit 2
    fi
done

if [ ${#folders[@]} -eq 0 ]; then
    timed_lint || failed+=(lint)
else
    for part in "${parts[@]}"; do
        if one_of "$part" "${with_servers[@]}"; then
            echo "=== servers"
            servers=() # all of them
            if [ "${parts[*]}" = contract ]; then servers=(s3 hdfs kerberos); fi
            if [ "${parts[*]}" = kube ]; then servers=(kube); fi
            ./scripts/servers.sh "${servers[@]}" || failed+=(servers)
            break
        fi
    done
    said=
    if one_of lint "${parts[@]}"; then # mypy takes minutes of one core, in which tests need not wait
        said="$(mktemp)"
        timed_lint >"$said" 2>&1 &
        linting=$!
        trap 'rm -f "$said"; kill "$linting" 2>/dev/null || true' EXIT
    fi
    echo "=== tests: ${folders[*]}"
    PYTHONPATH="scripts${PYTHONPATH:+:$PYTHONPATH}" pytest -p part_times -p lanes -n 3 "${folders[@]}" "$@" || failed+=(tests)
    if [ -n "$said" ]; then
        wait "$linting" || failed+=(lint)
        cat "$said"
    fi
fi
if [ ${#failed[@]} -gt 0 ]; then
    echo "FAILED: ${failed[*]}"
    exit 1
fi
if [ $everything = no ]; then echo "(only: ${parts[*]})"; fi
