#!/usr/bin/env bash
# Installs pillow-heif and pillow-jxl-plugin from locks/images.txt into .venv: with them Hathi reads HEIC and JPEG XL.
# Does nothing if they are installed.
# The lock: printf 'pillow-heif>=1.8\npillow-jxl-plugin>=1.3.8\n' | uv pip compile --universal --python-version 3.11 \
#   --generate-hashes --no-header --no-annotate -c locks/dev.txt - -o locks/images.txt
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[ -x .venv/bin/python ] || ./scripts/venv.sh
wanted="$(sed -n 's/^\(pillow-heif\|pillow-jxl-plugin\)==\([^ ]*\).*/\2/p' locks/images.txt)"
has="$(.venv/bin/python -c 'from importlib.metadata import version
for name in ("pillow-heif", "pillow-jxl-plugin"): print(version(name))' 2>/dev/null || true)"
touch .venv/.extra-images # venv.sh puts it back when it makes .venv anew
if [ "$has" = "$wanted" ]; then exit 0; fi

started=$SECONDS
echo "hathi: installing" $(sed -n 's/^\(pillow-heif\|pillow-jxl-plugin\)==\([^ ]*\).*/\1 \2/p' locks/images.txt) >&2
.venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes -r locks/images.txt
echo "hathi: Hathi now reads HEIC and JPEG XL ($((SECONDS - started)) s)" >&2
