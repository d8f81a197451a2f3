#!/usr/bin/env bash
# Prints for each program: whether it is alive, its last summaries, and its last warnings and errors with what to do.
#
#   scripts/print_logs.sh [CONFIG|FOLDER] [NUMBER]
#
# CONFIG: a configuration, whose logs and whose state folder are looked at; without it, logs/ of this project and the
# state folders of all configurations in config/ that were ever started here.  FOLDER: logs alone, say from another host.
# NUMBER: how many summaries and how many troubles of each program are printed (10).
#
# A program is alive while its lock is held. The script tries the lock; it does not guess from the log.
set -euo pipefail

case "${1:-}" in
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
    -*) echo "print_logs: unknown option $1; scripts/print_logs.sh --help" >&2; exit 2 ;;
esac
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
hathi="$root/.venv/bin/hathi"
number="${2:-10}"
folders=() # of logs
states=()
configs=()
estops=()

add() { # NAME-OF-ARRAY VALUE, once
    local -n array="$1"
    local one
    for one in "${array[@]}"; do if [ "$one" = "$2" ]; then return; fi; done
    array+=("$2")
}

# The folders that a configuration names.
read_folders() {
    local values
    values="$("$hathi" config get --config "$1" state logs.folder)" || return
    add states "${values%%$'\n'*}"
    add folders "${values##*$'\n'}"
    if [ -d "${values%%$'\n'*}" ]; then add configs "$1"; fi # was started here once
}

if [ -d "${1:-}" ] || { [ -n "${1:-}" ] && [ ! -e "$1" ]; }; then
    folders=("$1")
elif [ -n "${1:-}" ]; then
    read_folders "$1"
else
    folders=("$root/logs")
    for config in "$root"/config/*.toml; do
        if [ "$config" = "$root/config/reference.toml" ]; then continue; fi # every setting, and no installation
        if [ -x "$hathi" ]; then read_folders "$config" 2>/dev/null || true; fi
    done
fi

time='^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\t\[[^\t]*\]\t'

# The lock is the truth; it is only tried while its last holder lives, so as not to be in a start's way.
is_locked() {
    local process
    process="$(sed -nE 's/^pid ([0-9]+) .*/\1/p' "$1" 2>/dev/null)" || return
    [ -n "$process" ] && [ -d "/proc/$process" ] && ! flock --nonblock --shared "$1" true
}

# One line: whether the program runs, by the lock of each of its stages.  Who ends in good order empties the file.
say_alive() {
    local state stage lock known=no died=
    for state in "${states[@]}"; do
        for stage in ${1//-/ }; do
            lock="$state/$stage.lock"
            if [ "$1" = run ]; then lock="$state/ship.lock"; fi
            if [ ! -e "$lock" ]; then continue; fi
            known=yes
            if is_locked "$lock"; then
                echo "alive: $(head -n 1 "$lock")"
                return
            fi
            if [ -s "$lock" ]; then died=": ended unexpectedly ($(head -n 1 "$lock"))"; fi
        done
    done
    if [ $known = yes ]; then echo "not running$died"; fi
}

# What stands of ESTOP here and in the bucket, each once.
say_estop() {
    local line
    while IFS= read -r line; do
        if [ -n "$line" ]; then add estops "$line"; fi
    done < <("$hathi" stop --show --remote --config "$1" 2>/dev/null)
}

say_state() {
    local state="$1"
    if [ -e "$state/_PIPE_RUNNING" ] && ! is_locked "$state/compute.lock"; then
        echo "the last run of compute died: $state/_PIPE_RUNNING is left over; the next run continues its work"
    fi
}

# The files of a program, oldest first: rotation appends .1 (the newest of the old ones), .2, ...
files_of() {
    find "$1" -maxdepth 1 -type f -regex ".*/$2\.log\(\.[0-9]+\)?" -printf '%f\n' |
        awk -F. '{ print ($3 == "" ? 0 : $3) "\t" $0 }' | sort -rn | cut -f 2
}

last() { # FOLDER PROGRAM PATTERN
    local file
    for file in $(files_of "$1" "$2"); do
        grep -aP "$time$3" "$1/$file" || [ $? = 1 ]
    done | tail -n "$number"
}

for config in "${configs[@]}"; do say_estop "$config"; done
if [ ${#estops[@]} -gt 0 ]; then printf '%s\n' "${estops[@]}"; fi
for state in "${states[@]}"; do say_state "$state"; done
for folder in "${folders[@]}"; do
    if [ ! -d "$folder" ]; then
        echo "no logs yet: $folder does not exist" >&2
        continue
    fi
    programs=$(find "$folder" -maxdepth 1 -type f -regex '.*/[^/.]+\.log\(\.[0-9]+\)?' -printf '%f\n' |
        sed 's/\.log.*//' | sort -u)
    for program in $programs; do
        echo "== $program"
        say_alive "$program"
        last "$folder" "$program" 'Summary ?: '
        troubles="$(last "$folder" "$program" '(Warning|Error|Critical): ')"
        if [ -n "$troubles" ]; then printf 'last troubles:\n%s\n' "$troubles"; fi
    done
done
