#!/usr/bin/env bash
# Installs what `hathi train linear` needs into .venv from locks/linear.txt: numba, which compiles its loops, with its
# compiler (190 MB).  Does nothing if they are installed.
# The lock: printf 'numba>=0.61\n' | uv pip compile --universal --python-version 3.11 --generate-hashes --no-header \
#   --no-annotate --no-emit-package numpy -c locks/dev.txt - -o locks/linear.txt
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[ -x .venv/bin/python ] || ./scripts/venv.sh
wanted="$(sed -n 's/^numba==\([^ ]*\).*/\1/p' locks/linear.txt)"
has="$(.venv/bin/python -c 'from importlib.metadata import version; print(version("numba"))' 2>/dev/null || true)"
touch .venv/.extra-linear # venv.sh puts it back when it makes .venv anew
if [ "$has" = "$wanted" ]; then exit 0; fi

started=$SECONDS
echo "hathi: installing numba $wanted" >&2
.venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes --no-deps -r locks/linear.txt
echo "hathi: numba is in .venv ($((SECONDS - started)) s)" >&2
