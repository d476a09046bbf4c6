#!/usr/bin/env bash
# Builds static libraries for a binary that is to run elsewhere, from the distribution's source packages, with the
# headers of Vulkan, volk and xxHash and everyone's licence texts. Does nothing when that is done already.
#
#   scripts/static-deps.sh mingw      into build/mingw-deps/prefix, for the preset mingw (Windows)
#   scripts/static-deps.sh portable   into build/portable-deps/prefix, for the preset portable: Linux with glibc 2.31 or
#                                     later; first Debian 11's C library to link with, into build/portable-deps/sysroot
#
# Exits 77 where the mirror does not have something. Needs apt (Debian or Ubuntu), cmake, ninja and the compiler (scripts/setup.sh);
# touches nothing outside build/. GSQ_DEBIAN_MIRROR: where Debian 11 is, on a system whose own mirror does not have it.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/debian.sh
. scripts/lib/debian.sh
target=${1:-}
case $target in
mingw) toolchain=cmake/mingw-w64.cmake compiler=x86_64-w64-mingw32-gcc setup='scripts/setup.sh --mingw' ;;
portable) toolchain=cmake/portable-linux.cmake compiler=gcc setup='scripts/setup.sh --packages' ;;
*)
    sed -n '2,11s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
root=$PWD/build/$target-deps
prefix=$root/prefix
recipe=$(sha256sum "$0" "$toolchain" | sha256sum | cut -c1-16)
if [[ $(cat "$prefix/.done" 2>/dev/null) == "$recipe" ]]; then
    echo "$target libraries: there already ($prefix)"
    exit 0
fi
for tool in apt-get cmake ninja "$compiler" xz; do
    command -v "$tool" >/dev/null || { echo "error: $tool is missing; run $setup"; exit 3; }
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
        for tarball in "$1"_*.orig.tar.*z*; do
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

# The licence goes where Debian's own package has it.
build() { # PACKAGE[/FOLDER-OF-CMAKELISTS] CMAKE-OPTION...
    local package=${1%%/*} folder=. file doc
    [[ $1 != */* ]] || folder=${1#*/}
    shift
    unpack "$package"
    for file in "$root/src/$package"/{LICENCE*,LICENSE*,COPYING*}; do
        if [[ -f $file ]]; then
            case $package in
            zlib) doc=zlib1g-dev ;;
            lib*) doc=$package-dev ;;
            *) doc=lib$package-dev ;;
            esac
            mkdir -p "$prefix/share/doc/$doc"
            cp "$file" "$prefix/share/doc/$doc/copyright"
            break
        fi
    done
    if [[ $package == zlib && ! -e $root/src/zlib/win32/zlib1.rc ]]; then # Debian's source is without; only the DLL reads it
        mkdir -p "$root/src/zlib/win32"
        : >"$root/src/zlib/win32/zlib1.rc"
    fi
    local log=$root/src/$package.log
    if cmake -S "$root/src/$package/$folder" -B "$root/src/$package/build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
        -DCMAKE_TOOLCHAIN_FILE="$PWD/$toolchain" -DCMAKE_INSTALL_PREFIX="$prefix" -DCMAKE_INSTALL_LIBDIR=lib \
        -DBUILD_SHARED_LIBS=OFF -DCMAKE_POSITION_INDEPENDENT_CODE=ON -DCMAKE_POLICY_VERSION_MINIMUM=3.5 "$@" >"$log" 2>&1 &&
        cmake --build "$root/src/$package/build" --target "${goal:-install}" >>"$log" 2>&1; then
        return 0
    fi
    tail -n 30 "$log"
    echo "error: $package does not build"
    exit 1
}

# Debian 11 has glibc 2.31. Its C library and headers, unpacked, are what the compiler takes for the system.
sysroot() {
    local mirror package
    mirror=$(debian_mirror) || exit 77
    mkdir -p "$root/apt11"/{lists/partial,parts} "$root/debs" "$root/sysroot"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bullseye main" >"$root/apt11/parts/bullseye.list"
    local apt11=(-o "Dir::State::lists=$root/apt11/lists" -o Dir::Etc::SourceList=/dev/null
        -o "Dir::Etc::SourceParts=$root/apt11/parts" -o Dir::State::status=/dev/null
        -o APT::Architecture=amd64 -o APT::Sandbox::User=root -o Acquire::Retries=3 -o Acquire::Check-Valid-Until=false)
    apt-get "${apt11[@]}" -qq update
    for package in libc6 libc6-dev linux-libc-dev libcrypt1 libcrypt-dev; do
        (cd "$root/debs" && apt-get "${apt11[@]}" -qq download "$package") ||
            { echo "error: the mirror has no $package of Debian 11; set GSQ_DEBIAN_MIRROR"; exit 77; }
    done
    for package in "$root/debs"/*.deb; do
        dpkg-deb -x "$package" "$root/sysroot"
    done
    # Its absolute links must stay inside.
    find "$root/sysroot" -type l -lname '/*' | while read -r link; do
        ln -sfn "$root/sysroot$(readlink "$link")" "$link"
    done
    echo "C library $(dpkg-deb -f "$root"/debs/libc6_*.deb Version)"
}

[[ $target != portable ]] || sysroot
build cjson -DENABLE_CJSON_TEST=OFF -DENABLE_CJSON_UTILS=OFF -DENABLE_CUSTOM_COMPILER_FLAGS=OFF
build pcre2 -DPCRE2_BUILD_PCRE2GREP=OFF -DPCRE2_BUILD_TESTS=OFF -DPCRE2_SUPPORT_JIT=ON
build utf8proc
goal=zlibstatic build zlib # all there is but its DLL, for which Debian's source lacks a file
find "$root/src/zlib/build" -maxdepth 1 -name 'lib*.a' -exec cp {} "$prefix/lib/libz.a" \;
cp "$root/src/zlib/zlib.h" "$root/src/zlib/build/zconf.h" "$prefix/include/"
# It asks for a C++ compiler too, which its library has no use for.
build libzstd/build/cmake -DZSTD_BUILD_PROGRAMS=OFF -DZSTD_BUILD_TESTS=OFF -DZSTD_BUILD_SHARED=OFF \
    -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_CXX_COMPILER_WORKS=ON
[[ ! -e $prefix/lib/zstd.lib ]] || mv "$prefix/lib/zstd.lib" "$prefix/lib/libzstd.a"
if [[ $target == mingw ]]; then
    build cmocka -DWITH_EXAMPLES=OFF -DUNIT_TESTING=OFF -DWITH_STATIC_LIB=ON
    # Its older versions build a DLL all the same: the static library takes its place.
    if [[ -e $prefix/lib/libcmocka.dll.a ]]; then
        rm -f "$prefix/lib/libcmocka.dll.a" "$prefix/bin/cmocka.dll"
        find "$root/src/cmocka/build" -name 'libcmocka-static.a' -exec cp {} "$prefix/lib/libcmocka.a" \;
    fi
fi

# Headers that are the same everywhere; /usr/include itself must not be on the path of a build for elsewhere.
for header in vulkan vk_video volk.h volk.c xxhash.h xxh3.h; do
    [[ -e /usr/include/$header ]] || { echo "error: /usr/include/$header is missing; run $setup"; exit 3; }
    cp -r "/usr/include/$header" "$prefix/include/"
done
for package in libvulkan-dev libvulkan-volk-dev libxxhash-dev; do
    mkdir -p "$prefix/share/doc/$package"
    cp "/usr/share/doc/$package/copyright" "$prefix/share/doc/$package/"
done
rm -rf "$root/apt" "$root/apt11" "$root/debs" "$root/src"/*/
echo "$recipe" >"$prefix/.done"
echo "$target libraries: built into $prefix"
