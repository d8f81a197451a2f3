#!/usr/bin/env bash
# The pipeline here, or the daemons of a configuration.
#
#   ./run-all.sh                    runs every stage on the sample lake, until nothing is left to do (hathi sample)
#   ./run-all.sh loop               trains a head on the sample's features, puts it into use, and makes features anew
#   ./run-all.sh service            lets teams train over REST on this machine, until Ctrl-C (--no-train: without torch)
#   ./run-all.sh CONFIG             starts the daemons ship and deliver of a gateway's configuration, in the background
#   ./run-all.sh status [CONFIG]    says which daemons run
#   ./run-all.sh stop [CONFIG]      asks the daemons to stop, and waits
#   ./run-all.sh kill [CONFIG]      kills every program of this configuration, a compute box's run too; nothing is lost
#
# Without CONFIG the last three are about every configuration whose daemons this script started and that still run;
# where there is none, about config/gateway.toml.
#
# Exit codes: 0 done, 1 unexpected, 2 usage or configuration, 3 done but something is held, 4 ESTOP.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)"
hathi="$root/.venv/bin/hathi"
daemons=(ship deliver)
. "$root/scripts/folders.sh"

say() { echo "run-all: $*"; }

# Sets config, state and logs; where the configuration cannot be read, that is said and stands in trouble.
read_configuration() {
    config="$1"
    read_folders "$hathi" "$config" || { echo "run-all: $trouble" >&2; exit 2; }
    if [ -n "$trouble" ]; then say "the configuration cannot be read: $trouble"; fi
}

# The configurations whose daemons this script started and that still run, each once: state, logs and file, by tabs.  The
# daemons carry it in their environment, so it is true whatever became of the files since.
started() {
    { grep -zhs "^RUN_ALL_STARTED=$root	" /proc/[0-9]*/environ || true; } | tr '\0' '\n' | cut -f 2- | sort -u
}

# Daemons of this installation that something else started, such as systemd: their processes and command lines.
others() {
    local file process
    for file in $({ grep -zls "^$root/.venv/bin/" /proc/[0-9]*/cmdline || true; }); do
        process="${file//[!0-9]/}"
        grep -zqsxF serve "$file" && ! grep -zqs "^RUN_ALL_STARTED=$root	" "/proc/$process/environ" || continue
        echo "process $process: $(tr '\0' ' ' <"$file" 2>/dev/null | sed 's/^.* serve /hathi serve /; s/ $//')"
    done
}

# What is asked of the configurations that were started, without one being named.
of_all_started() {
    local found code=0 state logs config
    found="$(started)"
    if [ -z "$found" ]; then
        read_configuration "$root/config/gateway.toml"
        "$1" || code=$?
    fi
    while IFS=$'\t' read -r state logs config; do
        [ -n "$config" ] || continue
        say "configuration $config:"
        "$1" || code=$?
    done <<<"$found"
    while IFS= read -r found; do
        [ -z "$found" ] || say "runs too, started by something else, which has to end it: $found"
    done <<<"$(others)"
    return $code
}

# Who holds the lock has written `pid N since ...` into it, and leaves that there.
process_of() { sed -nE 's/^pid ([0-9]+) .*/\1/p' "$state/$1.lock" 2>/dev/null; }

parent_of() { sed -nE 's/^PPid:[[:space:]]*//p' "/proc/${1:-none}/status" 2>/dev/null; }

# The lock is the truth; it is only tried when its last holder still lives, so as not to be in a start's way.
is_running() {
    local process
    process="$(process_of "$1")"
    [ -n "$process" ] && kill -0 "$process" 2>/dev/null && ! flock -n "$state/$1.lock" true
}

# Says what stands of ESTOP, on this host and in the bucket, as `hathi stop --show` knows it; 4 where something does.
# A bucket that cannot be asked holds none: this host's file alone decides then, and that is said.
look_for_estop() {
    local told code=0 line
    told="$(timeout 10 "$hathi" stop --show --config "$config" 2>/dev/null)" || code=$?
    if [ $code -ne 0 ] && [ $code -ne 4 ]; then
        code=0
        told="not seen: whether ESTOP stands in the bucket: hathi stop --show gave no answer; see hathi doctor"
        if [ -e "$state/ESTOP" ]; then
            code=4
            told+=$'\n'"ESTOP engaged: nothing starts on this host until you remove $state/ESTOP"
        fi
    fi
    while IFS= read -r line; do
        case "$line" in "" | "No ESTOP stands"*) ;; *) say "$line" ;; esac
    done <<<"$told"
    return $code
}

start() {
    local program process watcher code=0 running=()
    if ! look_for_estop; then
        say "nothing was started"
        exit 4
    fi
    if [ -n "$trouble" ]; then exit 2; fi
    for program in "${daemons[@]}"; do
        if is_running "$program"; then running+=("$program (process $(process_of "$program"))"); fi
    done
    if [ ${#running[@]} -gt 0 ]; then
        say "already running: ${running[*]}; nothing was started. ./run-all.sh stop $config ends them"
        exit 1
    fi
    mkdir -p "$logs"
    local -A started=()
    for program in "${daemons[@]}"; do
        start_one
        started[$program]="$process $watcher"
    done
    sleep 1 # what a daemon meets in its first moments ends it
    for program in "${daemons[@]}"; do
        read -r process watcher <<<"${started[$program]}"
        if kill -0 "$process" 2>/dev/null && [ "$(process_of "$program")" = "$process" ]; then
            say "started $program: process $process, log $logs/$program.log"
        else
            did_not_start || code=$?
        fi
    done
    return $code
}

# What a daemon that a signal ends cannot say itself: its parent waits for it, and writes down how it ended.
WATCH='
. "$0"
state="$1" program="$2"
shift 2
"$@" &
code=0
wait $! 2>/dev/null || code=$? # not in the shell'"'"'s own words
if [ $code -gt 128 ]; then leave_end "$state" "$program" $! $code; fi
exit $code'

# The log is logs/PROGRAM.log; PROGRAM.out has what a process says before or beside it, so it stays short.
start_one() {
    local tries=0
    RUN_ALL_STARTED="$root	$state	$logs	$config" HATHI_LOGS__ECHO=false setsid nohup \
        bash -c "$WATCH" "$root/scripts/folders.sh" "$state" "$program" "$hathi" serve "$program" \
        --config "$config" >"$logs/$program.out" 2>&1 </dev/null &
    watcher=$!
    until process="$(process_of "$program")" && [ "$(parent_of "$process")" = "$watcher" ]; do
        if ! kill -0 "$watcher" 2>/dev/null; then did_not_start || exit $?; fi
        if [ $((tries += 1)) -gt 200 ]; then
            say "$program does not begin: process $watcher has not taken its lock within 20 s"
            exit 1
        fi
        sleep 0.1
    done
}

# What the program said, and its exit code; 1 where it ended with 0.
did_not_start() {
    local code=0
    say "$program did not start:"
    { cat "$logs/$program.out"; tail -n 3 "$logs/$program.log" 2>/dev/null || true; } >&2
    wait "$watcher" || code=$?
    return $((code ? code : 1))
}

status() {
    local program code=0
    look_for_estop || true
    for program in "${daemons[@]}"; do
        if is_running "$program"; then
            say "$program runs: process $(process_of "$program"), log $logs/$program.log"
        else
            say "$program does not run"
            code=1
        fi
    done
    return $code
}

stop() {
    local program tries stopped=()
    for program in "${daemons[@]}"; do
        if is_running "$program"; then
            kill -TERM "$(process_of "$program")"
            stopped+=("$program")
        else
            say "$program does not run"
        fi
    done
    for program in "${stopped[@]}"; do
        tries=0
        while is_running "$program"; do
            if [ $((tries += 1)) -gt 300 ]; then
                say "$program has not stopped after 30 s: process $(process_of "$program")"
                return 1
            fi
            sleep 0.1
        done
        say "$program stopped"
    done
}

# For what does not stop.  Workers die with their parent; the kernel frees the locks.
kill_all() {
    local program process
    for program in ship compute aggregate deliver; do
        if ! is_running "$program"; then continue; fi
        process="$(process_of "$program")"
        kill -KILL "$process"
        while is_running "$program"; do sleep 0.1; done
        say "$program killed: process $process"
    done
    say "no program of this configuration runs"
}

case "${1:-}" in
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
    -*) echo "run-all: unknown option $1; ./run-all.sh --help" >&2; exit 2 ;;
esac
"$root/scripts/venv.sh" runtime
case "${1:-}" in
    "") exec "$hathi" sample ;;
    loop) exec "$hathi" sample "$@" ;;
    service)
        "$root/scripts/service.sh"
        case "${2:-}" in
            --no-train) ;;
            "")
                if [ ! -e "$root/.venv/.extra-training" ]; then say "installing what a training needs: torch (4 GB, about a minute)"; fi
                "$root/scripts/training.sh"
                ;;
            *) echo "run-all: unknown option $2; ./run-all.sh --help" >&2; exit 2 ;;
        esac
        exec "$hathi" service start --config "$root/config/service.toml"
        ;;
    status | stop | kill)
        action="$1"
        if [ "$action" = kill ]; then action=kill_all; fi
        if [ $# -gt 1 ]; then
            read_configuration "$2"
            "$action"
        else
            of_all_started "$action"
        fi
        ;;
    *)
        read_configuration "$(realpath "$1")"
        start
        ;;
esac
