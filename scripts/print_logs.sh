#!/usr/bin/env bash
# Prints the last 10 Summary lines of each program, oldest first, from its log and the rotated ones.
# Usage: scripts/print_logs.sh [FOLDER]     (default: logs/ of this project)
set -euo pipefail

folder="${1:-$(dirname "$0")/../logs}"
if [ ! -d "$folder" ]; then
    echo "no logs yet: $folder does not exist" >&2
    exit 0
fi

# The program is what stands before .log; rotation appends .1 (the newest of the old ones), .2, ...
programs=$(find "$folder" -maxdepth 1 -type f -regex '.*/[^/.]+\.log\(\.[0-9]+\)?' -printf '%f\n' |
    sed 's/\.log.*//' | sort -u)
for program in $programs; do
    files=$(find "$folder" -maxdepth 1 -type f -regex ".*/$program\.log\(\.[0-9]+\)?" -printf '%f\n' |
        awk -F. '{ print ($3 == "" ? 0 : $3) "\t" $0 }' | sort -rn | cut -f 2)
    echo "== $program"
    for file in $files; do
        grep -a -P '^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\t\[[^\t]*\]\tSummary ?: ' "$folder/$file" || [ $? = 1 ]
    done | tail -n 10
done
