#!/usr/bin/env bash
# Tries what scripts/release.sh made in build/packages, as a user would: in clean systems each .deb is installed by apt with
# all that it depends on, the tarball and the zip are unpacked; then the demo model is quantized and measured. Ends in a
# table. Wants root and debootstrap; the zip wants wine and xvfb.
#
#   scripts/try-packages.sh [SYSTEM...]     debian12 debian13 ubuntu24.04 wine; default: all
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/debian.sh
. scripts/lib/debian.sh
# shellcheck source=scripts/lib/chroot.sh
. scripts/lib/chroot.sh
packages=$PWD/build/packages
systems=("$@")
[[ ${#systems[@]} -gt 0 ]] || systems=(debian12 debian13 ubuntu24.04 wine)
rows=() bad=0
trap chroot_close_all EXIT
tarball=$(find "$packages" -name 'gsq-*-linux-x86_64.tar.gz' | head -n 1)
zip=$(find "$packages" -name 'gsq-*-windows-x86_64.zip' | head -n 1)

row() { # SYSTEM WHAT FILE RESULT
    rows+=("$(printf '%-12s  %-8s  %9s KiB  %s' "$1" "$2" "$(($(stat -c %s "$3") / 1024))" "$4")")
    [[ $4 == perplexity* ]] || bad=$((bad + 1))
}

# Quantizes /demo in the system and says its perplexity, or what went wrong. A plan needs the text that comes along.
try_in() { # FOLDER GSQ
    local said
    if ! said=$(chroot_run "$1" sh -c "rm -rf /tmp/q && $2 quantize /demo -o /tmp/q --method rtn -q >/tmp/said 2>&1 &&
        $2 quantize /demo -o /tmp/p --calib default --effort fast --samples 8 --dry-run -q >>/tmp/said 2>&1 &&
        $2 eval /tmp/q --text /demo/eval.txt --ctx 256 --windows 20 -q 2>>/tmp/said"); then
        echo "failed: $(chroot_run "$1" tail -n 2 /tmp/said | tr '\n' ' ')"
        return
    fi
    echo "perplexity $(awk '$1 == "perplexity" { print $2 }' <<<"$said"), $(chroot_run "$1" sh -c "$2 --version")"
}

for system in "${systems[@]}"; do
    [[ $system != wine ]] || continue
    root=$PWD/build/chroots/try-$system
    chroot_possible || { echo "error: clean systems want root and debootstrap"; exit 3; }
    chroot_begin "$system" "$root"
    cp -r models/demo "$root/demo"
    # The tarball first: nothing of the .deb's libraries is there yet. A driver is what a user has anyway.
    chroot_install "$root" mesa-vulkan-drivers libvulkan1
    if [[ -n $tarball ]]; then
        mkdir "$root/unpacked"
        tar -xf "$tarball" -C "$root/unpacked" --strip-components=1
        row "$system" tarball "$tarball" "$(try_in "$root" /unpacked/bin/gsq)"
    fi
    deb=$(find "$packages" -name "gsq_*~${system}_*.deb" | head -n 1)
    if [[ -n $deb ]]; then
        cp "$deb" "$root/gsq.deb"
        if chroot_install "$root" /gsq.deb; then
            row "$system" deb "$deb" "$(try_in "$root" /usr/bin/gsq)"
            chroot_run "$root" ldd /usr/bin/gsq | sed "s/ (0x.*//; s/^/    $system ldd:/"
        else
            row "$system" deb "$deb" "failed: apt cannot install it"
        fi
    fi
    chroot_close "$root"
done

if [[ " ${systems[*]} " == *" wine "* && -n $zip ]]; then
    work=$(mktemp -d)
    unzip -q "$zip" -d "$work"
    exe=$(find "$work" -name gsq.exe)
    export WINEPREFIX=$work/prefix WINEDEBUG=-all
    if xvfb-run -a wine "$exe" quantize models/demo -o "$work/q" --method rtn -q >"$work/said" 2>&1 &&
        xvfb-run -a wine "$exe" quantize models/demo -o "$work/p" --calib default --effort fast --samples 8 --dry-run -q >>"$work/said" 2>&1 &&
        xvfb-run -a wine "$exe" eval "$work/q" --text models/demo/eval.txt --ctx 256 --windows 20 -q >"$work/eval" 2>>"$work/said"; then
        result="perplexity $(awk '$1 == "perplexity" { print $2 }' "$work/eval"), $(xvfb-run -a wine "$exe" --version 2>/dev/null | tr -d '\r')"
    else
        result="failed: $(tail -n 2 "$work/said" | tr '\n' ' ')"
    fi
    row wine zip "$zip" "$result"
    rm -rf "$work" 2>/dev/null || { sleep 3 && rm -rf "$work"; }
fi

printf '%s\n' "${rows[@]}"
[[ $bad -eq 0 && ${#rows[@]} -gt 0 ]]
