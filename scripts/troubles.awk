# The troubles in the lines of one program, oldest line first (print_logs.sh gives them): one line for each trouble,
#
#   now|over <TAB> rank <TAB> time of the last line <TAB> the line, with how often it came
#
# rank: 4 Alert, 3 Critical, 2 Error, 1 Warning. Lines that differ in figures only are one trouble. A trouble is over when
# a later line says so, or when the program was started after it and has not said it again.
BEGIN { FS = "\t"; OFS = "\t" }

function rank_of(text) {
    if (text ~ /(^|: )Alert: /) return 4
    if (text ~ /^Critical: /) return 3
    if (text ~ /^Error: /) return 2
    return 1
}

function see(key, text) {
    if (!(key in last)) { order[++count] = key; first[key] = $1; times[key] = 0 }
    last[key] = $1; program[key] = $2; said[key] = text; over[key] = 0; times[key]++
}

function end(key) { over[key] = 1 }

function end_all(of_health,    i) {
    for (i = 1; i <= count; i++) if ((program[order[i]] == "[health]") == of_health) end(order[i])
}

$3 ~ /^started: / { end_all(0); next } # what is still wrong is said again
$2 == "[health]" && $3 == "OK" { end_all(1); next }
$2 == "[health]" && $3 ~ /^resolved: / { # the key of a finding, which stands in brackets at the end of its line
    ending = " [" substr($3, 11) "]"
    for (i = 1; i <= count; i++) {
        text = said[order[i]]
        if (program[order[i]] == "[health]" && substr(text, length(text) - length(ending) + 1) == ending) end(order[i])
    }
    next
}
$2 == "[health]" && $3 ~ /^(Warning|Alert): .* \[.*\]$/ {
    see("health " part[split($3, part, / \[/)], $3)
    next
}
match($3, /; this is over: /) {
    name = substr($3, RSTART + RLENGTH)
    lake = match($3, /^Warning: lake [^ ]+: /) ? substr($3, 10, RLENGTH - 9) : "" # of several lakes
    for (i = 1; i <= count; i++) {
        text = said[order[i]]
        if (program[order[i]] == $2 && index(text, name) && (lake == "" || index(text, lake))) end(order[i])
    }
    next
}
$3 ~ /^(Warning|Error|Critical|Alert): / {
    key = $3
    gsub(/[0-9]+([.,:][0-9]+)*/, "N", key)
    see($2 key, $3)
}

END {
    for (i = 1; i <= count; i++) {
        key = order[i]
        more = times[key] > 1 ? " (" times[key] " times since " first[key] ")" : ""
        print (over[key] ? "over" : "now"), rank_of(said[key]), last[key], last[key] "\t" program[key] "\t" said[key] more
    }
}
