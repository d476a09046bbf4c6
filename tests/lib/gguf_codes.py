"""gguf_codes.py A B: two GGUFs of one size and header differ in bytes that hold codes, and in no others."""
import struct
import sys

# ggml's type: weights and bytes of a block, and where its codes lie.
BLOCK = {0: (1, 4, ()), 1: (1, 2, ()), 30: (1, 2, ()), 8: (32, 34, ()), 14: (256, 210, ()),
         2: (32, 18, range(2, 18)), 6: (32, 22, range(2, 22)), 10: (256, 84, range(16, 80)),
         11: (256, 110, range(0, 96)), 12: (256, 144, range(16, 144)), 13: (256, 176, range(16, 176)),
         34: (256, 54, range(0, 52)), 35: (256, 66, range(0, 64)), 42: (64, 18, range(2, 18))}
FIXED = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 8

    def take(self, form):
        values = struct.unpack_from('<' + form, self.data, self.at)
        self.at += struct.calcsize('<' + form)
        return values

    def text(self):
        n, = self.take('Q')
        self.at += n
        return self.data[self.at - n:self.at]

    def skip(self, kind):
        if kind == 8:
            self.text()
        elif kind == 9:
            element, n = self.take('IQ')
            for _ in range(n):
                self.skip(element)
        else:
            self.at += FIXED[kind]


def tensors(data):
    r = Reader(data)
    n_tensors, n_kv = r.take('qq')
    for _ in range(n_kv):
        r.text()
        r.skip(r.take('I')[0])
    found = []
    for _ in range(n_tensors):
        r.text()
        n_dims, = r.take('I')
        ne = r.take('%dq' % n_dims)
        kind, offset = r.take('IQ')
        found.append((ne, kind, offset))
    base = (r.at + 31) // 32 * 32
    return base, found


a, b = (open(path, 'rb').read() for path in sys.argv[1:3])
if len(a) != len(b):
    sys.exit(f'{len(a)} and {len(b)} bytes')
base, list_a = tensors(a)
allowed = bytearray(len(a))
for ne, kind, offset in list_a:
    weights, size, codes = BLOCK[kind]
    count = weights and 1
    for n in ne:
        count *= n
    for block in range(count // weights if codes else 0):
        for i in codes:
            allowed[base + offset + block * size + i] = 1
changed = [i for i in range(len(a)) if a[i] != b[i]]
outside = [i for i in changed if not allowed[i]]
print(f'{len(changed)} bytes differ, {len(outside)} of them hold no codes')
sys.exit(bool(outside) or not changed)
