# Sourced: the name by which packages call the running system, "debian12"; empty where there is no package for it.
# shellcheck shell=bash disable=SC2034
this_system=$(
    # shellcheck source=/dev/null
    [[ ! -r /etc/os-release ]] || . /etc/os-release
    case ${ID:-}:${VERSION_ID:-} in
    debian:12 | debian:13 | ubuntu:24.04) echo "$ID$VERSION_ID" ;;
    esac
)
