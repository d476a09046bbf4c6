#!/usr/bin/env python3
"""gguf_edit.py WHAT IN OUT [ARGUMENT...]: a GGUF with other tensors and the same keys. Standard library only.

mixed: Qwen3-Next's ssm_in (F32, F16) as llama.cpp's own converter has it: attn_qkv with all q, k and v, attn_gate with all z.
scales: a factor for every tensor of NVFP4 beside it, NAME.scale, of experts one each."""
import math
import struct
import sys

FIXED = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
BLOCK = {0: (1, 4), 1: (1, 2), 30: (1, 2), 8: (32, 34), 39: (32, 17), 40: (64, 36), 14: (256, 210), 12: (256, 144)}
F32, NVFP4 = 0, 40


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 8

    def take(self, form):
        values = struct.unpack_from('<' + form, self.data, self.at)
        self.at += struct.calcsize('<' + form)
        return values[0] if len(values) == 1 else values

    def text(self):
        n = self.take('Q')
        self.at += n
        return self.data[self.at - n:self.at]

    def value(self, kind):
        """Its bytes are passed over; of a number the number."""
        if kind == 8:
            return self.text()
        if kind == 9:
            element, n = self.take('IQ')
            for _ in range(n):
                self.value(element)
            return None
        self.at += FIXED[kind]
        return int.from_bytes(self.data[self.at - FIXED[kind]:self.at], 'little')


def load(path):
    """(bytes of the keys, their numbers, {name: (ne, type, data)}), in the order of the file"""
    data = open(path, 'rb').read()
    r = Reader(data)
    n_tensors, n_kv = r.take('qq')
    begin, keys, infos = r.at, {}, []
    for _ in range(n_kv):
        name = r.text().decode()
        keys[name] = r.value(r.take('I'))
    head = (n_kv, data[begin:r.at])
    for _ in range(n_tensors):
        name = r.text().decode()
        ne = tuple(struct.unpack_from(f'<{r.take("I")}q', data, r.at))
        r.at += 8 * len(ne)
        infos.append((name, ne, r.take('I'), r.take('Q')))
    base = (r.at + 31) // 32 * 32
    tensors = {}
    for name, ne, kind, offset in infos:
        weights, size = BLOCK[kind]
        n = math.prod(ne) // weights * size
        tensors[name] = (ne, kind, data[base + offset:base + offset + n])
    return head, keys, tensors


def save(path, head, tensors):
    out, at, blobs = bytearray(b'GGUF' + struct.pack('<Iqq', 3, len(tensors), head[0]) + head[1]), 0, []
    for name, (ne, kind, data) in tensors.items():
        out += struct.pack('<Q', len(name)) + name.encode() + struct.pack(f'<I{len(ne)}qIQ', len(ne), *ne, kind, at)
        blobs.append(data + bytes(-len(data) % 32))
        at += len(blobs[-1])
    out += bytes(-len(out) % 32)
    with open(path, 'wb') as f:
        f.write(bytes(out) + b''.join(blobs))


def mixed(keys, tensors):
    get = {k: keys['qwen3next.ssm.' + k] for k in ('state_size', 'group_count', 'time_step_rank', 'inner_size')}
    groups, dim = get['group_count'], get['state_size']
    values = get['inner_size'] // groups
    parts = (dim, dim, values, values)
    made = {}
    for name, (ne, kind, data) in tensors.items():
        if '.ssm_in.' not in name:
            made[name] = (ne, kind, data)
            continue
        row, at, lists = len(data) // ne[1], 0, [[], [], [], []]
        for _ in range(groups):
            for rows, out in zip(parts, lists):
                out.append(data[at:at + rows * row])
                at += rows * row
        q, k, v, z = (b''.join(x) for x in lists)
        for other, blob in (('attn_qkv', q + k + v), ('attn_gate', z)):
            made[name.replace('ssm_in', other)] = ((ne[0], len(blob) // row), kind, blob)
    return made


def scales(_, tensors):
    made = {}
    for i, (name, t) in enumerate(tensors.items()):
        made[name] = t
        if t[1] == NVFP4:
            n = t[0][2] if len(t[0]) == 3 else 1
            made[name.replace('.weight', '.scale')] = ((n,), F32, struct.pack(f'<{n}f', *[
                0.75 + 0.5 * ((7 * i + 3 * e) % 5) / 4 for e in range(n)]))
            made[name.replace('.weight', '.input_scale')] = ((n,), F32, struct.pack(f'<{n}f', *[3.0] * n))
    return made


if __name__ == '__main__':
    what, source, to = sys.argv[1:4]
    first, numbers, all_tensors = load(source)
    save(to, first, {'mixed': mixed, 'scales': scales}[what](numbers, all_tensors))
