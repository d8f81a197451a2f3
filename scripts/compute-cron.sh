#!/usr/bin/env bash
# Cron calls this script on a compute box. It computes and aggregates what is open, and prints nothing if all is well.
#
#   scripts/compute-cron.sh [CONFIG]        (CONFIG: config/compute.toml of this project)
#
# If another run is at work, this one ends at once and prints nothing.  The log is logs/compute-aggregate.log; messages
# from before the log is open go to logs/compute-cron.log.  The script also prints a problem when it begins, so that
# cron mails it once, not in each run.
#
# Exit codes: 0 done, or another run is at work; 1 unexpected; 2 usage or configuration; 4 ESTOP (nothing is printed).
set -euo pipefail

case "${1:-}" in
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
    -*) echo "compute-cron: unknown option $1; scripts/compute-cron.sh --help" >&2; exit 2 ;;
esac
# cron gives a program next to nothing: a short PATH, no language.
export PATH="${PATH:-/usr/bin:/bin}:/usr/local/bin" LC_ALL="${LC_ALL:-C.UTF-8}" HATHI_LOGS__ECHO=false
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
hathi="$root/.venv/bin/hathi"
. "$root/scripts/folders.sh"
config="${1:-$root/config/compute.toml}"
logs="$root/logs" # until the configuration has told

said="$(mktemp)"
began="$(date -u '+%F %T')" # log lines from here on are this run's
trap 'rm -f "$said"' EXIT

# Sets state and logs to the folders that the configuration names; what is wrong with it is a problem of this run.
read_configuration() {
    read_folders "$hathi" "$config" || true
    if [ -n "$trouble" ]; then
        echo "hathi: $trouble" >>"$said"
        return "$trouble_code"
    fi
}

# Who holds the lock has written `pid N since ...` into it.  Only looked at while that process lives, so as not to be in
# a start's way.
runs_already() {
    local process
    process="$(sed -nE 's/^pid ([0-9]+) .*/\1/p' "$state/compute.lock" 2>/dev/null)" || return
    [ -n "$process" ] && kill -0 "$process" 2>/dev/null && ! flock -n "$state/compute.lock" true
}

# Before anything is installed: the packages of a run that goes on are not exchanged under it.
run() {
    if [ -x "$hathi" ]; then
        read_configuration || return
        if runs_already; then return 0; fi
    fi
    "$root/scripts/venv.sh" runtime >>"$said" 2>&1 || return
    read_configuration || return
    "$hathi" run --once --config "$config" compute aggregate </dev/null >/dev/null 2>>"$said" &
    run=$!
    local code=0 passed_on=no
    trap 'passed_on=yes; kill -TERM $run 2>/dev/null || true' TERM INT
    wait $run 2>/dev/null || code=$? # the shell's own word about a run that was killed would be mailed each hour
    if [ $passed_on = yes ]; then # the signal ended the wait, not yet the run
        code=0
        wait $run 2>/dev/null || code=$?
    fi
    if [ $passed_on = no ] && [ $code -gt 128 ]; then
        leave_end "$state" compute $run $code
        say_killed $code
    fi
    return $code
}

# A run that a signal ended has said nothing: which one it was, and whether the kernel says that memory ran out.
say_killed() { # EXIT-CODE
    local word
    word="$({ dmesg 2>/dev/null || journalctl -k -q --no-pager -n 2000 2>/dev/null || true; } |
        grep -aE "Killed process $run[ (,]" | tail -n 1 || true)"
    echo "hathi: the run (process $run) was killed by SIG$(kill -l $(($1 - 128)))"
    if [ -n "$word" ]; then
        echo "  detail: out of memory; the kernel says: $word"
    elif [ "$1" = 137 ]; then
        echo "  detail: out of memory? The kernel's log cannot be read here, or does not name it: \`sudo dmesg\` tells"
    fi
    echo "  hint: nothing is lost, and the next run goes on; if memory ran out, lower compute.workers or compute.open_bytes"
} >>"$said"

# What was said, on one line: message, detail and hint.
in_one_line() { sed -E 's/^(hathi: |  (detail|hint): )//' "$said" | tail -n 20 | paste -sd '|' | sed 's/|/ | /g'; }

# The run itself leaves most troubles in its own log; this one has what came before it, or ended it without a word.
leave_in_log() {
    local log="$logs/compute-cron.log" message
    [ -s "$said" ] || return 0
    message="$(sed -nE 's/^hathi: (.*)/\1/p' "$said" | tail -n 1)"
    if [ -n "$message" ] && tail -n 20 "$logs/compute-aggregate.log" 2>/dev/null | grep -qF -- "$message"; then return; fi
    mkdir -p "$logs"
    if [ "$(stat -c %s "$log" 2>/dev/null || echo 0)" -gt 1048576 ]; then mv -f "$log" "$log.1"; fi
    printf '%s\t[compute-cron]\tError: exit code %d: %s\n' "$(date -u '+%F %T')" "$1" "$(in_one_line)" >>"$log"
}

# cron mails what is printed: a trouble when it begins, not while it lasts.  Figures and times in it do not make it new.
print_once() {
    local mark="$logs/compute-cron.mailed" now
    if [ ! -s "$said" ]; then # a task that could not be done: the log alone has it
        cat "$logs/compute-aggregate.log.1" "$logs/compute-aggregate.log" 2>/dev/null |
            awk -v began="$began" '/\t(Warning|Error|Alert): / && substr($0, 1, 19) >= began' | tail -n 3 >"$said" || true
    fi
    now="$1 $(head -n 1 "$said" | sed 's/[0-9][0-9.,:]*/N/g')"
    if [ "$now" = "$(cat "$mark" 2>/dev/null)" ]; then return; fi
    printf '%s\n' "$now" >"$mark" 2>/dev/null || true
    echo "compute-cron: exit code $1 on $(uname -n), configuration $config; see $logs" >&2
    cat "$said" >&2
}

code=0
run || code=$?
case $code in
    0) rm -f "$logs/compute-cron.mailed" ;;
    4) ;;
    *)
        leave_in_log $code || true # a full disk: the mail is left
        print_once $code
        ;;
esac
exit $code
