#!/usr/bin/env bash
# Builds what the mingw preset needs into build/mingw-deps/prefix: cJSON, PCRE2, utf8proc and CMocka from the
# distribution's source packages, and the headers of Vulkan, volk and xxHash. Does nothing when that is done already.
# Exits 77 where the mirror does not have a source. Needs apt (Debian or Ubuntu), cmake, ninja, gcc-mingw-w64-x86-64; touches nothing outside build/mingw-deps.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD/build/mingw-deps
prefix=$root/prefix
recipe=$(sha256sum "$0" cmake/mingw-w64.cmake | sha256sum | cut -c1-16)
if [[ $(cat "$prefix/.done" 2>/dev/null) == "$recipe" ]]; then
    echo "mingw libraries: there already ($prefix)"
    exit 0
fi
for tool in apt-get cmake ninja x86_64-w64-mingw32-gcc xz; do
    command -v "$tool" >/dev/null || { echo "error: $tool is missing; run scripts/setup.sh --mingw"; exit 3; }
done
rm -rf "$root"
mkdir -p "$root"/{apt/lists/partial,apt/parts,src,prefix/include,prefix/lib}

# The distribution's own source lists, with deb-src, in a private apt state: the system's stays as it is.
for list in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list.d/ubuntu.sources; do
    [[ -e $list ]] && sed -E 's/^Types:.*/Types: deb-src/' "$list" >"$root/apt/parts/$(basename "$list")"
done
if grep -qE '^deb ' /etc/apt/sources.list 2>/dev/null; then
    sed -nE 's/^deb /deb-src /p' /etc/apt/sources.list >"$root/apt/parts/classic.list"
fi
apt=(-o "Dir::State::lists=$root/apt/lists" -o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$root/apt/parts"
    -o APT::Sandbox::User=root -o Acquire::Retries=3)
apt-get "${apt[@]}" -qq update

# The newest version of a source package whose upstream tarball the mirror still has; unpacked into src/NAME.
unpack() { # PACKAGE
    local version tarball
    cd "$root/src"
    for version in $(apt-cache "${apt[@]}" showsrc "$1" | sed -n 's/^Version: //p' | sort -ruV); do
        apt-get "${apt[@]}" -qq --tar-only --download-only source "$1=$version" >/dev/null 2>&1 || continue
        for tarball in "$1"_*.orig.tar.*z; do
            [[ -s $tarball ]] || continue
            mkdir -p "$1"
            tar -xf "$tarball" -C "$1" --strip-components=1
            echo "$1 $version"
            cd "$OLDPWD"
            return 0
        done
    done
    echo "error: the mirror has no source of $1"
    exit 77
}

build() { # PACKAGE CMAKE-OPTION...
    local package=$1
    shift
    unpack "$package"
    local log=$root/src/$package.log
    if cmake -S "$root/src/$package" -B "$root/src/$package/build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
        -DCMAKE_TOOLCHAIN_FILE="$PWD/cmake/mingw-w64.cmake" -DCMAKE_INSTALL_PREFIX="$prefix" \
        -DBUILD_SHARED_LIBS=OFF -DCMAKE_POLICY_VERSION_MINIMUM=3.5 "$@" >"$log" 2>&1 &&
        cmake --build "$root/src/$package/build" --target install >>"$log" 2>&1; then
        return 0
    fi
    tail -n 30 "$log"
    echo "error: $package does not build"
    exit 1
}

build cjson -DENABLE_CJSON_TEST=OFF -DENABLE_CJSON_UTILS=OFF -DENABLE_CUSTOM_COMPILER_FLAGS=OFF
build pcre2 -DPCRE2_BUILD_PCRE2GREP=OFF -DPCRE2_BUILD_TESTS=OFF -DPCRE2_SUPPORT_JIT=ON
build utf8proc
build cmocka -DWITH_EXAMPLES=OFF -DUNIT_TESTING=OFF -DWITH_STATIC_LIB=ON
# Its older versions build a DLL all the same: the static library takes its place.
if [[ -e $prefix/lib/libcmocka.dll.a ]]; then
    rm -f "$prefix/lib/libcmocka.dll.a" "$prefix/bin/cmocka.dll"
    find "$root/src/cmocka/build" -name 'libcmocka-static.a' -exec cp {} "$prefix/lib/libcmocka.a" \;
fi

# Headers that are the same everywhere; /usr/include itself must not be on the path of a Windows build.
for header in vulkan vk_video volk.h volk.c xxhash.h xxh3.h; do
    [[ -e /usr/include/$header ]] || { echo "error: /usr/include/$header is missing; run scripts/setup.sh --mingw"; exit 3; }
    cp -r "/usr/include/$header" "$prefix/include/"
done
rm -rf "$root/apt" "$root/src"/*/
echo "$recipe" >"$prefix/.done"
echo "mingw libraries: built into $prefix"
