# Sourced by the scripts that work with a configuration:
#
#   read_folders HATHI CONFIG     sets state and logs to the folders that it names
#
# A configuration that cannot be read names its folders all the same: the two lines are looked for in its text, so that
# an operator can see and stop what runs while the file is broken. `trouble` then holds what is wrong with it; else it is
# empty. Returns 1 where there is no such file.

read_folders() {
    local hathi="$1" config="$2" values
    trouble=
    if [ ! -f "$config" ]; then
        trouble="$config: no such file"
        return 1
    fi
    if [ ! -x "$hathi" ]; then
        trouble="$hathi is not installed; ./run-all.sh installs it"
    elif values="$("$hathi" config get --config "$config" state logs.folder 2>&1)"; then
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
