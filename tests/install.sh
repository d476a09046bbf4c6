#!/usr/bin/env bash
# cmake --install: every file is there and the program runs from there; the manual page and the completions have every
# command and option that --help shows. And what a configure run says where libraries are missing.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
[[ -e $build/share/gsq.1 ]] || skip "this build makes no manual page"
to=$tmp/prefix
run cmake --install "$build" --prefix "$to"
check 'cmake --install' test "$rc" -eq 0
for file in bin/gsq share/man/man1/gsq.1 share/bash-completion/completions/gsq share/zsh/site-functions/_gsq \
    share/fish/vendor_completions.d/gsq.fish share/gsq/gsq-calibration-1.txt share/gsq/README.md share/doc/gsq/{README.md,CHANGELOG.md,LICENSE.txt,THIRD-PARTY.txt,docs/json.md,docs/architecture.svg}; do
    check "installed: $file" test -s "$to/$file"
done
check 'the program runs from there' diff <("$to/bin/gsq" --version) <("$gsq" --version)
run "$to/bin/gsq" --version
check 'its version is the newest of the change log' grep -qx "## $(cut -d' ' -f2 "$tmp/out")" "$here/CHANGELOG.md"

check 'packages name a maintainer with an address' grep -qE \
    '^set\(CPACK_PACKAGE_CONTACT "[^<]+ <[^ @]+@[^ @]+\.[a-z]+>"\)' "$build/CPackConfig.cmake"

# Every library that is linked has its terms in THIRD-PARTY.txt, and is in vcpkg.json.
libraries=$(sed -nE 's/^gsq_dep\([a-z0-9_]+ [^ ]+ [^ ]+ ([a-z0-9-]+).*/\1/p' "$here/cmake/deps.cmake")
check 'the libraries are found in deps.cmake' test "$(wc -w <<<"$libraries")" -ge 6
for library in $libraries; do
    run awk -v title="==== $library ====" '$0 ~ /^==== / { inside = $0 == title } inside' "$to/share/doc/gsq/THIRD-PARTY.txt"
    check "licence of $library" grep -qiE 'copyright.*[0-9]{4}|licence|license' "$tmp/out"
    check "$library's licence was found" bash -c "! grep -q 'not found' '$tmp/out'"
    check "vcpkg.json has $library" grep -q "\"$library\"" "$here/vcpkg.json"
done

# Completion by bash itself: what the words after gsq, the last one unfinished, become.
complete_bash() {
    bash -c '. "$1"; shift; COMP_WORDS=(gsq "$@"); COMP_CWORD=$#; _gsq; printf "%s\n" "${COMPREPLY[@]}"' - \
        "$to/share/bash-completion/completions/gsq" "$@"
}
page=$tmp/page
sed 's/\\-/-/g; s/\\f[BRI]//g; s/\\e/\\/g' "$to/share/man/man1/gsq.1" >"$page"
commands=$("$gsq" --help | sed -nE 's/^  ([a-z]+)  +[a-zA-Z].*/\1/p')
check 'commands of the help are found' test "$(wc -w <<<"$commands")" -ge 8
check 'the manual and bash know these commands' diff \
    <(sort <<<"$commands") <(complete_bash '' | grep -v '^--' | sort)
for command in $commands; do
    grep -q "^.SS $command\$" "$page" || fail "the manual has no section $command"
    grep -q "'$command:" "$to/share/zsh/site-functions/_gsq" || fail "zsh does not know $command"
    grep -q -- "-a $command " "$to/share/fish/vendor_completions.d/gsq.fish" || fail "fish does not know $command"
    shown=$("$gsq" "$command" --help all | sed -nE 's/^  (-[a-zA-Z],|   ) --([a-z0-9-]+).*/--\2/p' | sort)
    check "bash completes the options of $command, and only these" diff <(echo "$shown") <(complete_bash "$command" -- | sort)
    sed -n "/^.SS $command\$/,/^.SS /p; /^.SH OPTIONS OF/,\$p" "$page" >"$tmp/section"
    for option in $shown; do
        grep -qE -- "^(-[a-zA-Z], )?$option( |\$)" "$tmp/section" ||
            fail "the manual does not have $option of $command"
        grep -q -- "$option\(}'\|\)\[" "$to/share/zsh/site-functions/_gsq" || fail "zsh does not know $option"
        grep -q -- "from $command' -l ${option#--} " <(sed 's/$/ /' "$to/share/fish/vendor_completions.d/gsq.fish") ||
            fail "fish does not know $option of $command"
    done
done
check 'words of an option' diff <(printf '%s\n' rtn gptq gsq) <(complete_bash quantize --method '')
check 'a word begun' diff <(echo best) <(complete_bash quantize --effort be)
check 'types of llama-quantize' grep -qx Q4_K_M <(complete_bash quantize --type Q4)
touch "$tmp/a text.txt"
check 'files' diff <(echo "$tmp/a text.txt") <(complete_bash quantize --calib "$tmp/a te")
for shell in bash:share/bash-completion/completions/gsq zsh:share/zsh/site-functions/_gsq fish:share/fish/vendor_completions.d/gsq.fish; do
    if command -v "${shell%%:*}" >/dev/null; then
        check "${shell%%:*} takes its file" "${shell%%:*}" -n "$to/${shell#*:}"
    else
        echo "skipped: no ${shell%%:*}"
    fi
done
if command -v man >/dev/null && man -l --warnings "$page" >/dev/null 2>&1; then
    run man -l --warnings "$to/share/man/man1/gsq.1"
    check 'troff has no complaint' test "$rc" -eq 0 -a ! -s "$tmp/err"
else
    echo "skipped: no man that shows files"
fi

# Where nothing was installed: a toolchain file beside which no libraries were built.
mkdir -p "$tmp/bare/cmake"
cp "$here/cmake/mingw-w64.cmake" "$here/cmake/portable-linux.cmake" "$tmp/bare/cmake/"
# shellcheck disable=SC2317 # called by check
refused() { # TOOLCHAIN: the configure run's words, on one line
    run cmake -S "$here" -B "$tmp/bare/$1" -G Ninja -DCMAKE_TOOLCHAIN_FILE="$tmp/bare/cmake/$1.cmake"
    [[ $rc -ne 0 ]] || return 1
    tr -s '\n ' ' ' <"$tmp/err" >"$tmp/said"
}
if command -v x86_64-w64-mingw32-gcc >/dev/null; then
    check 'mingw without its libraries is refused' refused mingw-w64
    check 'all of them are named' grep -q 'xxhash.h .*cJSON.h .*pcre2.h .*utf8proc.h .*volk.h .*vulkan.h ' "$tmp/said"
    check 'with their packages' grep -qF 'cjson/cJSON.h (Debian: libcjson-dev; vcpkg: cjson)' "$tmp/said"
    check 'and the script that builds them' grep -qF 'Run scripts/mingw-deps.sh first' "$tmp/said"
else
    echo "skipped: no mingw-w64"
fi
run cmake -S "$here" -B "$tmp/bare/native" -G Ninja -DGSQ_TESTS=OFF -DGSQ_cjson_INCLUDE=GSQ_cjson_INCLUDE-NOTFOUND \
    -DCMAKE_FIND_ROOT_PATH="$tmp" -DCMAKE_FIND_ROOT_PATH_MODE_INCLUDE=ONLY
tr -s '\n ' ' ' <"$tmp/err" >"$tmp/said"
check 'a native build without libraries names scripts/setup.sh' grep -q 'libcjson-dev.*scripts/setup.sh' "$tmp/said"
done_testing
