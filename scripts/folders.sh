# Sourced by the scripts that work with a configuration:
#
#   read_folders HATHI CONFIG                 sets state and logs to the folders that it names
#   leave_end STATE PROGRAM PROCESS CODE      writes down how a program ended that could not say it itself
#   say_end STATE PROCESS                     says it: `: killed by SIGKILL`, or nothing where nobody wrote it down
#
# A configuration that cannot be read names its folders all the same: the two lines are looked for in its text, so that
# an operator can see and stop what runs while the file is broken. `trouble` then holds what is wrong with it, and
# trouble_code the exit code for it; else they are empty and 0. Returns 1 where there is no such file.

read_folders() {
    local hathi="$1" config="$2" values
    trouble= trouble_code=0
    if [ ! -f "$config" ]; then
        trouble="$config: no such file" trouble_code=2
        return 1
    fi
    if [ ! -x "$hathi" ]; then
        trouble="$hathi is not installed; ./run-all.sh installs it" trouble_code=1
    elif values="$("$hathi" config get --config "$config" state logs.folder 2>&1)" || { trouble_code=$?; false; }; then
        values="$(tail -n 2 <<<"$values")" # before it may stand what a library warns of
        state="${values%%$'\n'*}"
        logs="${values##*$'\n'}"
        return 0
    else
        trouble="$(printf '%s' "$values" | sed -E 's/^(hathi: |  (detail|hint): )//' | paste -sd '|' | sed 's/|/ | /g')"
    fi
    state="${HATHI_STATE:-$(_folder_in_text "$config" "" state)}"
    logs="${HATHI_LOGS__FOLDER:-$(_folder_in_text "$config" logs folder)}"
    state="$(_from "$config" "${state:-../state}")"
    logs="$(_from "$config" "${logs:-../logs}")"
}

leave_end() {
    { mkdir -p "$1" && printf 'pid %s exit %s\n' "$3" "$4" >"$1/$2.ended"; } 2>/dev/null || true # a full disk: nobody will know
}

say_end() {
    local code
    code="$(cat "$1"/*.ended 2>/dev/null | sed -nE "s/^pid $2 exit ([0-9]+)$/\1/p" | tail -n 1)"
    if [ "${code:-0}" -gt 128 ]; then
        printf ': killed by SIG%s' "$(kill -l $((code - 128)))"
    elif [ "${code:-0}" -gt 0 ]; then
        printf ': it ended with exit code %s' "$code"
    fi
}

# The value of KEY in [TABLE] of the text ("": before the first table), or nothing.
_folder_in_text() { # CONFIG TABLE KEY
    awk -v table="$2" -v key="$3" '
        /^[ \t]*\[/ { here = $0; gsub(/^[ \t]*\[|\].*$|[ \t]/, "", here); next }
        here == table && match($0, "^[ \t]*" key "[ \t]*=[ \t]*") {
            value = substr($0, RLENGTH + 1)
            quote = substr(value, 1, 1)
            if (quote != "\"" && quote != "\047") next
            value = substr(value, 2)
            if (index(value, quote)) { print substr(value, 1, index(value, quote) - 1); exit }
        }' "$1"
}

# Paths are relative to the configuration's own folder.
_from() { # CONFIG PATH
    case "$2" in
        "~"/*) realpath -m "$HOME/${2#"~/"}" ;;
        /*) realpath -m "$2" ;;
        *) realpath -m "$(cd "$(dirname "$1")" && pwd -P)/$2" ;;
    esac
}
