#!/usr/bin/env bash
# Fails on what points the wrong way in the house (docs/architecture.md):
# - an include that is of no room below the file's own; one of Vulkan outside host/gpu, of shaders' words, without a path
# - a circle: modules (X.c with X.h, X_internal.h, X_parts.h) that include each other's headers, or by way of others
# - a call of a function that a room above defines, whatever header declares it (in a build's objects, $GSQ_BUILD)
# The program uses of the layers below it libgsq's header alone, and base.
set -euo pipefail
cd "${GSQ_SOURCE:-$(dirname "$0")/..}"
self=$PWD/tests/layers.sh
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# ROOM: the rooms, or single headers, right below it; it may use those below them too. A folder that is not here belongs to
# the room around it.
rooms='
host/base:
arch: host/base
formats: arch
formats/hf: formats
formats/gguf: formats
formats/tokenizer: formats/hf formats/gguf
formats/read: formats/tokenizer
formats/write: formats/read
host/gpu: host/base
host/model: formats/read host/gpu
host/quant: host/model formats/write
host/quant/method: host/quant
host/quant/store: host/quant/method
host/quant/plan: host/quant/store
host/quant/run: host/quant/plan
host/eval: host/model formats/write
host/convert: formats/write
lib: host/eval host/convert host/quant/run
app: host/base lib/gsq.h
tests/ref: host/base'
# shellcheck disable=SC2016
words='
BEGIN {
    n = split(rooms, line, "\n")
    for (i = 1; i <= n; i++)
        if (split(line[i], part, ": *") > 0)
            below[part[1]] = part[2]
}
function room(path) {
    while (!(path in below) && sub(/\/[^\/]*$/, "", path)) { }
    return path in below ? path : ""
}
# Whether a file of room `from` may use the file `to`.
function may(from, to,   names, i, n) {
    if (room(to) == from)
        return 1
    if ((from, to) in known)
        return known[from, to]
    n = split(below[from], names, " ")
    for (i = 1; i <= n; i++)
        if (names[i] == to || (names[i] in below && may(names[i], to)))
            return known[from, to] = 1
    return known[from, to] = 0
}
function module(path) {
    sub(/\.[ch]$/, "", path)
    sub(/_(internal|parts)$/, "", path)
    return path
}'

# FILE LINE INCLUDE of the sources here.
includes() {
    find arch host formats lib app tests/ref -name '*.[ch]' -exec grep -nHE '^[[:space:]]*#[[:space:]]*include' {} + |
        sed -nE 's/^([^:]*):([0-9]+):[[:space:]]*#[[:space:]]*include[[:space:]]*([<"][^>"]*[>"]).*/\1 \2 \3/p' | sort
}

# What is wrong with each of them.
wrong_includes() {
    awk -v rooms="$rooms" "$words"'
    function bad(why) { print $1 ":" $2 ": includes " $3 why }
    {
        name = substr($3, 2, length($3) - 2)
        if ($3 ~ /^</) {
            if (name ~ /volk|vulkan/ && room($1) != "host/gpu")
                bad("; only host/gpu may see Vulkan")
        } else if (name !~ /\//) {
            bad("; write the path from the top folder")
        } else if (name ~ /^shaders\//) {
            # The words of the generated table are included by host/gpu'"'"'s generated file, never by hand.
            if (room($1) != "host/gpu" || name !~ /^shaders\/(kernels\.def|limits\.h)$/)
                bad("; only host/gpu may, and only shaders/kernels.def and limits.h")
        } else if (!may(room($1), name)) {
            bad(", which is in no room below its own")
        } else if (system("test -e " name) != 0) {
            bad(", which does not exist")
        }
    }'
}

# The files of each circle, and how they need each other.
circles() {
    awk "$words"'
    $3 ~ /^"/ {
        name = substr($3, 2, length($3) - 2)
        if (module($1) != module(name))
            print module($1), module(name)
    }' "$1" >"$scratch/needs"
    tsort "$scratch/needs" >/dev/null 2>"$scratch/said" || true
    # "tsort: FILE: input contains a loop:", then "tsort: " and a module on each line.
    sed -n 's/^tsort: //p' "$scratch/said" >"$scratch/loops"
    awk "$words"'
    FNR == NR { if (NF == 1) loop[$1] = circle; else circle++; next }
    $3 ~ /^"/ {
        name = substr($3, 2, length($3) - 2)
        a = module($1)
        b = module(name)
        if (a != b && a in loop && b in loop && loop[a] == loop[b])
            print $1 ":" $2 ": includes " $3 ", which needs it in turn"
    }' "$scratch/loops" "$1"
}

# Of `nm -A`: what is called, and in which room it is defined.
wrong_calls() {
    awk -v rooms="$rooms" "$words"'
    {
        file = $1
        sub(/^.*\.dir\//, "", file)
        sub(/\.o(bj)?:.*$/, "", file)
        if (!(file in here))
            here[file] = system("test -e " file) == 0
        if (!here[file]) # of an earlier build
            next
    }
    $(NF - 1) ~ /^[TDRB]$/ { defined[$NF] = file }
    $(NF - 1) == "U" { call[file " " $NF] }
    END {
        for (c in call) {
            split(c, part, " ")
            to = defined[part[2]]
            if (to != "" && room(to) != "" && room(part[1]) != "" && !may(room(part[1]), to) && part[1] != "app/main.c") {
                # A header of the room above may be open to all: lib/gsq.h.
                if (!(room(part[1]) == "app" && part[2] ~ /^gsq_/))
                    print part[1] ": calls " part[2] "(), which is defined above it, in " to
            }
        }
    }' | sort
}

if [[ ${1-} == --includes ]]; then # of a made-up tree
    includes >"$scratch/includes"
    wrong_includes <"$scratch/includes"
    circles "$scratch/includes"
    exit 0
fi

# What is wrong in a made-up tree is found, and nothing else.
mkdir -p "$scratch"/tree/{arch,host/base,host/gpu,host/quant/method,host/quant/run,formats/read,formats/write,lib,app,tests/ref}
put() { printf '#include %s\n' "${@:2}" >"$scratch/tree/$1"; }
put host/base/a.h '"host/base/b.h"' # a circle of two headers,
put host/base/b.h '"host/base/a.h"'
put arch/one.c '"arch/two.h"' # one of three, by way of a .c and a header of parts,
put arch/two.h '"arch/three_parts.h"'
put arch/three_parts.h '"host/base/c.h"'
put arch/three.c '"arch/one.h"'
put arch/one.h '<stdio.h>'
put host/base/c.h '<stddef.h>'
put lib/gsq.h '"formats/read/x.h"' # (this may be)
put formats/read/x.h '"formats/write/x.h"' # rooms, layers,
put formats/write/x.h '"arch/one.h"'
put host/quant/method/x.c '"host/quant/run/x.h"'
put host/quant/run/x.h '"host/base/d.h"' '"app/x.h"' '"a.h"' # none, above, no path,
put app/x.h '"lib/gsq.h"' '"arch/one.h"' '<vulkan/vulkan.h>' # past gsq.h, Vulkan
found=$(cd "$scratch/tree" && GSQ_SOURCE=$scratch/tree bash "$self" --includes | sed -E 's/, which .*|; .*//' | sort)
expected='app/x.h:2: includes "arch/one.h"
app/x.h:3: includes <vulkan/vulkan.h>
arch/one.c:1: includes "arch/two.h"
arch/three.c:1: includes "arch/one.h"
arch/two.h:1: includes "arch/three_parts.h"
formats/read/x.h:1: includes "formats/write/x.h"
host/base/a.h:1: includes "host/base/b.h"
host/base/b.h:1: includes "host/base/a.h"
host/quant/method/x.c:1: includes "host/quant/run/x.h"
host/quant/run/x.h:1: includes "host/base/d.h"
host/quant/run/x.h:2: includes "app/x.h"
host/quant/run/x.h:3: includes "a.h"'
if [[ $found != "$expected" ]]; then
    echo "of a made-up tree, this is found:"
    diff <(echo "$expected") <(echo "$found") || true
    exit 1
fi
made_up='x.dir/arch/a.c.o:0 T low
x.dir/arch/a.c.o: U high
x.dir/lib/b.c.o:0 T high
x.dir/lib/b.c.o: U low'
[[ $(cd "$scratch/tree" && touch arch/a.c lib/b.c && wrong_calls <<<"$made_up") == 'arch/a.c: calls high(), which is defined above it, in lib/b.c' ]] || {
    echo "a made-up call upward is not found"
    exit 1
}

includes >"$scratch/includes"
{
    wrong_includes <"$scratch/includes"
    circles "$scratch/includes"
} >"$scratch/bad"
if [[ $(cut -d' ' -f1 "$scratch/includes" | uniq | wc -l) -lt 20 ]]; then
    echo "hardly any source found: the test looks in the wrong place"
    exit 1
fi
calls=0
if [[ -n ${GSQ_BUILD-} ]]; then
    find "$GSQ_BUILD/CMakeFiles" -path '*/gsq*.dir/*' \( -name '*.c.o' -o -name '*.c.obj' \) -exec nm -A -g {} + >"$scratch/symbols"
    calls=$(grep -c ' U ' "$scratch/symbols") || true
    wrong_calls <"$scratch/symbols" >>"$scratch/bad"
fi
cat "$scratch/bad"
echo "$(wc -l <"$scratch/includes") includes and $calls calls, $(wc -l <"$scratch/bad") of them upward, misplaced or in a circle"
[[ ! -s $scratch/bad ]]
