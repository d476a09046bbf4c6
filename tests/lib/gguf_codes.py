"""gguf_codes.py A B: two GGUFs of one size and header differ in bytes that hold codes, and in no others."""
import math
import sys

from gguf_file import header

# ggml's type: weights and bytes of a block, and where its codes lie.
BLOCK = {0: (1, 4, ()), 1: (1, 2, ()), 30: (1, 2, ()), 8: (32, 34, ()), 14: (256, 210, ()),
         2: (32, 18, range(2, 18)), 6: (32, 22, range(2, 22)), 10: (256, 84, range(16, 80)),
         11: (256, 110, range(0, 96)), 12: (256, 144, range(16, 144)), 13: (256, 176, range(16, 176)),
         34: (256, 54, range(0, 52)), 35: (256, 66, range(0, 64)), 42: (64, 18, range(2, 18))}

a, b = (open(path, 'rb').read() for path in sys.argv[1:3])
if len(a) != len(b):
    sys.exit(f'{len(a)} and {len(b)} bytes')
_, _, infos, base = header(a)
allowed = bytearray(len(a))
for _, ne, kind, offset in infos:
    weights, size, codes = BLOCK[kind]
    for block in range(math.prod(ne) // weights if codes else 0):
        for i in codes:
            allowed[base + offset + block * size + i] = 1
changed = [i for i in range(len(a)) if a[i] != b[i]]
outside = [i for i in changed if not allowed[i]]
print(f'{len(changed)} bytes differ, {len(outside)} of them hold no codes')
sys.exit(bool(outside) or not changed)
