#!/usr/bin/env bash
# Makes .venv from the lock files, or does nothing if it is current.  No other script makes it.
# Usage: scripts/venv.sh runtime|dev     (dev includes runtime; PYTHON=... chooses the interpreter)
set -euo pipefail

kind="${1:-runtime}"
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
venv="$root/.venv"
case "$kind" in
    runtime | dev) ;;
    *) echo "usage: scripts/venv.sh runtime|dev" >&2; exit 2 ;;
esac

say() { echo "hathi: $*" >&2; }

# .venv is not made by itself: its Python stands first on the PATH of many, and has no pip.
PATH="$(printf %s "$PATH" | tr : '\n' | { grep -vxF "$venv/bin" || true; } | paste -sd :)"

# What .venv must have been made from; a moved project counts as changed, since a venv holds absolute paths.
wanted() { (cd "$root" && echo "$root" && sha256sum locks/uv.txt locks/runtime.txt ${1:+"locks/$1.txt"}); }

is_current() {
    local stamp
    [ -x "$venv/bin/hathi" ] || return 1
    stamp="$(cat "$venv/.made-from-dev" 2>/dev/null)" && [ "$stamp" = "$(wanted dev)" ] && return 0
    [ "$kind" = runtime ] || return 1
    stamp="$(cat "$venv/.made-from-runtime" 2>/dev/null)" && [ "$stamp" = "$(wanted)" ]
}

find_python() {
    local candidate
    for candidate in "${PYTHON:-python3}" python3 python python3.11 python3.12 python3.13 python3.14; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    say "Hathi needs Python 3.11 or newer; this machine has $(python3 --version 2>&1 || true)"
    say "install it, or name it: PYTHON=/path/to/python3.12 $0 $kind"
    return 2
}

make_venv() {
    local python="$1"
    if [ -f "$venv/pyvenv.cfg" ] && "$venv/bin/python" -c 'import sys; sys.exit(sys.prefix != sys.argv[1])' "$venv" 2>/dev/null; then
        return
    fi
    if [ -e "$venv" ] && [ ! -f "$venv/pyvenv.cfg" ] && [ -n "$(ls -A "$venv")" ]; then
        say "$venv exists but is not a virtual environment: move it away, then start again"
        return 2
    fi
    say "making .venv with $("$python" --version)"
    "$python" -m venv --clear --without-pip "$venv"
}

# pip from outside (a Python without ensurepip can have it), installing into .venv.
pip_into_venv() { "$1" -m pip --quiet --disable-pip-version-check --python "$venv/bin/python" install "${@:2}"; }

install_packages() {
    local python="$1" lock="$2"
    if ! "$python" -m pip --version >/dev/null 2>&1; then
        say "$python has no pip: install it, e.g. '$python -m ensurepip --user' or the package python3-pip"
        return 2
    fi
    pip_into_venv "$python" --require-hashes -r locks/uv.txt
    say "installing $(grep -c '^[a-zA-Z]' "$lock") packages from $lock"
    # Compiled once, here: a user who may not write into .venv would compile a thousand modules at each start.
    if ! UV_PYTHON_DOWNLOADS=never "$venv/bin/uv" pip sync --quiet --compile-bytecode --python "$venv/bin/python" \
        --require-hashes "$lock"; then
        say "uv failed (see above); trying pip, which is slower"
        pip_into_venv "$python" --require-hashes --no-deps -r "$lock" # what no lock names is not wanted
    fi
}

# The project itself: its folder on the path, and the command.  No build, so nothing else can go wrong.
install_project() {
    local site
    site="$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    echo "$root" >"$site/hathi.pth"
    printf '#!/bin/sh\nexec %q -P -m pipeline.cli.main "$@"\n' "$venv/bin/python" >"$venv/bin/hathi"
    chmod +x "$venv/bin/hathi"
    "$venv/bin/python" -m compileall -q "$root/pipeline" "$root/hathi" || true # to start sooner; nothing else
}

is_current && exit 0

# Two may start at once: the second waits, then finds everything done.  A folder can be locked as a file can.
exec 9<"$root/locks"
if command -v flock >/dev/null && ! flock -n 9; then
    say "another program is making .venv: waiting for it"
    flock 9
fi
is_current && exit 0

cd "$root"
started=$SECONDS
python="$(find_python)"
if [ -e "$venv/.made-from-dev" ]; then kind=dev; fi # what a developer has stays, brought up to date
rm -f "$venv/.made-from-dev" "$venv/.made-from-runtime"
make_venv "$python"
install_packages "$python" "locks/$kind.txt"
install_project
for extra in "$venv"/.extra-*; do # what was there beside the lock file's packages is gone now
    if [ -e "$extra" ] && ! "$root/scripts/${extra##*.extra-}.sh"; then
        say "${extra##*.extra-} could not be installed again (see above): run scripts/${extra##*.extra-}.sh"
    fi
done
wanted "${kind#runtime}" >"$venv/.stamp"
mv "$venv/.stamp" "$venv/.made-from-$kind"
say ".venv is ready ($kind, $((SECONDS - started)) s)"
