#!/usr/bin/env python3
"""gguf_edit.py WHAT IN OUT [ARGUMENT...]: a GGUF with other tensors and the same keys. Standard library only.

mixed: Qwen3-Next's ssm_in (F32, F16) as llama.cpp's own converter has it: attn_qkv with all q, k and v, attn_gate with all z.
scales: a factor for every tensor of NVFP4 beside it, NAME.scale, of experts one each."""
import math
import struct
import sys

from gguf_file import header

BLOCK = {0: (1, 4), 1: (1, 2), 30: (1, 2), 8: (32, 34), 39: (32, 17), 40: (64, 36), 14: (256, 210), 12: (256, 144)}
F32, NVFP4 = 0, 40


def load(path):
    """((number of keys, their bytes), their numbers, {name: (ne, type, data)}), in the order of the file"""
    data = open(path, 'rb').read()
    (begin, end), keys, infos, base = header(data)
    tensors = {}
    for name, ne, kind, offset in infos:
        weights, size = BLOCK[kind]
        n = math.prod(ne) // weights * size
        tensors[name] = (ne, kind, data[base + offset:base + offset + n])
    return (len(keys), data[begin:end]), keys, tensors


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
