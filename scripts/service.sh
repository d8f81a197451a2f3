#!/usr/bin/env bash
# Installs what `hathi service` needs into .venv from locks/service.txt (20 MB): FastAPI, uvicorn, argon2 and the driver of PostgreSQL.
# The lock: printf 'fastapi>=0.120\nuvicorn>=0.35\nhttptools>=0.6\nuvloop>=0.21\nasyncpg>=0.30\npython-multipart>=0.0.20\nargon2-cffi>=25.1\n' | uv pip compile \
#   --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -c locks/dev.txt - -o locks/service.txt
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[ -x .venv/bin/python ] || ./scripts/venv.sh
touch .venv/.extra-service # venv.sh puts it back when it makes .venv anew
is_current() {
    .venv/bin/python - <<'PYTHON'
import re, sys
from importlib.metadata import PackageNotFoundError, version

for name, wanted in re.findall(r"^(\S+)==(\S+)", open("locks/service.txt").read(), re.M):
    try:
        if version(name) != wanted:
            sys.exit(1)
    except PackageNotFoundError:
        sys.exit(1)
PYTHON
}
if is_current; then exit 0; fi

started=$SECONDS
echo "hathi: installing what the service needs" >&2
.venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes --no-deps -r locks/service.txt
echo "hathi: it is in .venv ($((SECONDS - started)) s)" >&2
