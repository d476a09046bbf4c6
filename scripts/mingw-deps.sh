#!/usr/bin/env bash
# Builds what the mingw preset needs; see scripts/static-deps.sh.
exec "$(dirname "$0")/static-deps.sh" mingw
