#!/usr/bin/env bash
# Installs llama.cpp's prebuilt CPU libraries and a second GGUF parser into build/llama-cpp, for the tests of GGUF files
# (tests/llama): npm's node-llama-cpp, of which only the shared libraries and the headers of their own release are used, and
# @huggingface/gguf. Nothing of it is run at installation. Exit 77, with a message: cannot be had here.
#
#   scripts/llama-cpp.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-build/llama-cpp}
packages=(node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1 @huggingface/gguf@0.4.6)

cannot() {
    echo "llama-cpp: $*; tests of GGUF files in llama.cpp are skipped"
    exit 77
}
if [[ -f $folder/installed && $(<"$folder/installed") == "${packages[*]}" ]]; then
    echo "llama-cpp: ${packages[*]} are installed"
    exit 0
fi
[[ $(uname -sm) == 'Linux x86_64' ]] || cannot "the prebuilt libraries are for Linux on x86-64"
for tool in npm git; do
    command -v "$tool" >/dev/null || cannot "no $tool"
done
npm=(npm --no-audit --no-fund --no-update-notifier --loglevel=error --fetch-retries=1 --fetch-timeout=60000)
for package in "${packages[@]}"; do
    "${npm[@]}" view "$package" version >/dev/null 2>&1 || cannot "npm's registry does not give $package"
done

mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
rm -rf "${folder:?}"/{installed,headers.git,include,lib}
echo '{"private": true}' >"$folder/package.json"
(cd "$folder" && "${npm[@]}" install --save-exact --omit=optional --ignore-scripts "${packages[@]}")
ln -sfn node_modules/@node-llama-cpp/linux-x64/bins/linux-x64 "$folder/lib"
# The package carries the sources that the libraries were built from; their headers fit exactly.
git init -q --bare "$folder/headers.git"
git -C "$folder/headers.git" fetch -q "$folder/node_modules/node-llama-cpp/llama/gitRelease.bundle" HEAD
mkdir "$folder/include"
for headers in include ggml/include; do
    git -C "$folder/headers.git" archive "FETCH_HEAD:$headers" | tar -xf - -C "$folder/include"
done
rm -rf "$folder/headers.git"
echo "${packages[*]}" >"$folder/installed"
echo "llama-cpp: installed ${packages[*]}"
