#!/usr/bin/env bash
# Installs the servers that the tests run against into ~/.cache/hathi-tests, once: scripts/servers.sh [s3|hdfs|kerberos|spark...]
# If this machine lacks something for a server, the script names it, and its tests are left out; with
# HATHI_DEMAND_SERVERS=1 that is an error.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec .venv/bin/python -m tests.servers.install "$@"
