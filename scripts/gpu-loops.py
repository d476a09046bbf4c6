#!/usr/bin/env python3
"""What a step of the matrix products costs, read from the machine code that scripts/gpu-compilers.sh leaves behind.

    scripts/gpu-loops.py FOLDER CARD... [--kernels REGEX] [--rows]

FOLDER has CARD/KERNEL.VARIANT.SUBGROUP.txt, the instructions, and all.txt, the registers. For every variant whose name REGEX matches
the loop that multiplies most is found, its instructions are counted along the way that a subgroup takes through it, and their
cycles are summed for each unit that executes them. The busiest unit bounds the share of the card's peak. docs/kernels.md 5 has
the model, where its numbers are from and what it leaves out. --rows: plain rows for the budget."""
import argparse
import collections
import glob
import os
import re
import sys

# A unit is what executes for one SIMD (AMD), sub-core (NVIDIA), vector engine (Intel). f32, half, matrix: FLOP a cycle of it, at
# the rate that vendors call peak (half: packed). shared, cache: bytes a cycle that shared memory and the first cache give it,
# which `units` of them have together.
Card = collections.namedtuple("Card", "vendor f32 half matrix shared cache units")
CARDS = {
    "vega10": Card("amd", 32, 64, 0, 32, 16, 4),
    "navi21": Card("amd", 64, 128, 0, 64, 32, 2),
    "navi31": Card("amd", 128, 128, 256, 64, 32, 2),
    "gfx1201": Card("amd", 128, 128, 512, 64, 32, 2),
    "dg2": Card("intel", 16, 32, 128, 8, 8, 16),
    "bmg": Card("intel", 32, 64, 256, 16, 16, 8),
    "turing": Card("nvidia", 32, 64, 128, 32, 16, 4),
    "ampere": Card("nvidia", 64, 64, 128, 32, 32, 4),
    "ada": Card("nvidia", 64, 64, 128, 32, 32, 4),
}
INTEL_THREADS = 8          # of a vector engine, whatever a kernel takes (with 128 registers)
MEMORY_LATENCY = 400       # cycles, a load that the second cache has; RDNA 3, Ampere and Arc lie between 250 and 500
SHARED_LATENCY = 40        # cycles, a round through shared memory or a fence of it


class Instruction:
    """kind: matrix, fma, alu, scalar, shared_load, shared_store, load, store, barrier, fence, other. use: {unit: cycles}."""

    def __init__(self, kind, use, flop=0, half_flop=0, size=0):
        self.kind, self.use, self.flop, self.half_flop, self.size = kind, use, flop, half_flop, size


class Block:
    def __init__(self, name):
        self.name, self.text, self.next, self.code = name, [], [], []


# ---- AMD: labels BBn, branches by name, an "else" by turning the mask of lanes over

def amd_blocks(lines):
    blocks, order = {}, []
    current = None
    for line in lines:
        label = re.match(r"(BB\d+):", line)
        if label:
            current = Block(label.group(1))
            blocks[current.name] = current
            order.append(current)
        elif current is not None and re.match(r"\s+[a-z]", line):
            current.text.append(line.split(";")[0].strip())
    parts = []  # a block ends with each of its branches
    for b in order:
        piece, n = b, 0
        text, b.text = b.text, []
        parts.append(piece)
        for i, t in enumerate(text):
            piece.text.append(t)
            if re.match(r"s_c?branch", t) and i + 1 < len(text):
                n += 1
                piece = Block("%s.%d" % (b.name, n))
                blocks[piece.name] = piece
                parts.append(piece)
    for b, after in zip(parts, parts[1:] + [None]):
        last = b.text[-1].split() if b.text else [""]
        if last[0].startswith("s_cbranch"):
            b.next = [last[1]] + ([after.name] if after else [])  # taken, not taken
        elif last[0] == "s_branch":
            b.next = [last[1]]
        elif last[0] not in ("s_endpgm", "s_setpc_b64") and after:
            b.next = [after.name]
    # A subgroup takes one side: whoever jumped to the place where the mask is turned over goes on, who fell into it is done.
    for b, after in list(zip(parts, parts[1:])):
        turned = any(re.match(r"s_(andn2|and_not1)_b(32|64) exec(_lo)?, ", t) for t in b.text)
        if turned and b.text[-1].startswith("s_cbranch_execz") and len(b.next) == 2:
            done = Block(b.name + ".done")
            done.text, done.next = list(b.text), [b.next[0]]
            blocks[done.name] = done
            for other in parts:
                if other is b or not other.text:
                    continue
                falls = not other.text[-1].startswith("s_branch") and other.next and other.next[-1] == b.name
                jumps = other.text[-1].startswith("s_cbranch_execz") and other.next[0] == b.name
                if falls and not jumps:
                    other.next[-1] = done.name
            b.next = [b.next[1]]
    return blocks, parts[0].name if parts else None


AMD_BYTES = [("b128", 16), ("dwordx4", 16), ("b96", 12), ("dwordx3", 12), ("b64", 8), ("dwordx2", 8), ("u16", 2), ("b16", 2), ("short", 2),
             ("u8", 1), ("byte", 1)]
# What RDNA 3 executes at once for both halves of a subgroup of 64 (Mesa's aco_statistics.cpp, is_dual_issue_capable).
DUAL = re.compile(r"v_((fma|fmac|fmaak|fmamk|mul|add|sub|subrev|max|min|max_num|min_num)_(legacy_|dx9_zero_)?f(32|16)|(mov|cndmask)_b(32|16)|dot2c?_|"
                  r"(max|min|mad|add|sub|mul_lo)_[iu]16)")


def amd_bytes(op):
    for word, n in AMD_BYTES:
        if word in op:
            return n * (2 if "2addr" in op else 1)
    return 4 * (2 if "2addr" in op else 1)


def amd_instruction(text, lanes, card, name):
    op = text.split()[0]
    gcn, rdna3 = name == "vega10", name in ("navi31", "gfx1201")
    passes = 4 if gcn else lanes // 32
    if re.match(r"v_(wmma|swmmac|mfma)_", op):
        m, n, k = map(int, re.search(r"_(\d+)x(\d+)x(\d+)_", op).groups())
        return Instruction("matrix", {"vector": 2 * m * n * k / card.matrix}, flop=2 * m * n * k)
    if op.startswith("v_dual_"):
        halves = [h.strip().split()[0] for h in text.split("::")]
        fma = sum("fma" in h for h in halves)
        return Instruction("fma" if fma else "alu", {"vector": 1}, flop=2 * fma * lanes)
    if op.startswith("v_"):
        if re.match(r"v_(rcp|rsq|sqrt|exp|log|sin|cos)_", op):
            return Instruction("alu", {"vector": 4 * passes} if gcn else {"vector": passes, "special": 4 * passes})
        if re.match(r"v_(mul_lo|mul_hi|mad_u64)_?\w*(32|64)", op):
            return Instruction("alu", {"vector": 4 * passes})
        if rdna3 and lanes == 64 and DUAL.match(op) and "dpp" not in op:
            passes = 1
        if re.match(r"v_swap", op):
            passes *= 2
        half = re.match(r"v_(pk_fma(c)?_f16|dot2)", op)
        if half:
            return Instruction("fma", {"vector": passes}, half_flop=4 * lanes)
        if re.match(r"v_(fma|fmac|mac|mad|fmaak|fmamk|madak|madmk)(_legacy)?_f32", op):
            return Instruction("fma", {"vector": passes}, flop=2 * lanes)
        return Instruction("alu", {"vector": passes})
    if op.startswith("ds_"):
        if re.match(r"ds_(load|read|store|write)", op):
            size = amd_bytes(op) * lanes
            return Instruction("shared_load" if re.match(r"ds_(load|read)", op) else "shared_store", {"shared": size / card.shared}, size=size)
        return Instruction("alu", {"shared": 4 * lanes / card.shared})
    if re.match(r"(buffer|global|flat|scratch|tbuffer|image)_", op):
        if "load" in op or "store" in op:
            size = amd_bytes(op) * lanes
            return Instruction("load" if "load" in op else "store", {"cache": size / card.cache}, size=size)
        return Instruction("other", {})
    if re.match(r"s_barrier(_wait)?$", op):
        return Instruction("barrier", {})
    if re.match(r"s_(waitcnt|wait_|delay_alu|clause|nop|set_inst|inst_prefetch|sendmsg|barrier|code_end|endpgm)", op):
        return Instruction("other", {})
    if op.startswith("s_"):
        return Instruction("scalar", {"scalar": 4 if gcn else 1})
    return Instruction("other", {})


# ---- NVIDIA: NAK names each block with the blocks that follow it

def nvidia_blocks(lines):
    blocks, first, current = {}, None, None
    for line in lines:
        start = re.match(r"block(\.u)? (\d+) ", line)
        if start:
            current = Block(start.group(2))
            blocks[current.name] = current
            first = first or current.name
        elif current is not None and line.startswith("}"):
            after = re.search(r"-> \[(.*)\]", line)
            current.next = [n.strip() for n in after.group(1).split(",") if n.strip()] if after else []
        elif current is not None:
            t = re.sub(r"//.*", "", line).strip()
            t = re.sub(r"^@!?u?p\d+\s+", "", t)
            t = re.sub(r"^.* = ", "", t)
            if t:
                current.text.append(t)
    return blocks, first


def nvidia_bytes(op):
    n = re.search(r"\.b(\d+)", op)
    return int(n.group(1)) // 8 if n else 4


def nvidia_instruction(text, lanes, card, name):
    op = text.split()[0]
    turing = name == "turing"
    use = {"issue": 1}
    mma = re.match(r"[hi]mma\.m(\d+)n(\d+)k(\d+)", op)
    if mma:
        m, n, k = map(int, mma.groups())
        use["matrix"] = 2 * m * n * k / card.matrix
        return Instruction("matrix", use, flop=2 * m * n * k)
    if re.match(r"hfma2", op):
        use["float"] = 2 if turing else 1
        return Instruction("fma", use, half_flop=4 * lanes)
    if re.match(r"ffma", op):
        use["float"] = 2 if turing else 1
        return Instruction("fma", use, flop=2 * lanes)
    if re.match(r"(fadd|fmul|fmnmx|fsetp|fset|fswz|hadd2|hmul2)", op):
        use["int" if re.match(r"fmnmx|fsetp|fset", op) else "float"] = 2 if turing or re.match(r"fmnmx|fsetp|fset", op) else 1
        return Instruction("alu", use)
    if re.match(r"(mufu|f2f|f2i|i2f|frnd|flo|popc|brev)", op):
        use["special"] = 8
        return Instruction("alu", use)
    if re.match(r"ldsm", op):
        size = 16 * 8 * int(re.search(r"x(\d)", op).group(1)) if re.search(r"x(\d)", op) else 128
        use["shared"] = size / card.shared
        return Instruction("shared_load", use, size=size)
    if re.match(r"(ld|st|atoms)\.?shared|lds|sts", op):
        size = nvidia_bytes(op) * lanes
        use["shared"] = size / card.shared
        return Instruction("shared_load" if op.startswith("ld") else "shared_store", use, size=size)
    if re.match(r"(shfl)", op):
        use["shared"] = 4 * lanes / card.shared
        return Instruction("alu", use)
    if re.match(r"(ld|st)\.(global|local)|ldg|stg", op):
        size = nvidia_bytes(op) * lanes
        use["cache"] = size / card.cache
        return Instruction("load" if op.startswith("ld") else "store", use, size=size)
    if op.startswith("bar.") or op == "bar":
        return Instruction("barrier", use)
    if op.startswith("membar"):
        return Instruction("fence", use)
    if re.match(r"(nop|bra|bsync|bssy|bclear|exit|ldc|s2r|depbar|r2ur|vote|cs2r|warpsync)", op):
        return Instruction("other", use)
    use["int"] = 2
    return Instruction("alu", use)


# ---- Intel: structured jumps

def intel_blocks(lines):
    items = []
    for line in lines:
        label = re.match(r"(LABEL\d+):", line)
        if label:
            items.append(("label", label.group(1)))
        elif re.match(r"\s+\S.*MsgDesc", line) and items:
            items[-1] = (items[-1][0], items[-1][1] + " " + line.strip())
        elif re.match(r"(\([^)]*\) )?(send|[a-z].*\{)", line):
            items.append(("op", line.strip()))
    blocks, order = {}, []
    where = {}  # label: block's name

    def open_block():
        b = Block(str(len(order)))
        blocks[b.name] = b
        order.append(b)
        return b

    current = open_block()
    for kind, value in items:
        if kind == "label":
            if current.text:
                current = open_block()
            where[value] = current.name
        else:
            current.text.append(value)
            if re.match(r"(\([^)]*\) )?(if|else|while|break|cont|halt)\b", value):
                current = open_block()
    for b, after in zip(order, order[1:] + [None]):
        t = b.text[-1] if b.text else ""
        op = re.match(r"(?:(\([^)]*\)) )?(\w+)", t)
        follow = [after.name] if after else []
        b.next = follow
        if not op:
            continue
        to = [where.get(x) for x in re.findall(r"(LABEL\d+)", t)]
        if op.group(2) == "if":
            b.next = follow + to[:1]
        elif op.group(2) == "else":
            b.next = to[:1]
        elif op.group(2) == "while":
            b.next = to[:1] + follow
        elif op.group(2) in ("break", "halt"):
            b.next = follow + ["out of " + str(to[-1])]
    # A jump out of a loop leads to its `while`, which then goes on.
    for b in order:
        for i, n in enumerate(b.next):
            if n.startswith("out of "):
                target = blocks.get(n[7:])
                while target is not None and not (target.text and re.match(r"(\([^)]*\) )?while", target.text[-1])):
                    target = blocks.get(target.next[0]) if len(target.next) == 1 else None
                b.next[i] = target.next[-1] if target is not None else order[-1].name
        b.next = [n for n in b.next if n in blocks]
    return blocks, "0"


INTEL_TYPES = {"UB": 1, "B": 1, "UW": 2, "W": 2, "HF": 2, "BF": 2, "F": 4, "D": 4, "UD": 4, "Q": 8, "UQ": 8, "DF": 8}


def intel_instruction(text, lanes, card, name):
    text = re.sub(r"^\([^)]*\) ", "", text)
    op = re.match(r"[a-z0-9_.]+", text).group(0)
    width = re.search(r"\((\d+)\)", text)
    width = int(width.group(1)) if width else 1
    native = 8 if name == "dg2" else 16
    passes = max(1, -(-width // native))
    if op.startswith("dpas"):
        depth, repeat = map(int, re.search(r"(\d+)x(\d+)", op).groups())
        flop = 2 * repeat * width * depth * 2  # two halves in a word
        return Instruction("matrix", {"matrix": flop / card.matrix}, flop=flop)
    if op.startswith("send"):
        if "fence" in text:
            return Instruction("fence", {"send": 1})
        if "barrier msg" in text:
            return Instruction("barrier", {"send": 1})
        data = re.search(r"\b(slm|ugm|tgm)\b.*?\(\s*(load|store)\w*\s*,", text)
        if not data:
            return Instruction("other", {"send": 1})
        bits = re.search(r", d(\d+)", text)
        vector = re.search(r", V(\d+)", text)
        size = (int(bits.group(1)) // 8 if bits else 4) * (int(vector.group(1)) if vector else 1) * width
        shared = data.group(1) == "slm"
        kind = ("shared_" if shared else "") + data.group(2)
        return Instruction(kind, {"send": 1, "shared" if shared else "cache": size / (card.shared if shared else card.cache)}, size=size)
    if op.startswith("sync"):
        return Instruction("other", {})
    if op.startswith("math"):
        return Instruction("alu", {"special": 4 * passes})
    if re.match(r"(if|else|endif|while|break|cont|halt|nop|jmpi)", op):
        return Instruction("other", {"int": 1})
    types = re.findall(r">(UB|B|UW|W|HF|BF|F|DF|D|UD|Q|UQ)\b", text)
    to = types[0] if types else "UD"
    unit = "float" if to in ("F", "HF", "BF", "DF") or (len(types) > 1 and types[1] in ("F", "HF") and to not in ("UD", "D")) else "int"
    cycles = passes * (2 if any(INTEL_TYPES[t] == 8 for t in types) else 1)
    if op == "mad" and to == "F":
        return Instruction("fma", {unit: cycles}, flop=2 * width)
    if op == "mad" and to == "HF":
        return Instruction("fma", {unit: max(1, cycles // 2)}, half_flop=2 * width)
    return Instruction("alu", {unit: cycles})


READERS = {"amd": (amd_blocks, amd_instruction), "nvidia": (nvidia_blocks, nvidia_instruction), "intel": (intel_blocks, intel_instruction)}


# ---- loops

def back_edges(blocks, first):
    """Edges to a block that is on the way to their beginning, by depth-first search (the compilers' graphs are reducible)."""
    state, edges, stack = {}, [], [(first, iter(blocks[first].next))]
    state[first] = 1
    while stack:
        name, it = stack[-1]
        for n in it:
            if n not in blocks:
                continue
            if state.get(n) == 1:
                edges.append((name, n))
            elif n not in state:
                state[n] = 1
                stack.append((n, iter(blocks[n].next)))
                break
        else:
            state[name] = 2
            stack.pop()
    return edges


def loops_of(blocks, first):
    before = collections.defaultdict(set)
    for b in blocks.values():
        for n in b.next:
            before[n].add(b.name)
    loops = {}
    for tail, head in back_edges(blocks, first):
        body, todo = {head}, [tail]
        while todo:
            n = todo.pop()
            if n not in body:
                body.add(n)
                todo.extend(before[n])
        loops.setdefault(head, [set(), []])
        loops[head][0] |= body
        loops[head][1].append(tail)
    return loops


def way_through(blocks, head, body, tails, backs, worth):
    """The way from a loop's head to its end that does most work, and among those the cheapest: rare sides that only compute
    (sums scaled anew, by factors in shared memory) are left out, one side of each two that load or store is taken."""
    best = {}
    order, seen = [], set()

    def visit(start):
        stack = [(start, iter(blocks[start].next))]
        seen.add(start)
        while stack:
            name, it = stack[-1]
            for n in it:
                if n in body and n not in seen and (name, n) not in backs:
                    seen.add(n)
                    stack.append((n, iter(blocks[n].next)))
                    break
            else:
                order.append(name)
                stack.pop()

    visit(head)
    order.reverse()
    best[head] = (worth(blocks[head]), None)
    for name in order:
        if name not in best:
            continue
        for n in blocks[name].next:
            if n in body and (name, n) not in backs:
                score = tuple(a + b for a, b in zip(best[name][0], worth(blocks[n])))
                if n not in best or score > best[n][0]:
                    best[n] = (score, name)
    tail = max((t for t in tails if t in best), key=lambda t: best[t][0])
    way = []
    while tail is not None:
        way.append(tail)
        tail = best[tail][1]
    return way[::-1]


def alone(kinds, use, card):
    """Cycles that a subgroup would take for a step without any other: its units one after the other, memory not shared, a load from
    memory waited for, and what is shared between barriers."""
    cycles = sum(c / card.units if unit in ("shared", "cache") else c for unit, c in use.items() if unit not in ("issue", "scalar"))
    return cycles + (MEMORY_LATENCY if kinds["load"] else 0) + SHARED_LATENCY * max(1, kinds["barrier"], kinds["fence"])


Step = collections.namedtuple("Step", "matrix flop half_flop kinds size use nested")


def step_of(path, card_name, waves):
    card = CARDS[card_name]
    lanes = int(path.rsplit(".", 2)[1])
    split, read = READERS[card.vendor]
    with open(path, encoding="utf-8", errors="replace") as f:
        blocks, first = split(f.read().splitlines())
    if first is None:
        return None
    for b in blocks.values():
        b.code = [read(t, lanes, card, card_name) for t in b.text]
    backs = set(back_edges(blocks, first))
    loops = loops_of(blocks, first)
    has_matrix = any(i.kind == "matrix" for b in blocks.values() for i in b.code)

    def worth(b):
        matrix = sum(i.flop for i in b.code if i.kind == "matrix")
        fma = sum(i.flop + i.half_flop for i in b.code if i.kind == "fma")
        memory = sum(i.size for i in b.code if i.kind != "shared_load")
        return (matrix, 0 if has_matrix else fma, memory, -sum(sum(i.use.values()) for i in b.code))

    best = None
    for head, (body, tails) in loops.items():
        inner = [h for h in loops if h != head and h in body]
        multiplies = sum(worth(blocks[n])[0 if has_matrix else 1] for n in body if not any(n in loops[h][0] for h in inner))
        if not multiplies:
            continue
        way = way_through(blocks, head, body, tails, backs, worth)
        code = [i for n in way for i in blocks[n].code]
        kinds, size, use = collections.Counter(), collections.Counter(), collections.Counter()
        for i in code:
            kinds[i.kind] += 1
            size[i.kind] += i.size
            for unit, cycles in i.use.items():
                use[unit] += cycles
        if card_name in ("ampere", "ada"):  # two halves of 16 lanes, of which one is also for integers
            use["vector"] = max(use.pop("float", 0) + use["int"] / 2, use.pop("int", 0))
        flop = sum(i.flop for i in code if i.kind == ("matrix" if has_matrix else "fma"))
        half = sum(i.half_flop for i in code)
        step = Step(kinds["matrix"], flop, half, kinds, size, use, bool(inner))
        peak = card.matrix if has_matrix else card.half if half else card.f32
        share = (flop + half) / peak / max(use.values())
        rank = (flop + half, share)  # the way without checks: as much multiplied, in less time
        key = (share, flop)
        if best is None or (flop + half >= best[0][0] and share > best[0][1]) or flop + half > best[0][0] * 1.5:
            best = (rank, step, share, "matrix" if has_matrix else "f16" if half else "f32", key)
    if best is None:
        return None
    step, share, peak = best[1:4]
    return step, share, share * min(1, waves * max(step.use.values()) / alone(step.kinds, step.use, card)), peak


def waves_of(folder):
    """Subgroups that a unit holds of each variant on each card, from all.txt."""
    waves = {}
    with open(os.path.join(folder, "all.txt"), encoding="utf-8") as f:
        for line in f:
            kernel, variant, card, *rest = line.split()
            vendor = CARDS[card].vendor if card in CARDS else ""
            waves[kernel + "." + variant, card] = INTEL_THREADS if vendor == "intel" else int(rest[4]) / (4 if vendor == "nvidia" else 1)
    return waves


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder")
    p.add_argument("cards", nargs="*")
    p.add_argument("--kernels", default=r"^(gemm|attn_.*\.coopmat)")
    p.add_argument("--rows", action="store_true")
    a = p.parse_args()
    if not a.rows:
        print("a step of the loop that multiplies, of one subgroup: matrix instructions, FLOP, other vector and scalar instructions, shared memory")
        print("(loads/stores, bytes), global bytes, barriers+fences, cycles of the units; share: of peak, if the busiest unit never waits;")
        print("held: where no more subgroups than a unit holds of this kernel cover a step's waits")
        print("%-26s %-8s %3s %7s %5s %5s %11s %6s %6s %5s  %-6s %5s %5s %s" % ("kernel.variant", "card", "mma", "FLOP", "alu", "scal", "shared l/s", "bytes", "global", "b+f", "peak", "share", "held", "cycles"))
    waves = waves_of(a.folder)
    for card in a.cards or [c for c in CARDS if os.path.isdir(os.path.join(a.folder, c))]:
        for path in sorted(glob.glob(os.path.join(a.folder, card, "*.txt"))):
            name = os.path.basename(path).rsplit(".", 2)[0]
            if not re.search(a.kernels, name):
                continue
            found = step_of(path, card, waves[name, card])
            if found is None:
                print("%s %s 0 none 0" % (name.replace(".", " "), card) if a.rows else "%-26s %-8s no loop that multiplies" % (name, card))
                continue
            step, share, held, peak = found
            k, s = step.kinds, step.size
            units = " ".join("%s %d" % (u, c) for u, c in sorted(step.use.items(), key=lambda x: -x[1]) if c)
            if a.rows:
                print(name.replace(".", " "), card, step.matrix, peak, "%.3f" % held)
                continue
            print("%-26s %-8s %3d %7d %5d %5d %11s %6d %6d %5s  %-6s %5.2f %5.2f %s%s" % (
                name, card, step.matrix, step.flop + step.half_flop, k["alu"], k["scalar"] + k["other"],
                "%d/%d" % (k["shared_load"], k["shared_store"]), s["shared_load"] + s["shared_store"], s["load"],
                "%d+%d" % (k["barrier"], k["fence"]), peak, share, held, units, " nested" if step.nested else ""))


if __name__ == "__main__":
    sys.exit(main())
