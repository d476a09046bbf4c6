#!/usr/bin/env bash
# Makes the packages of a release, into build/packages, with SHA256SUMS.
#
#   scripts/release.sh                      all of them
#   scripts/release.sh KIND...              only these: deb tarball windows
#
#   deb       for each system in GSQ_PACKAGE_SYSTEMS (debian12 debian13 ubuntu24.04 unless set; "this": the running one), each
#             built in a clean one, which wants root and debootstrap; the running system's own is built on it
#   tarball   one binary for every x86-64 Linux with glibc 2.31 or later
#   windows   a zip, by mingw-w64
#
# scripts/setup.sh --packages --mingw installs what this needs. scripts/try-packages.sh tries what came out.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/debian.sh
. scripts/lib/debian.sh
# shellcheck source=scripts/lib/system.sh
. scripts/lib/system.sh
# shellcheck source=scripts/lib/chroot.sh
. scripts/lib/chroot.sh
trap chroot_close_all EXIT
out=$PWD/build/packages
newest_glibc=2.31
# Where there is no git checkout the build cannot see the commit.
commit=$(cmake -P cmake/version.cmake)
kinds=("$@")
if [[ ${#kinds[@]} -eq 0 ]]; then
    kinds=(deb tarball windows)
    rm -rf "$out"
fi
mkdir -p "$out"

quiet() { # LOG COMMAND...: output only if it fails
    local log=$1
    shift
    "$@" >"$log" 2>&1 || { tail -n 40 "$log"; echo "error: $1 failed (log: $log)"; exit 1; }
}

pack() { # BUILD-FOLDER: what cpack is set to make of it
    (cd "$1" && quiet cpack.log cpack -B "$out")
    rm -rf "$out/_CPack_Packages"
}

# No library's terms may be missing from what goes along with a binary.
check_licences() { # BUILD-FOLDER
    local n
    n=$(grep -c '^==== ' "$1/THIRD-PARTY.txt")
    if [[ $n -lt 7 ]] || grep -q '^Licence text not found' "$1/THIRD-PARTY.txt"; then
        echo "error: $1/THIRD-PARTY.txt lacks the licence text of a library"
        exit 1
    fi
}

check_glibc() { # FILE...
    local file version
    for file in "$@"; do
        version=$(objdump -T "$file" | grep -oE 'GLIBC_[0-9.]+' | sort -uV | tail -n 1)
        version=${version#GLIBC_}
        if [[ -z $version || $(printf '%s\n' "$version" "$newest_glibc" | sort -V | tail -n 1) != "$newest_glibc" ]]; then
            echo "error: $file wants glibc ${version:-(unknown)}, which is later than $newest_glibc"
            exit 1
        fi
        if readelf -d "$file" | grep NEEDED | grep -vE '\[(libc|libm|libdl|libpthread|librt)\.so|\[ld-linux'; then
            echo "error: $file wants a library that not every system has"
            exit 1
        fi
        echo "$(basename "$file"): glibc $version or later"
    done
}

make_tarball() {
    scripts/static-deps.sh portable
    quiet build/portable.log cmake --preset portable
    quiet build/portable.log cmake --build build/portable
    check_licences build/portable
    check_glibc build/portable/gsq build/portable/libgsq.so
    pack build/portable
}

make_windows() {
    scripts/mingw-deps.sh
    quiet build/mingw.log cmake --preset mingw
    quiet build/mingw.log cmake --build build/mingw
    check_licences build/mingw
    pack build/mingw
}

make_deb() {
    local system systems=${GSQ_PACKAGE_SYSTEMS:-debian12 debian13 ubuntu24.04}
    for system in ${systems/this/$this_system}; do
        echo "a package for $system"
        if [[ $system == "$this_system" ]]; then
            quiet build/deb.log cmake --preset release -B build/deb -DGSQ_TESTS=OFF
            quiet build/deb.log cmake --build build/deb
            check_licences build/deb
            pack build/deb
            continue
        fi
        chroot_possible || { echo "error: a package for $system wants root and debootstrap"; exit 3; }
        local root=$PWD/build/chroots/build-$system
        chroot_begin "$system" "$root"
        copy_source "$root/src"
        chroot_run "$root" apt-get -qq update
        quiet "build/deb-$system.log" chroot_run "$root" /src/scripts/setup.sh --no-driver --packages
        quiet "build/deb-$system.log" chroot_run "$root" sh -c "cd /src && cmake --preset release -DGSQ_TESTS=OFF \
            -DGSQ_COMMIT='$commit' && cmake --build build/release && cd build/release && cpack -B /out"
        check_licences "$root/src/build/release"
        cp "$root"/out/*.deb "$out/"
        chroot_close "$root"
    done
}

for kind in "${kinds[@]}"; do
    declare -F "make_$kind" >/dev/null || { echo "no kind of package is called $kind"; exit 2; }
    "make_$kind"
done
(
    cd "$out"
    rm -f SHA256SUMS
    sums=$(sha256sum -- *)
    echo "$sums" >SHA256SUMS
    ls -l --block-size=K | awk 'NR > 1 { print $5, $9 }'
)
