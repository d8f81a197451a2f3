#!/usr/bin/env bash
# Installs pyspark from locks/spark.txt into .venv (480 MB).  Does nothing if it is installed.
# On a cluster use the cluster's own Spark; it does not need this script: docs/spark.md.
# The lock: echo 'pyspark>=4,<4.2' | uv pip compile --universal --python-version 3.11 --generate-hashes --no-header \
#   --no-annotate - -o locks/spark.txt
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[ -x .venv/bin/python ] || ./scripts/venv.sh
wanted="$(sed -n 's/^pyspark==\([^ ]*\).*/\1/p' locks/spark.txt)"
has="$(.venv/bin/python -c 'from importlib.metadata import version; print(version("pyspark"))' 2>/dev/null || true)"
touch .venv/.extra-spark # venv.sh puts it back when it makes .venv anew
if [ "$has" = "$wanted" ]; then exit 0; fi

started=$SECONDS
echo "hathi: installing pyspark $wanted" >&2
.venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes -r locks/spark.txt
echo "hathi: pyspark is in .venv ($((SECONDS - started)) s)" >&2
