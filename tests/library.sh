#!/usr/bin/env bash
# libgsq as somebody else's program uses it: installed, found by pkg-config, linked shared and static. Only gsq_* may
# leave it, its header stands alone in C11 and C++, and examples/quantize.c does what the command line does.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
[[ -e $build/libgsq.a ]] || skip "libgsq is not built (GSQ_LIBRARY)"
command -v cmake >/dev/null || skip "no cmake"
cmake --install "$build" --component library --prefix "$tmp/prefix" >"$tmp/install" || fail 'installs'
pc=$(find "$tmp/prefix" -name gsq.pc)
lib=$(dirname "$(dirname "$pc")")
cc=$(sed -n 's/^CMAKE_C_COMPILER:[A-Z]*=//p' "$build/CMakeCache.txt")
sanitize=$(sed -n 's/^GSQ_SANITIZE:[A-Z]*=//p' "$build/CMakeCache.txt")
strict=(-std=c11 -Wall -Wextra -Wshadow -Wpedantic -Werror ${sanitize:+-fsanitize=$sanitize})

# Symbols.
others() { # NM-OUTPUT: exported names that are not ours
    awk '$2 ~ /^[A-TV-Z]$/ && $3 !~ /^gsq_/ { print $3 }' "$1"
}
nm -D --defined-only "$lib/libgsq.so" >"$tmp/shared.nm"
nm -g --defined-only "$lib/libgsq.a" >"$tmp/static.nm"
if [[ -z $sanitize ]]; then
    check 'libgsq.so shows gsq_* alone' test -z "$(others "$tmp/shared.nm")"
    check 'libgsq.a shows gsq_* alone' test -z "$(others "$tmp/static.nm")"
fi
declared=$(grep -oE 'gsq_[a-z_]+\(' <(grep -A3 GSQ_API "$here/lib/gsq.h" | grep -v '^#\|^ \*') | tr -d '(' | sort -u)
for name in $declared; do
    grep -q " $name\$" "$tmp/shared.nm" || fail "gsq.h declares $name, and libgsq.so has it not"
done
check "$(wc -w <<<"$declared") functions are declared" test "$(wc -w <<<"$declared")" -ge 25

# The header alone.
echo '#include <gsq.h>' >"$tmp/alone.c"
check 'gsq.h stands alone in C11' "$cc" "${strict[@]}" -I"$tmp/prefix/include" -c "$tmp/alone.c" -o "$tmp/alone.o"
if command -v g++ >/dev/null; then
    check 'and in C++' g++ -x c++ -std=c++11 -Wall -Wextra -Werror -I"$tmp/prefix/include" -c "$tmp/alone.c" -o "$tmp/alone.o"
fi

# The example.
if command -v pkg-config >/dev/null; then
    read -ra flags < <(PKG_CONFIG_PATH=$(dirname "$pc") pkg-config --cflags --libs gsq)
    read -ra private < <(PKG_CONFIG_PATH=$(dirname "$pc") pkg-config --static --libs-only-l gsq | sed 's/-lgsq//')
else
    flags=(-I"$tmp/prefix/include" -L"$lib" -lgsq)
    read -ra private < <(sed -n 's/^Libs.private: //p' "$pc")
fi
example=$here/examples/quantize.c
check 'the example links shared' "$cc" "${strict[@]}" "$example" "${flags[@]}" -o "$tmp/shared"
check 'the example links static' "$cc" "${strict[@]}" "$example" -I"$tmp/prefix/include" "$lib/libgsq.a" \
    "${private[@]}" -o "$tmp/static"
check 'the example is short' test "$(grep -vc '^ \*\|^/\*\|^$' "$example")" -le 45
head -c 12000 "$demo/calib.txt" >"$tmp/calib.txt"
head -c 6000 "$demo/eval.txt" >"$tmp/eval.txt"
export GSQ_DEVICE=${GSQ_DEVICE:-}
[[ -n $GSQ_DEVICE ]] || unset GSQ_DEVICE
LD_LIBRARY_PATH=$lib run "$tmp/shared" "$demo" "$tmp/by-library" "$tmp/calib.txt" "$tmp/eval.txt"
check "the example runs: $(tail -n 1 "$tmp/out")" test "$rc" -eq 0
check 'and says its figures' grep -qE '^2\.[0-9]+ bits per weight, perplexity [0-9.]+ \(was [0-9.]+\), KL divergence [0-9.]+$' "$tmp/out"
check 'progress went to the callback' grep -q 'quantize' "$tmp/err"
run "$gsq" quantize "$demo" -o "$tmp/by-program" --effort fast --calib "$tmp/calib.txt" -q
check 'the program does the same' test "$rc" -eq 0
check 'and writes the same bytes' diff -r "$tmp/by-library" "$tmp/by-program"

# What fails says so.
run "$tmp/static" "$tmp/nowhere" "$tmp/x" "$tmp/calib.txt" "$tmp/eval.txt"
check 'a missing model is an error' test "$rc" -eq 1
check "named: $(sed -n 2p "$tmp/err")" grep -q nowhere "$tmp/err"
done_testing
