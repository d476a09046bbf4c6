#!/usr/bin/env bash
# --calib default: the text that comes with gsq is found from the build tree, from an installed tree wherever that lies, by
# libgsq, and by GSQ_DATA; where it is missing the message says what to do. It is the text that data/README.md describes, a
# changed one is noticed on resuming, and a file called "default" is one.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
unset GSQ_DATA
name="gsq-calibration-1.txt"
text=$here/data/$name
cd "$tmp"

# The text itself.
sum=$(sha256sum "$text" | cut -d' ' -f1)
check 'data/README.md has its checksum' grep -q "$sum" "$here/data/README.md"
check 'and its size' grep -q "$(stat -c %s "$text" | sed -E ':a; s/^([0-9]+)([0-9]{3})/\1,\2/; ta')" "$here/data/README.md"
check 'UTF-8' iconv -f UTF-8 -t UTF-8 -o /dev/null "$text"
check 'every part is named in data/README.md' python3 - "$here" <<'PY'
import importlib.util, pathlib, sys
top = pathlib.Path(sys.argv[1])
spec = importlib.util.spec_from_file_location("make_calibration", top / "scripts" / "make-calibration.py")
m = importlib.util.module_from_spec(spec)
sys.dont_write_bytecode = True
spec.loader.exec_module(m)
readme = (top / "data" / "README.md").read_text(encoding="utf-8")
assert set(m.PACKAGES) == set(m.SUMS)
for part, package, files, how, limit in m.SOURCES:
    assert "| %s | " % part in readme, part
    assert not package or "%s %s |" % (package, m.PACKAGES[package][0]) in readme, package
PY

learn() { # OUT TEXT OPTION...: 4 windows
    local out=$1 calib=$2
    shift 2
    run "$gsq" quantize "$demo" -o "$out" --calib "$calib" --method gptq --group 64 --samples 4 --ctx 64 -q "$@"
}

# By the path and by the name: the same bytes.
learn by-path "$text"
check 'by its path' test "$rc" -eq 0
learn by-name default
check 'by the name "default", from the build tree' test "$rc" -eq 0
check 'the same bytes' diff -r by-path by-name
run "$gsq" imatrix "$demo" --calib default -o im.gguf --samples 2 --ctx 64 -q
check 'imatrix' test "$rc" -eq 0
check 'which names the text' grep -aq "$name" im.gguf
run "$gsq" quantize "$demo" -o default --calib default --method gptq --group 64 --samples 4 --ctx 64 -q --dry-run
check 'an output may be called default' test "$rc" -eq 0

# A file of that name.
head -c 3000 "$demo/eval.txt" >default
learn by-file ./default
check 'a file ./default is one' test "$rc" -eq 0
check 'and another text' bash -c '! diff -rq by-name by-file >/dev/null'
learn by-name-again default
check 'while "default" stays the text of gsq' diff -r by-name by-name-again

# GSQ_DATA, and nothing there.
mkdir data none
tail -c 200000 "$text" | iconv -c -f UTF-8 -t UTF-8 >"data/$name"
GSQ_DATA=$tmp/data learn by-data default
check 'the folder that GSQ_DATA names' test "$rc" -eq 0
check 'has the say' bash -c '! diff -rq by-name by-data >/dev/null'
export GSQ_DATA=$tmp/none
expect 'GSQ_DATA without the text' 2 "GSQ_DATA is $tmp/none.*$name" 'GSQ_DATA.*--calib FILE' -- \
    "$gsq" quantize "$demo" -o x --calib default --method gptq --group 64
expect 'imatrix likewise' 2 "GSQ_DATA is $tmp/none.*$name" '.' -- "$gsq" imatrix "$demo" -o x.gguf --calib default
run "$gsq" quantize "$demo" -o rtn --calib default --method rtn -q
check 'rounding needs none' test "$rc" -eq 0
unset GSQ_DATA
check 'nothing was written' test ! -e x -a ! -e x.gguf

# A work folder knows the text.
slow=(--group 64 --method gsq --effort fast --steps 4 --keep-work)
learn worked default "${slow[@]}"
check 'a run whose work folder stays' test "$rc" -eq 0
rm -r worked
GSQ_DATA=$tmp/data expect 'another text is not resumed with' 2 'calibration' '.' -- \
    "$gsq" quantize "$demo" -o worked --calib default --samples 4 --ctx 64 -q "${slow[@]}"
learn worked default "${slow[@]}" --json
check 'the same one is' test "$rc" -eq 0 -a "$(field blocks_resumed "$tmp/out")" = "$(field blocks "$tmp/out")"
learn fresh default "${slow[@]}"
check 'with the same bytes' diff -r worked fresh

# Installed, in a folder that nobody was told of.
if [[ -e $build/cmake_install.cmake ]]; then
    cmake --install "$build" --prefix "$tmp/an y/prefix" >"$tmp/install"
    installed="$tmp/an y/prefix"
    check 'installed: the text' cmp "$text" "$installed/share/gsq/$name"
    check 'and where it comes from' cmp "$here/data/README.md" "$installed/share/gsq/README.md"
    check 'beside the licences' grep -q '^==== calibration text ====' "$installed/share/doc/gsq/THIRD-PARTY.txt"
    gsq="$installed/bin/gsq" learn from-prefix default
    check 'found from there' test "$rc" -eq 0
    check 'the same bytes from there' diff -r by-name from-prefix
    ln -s "$installed/bin/gsq" link
    gsq=$tmp/link learn from-link default
    check 'found through a link' test "$rc" -eq 0
    if [[ -e $build/libgsq.a ]]; then
        cc=$(sed -n 's/^CMAKE_C_COMPILER:[A-Z]*=//p' "$build/CMakeCache.txt")
        sanitize=$(sed -n 's/^GSQ_SANITIZE:[A-Z]*=//p' "$build/CMakeCache.txt")
        lib=$(dirname "$(find "$installed" -name libgsq.so)")
        cat >use.c <<'C'
#include <gsq.h>
#include <stdio.h>
int main(int n, char **args)
{
    struct gsq_error e = {.message = "usage: use MODEL OUT"};
    struct gsq_quantize_options o;
    gsq_model *model = NULL;
    gsq_plan *plan = NULL;
    gsq_quantize_options_init(&o);
    o.out = n == 3 ? args[2] : "";
    o.calib = "default";
    o.samples = 4;
    o.context = 64;
    o.group = 64;
    bool ok = n == 3 && gsq_model_open(&model, args[1], &e) && gsq_plan_make(&plan, NULL, model, &o, NULL, &e);
    if (!ok)
        fprintf(stderr, "%s\n%s\n", e.message, e.hint);
    gsq_plan_free(&plan);
    gsq_model_close(&model);
    return ok ? 0 : 1;
}
C
        check 'a program of libgsq' "$cc" -std=c11 ${sanitize:+-fsanitize=$sanitize} use.c -I"$installed/include" -L"$lib" \
            -lgsq -o use
        LD_LIBRARY_PATH=$lib run ./use "$demo" x
        check 'libgsq finds the text from where it lies' test "$rc" -eq 0
    fi
    # Where the text was left out, unless an installed gsq has one.
    if [[ ! -e /usr/share/gsq/$name && ! -e /usr/local/share/gsq/$name ]]; then
        rm "$installed/share/gsq/$name"
        expect 'an installed tree without the text' 3 "missing: no share/gsq/$name beside $installed/bin/gsq" \
            'GSQ_DATA.*--calib FILE' -- "$installed/bin/gsq" quantize "$demo" -o x --calib default --group 64
    fi
fi
done_testing
