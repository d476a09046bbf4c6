#!/usr/bin/env python3
"""Draws packaging/windows/gsq.ico: a smooth curve over the four levels it is rounded to. Needs nothing but Python."""
import math
import struct
import sys
import zlib

BACK, STEP, CURVE = (24, 52, 74), (240, 160, 48), (255, 255, 255)


def pixel(x, y):
    """Colour (r, g, b, a) at x, y in 0..1, y upward."""
    radius = 0.18  # of the corners
    dx, dy = max(abs(x - 0.5) - 0.5 + radius, 0), max(abs(y - 0.5) - 0.5 + radius, 0)
    if dx * dx + dy * dy > radius * radius:
        return (0, 0, 0, 0)
    level = 0.5 + 0.36 * math.sin((x - 0.5) * math.pi)
    if abs(y - level) < 0.035:
        return CURVE + (255,)
    bar = math.floor(min(max((x - 0.1) / 0.8, 0), 0.999) * 4)
    inside = 0.1 <= x <= 0.9 and ((x - 0.1) / 0.8 * 4) % 1 > 0.12
    top = 0.5 + 0.36 * math.sin(((bar + 0.5) * 0.2 + 0.1 - 0.5) * math.pi)
    if inside and 0.1 < y < top:
        return STEP + (255,)
    return BACK + (255,)


def image(n):
    """Rows from the top, four samples a side in each pixel."""
    rows = []
    for j in range(n):
        row = []
        for i in range(n):
            samples = [pixel((i + (a + 0.5) / 4) / n, 1 - (j + (b + 0.5) / 4) / n) for a in range(4) for b in range(4)]
            alpha = sum(s[3] for s in samples)
            row.append(tuple(sum(s[c] * s[3] for s in samples) // alpha if alpha else 0 for c in range(3)) + (alpha // 16,))
        rows.append(row)
    return rows


def bitmap(n):
    """A 32-bit device-independent bitmap with an empty mask, as icons of every Windows hold it."""
    head = struct.pack("<IiiHHIIiiII", 40, n, 2 * n, 1, 32, 0, 0, 0, 0, 0, 0)
    colours = b"".join(struct.pack("BBBB", b, g, r, a) for row in reversed(image(n)) for r, g, b, a in row)
    return head + colours + bytes((n + 31) // 32 * 4 * n)


def png(n):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    raw = b"".join(b"\0" + b"".join(struct.pack("BBBB", *p) for p in row) for row in image(n))
    head = struct.pack(">IIBBBBB", n, n, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")


images = [(16, bitmap(16)), (32, bitmap(32)), (48, bitmap(48)), (256, png(256))]
out = struct.pack("<HHH", 0, 1, len(images))
offset = len(out) + 16 * len(images)
for size, data in images:
    out += struct.pack("<BBBBHHII", size % 256, size % 256, 0, 0, 1, 32, len(data), offset)
    offset += len(data)
with open(sys.argv[1] if len(sys.argv) > 1 else "packaging/windows/gsq.ico", "wb") as f:
    f.write(out + b"".join(data for _, data in images))
