#!/usr/bin/env bash
# Fails on an include that points upward in the layers (docs/architecture.md: base < arch < {formats, gpu} < model < quant < lib < app), on a
# Vulkan header outside host/gpu, and on a test reference that uses more than base. The program uses of the layers below it
# libgsq's header alone, and base.
set -euo pipefail
cd "${GSQ_SOURCE:-$(dirname "$0")/..}"

# Which folders, or single headers, a file in this folder may include from.
allowed() {
    case $1 in
    host/base/*) echo 'host/base' ;;
    arch/*) echo 'host/base arch' ;;
    formats/*) echo 'host/base arch formats' ;;
    host/gpu/*) echo 'host/base host/gpu shaders' ;;
    host/model/*) echo 'host/base arch host/gpu formats host/model' ;;
    host/quant/*) echo "host/base arch host/gpu formats host/model host/quant" ;;
    host/eval/*) echo 'host/base arch host/gpu formats host/model host/quant/plan host/eval' ;;
    host/convert/*) echo 'host/base arch host/gpu/progress.h formats host/convert' ;;
    lib/*) echo 'host/base arch host/gpu formats host/model host/quant host/eval host/convert lib' ;;
    app/*) echo 'host/base lib/gsq.h app' ;;
    tests/ref/*) echo 'host/base tests/ref' ;;
    esac
}

check() { # FILE LINE INCLUDE
    local file=$1 line=$2 include=$3 name folder ok=no
    name=${include:1:${#include}-2}
    if [[ $include == '<'* ]]; then
        if [[ $name =~ (volk|vulkan) && $file != host/gpu/* ]]; then
            echo "$file:$line: includes $include; only host/gpu may see Vulkan"
            return 1
        fi
        return 0
    fi
    if [[ $name != */* ]]; then
        echo "$file:$line: includes $include; write the path from the top folder"
        return 1
    fi
    if [[ $name == shaders/* ]]; then
        if [[ $file != host/gpu/* || ! $name =~ ^shaders/(kernels\.def|limits\.h)$ ]]; then
            # The words of the generated table are included by host/gpu's generated file, never by hand.
            echo "$file:$line: includes $include; only host/gpu may, and only shaders/kernels.def and limits.h"
            return 1
        fi
        return 0
    fi
    for folder in $(allowed "$file"); do
        [[ $name == "$folder"/* || $name == "$folder" ]] && ok=yes
    done
    if [[ $ok == no ]]; then
        echo "$file:$line: includes $include, which is not in its own layer or a lower one"
        return 1
    fi
    if [[ ! -e $name ]]; then
        echo "$file:$line: includes $include, which does not exist"
        return 1
    fi
}

bad=0
files=0
while IFS= read -r file; do
    files=$((files + 1))
    while IFS=: read -r line text; do
        include=$(sed -nE 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*([<"][^>"]*[>"]).*/\1/p' <<<"$text")
        [[ -z $include ]] || check "$file" "$line" "$include" || bad=$((bad + 1))
    done < <(grep -nE '^[[:space:]]*#[[:space:]]*include' "$file" || true)
done < <(find arch host formats lib app tests/ref -name '*.[ch]' | sort)

if [[ $files -lt 20 ]]; then
    echo "only $files sources found: the test looks in the wrong place"
    exit 1
fi
echo "$files files, $bad upward or misplaced includes"
[[ $bad -eq 0 ]]
