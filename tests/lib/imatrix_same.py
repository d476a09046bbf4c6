"""imatrix_same.py A B [PATTERN]: every tensor of the importance matrix B is in A, with the same numbers (within a thousandth), but those
whose name has the pattern in it.
imatrix_same.py --zero N A B: writes B, which is A with every Nth sum zero."""
import re
import struct
import sys

from gguf_file import places


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
    theirs = {name: values for name, values in theirs.items() if not re.search(sys.argv[3], name)}
for name, values in theirs.items():
    scale = sum(values) / len(values)
    for x, y in zip(ours[name], values, strict=True):
        worst = max(worst, abs(x - y) / (y + 1e-3 * scale))
print(f'{len(theirs)} tensors, largest difference {worst:.2g}')
sys.exit(not theirs or worst > 1e-3)
