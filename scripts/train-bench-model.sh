#!/usr/bin/env bash
# Trains the bench model: a Llama big enough for quality to be measured on, and its tokenizer, out of free texts in packages of
# Debian 12 (tools/bench-model/texts.py). scripts/bench-quality.sh and scripts/bench-gguf.sh take it where it is there.
#
#   scripts/train-bench-model.sh [FOLDER] [OPTION]...      default: build/bench-model
#
# --size small   5.2 M parameters, 16 M tokens: three hours of one core; the default without a GPU
# --size large   39.8 M parameters, 98 M tokens; the default on a GPU that PyTorch sees
# --steps N, --threads N, --debs FOLDER (of the packages, where they cannot be downloaded); --help has them all.
#
# Stopped or killed, the same command goes on, and ends in the same bytes on the same kind of machine. FOLDER gets what a
# Hugging Face folder has, calib.txt and eval.txt, which were not trained on, and PROVENANCE.md: sources, terms, losses.
# FOLDER.work has texts, tokens and the checkpoint; remove it when the model is there. PYTHON: one that has PyTorch.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ ${1:-} == -* || $# -eq 0 ]]; then
    set -- build/bench-model "$@"
fi
for python in ${PYTHON:-} python3 /usr/bin/python3; do
    if "$python" -c 'import torch; torch.__version__' 2>/dev/null; then
        exec "$python" tools/bench-model/train.py "$@"
    fi
done
echo "error: no Python here has PyTorch; on Debian: apt-get install python3-torch" >&2
exit 77
