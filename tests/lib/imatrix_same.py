"""imatrix_same.py A B [PATTERN]: every tensor of the importance matrix B is in A, with the same numbers (within a thousandth), but those
whose name has the pattern in it.
imatrix_same.py --zero N A B: writes B, which is A with every Nth sum zero."""
import math
import re
import struct
import sys

FIXED = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def places(data):
    """{name: (numbers, where they begin)}"""
    at = 8

    def take(form):
        nonlocal at
        values = struct.unpack_from('<' + form, data, at)
        at += struct.calcsize('<' + form)
        return values

    def text():
        nonlocal at
        n, = take('Q')
        at += n
        return data[at - n:at]

    def skip(kind):
        nonlocal at
        if kind == 8:
            text()
        elif kind == 9:
            element, n = take('IQ')
            for _ in range(n):
                skip(element)
        else:
            at += FIXED[kind]

    n_tensors, n_kv = take('qq')
    for _ in range(n_kv):
        text()
        skip(take('I')[0])
    found = {}
    for _ in range(n_tensors):
        name = text()
        n_dims, = take('I')
        ne = take('%dq' % n_dims)
        found[name] = (math.prod(ne), take('IQ')[1])
    base = (at + 31) // 32 * 32
    return {name: (n, base + offset) for name, (n, offset) in found.items()}


def read(path):
    data = open(path, 'rb').read()
    return {name: struct.unpack_from('<%df' % n, data, at) for name, (n, at) in places(data).items()}


if sys.argv[1] == '--zero':
    data = open(sys.argv[3], 'rb').read()
    changed = bytearray(data)
    for n, at in places(data).values():
        for i in range(0, n if n > 1 else 0, int(sys.argv[2])):
            struct.pack_into('<f', changed, at + 4 * i, 0)
    open(sys.argv[4], 'wb').write(changed)
    sys.exit()
ours, theirs = read(sys.argv[1]), read(sys.argv[2])
worst = 0
if len(sys.argv) > 3:
    theirs = {name: values for name, values in theirs.items() if not re.search(sys.argv[3].encode(), name)}
for name, values in theirs.items():
    scale = sum(values) / len(values)
    for x, y in zip(ours[name], values, strict=True):
        worst = max(worst, abs(x - y) / (y + 1e-3 * scale))
print(f'{len(theirs)} tensors, largest difference {worst:.2g}')
sys.exit(not theirs or worst > 1e-3)
