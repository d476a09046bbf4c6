# Sourced by tests/*.sh: the binary, a scratch folder, and checks that count. Exit 77 = skipped.
# shellcheck shell=bash disable=SC2034 # used by the tests
set -euo pipefail
gsq=${GSQ_BINARY:?set GSQ_BINARY to the gsq binary}
here=${GSQ_SOURCE:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
build=${GSQ_BUILD:-$(dirname "$gsq")}
shared=$here/../shared
demo=$here/models/demo
# Every run below is watched by the validation layer, where it is installed.
export GSQ_VALIDATE=${GSQ_VALIDATE:-1}
tmp=$(mktemp -d "${TMPDIR:-/tmp}/gsq-test.XXXXXX")
mounts=()
cleanup() {
    local m
    for m in ${mounts[@]+"${mounts[@]}"}; do
        umount "$m" 2>/dev/null || umount -l "$m" 2>/dev/null || true
    done
    rm -rf "$tmp" 2>/dev/null || { sleep 3 && rm -rf "$tmp"; } # wine's server closes its files late
}
trap cleanup EXIT

checks=0 bad=0
skip() {
    echo "skipped: $*"
    exit 77
}
ok() {
    checks=$((checks + 1))
    echo "ok: $*"
}
fail() {
    checks=$((checks + 1))
    bad=$((bad + 1))
    echo "FAILED: $*"
}
# check NAME COMMAND...: the command must succeed.
check() {
    local name=$1
    shift
    if "$@"; then ok "$name"; else fail "$name"; fi
}
done_testing() {
    echo "$checks checks, $bad failed"
    [[ $bad -eq 0 ]]
    exit
}

# run COMMAND...: rc, output in $tmp/out and $tmp/err.
run() {
    rc=0
    "$@" >"$tmp/out" 2>"$tmp/err" </dev/null || rc=$?
}
# must COMMAND...: part of the way to a check, which fails here where the command does.
must() {
    run "$@"
    [[ $rc -eq 0 ]] || fail "$* exits with $rc: $(tail -n 2 "$tmp/err" | tr '\n' ' ')"
    return "$rc"
}
# number NAME FILE: of the one line of JSON that tests/llama's programs print.
number() {
    python3 -c 'import json, sys; print(json.load(open(sys.argv[2]))[sys.argv[1]])' "$1" "$2"
}
# expect NAME RC ERR-REGEX [HINT-REGEX] -- COMMAND...: exit code, the error line and the hint. One printed line.
expect() {
    local name=$1 want=$2 message=$3 hint=
    shift 3
    if [[ $1 != -- ]]; then
        hint=$1
        shift
    fi
    shift
    run "$@"
    local said twice
    said=$(grep -m1 -E '^error: ' "$tmp/err" || true)
    twice=$(grep -oE "$tmp/[^ :,;\"')]+" <<<"$said" | sort | uniq -d | head -n 1 || true)
    if [[ $rc -ne $want ]]; then
        fail "$name: exit code $rc, expected $want: $(tail -n 3 "$tmp/err" | tr '\n' ' ')"
    elif ! grep -qE -e "$message" <<<"$said"; then
        fail "$name: the message is \"$said\", expected /$message/"
    elif [[ -n $hint ]] && ! grep -E '^hint: ' "$tmp/err" | grep -qE -e "$hint"; then
        fail "$name: the hint is \"$(grep '^hint: ' "$tmp/err" || true)\", expected /$hint/"
    elif [[ -n $twice ]]; then
        fail "$name: the message has $twice twice: \"$said\""
    else
        ok "$name: exit $rc, $said $(grep '^hint: ' "$tmp/err" | head -n 1 || true)"
    fi
}
# shellcheck source=scripts/lib/result.sh
. "$here/scripts/lib/result.sh" # field NAME FILE
# page_field PAGE KEY...: of the run that a report page draws, by its keys from outside in.
page_field() {
    python3 -c 'import json, re, sys
run = re.search(r"<script type=\"application/json\" id=\"run\">(.*?)</script>", open(sys.argv[1], encoding="utf-8").read(), re.S)
o = json.loads(run.group(1))
for key in sys.argv[2:]:
    o = o[key]
print(o)' "$@"
}
# within A B SHARE: |a/b - 1| <= share.
within() {
    awk -v a="$1" -v b="$2" -v s="$3" 'BEGIN { d = a / b - 1; exit !(d <= s && -d <= s) }'
}
at_most() {
    awk -v a="$1" -v b="$2" 'BEGIN { exit !(a <= b) }'
}
