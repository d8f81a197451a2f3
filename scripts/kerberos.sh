#!/usr/bin/env bash
# Installs gssapi from locks/kerberos.txt into .venv: a lake with authentication = "kerberos" needs it.
# Compiling it takes half a minute and needs Debian's packages libkrb5-dev and gcc.  Does nothing if it is installed.
# The lock: echo 'gssapi>=1.9' | uv pip compile --universal --python-version 3.11 --generate-hashes --no-header \
#   --no-annotate -c locks/runtime.txt - -o locks/kerberos.txt
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[ -x .venv/bin/python ] || ./scripts/venv.sh
wanted="$(sed -n 's/^gssapi==\([^ ]*\).*/\1/p' locks/kerberos.txt)"
has="$(.venv/bin/python -c 'from importlib.metadata import version; print(version("gssapi"))' 2>/dev/null || true)"
touch .venv/.extra-kerberos # venv.sh puts it back when it makes .venv anew
if [ "$has" = "$wanted" ]; then exit 0; fi
if ! command -v krb5-config >/dev/null || ! command -v gcc >/dev/null; then
    echo "hathi: gssapi must be compiled, and its tools are missing. Install them: sudo apt-get install libkrb5-dev gcc" >&2
    exit 2
fi

started=$SECONDS
echo "hathi: installing gssapi $wanted" >&2
export CFLAGS="-O1 -g0" # most of it is glue
.venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes -r locks/kerberos.txt
echo "hathi: gssapi is in .venv ($((SECONDS - started)) s)" >&2
