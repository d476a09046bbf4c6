#!/usr/bin/env bash
# Real Vulkan drivers of AMD, Intel and NVIDIA cards on a machine that has none of them: Mesa's drivers and its no-op DRM
# shims, out of Debian packages, unpacked into a folder and run from there. They enumerate a card and compile for it; what is
# dispatched does nothing. Also the newest lavapipe, which computes products of cooperative matrices, and the shader compiler
# and headers that gsq needs for them (preset `newest`).
#
#   scripts/gpu-drivers.sh                      prepares build/gpu-drivers (GSQ_GPU_DRIVERS: another folder); nothing is
#                                               installed, no root is needed. Exit 77, with a message: cannot be had here
#   scripts/gpu-drivers.sh cards                their names
#   scripts/gpu-drivers.sh run CARD PROGRAM...  runs a program that was built on this machine on such a card
#
# AMD, NVIDIA and lavapipe come from trixie-backports, the shader compiler from testing. Debian has no shim for Intel: it is
# built from the source package of trixie's Mesa, whose driver it goes with (they share structures). NVIDIA's shim knows no Ada;
# tools/ada_shim.c goes before it.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib/debian.sh
top=${GSQ_GPU_DRIVERS:-$PWD/build/gpu-drivers}
lib=usr/lib/x86_64-linux-gnu
revision=4

cards=(
    # name      driver and chip           what it is
    'vega10     radeon vega10             AMD GCN 5, Radeon RX Vega'
    'navi21     radeon navi21             AMD RDNA 2, Radeon RX 6800'
    'navi31     radeon navi31             AMD RDNA 3, Radeon RX 7900'
    'gfx1201    radeon gfx1201            AMD RDNA 4, Radeon RX 9070'
    'dg2        intel dg2                 Intel Xe-HPG, Arc A770'
    'bmg        intel bmg                 Intel Xe2, Arc B580'
    'turing     nouveau 160               NVIDIA Turing'
    'ampere     nouveau 172               NVIDIA Ampere, GeForce RTX 3080'
    'ada        nouveau 192               NVIDIA Ada, GeForce RTX 4090'
    'lavapipe   lvp -                     Mesa on the CPU, computes'
)

cannot() {
    echo "gpu-drivers: $*"
    exit 77
}

row_of() { # CARD
    local row
    for row in "${cards[@]}"; do
        [[ ${row%% *} == "$1" ]] && echo "$row" && return 0
    done
    echo "gpu-drivers: no card named $1; there are: ${cards[*]%% *}" >&2
    return 2
}

# Packages of another release beside those of this system: apt with lists and caches of its own, in FOLDER. Testing is frozen or
# late at times: its lists may be older than they promise.
write_apt() { # FOLDER SOURCE...
    local folder=$1 key=/usr/share/keyrings/debian-archive-keyring.gpg mirror
    shift
    mirror=$(debian_mirror) || cannot "wants a Debian mirror"
    rm -rf "$folder"
    mkdir -p "$folder"/{state/lists/partial,cache/archives/partial}
    : >"$folder/status"
    printf "%s [signed-by=$key check-valid-until=no] $mirror %s main\n" "$@" >"$folder/sources.list"
    cat >"$folder/apt.conf" <<EOF
Dir::State "$folder/state";
Dir::State::status "$folder/status";
Dir::Cache "$folder/cache";
Dir::Etc::sourcelist "$folder/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "1";
EOF
    export APT_CONFIG=$folder/apt.conf
}

unpack() { # FOLDER ROOT
    local package
    for package in "$1"/cache/archives/*.deb; do
        dpkg-deb -x "$package" "$2"
    done
    rm -f "$1"/cache/archives/*.deb
}

# The shim that makes Intel's driver see a card: Mesa's own sources, compiled without the rest of Mesa.
build_intel_shim() { # SOURCES OUT
    local s=$1 out=$2 b=$top/intel/build file objects=() flags
    rm -rf "$b"
    mkdir -p "$b/intel/dev"
    (
        cd "$s/src/intel/dev"
        /usr/bin/python3 gen_wa_helpers.py mesa_defs.json "$b/intel/dev/intel_wa.h" "$b/intel/dev/intel_wa.c"
        /usr/bin/python3 intel_device_info_gen_h.py "$b/intel/dev/intel_device_info_gen.h"
        /usr/bin/python3 intel_device_info_serialize_gen_c.py "$b/intel/dev/serialize.c"
    )
    echo '#define MESA_GIT_SHA1 ""' >"$b/git_sha1.h"
    flags=(-std=gnu11 -O1 -w -fPIC -fvisibility=hidden -D_GNU_SOURCE -DHAVE_PTHREAD -DHAVE_STRUCT_TIMESPEC -DHAVE_TIMESPEC_GET
        -DHAVE___BUILTIN_{CLZ,CLZLL,FFS,FFSLL,POPCOUNT,POPCOUNTLL,CTZ,EXPECT,UNREACHABLE} -DHAVE_FUNC_ATTRIBUTE_PACKED
        -DHAVE_SECURE_GETENV -DHAVE_MEMFD_CREATE -DHAVE_DLADDR -DHAVE_ENDIAN_H '-DPACKAGE_VERSION=""' -DDETECT_OS_LINUX=1
        -DUTIL_ARCH_LITTLE_ENDIAN=1 -DUTIL_ARCH_BIG_ENDIAN=0 -DHAVE_INTEL_VIRTIO=0
        -I"$s/include" -I"$s/src" -I"$s/src/intel" -I"$s/src/util" -I"$b" -I"$b/intel" -I"$b/intel/dev" -I"$s/src/intel/dev"
        -I"$s/src/intel/common" -I/usr/include/libdrm)
    for file in "$s"/src/drm-shim/{device,drm_shim}.c "$s/src/intel/tools/intel_noop_drm_shim.c" \
        "$s"/src/intel/dev/{,i915/,xe/}intel_device_info.c "$s"/src/intel/dev/{intel_hwconfig,intel_kmd}.c \
        "$s"/src/intel/common/{,i915/,xe/}intel_{gem,engine}.c "$s/src/intel/common/xe/intel_device_query.c" \
        "$s"/src/util/{hash_table,set,ralloc,vma,anon_file,u_debug,os_misc,log,simple_mtx,rand_xor,fast_idiv_by_const}.c \
        "$s"/src/util/{u_printf,strtod,memstream,u_call_once,os_file,u_process,futex,parson,os_time,bitscan,build_id,blob}.c \
        "$s"/src/c11/impl/{threads_posix,time}.c "$b"/intel/dev/{intel_wa,serialize}.c; do
        [[ -f $file ]] || continue
        objects+=("$b/${#objects[@]}.o")
        cc "${flags[@]}" -c "$file" -o "${objects[-1]}" || return 1
    done
    cc -shared -o "$out" "${objects[@]}" -ldrm -ldl -lpthread -lm -Wl,--no-undefined
}

prepare_intel() {
    local version
    if ! /usr/bin/python3 -c 'import mako' 2>/dev/null || [[ ! -f /usr/include/libdrm/drm.h ]]; then
        echo "gpu-drivers: no Intel: its shim wants python3-mako and libdrm-dev" && return 0
    fi
    mkdir -p "$top/intel"
    version=$(apt-cache madison mesa-vulkan-drivers | awk -F' *[|] *' '$3 ~ / trixie\/main / {print $2; exit}')
    (cd "$top/intel" && apt-get -qq download "mesa-vulkan-drivers=$version" && dpkg-deb -x mesa-vulkan-drivers_*.deb root &&
        apt-get -qq source --download-only --tar-only "mesa=$version") >"$top/intel.log" 2>&1 ||
        { echo "gpu-drivers: no Intel: Debian's mirror does not give Mesa's source (intel.log)" && return 0; }
    (
        cd "$top/intel"
        tar -xJf mesa_*.orig.tar.xz --wildcards 'mesa-*/src/util*' 'mesa-*/src/c11*' 'mesa-*/src/compiler/shader_enums*' \
            'mesa-*/src/drm-shim*' 'mesa-*/include*' 'mesa-*/src/intel/dev*' 'mesa-*/src/intel/common*' 'mesa-*/src/intel/tools*'
        rm mesa_*.orig.tar.xz mesa-vulkan-drivers_*.deb
        build_intel_shim "$(echo "$PWD"/mesa-*)" "$top/intel/libintel_noop_drm_shim.so" || exit 1
        rm -rf build mesa-*
    ) >>"$top/intel.log" 2>&1 || { echo "gpu-drivers: no Intel: its shim does not compile (intel.log)" && return 0; }
}

# What gsq is built with to have the variants for cooperative matrices, which Debian 12's compiler and headers lack: testing's,
# which knows bf16, or the drivers' release's.
prepare_build() {
    local root=$top/compiler
    mkdir -p "$top/include" "$root"
    write_apt "$top/apt-testing" deb forky
    if apt-get -qq update >"$top/compiler.log" 2>&1 &&
        apt-get -qq -y --download-only install glslc libvulkan-dev libvulkan-volk-dev >>"$top/compiler.log" 2>&1; then
        unpack "$top/apt-testing" "$root"
    else
        echo "gpu-drivers: no bf16: Debian's mirror does not give testing's shader compiler (compiler.log)"
        root=$top/root
    fi
    rm -rf "$top/apt-testing"
    cp -r "$root"/usr/include/{vulkan,vk_video,volk.h,volk.c} "$top/include"
    cat >"$top/glslc" <<EOF
#!/bin/sh
exec "$root/$lib/ld-linux-x86-64.so.2" --library-path "$root/$lib" "$root/usr/bin/glslc" "\$@"
EOF
    chmod +x "$top/glslc"
}

prepare_ada() {
    local shim=$top/libada_shim.so
    [[ $shim -nt tools/ada_shim.c ]] || { cc -std=c11 -D_GNU_SOURCE -O1 -fPIC -shared -o "$shim.new" tools/ada_shim.c -ldl && mv "$shim.new" "$shim"; } ||
        echo "gpu-drivers: no Ada: tools/ada_shim.c does not compile"
}

prepare() {
    if [[ -f $top/ready && $(<"$top/ready") == "$revision" ]]; then
        prepare_ada
        return 0
    fi
    [[ $(uname -sm) == 'Linux x86_64' ]] || cannot "the packages are for Linux on x86-64"
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || cannot "wants apt-get and dpkg-deb"
    [[ -f /usr/share/keyrings/debian-archive-keyring.gpg ]] || cannot "wants Debian's keys (debian-archive-keyring)"
    rm -rf "$top"
    mkdir -p "$top/root"
    write_apt "$top/apt" deb trixie deb trixie-backports deb-src trixie
    apt-get -qq update >"$top/apt.log" 2>&1 || cannot "Debian's mirror does not answer"
    apt-get -qq -y --download-only -t trixie-backports install mesa-vulkan-drivers mesa-drm-shim libvulkan1 glslc \
        libvulkan-dev libvulkan-volk-dev vulkan-validationlayers >>"$top/apt.log" 2>&1 || cannot "Debian's mirror has no such drivers"
    unpack "$top/apt" "$top/root"
    prepare_intel
    prepare_build
    prepare_ada
    rm -rf "$top"/apt/{cache,state}
    echo "$revision" >"$top/ready"
}

run() { # CARD PROGRAM...
    local name driver chip root=$top/root shim='' before='' path icd
    read -r name driver chip _ <<<"$(row_of "$1")"
    shift
    path=$root/$lib
    icd=$root/usr/share/vulkan/icd.d/${driver}_icd.json
    case $driver in
    radeon)
        export AMDGPU_GPU_ID=$chip
        shim=$root/$lib/libamdgpu_noop_drm_shim.so
        ;;
    nouveau)
        export NOUVEAU_CHIPSET=$chip
        shim=$root/$lib/libnouveau_noop_drm_shim.so
        if [[ $chip == 19? ]]; then # on top of an Ampere
            [[ -f $top/libada_shim.so ]] || cannot "$name: no shim of its driver"
            export NOUVEAU_CHIPSET=172
            before="$top/libada_shim.so "
        fi
        ;;
    intel)
        export INTEL_STUB_GPU_PLATFORM=$chip
        shim=$top/intel/libintel_noop_drm_shim.so
        path=$top/intel/root/$lib:$path
        ;;
    esac
    [[ -z $shim || -f $shim ]] || cannot "$name: no shim of its driver"
    export VK_DRIVER_FILES=$icd VK_ICD_FILENAMES=$icd MESA_SHADER_CACHE_DISABLE=true
    # The newer C library comes with its own loader; the system's is not touched.
    exec "$root/$lib/ld-linux-x86-64.so.2" ${shim:+--preload "$before$shim"} --library-path "$path" "$@"
}

case ${1:-prepare} in
prepare)
    prepare
    echo "gpu-drivers: ready in $top"
    ;;
cards) printf '%s\n' "${cards[@]}" ;;
run)
    [[ -f $top/ready ]] || cannot "not prepared: run scripts/gpu-drivers.sh first"
    shift
    run "$@"
    ;;
*)
    sed -n '2,/^set /{/^#/s/^# \?//p}' "$0"
    exit 2
    ;;
esac
