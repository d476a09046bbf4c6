#!/usr/bin/env bash
# cmake/version.cmake: the same files have the same version, wherever and however they are built; other files another one.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
command -v git >/dev/null || skip "git is not installed"
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
tree=$tmp/tree

version() { # [TREE [OPTION]]: the text in the generated source
    local of=${1:-$tree}
    cmake ${2:+"$2"} "-DSOURCE=$of" "-DOUT=$of/out.c" -DVERSION=1.2.3 -P "$here/cmake/version.cmake" 2>/dev/null
    sed -nE 's/.*return "(.*)";/\1/p' "$of/out.c"
    rm "$of/out.c"
}
is() { # WHAT PATTERN TEXT
    check "$1: $3" grep -qxE "$2" <<<"$3"
}

mkdir -p "$tree/host/base" "$tree/tests"
echo 'int one;' >"$tree/host/base/one.c"
echo test >"$tree/tests/one.sh"
is 'no git: the release' '1\.2\.3' "$(version)"
git -C "$tree" init -q
git -C "$tree" add . && git -C "$tree" commit -qm one
commit=$(version)
is 'a commit' '1\.2\.3 \([0-9a-f]{10}\)' "$commit"
printf 'other\n' >"$tree/tests/one.sh"
is 'tests do not count' '1\.2\.3 \([0-9a-f]{10}\)' "$(version)"
echo 'int two;' >"$tree/host/base/one.c"
dirty=$(version)
is 'a changed source' '1\.2\.3 \([0-9a-f]{10}-dirty\.[0-9a-f]{8}\)' "$dirty"
cp -r "$tree" "$tmp/copy"
check 'the same in another folder' test "$(version "$tmp/copy")" = "$dirty"
touch "$tree/host/base/one.c"
check 'the same at another time' test "$(version)" = "$dirty"
echo 'int three;' >"$tree/host/base/one.c"
check 'other changes are another version' test "$(version)" != "$dirty"
echo 'int one;' >"$tree/host/base/one.c"
check 'taken back, it is the commit again' test "$(version)" = "$commit"
echo 'int new;' >"$tree/host/base/new.c"
is 'a file that git does not know' '1\.2\.3 \([0-9a-f]{10}-dirty\.[0-9a-f]{8}\)' "$(version)"
rm "$tree/host/base/new.c" "$tree/host/base/one.c"
is 'a file that is gone' '1\.2\.3 \([0-9a-f]{10}-dirty\.[0-9a-f]{8}\)' "$(version)"
git -C "$tree" checkout -q .
git -C "$tree" tag v1.2.2
echo 'int two;' >"$tree/host/base/one.c"
git -C "$tree" commit -qam two
is 'behind an earlier release' '1\.2\.3 \(v1\.2\.2-1-g[0-9a-f]{10}\)' "$(version)"
git -C "$tree" tag v1.2.3
is 'the release itself' '1\.2\.3' "$(version)"
echo 'int four;' >"$tree/host/base/one.c"
is 'the release, changed' '1\.2\.3 \(v1\.2\.3-dirty\.[0-9a-f]{8}\)' "$(version)"
# A checkout of another user, or no git: all files count.
mute=-DGIT_EXECUTABLE=/bin/false
all=$(version "$tree" "$mute")
is 'git does not answer' '1\.2\.3 \(files\.[0-9a-f]{8}\)' "$all"
echo 'int five;' >"$tree/host/base/one.c"
check 'and a source changes' test "$(version "$tree" "$mute")" != "$all"
echo 'int four;' >"$tree/host/base/one.c"
check 'and is as it was' test "$(version "$tree" "$mute")" = "$all"
# A source package within somebody else's repository is not of that repository.
mkdir -p "$tree/vendor/gsq/host"
is "in another's repository" '1\.2\.3' "$(version "$tree/vendor/gsq")"
done_testing
