# Sourced by scripts that build or try gsq in a clean Debian or Ubuntu. Wants scripts/lib/debian.sh, root and debootstrap.
# shellcheck shell=bash
chroots=${GSQ_CHROOTS:-$PWD/build/chroots} # clean systems, kept
chroot_open=()

chroot_possible() {
    [[ $(id -u) -eq 0 ]] && command -v debootstrap >/dev/null
}

# A clean system of this name, made once: the smallest that debootstrap makes. Its packages come from the mirror of this
# system; those of Ubuntu from GSQ_UBUNTU_MIRROR, else from where debootstrap knows.
chroot_base() { # debian11|debian12|debian13|ubuntu24.04
    local scripts=/usr/share/debootstrap/scripts suite mirror script=() components=main base=$chroots/$1
    [[ -e $base/.made ]] && return 0
    case $1 in
    debian11) suite=bullseye ;;
    debian12) suite=bookworm ;;
    debian13) suite=trixie ;;
    ubuntu24.04)
        suite=noble components=main,universe
        # Older debootstraps do not know the name; every Ubuntu is made alike.
        [[ -e $scripts/noble ]] || script=("$scripts/gutsy")
        ;;
    *)
        echo "error: no system is called $1" >&2
        return 1
        ;;
    esac
    if [[ $1 == debian* ]]; then
        mirror=$(debian_mirror) || return 1
    else
        mirror=${GSQ_UBUNTU_MIRROR:-$(sed -n 's/^[[:space:]]*default_mirror //p' "$scripts/gutsy" | grep -v /old- | head -n 1)}
    fi
    echo "making a clean $1"
    rm -rf "$base"
    mkdir -p "$base"
    if ! debootstrap --variant=minbase --components="$components" "$suite" "$base" "$mirror" "${script[@]}" >"$base.log" 2>&1; then
        tail -n 5 "$base.log"
        echo "error: debootstrap cannot make $1 from $mirror" >&2
        return 1
    fi
    rm -rf "$base"/var/cache/apt/archives/*.deb
    touch "$base/.made"
}

# A copy of that clean system, ready to run in; chroot_close removes it.
chroot_begin() { # SYSTEM FOLDER
    chroot_base "$1" || return 1
    rm -rf "$2"
    mkdir -p "$(dirname "$2")"
    cp -a --reflink=auto "$chroots/$1" "$2"
    [[ ! -e /etc/resolv.conf ]] || cp -L /etc/resolv.conf "$2/etc/resolv.conf"
    chroot_open+=("$2")
    mount -t proc proc "$2/proc"
}

chroot_run() { # FOLDER COMMAND...
    chroot "$1" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
        DEBIAN_FRONTEND=noninteractive "${@:2}"
}

# Installs without what is only recommended.
chroot_install() { # FOLDER PACKAGE...
    chroot_run "$1" apt-get -qq update &&
        chroot_run "$1" apt-get -qq -y --no-install-recommends install "${@:2}" >/dev/null
}

chroot_close() { # FOLDER
    umount "$1/proc" 2>/dev/null || umount -l "$1/proc" 2>/dev/null || true
    mountpoint -q "$1/proc" || rm -rf "$1"
}

chroot_close_all() {
    local folder
    for folder in ${chroot_open[@]+"${chroot_open[@]}"}; do
        [[ ! -d $folder ]] || chroot_close "$folder"
    done
}

# The tracked files as they are now, without .git.
copy_source() { # FOLDER
    mkdir -p "$1"
    git ls-files -z | tar -c --null -T - | tar -x -C "$1"
}
