#!/bin/bash
# Exported folders, read by a decoder that follows the published layouts and shares no code with ours.
set -eu
command -v python3 > /dev/null || { echo "no python3"; exit 77; }
here=${GSQ_SOURCE:-$(cd "$(dirname "$0")/.." && pwd)}/tests
writer=${GSQ_BUILD:-.}/test_write_hf_codes
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
(cd "$dir" && "$writer" --consumers out)
python3 "$here/consumer_decode.py" "$dir"/out/*
