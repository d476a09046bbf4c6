"""Writes a small GGUF with one flaw.  usage: damage_gguf.py FILE FLAW"""
import struct
import sys


def string(text):
    return struct.pack("<Q", len(text)) + text


def file(version=3, n_tensors=2, keys=None, ne0=32, second=128, cut=None):
    keys = keys or [string(b"general.architecture") + struct.pack("<I", 8) + string(b"llama")]
    head = b"GGUF" + struct.pack("<Iqq", version, n_tensors, len(keys)) + b"".join(keys)
    for name, offset in ((b"a.weight", 0), (b"b.weight", second)):
        head += string(name) + struct.pack("<IqIQ", 1, ne0, 0 if ne0 == 32 else 8, offset)
    head += bytes(-len(head) % 32)
    return (head + bytes(2 * 128))[:cut]


key = string(b"general.list")
flaws = {
    "none": lambda: file(),
    "magic": lambda: b"GGML" + file()[4:],
    "version": lambda: file(version=7),
    "truncated-header": lambda: file(cut=70),
    "truncated-data": lambda: file(cut=-60),
    "overlap": lambda: file(second=64),
    "tensors": lambda: file(n_tensors=1 << 60),
    "nested": lambda: file(keys=[key + struct.pack("<IIQIQ", 9, 9, 1, 4, 0)]),
    "block": lambda: file(ne0=33),
    "string": lambda: file(keys=[key + struct.pack("<IQ", 8, 1 << 62)]),
    "array": lambda: file(keys=[key + struct.pack("<IIQ", 9, 10, 1 << 61)]),
}
with open(sys.argv[1], "wb") as out:
    out.write(flaws[sys.argv[2]]())
