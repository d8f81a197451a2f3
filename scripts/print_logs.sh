#!/usr/bin/env bash
# Prints what is wrong now, the worst first; then for each program whether it is alive, its last summaries, and the
# troubles that are over.
#
#   scripts/print_logs.sh [CONFIG|FOLDER] [NUMBER]
#
# CONFIG: a configuration, whose logs and whose state folder are looked at; without it, logs/ of this project and the
# state folders of all configurations in config/ that were ever started here.  FOLDER: logs alone, say from another host.
# NUMBER: how many troubles, and how many summaries of each program, are printed (10).
#
# A program is alive while its lock is held. The script tries the lock; it does not guess from the log.  A configuration
# that cannot be read is named, and its logs are shown all the same.
set -euo pipefail

case "${1:-}" in
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
    -*) echo "print_logs: unknown option $1; scripts/print_logs.sh --help" >&2; exit 2 ;;
esac
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
hathi="$root/.venv/bin/hathi"
. "$root/scripts/folders.sh"
number="${2:-10}"
folders=() # of logs
states=()
configs=()
broken=() # configurations
estops=()

add() { # NAME-OF-ARRAY VALUE, once
    local -n array="$1"
    local one
    for one in "${array[@]}"; do if [ "$one" = "$2" ]; then return; fi; done
    array+=("$2")
}

# The folders that a configuration names.  With a trouble in it, that is told.
add_folders() { # CONFIG
    local state logs trouble
    read_folders "$hathi" "$1" || { echo "print_logs: $trouble" >&2; exit 2; }
    if [ -n "$trouble" ]; then add broken "the configuration cannot be read: $trouble"; fi
    add states "$state"
    add folders "$logs"
    if [ -z "$trouble" ] && [ -d "$state" ]; then add configs "$1"; fi # was started here once
}

if [ -d "${1:-}" ] || { [ -n "${1:-}" ] && [ ! -e "$1" ]; }; then
    folders=("$1")
elif [ -n "${1:-}" ]; then
    add_folders "$1"
else
    folders=("$root/logs")
    for config in "$root"/config/*.toml; do
        if [ "$config" = "$root/config/reference.toml" ]; then continue; fi # every setting, and no installation
        add_folders "$config"
    done
fi

time='^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\t\[[^\t]*\]\t'

process_in() { sed -nE 's/^pid ([0-9]+) .*/\1/p' "$1" 2>/dev/null; } # LOCK

# The lock is the truth; it is only tried while its last holder lives, so as not to be in a start's way.
is_locked() {
    local process
    process="$(process_in "$1")" || return
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
            case "$(head -n 1 "$lock")" in
                "") ;;
                "ended "*) died=": $(head -n 1 "$lock")" ;;
                *) died=": ended unexpectedly ($(head -n 1 "$lock"))$(say_end "$state" "$(process_in "$lock")")" ;;
            esac
        done
    done
    if [ $known = yes ]; then echo "not running$died"; fi
}

# What stands of ESTOP on this host and in the buckets, each once.  The buckets are asked at once; one that does not
# answer is not waited for.
say_estop() {
    local line state config
    for state in "${states[@]}"; do
        if [ -e "$state/ESTOP" ]; then
            add estops "ESTOP engaged: nothing starts on this host until you remove $state/ESTOP"
        fi
    done
    while IFS= read -r line; do
        case "$line" in "" | "No ESTOP"*) ;; *) add estops "$line" ;; esac
    done < <(
        for config in "${configs[@]}"; do
            { timeout 8 "$hathi" stop --show --remote --config "$config" 2>/dev/null || [ $? != 124 ] ||
                echo "not seen: whether ESTOP stands in the bucket of $config: it did not answer within 8 s"; } &
        done
        wait
    )
    if [ ${#estops[@]} -gt 0 ]; then printf '%s\n' "${estops[@]}"; fi
}

running_process() { sed -nE 's/.*"pid": ([0-9]+).*/\1/p' "$1/_PIPE_RUNNING" 2>/dev/null | head -n 1; } # STATE

say_state() {
    local state="$1"
    if [ -e "$state/_PIPE_RUNNING" ] && ! is_locked "$state/compute.lock"; then
        echo "the last run of compute died$(say_end "$state" "$(running_process "$state")"):" \
            "$state/_PIPE_RUNNING is left over; the next run continues its work"
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

# As troubles.awk says; `number` does not bound it, since a line may end an old trouble.
troubles_of() { # FOLDER PROGRAM
    local file
    for file in $(files_of "$1" "$2"); do
        grep -aP "$time((Warning|Error|Critical|Alert|resolved|started): |OK\$)" "$1/$file" || [ $? = 1 ]
    done | awk -f "$root/scripts/troubles.awk"
}

# What a daemon that does not run said before it had a log, or beside it.
say_died() { # FOLDER
    local out program
    for out in "$1"/*.out; do
        if [ ! -s "$out" ]; then continue; fi
        program="$(basename "$out" .out)"
        case "$(say_alive "$program")" in alive:*) continue ;; esac
        echo "$program does not run; $out says:"
        tail -n 5 "$out" | sed 's/^/  /'
    done
}

programs_of() { # FOLDER
    find "$1" -maxdepth 1 -type f -regex '.*/[^/.]+\.log\(\.[0-9]+\)?' -printf '%f\n' | sed 's/\.log.*//' | sort -u
}

# The worst first, of those the newest.
say_now() {
    local all
    all="$(grep -P '^now\t' "$found" | sort -t $'\t' -k2,2nr -k3,3r | cut -f 4- || true)"
    if [ -z "$all" ]; then return; fi
    echo "troubles that are not over, the worst first:"
    head -n "$number" <<<"$all"
    if [ "$(wc -l <<<"$all")" -gt "$number" ]; then
        echo "and $(($(wc -l <<<"$all") - number)) more: a larger NUMBER prints them too"
    fi
}

say_program() { # FOLDER PROGRAM
    local over
    echo "== $2"
    say_alive "$2"
    last "$1" "$2" 'Summary ?: '
    over="$(troubles_of "$1" "$2" | grep -P '^over\t' | sort -t $'\t' -k3,3 | cut -f 4- | tail -n "$number" || true)"
    if [ -n "$over" ]; then printf 'troubles that are over:\n%s\n' "$over"; fi
}

found="$(mktemp)"
trap 'rm -f "$found"' EXIT
for folder in "${folders[@]}"; do
    if [ ! -d "$folder" ]; then
        echo "no logs yet: $folder does not exist" >&2
        continue
    fi
    for program in $(programs_of "$folder"); do troubles_of "$folder" "$program"; done >>"$found"
done

say_estop
if [ ${#broken[@]} -gt 0 ]; then printf '%s\n' "${broken[@]}"; fi
for state in "${states[@]}"; do say_state "$state"; done
for folder in "${folders[@]}"; do say_died "$folder"; done
say_now
for folder in "${folders[@]}"; do
    if [ ! -d "$folder" ]; then continue; fi
    for program in $(programs_of "$folder"); do say_program "$folder" "$program"; done
done
