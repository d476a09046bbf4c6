# Sourced by scripts that need a release of Debian beside the running system.
# shellcheck shell=bash

# Where this system has its packages from, if that is a mirror of Debian; GSQ_DEBIAN_MIRROR goes first. Fails without one.
debian_mirror() {
    local mirror=${GSQ_DEBIAN_MIRROR:-}
    if [[ -z $mirror ]]; then
        mirror=$({ cat /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources} 2>/dev/null || true; } |
            sed -nE 's/^(URIs:|deb) .*[[:space:]]?(https?:[^ ]*\/debian)\/?([[:space:]].*)?$/\2/p' | sed -n 1p)
    fi
    if [[ -z $mirror ]]; then
        echo "error: no Debian mirror among the sources of this system; set GSQ_DEBIAN_MIRROR" >&2
        return 1
    fi
    echo "$mirror"
}
