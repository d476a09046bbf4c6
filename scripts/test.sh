#!/usr/bin/env bash
# Every test there is: installs what is missing, builds release, asan, fuzz, mingw and the packages, runs all of it.
# The last line is "N passed, N failed, N skipped". Exits 0 only when nothing failed.
#
#   scripts/test.sh               everything
#   scripts/test.sh release       only these parts: release mpi gpus asan fuzz mingw packages
# GSQ_SKIP_SETUP=1 leaves the machine's packages alone. FUZZ_SECONDS: for each fuzz target, default 20.
set -euo pipefail
cd "$(dirname "$0")/.."
parts=("$@")
[[ ${#parts[@]} -gt 0 ]] || parts=(release mpi gpus asan fuzz mingw packages)
passed=0 failed=0 skipped=0
failures=()
started=$SECONDS

count() { # passed|failed|skipped NAME
    case $1 in
    passed) passed=$((passed + 1)) ;;
    skipped) skipped=$((skipped + 1)) ;;
    *)
        failed=$((failed + 1))
        failures+=("$2")
        ;;
    esac
}

title() {
    printf '\n=== %s (at %d s)\n' "$*" "$((SECONDS - started))"
}

build() { # PRESET
    local preset=$1
    if cmake --preset "$preset" >"build/$preset.log" 2>&1 &&
        cmake --build "build/$preset" >>"build/$preset.log" 2>&1; then
        count passed "build $preset"
        return 0
    fi
    tail -n 60 "build/$preset.log"
    count failed "build $preset"
    return 1
}

# Runs ctest, two tests at a time, and counts them one by one.
run_ctest() { # PRESET CTEST-OPTION...
    local preset=$1 junit=$PWD/build/$1/ctest.xml
    shift
    rm -f "$junit"
    ctest --test-dir "build/$preset" --parallel 2 --output-on-failure --output-junit "$junit" "$@" || true
    if [[ ! -s $junit ]]; then
        count failed "ctest $preset"
        return
    fi
    while read -r status name; do
        case $status in
        run) count passed "$preset $name" ;;
        notrun | disabled) count skipped "$preset $name" ;;
        *) count failed "$preset $name" ;;
        esac
    done < <(sed -nE 's/.*<testcase name="([^"]*)".*status="([^"]*)".*/\2 \1/p' "$junit")
}

part_release() {
    title "release: build and run everything"
    local rc=0
    scripts/llama-cpp.sh || rc=$? # 77: its message says why tests/gguf_llama.sh will skip
    [[ $rc -eq 0 || $rc -eq 77 ]] || count failed "llama-cpp libraries"
    rc=0
    scripts/hf-tokenizers.sh || rc=$? # likewise, tests/tokenizers_hf.sh
    [[ $rc -eq 0 || $rc -eq 77 ]] || count failed "Hugging Face's tokenizers"
    rc=0
    scripts/gpu-drivers.sh || rc=$? # likewise, tests/gpu_drivers.sh
    [[ $rc -eq 0 || $rc -eq 77 ]] || count failed "drivers of GPUs"
    build release || return 0
    if scripts/lint.py; then
        count passed lint
    else
        count failed lint
    fi
    run_ctest release -E '^(wine|mpi)$' # have their own parts
}

# Runs FUNCTION NAME for each name, two at a time; exit codes are left in build/exit/NAME.
two_at_a_time() { # FUNCTION NAME...
    local function=$1
    shift
    rm -rf build/exit
    mkdir -p build/exit
    export -f "${function?}"
    # shellcheck disable=SC2016 # the inner shell's
    printf '%s\n' "$@" | xargs -P 2 -I '{}' bash -c 'rc=0; "$0" "$1" || rc=$?; echo "$rc" >"build/exit/$1"' "$function" '{}'
}

newest_one() { # NAME of a test
    GSQ_SOURCE=$PWD scripts/gpu-drivers.sh run lavapipe "build/newest/$1" >"build/newest/$1.log" 2>&1
}

# Several ranks: by Open MPI, and the same objects linked again with MPICH.
part_mpi() {
    title "mpi: several ranks at one run, by Open MPI and MPICH"
    if ! command -v mpicc.openmpi >/dev/null; then
        echo "skipped: no Open MPI"
        count skipped mpi
        return 0
    fi
    local log=build/mpi.log mpich='' rc=0
    if ! { cmake --preset mpi -U 'MPI_*' -DGSQ_TESTS=OFF -DGSQ_LIBRARY=OFF -DMPI_C_COMPILER=mpicc.openmpi && cmake --build build/mpi; } >"$log" 2>&1; then
        tail -n 40 "$log"
        count failed "build mpi"
        return 0
    fi
    cp build/mpi/gsq build/mpi/gsq-openmpi
    if command -v mpicc.mpich >/dev/null; then
        { cmake --preset mpi -U 'MPI_*' -DMPI_C_COMPILER=mpicc.mpich && cmake --build build/mpi; } >>"$log" 2>&1 || count failed "build mpi, MPICH"
        mpich=$PWD/build/mpi/gsq
    fi
    GSQ_SOURCE=$PWD GSQ_BUILD=$PWD/build/release GSQ_BINARY=$PWD/build/mpi/gsq-openmpi GSQ_MPICH=$mpich bash tests/mpi.sh || rc=$?
    case $rc in
    0) count passed mpi ;;
    77) count skipped mpi ;;
    *) count failed mpi ;;
    esac
}

# Drivers of cards that are not here, and the variants that this system's shader compiler cannot build.
part_gpus() {
    title "gpus: compilers of AMD, Intel and NVIDIA; cooperative matrices on the newest lavapipe"
    local rc=0 name tests=(test_tune_block test_spirv test_kernels_forward test_kernels_backward test_gpu test_choice test_bf16)
    scripts/gpu-compilers.sh || rc=$?
    case $rc in
    0) count passed "compilers of GPUs" ;;
    77) count skipped "compilers of GPUs" && return 0 ;;
    *) count failed "compilers of GPUs" && return 0 ;;
    esac
    cmake --build build/newest --target gsq "${tests[@]}" >>build/newest.log 2>&1 ||
        { count failed "build newest" && return 0; }
    two_at_a_time newest_one "${tests[@]}"
    for name in "${tests[@]}"; do
        if [[ $(cat "build/exit/$name") == 0 ]]; then
            count passed "newest $name"
        else
            tail -n 20 "build/newest/$name.log"
            count failed "newest $name"
        fi
    done
    # In the release part there is no such build yet.
    if GSQ_SOURCE=$PWD GSQ_BUILD=$PWD/build/release GSQ_BINARY=$PWD/build/release/gsq bash tests/choice.sh >build/newest/choice.log 2>&1; then
        count passed "newest choice"
    else
        tail -n 20 build/newest/choice.log
        count failed "newest choice"
    fi
}

part_asan() {
    title "asan: the C tests with AddressSanitizer and UBSan"
    build asan || return 0
    # Leaks inside drivers and libraries are not ours; tests/lsan.supp names them.
    ASAN_OPTIONS=detect_leaks=1 LSAN_OPTIONS="suppressions=$PWD/tests/lsan.supp:print_suppressions=0" \
        UBSAN_OPTIONS=print_stacktrace=1 run_ctest asan -R '^test_'
}

fuzz_one() { # TARGET
    local name=$1 corpus=build/fuzz/corpus/$1 seeds=tests/fuzz/corpus/${1#fuzz_}
    mkdir -p "$corpus"
    [[ -d $seeds ]] || seeds=
    # shellcheck disable=SC2086 # seeds is one folder or nothing
    "build/fuzz/$name" -max_total_time="${FUZZ_SECONDS:-20}" -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="build/fuzz/$name." "$corpus" $seeds >"build/fuzz/$name.log" 2>&1
}

part_fuzz() {
    title "fuzz: ${FUZZ_SECONDS:-20} s for each parser, two at a time"
    build fuzz || return 0
    local targets=() target
    for target in tests/fuzz/fuzz_*.c; do
        targets+=("$(basename "$target" .c)")
    done
    two_at_a_time fuzz_one "${targets[@]}"
    for target in "${targets[@]}"; do
        if [[ $(cat "build/exit/$target") == 0 ]]; then
            echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "build/fuzz/$target.log") inputs"
            count passed "$target"
        else
            tail -n 40 "build/fuzz/$target.log"
            count failed "$target"
        fi
    done
}

# The packages that this system can make for itself and others, each with what it must not want or lack checked.
part_packages() {
    title "packages: .deb of this system, portable tarball, Windows zip"
    if ! command -v x86_64-w64-mingw32-gcc >/dev/null || ! command -v dpkg-deb >/dev/null; then
        echo "skipped: wants mingw-w64 and dpkg"
        count skipped packages
        return 0
    fi
    local rc=0
    GSQ_PACKAGE_SYSTEMS=this scripts/release.sh || rc=$?
    case $rc in
    0) count passed packages ;;
    77) count skipped packages ;;
    *) count failed packages ;;
    esac
}

# Several ranks on Windows: linked, where MS-MPI's header and import library are (cmake/deps.cmake says where from). Its launcher and
# msmpi.dll are Windows programs that no package here has: nothing runs.
msmpi() {
    local log=$PWD/build/mingw-mpi.log
    if [[ ! -e ${MSMPI_INC:-}/mpi.h || ! -d ${MSMPI_LIB64:-} ]]; then
        echo "skipped: MS-MPI (MSMPI_INC and MSMPI_LIB64 name no mpi.h and no import library)"
        count skipped "mingw with MS-MPI"
    elif { cmake --preset mingw -B build/mingw-mpi -DGSQ_MPI=ON -DGSQ_TESTS=OFF -DGSQ_LIBRARY=OFF && cmake --build build/mingw-mpi --target gsq; } >"$log" 2>&1 &&
        x86_64-w64-mingw32-objdump -p build/mingw-mpi/gsq.exe | grep -q 'DLL Name: msmpi.dll'; then
        count passed "mingw with MS-MPI"
    else
        tail -n 40 "$log"
        count failed "mingw with MS-MPI"
    fi
}

part_mingw() {
    title "mingw: the Windows build, under wine"
    if ! command -v x86_64-w64-mingw32-gcc >/dev/null; then
        echo "skipped: no mingw-w64 compiler"
        count skipped mingw
        return 0
    fi
    local rc=0
    scripts/mingw-deps.sh || rc=$?
    if [[ $rc -eq 77 ]]; then
        echo "skipped: no sources to build the Windows libraries from"
        count skipped "mingw libraries"
        return 0
    elif [[ $rc -ne 0 ]]; then
        count failed "mingw libraries"
        return 0
    fi
    build mingw || return 0
    msmpi
    GSQ_SOURCE=$PWD GSQ_BUILD=$PWD/build/release GSQ_BINARY=$PWD/build/release/gsq bash tests/wine.sh || rc=$?
    case $rc in
    0) count passed wine ;;
    77) count skipped wine ;;
    *) count failed wine ;;
    esac
}

mkdir -p build
if [[ ${GSQ_SKIP_SETUP:-0} != 1 ]]; then
    scripts/setup.sh --test --mingw --packages
fi
for part in "${parts[@]}"; do
    declare -F "part_$part" >/dev/null || { echo "no part named $part"; exit 2; }
    "part_$part"
done

title "summary"
for name in ${failures[@]+"${failures[@]}"}; do
    echo "failed: $name"
done
echo "$passed passed, $failed failed, $skipped skipped"
[[ $failed -eq 0 ]]
