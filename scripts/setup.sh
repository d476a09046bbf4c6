#!/usr/bin/env bash
# Installs what is missing to build, run and test gsq on Debian 12 or 13 and Ubuntu 24.04, as root or with sudo.
# Elsewhere it names what to install. Asks the package manager nothing when everything is there.
#
#   scripts/setup.sh            what the build and a run need
#   scripts/setup.sh --test     also what the tests need
#   scripts/setup.sh --mingw    also what the Windows build and its test under wine need
#   scripts/setup.sh --packages also what scripts/release.sh and scripts/try-packages.sh need
#   scripts/setup.sh --no-driver  not the Vulkan loader and driver: only to build
set -euo pipefail

build=(cmake ninja-build gcc libc6-dev glslc libvulkan-dev libvulkan-volk-dev
    libcjson-dev libpcre2-dev libutf8proc-dev libxxhash-dev zlib1g-dev libzstd-dev python3)
test=(libcmocka-dev libmd-dev vulkan-validationlayers clang libopenblas-dev clang-format clang-tidy cppcheck shellcheck
    python3-mako libdrm-dev libopenmpi-dev openmpi-bin libmpich-dev mpich)
run=(libvulkan1 mesa-vulkan-drivers)
mingw=(gcc-mingw-w64-x86-64 wine wine64 xvfb xauth xz-utils)

packages=(dpkg-dev file debootstrap debian-archive-keyring xz-utils binutils unzip)

want=("${build[@]}")
with_driver=yes
with_clang=no
for option in "$@"; do
    case $option in
    --build) ;;
    --test)
        want+=("${test[@]}")
        with_clang=yes
        # For the prebuilt llama.cpp of the tests (scripts/llama-cpp.sh), whoever put them there.
        command -v npm >/dev/null || want+=(nodejs npm)
        command -v git >/dev/null || want+=(git)
        ;;
    --mingw) want+=("${mingw[@]}") ;;
    --packages) want+=("${packages[@]}") ;;
    --no-driver) with_driver=no ;;
    *)
        sed -n '2,9s/^# \{0,1\}//p' "$0"
        exit 2
        ;;
    esac
done

[[ $with_driver == no ]] || want+=("${run[@]}")

name_what_to_install() {
    cat <<'END'
This system is none of Debian 12, Debian 13, Ubuntu 24.04, so nothing was installed. gsq needs:
  to build: a C11 compiler, CMake 3.25, Ninja, glslc (shaderc), the Vulkan headers 1.3, volk (header-only use), and
            the development files of cJSON, PCRE2 (8 bit), utf8proc, xxHash, zlib and zstd
  to run:   a Vulkan 1.3 driver and loader (a GPU's, or Mesa's lavapipe)
  to test:  CMocka, libmd, the Vulkan validation layers, clang with its runtime libraries, OpenBLAS, Python 3;
            clang-format, clang-tidy, cppcheck and shellcheck; Node with npm and git, for a prebuilt llama.cpp;
            Open MPI and MPICH, for several ranks
  Windows:  mingw-w64, wine, xvfb
END
}

# Everything of the build under its usual name, whoever put it there?
tools_are_there() {
    local tool
    for tool in cmake ninja cc glslc python3; do
        command -v "$tool" >/dev/null || return 1
    done
}

installed() {
    [[ $(dpkg-query -W -f '${Status}' "$1" 2>/dev/null) == 'install ok installed' ]]
}

# libFuzzer and the sanitizers of the default clang are a package of its version.
clang_runtime() {
    local version
    version=$(apt-cache depends clang 2>/dev/null | sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p' | head -n 1)
    [[ -z $version ]] || echo "libclang-rt-$version-dev"
}

list_missing() {
    local package runtime=
    [[ $with_clang == no ]] || runtime=$(clang_runtime)
    for package in "${want[@]}" $runtime; do
        installed "$package" || echo "$package"
    done
}

# shellcheck source=/dev/null
[[ ! -r /etc/os-release ]] || . /etc/os-release
case ${ID:-}:${VERSION_ID:-} in
debian:12 | debian:13 | ubuntu:24.04) ;;
*)
    if tools_are_there; then
        echo "setup: ${PRETTY_NAME:-this system} is not one that setup.sh installs on; the build tools are there, going on"
        exit 0
    fi
    name_what_to_install
    exit 3
    ;;
esac

mapfile -t missing < <(list_missing)
if [[ ${#missing[@]} -eq 0 ]]; then
    echo "setup: everything is installed"
    exit 0
fi
as_root=()
if [[ $(id -u) -ne 0 ]]; then
    as_root=(sudo)
    if ! command -v sudo >/dev/null; then
        echo "setup: not root and no sudo; run as root: apt-get install ${missing[*]}"
        exit 3
    fi
fi
"${as_root[@]}" apt-get -qq update || echo "setup: apt-get update had errors; going on with what is known"
mapfile -t missing < <(list_missing) # the name of clang's runtime may be known only now
echo "setup: installing ${missing[*]}"
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq -y --no-install-recommends install "${missing[@]}" >/dev/null
echo "setup: done"
