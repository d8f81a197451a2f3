#!/usr/bin/env bash
# Installs torch from locks/torch.txt into .venv: 4 GB, since the package index has no build without CUDA for Linux.
# The lock leaves out Triton: nothing here compiles with it.  Does nothing if torch is installed.
# The lock: echo 'torch>=2.4' | uv pip compile --universal --python-version 3.11 --generate-hashes --no-header \
#   --no-annotate --no-emit-package triton -c locks/dev.txt - -o locks/torch.txt
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[ -x .venv/bin/python ] || ./scripts/venv.sh
wanted="$(sed -n 's/^torch==\([^ ]*\).*/\1/p' locks/torch.txt)"
has="$(.venv/bin/python -c 'from importlib.metadata import version; print(version("torch"))' 2>/dev/null || true)"
touch .venv/.extra-torch # venv.sh puts it back when it makes .venv anew
if [ "${has%%+*}" = "$wanted" ]; then exit 0; fi

started=$SECONDS
echo "hathi: installing torch $wanted" >&2
.venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes --no-deps -r locks/torch.txt
echo "hathi: torch is in .venv ($((SECONDS - started)) s)" >&2
