# SPDX-License-Identifier: Apache-2.0
"""The texts of the bench model: prose, reference works and documentation out of packages of Debian 12.

Every package is known by its SHA-256, so the texts come out the same everywhere. They are cut into pieces; of every 40
pieces of a source one goes into the evaluation text and two into the calibration text, neither of which is trained on.
What is no ASCII is left out by the paragraph (bpe.plain_text).
"""
import gzip
import importlib.machinery
import importlib.util
import pathlib
import random
import re
import struct
import subprocess
import sys
import unicodedata
import zlib

ROOT = pathlib.Path(__file__).resolve().parents[2]


def calibration_script():
    """scripts/make-calibration.py as a module: how packages are fetched and their pages read."""
    path = str(ROOT / "scripts" / "make-calibration.py")
    loader = importlib.machinery.SourceFileLoader("make_calibration", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    loader.exec_module(module)
    sys.dont_write_bytecode = written
    return module


CAL = calibration_script()
CAL.PACKAGES.update({
    "debian-handbook": ("11.20220922", "all"),
    "dict-devil": ("1.0-13.1", "all"),
    "dict-foldoc": ("20230119-1", "all"),
    "dict-gcide": ("0.48.5+nmu2", "all"),
    "r-cran-janeaustenr": ("1.0.0-1", "all"),
    "wordnet-base": ("1:3.0-37", "all"),
})
CAL.SUMS.update({
    "debian-handbook": "3d5dbeac1f1afc9c094eab9d0f701f6ecff99c4927d5a4794cf6c85678134faa",
    "dict-devil": "6a535684def2a1f70cd42da16d12d43f0e9dc3e54e4a329178eebab3170e3154",
    "dict-foldoc": "745cbedb55c2da609cc88ee0284e9d11a67a11ae3709daf7bad0e895ac3294c3",
    "dict-gcide": "7b0af5cfde3cbdef5e9d6e78f92ec335ced7c2790f37a40f49bebc6f7347ac0f",
    "r-cran-janeaustenr": "df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95",
    "wordnet-base": "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
})


def r_strings(data):
    """The character vectors of an R lazy-load file (Rdata.rdb: blocks of an unpacked length and a zlib stream, each R's
    XDR serialization), of each its strings."""
    out = []
    while data:
        stream = zlib.decompressobj()
        block = stream.decompress(data[4:])
        data = stream.unused_data
        # X, newline, version 2 or 3 and two numbers of R; version 3 names its encoding. Then STRSXP: a vector of strings.
        i = 14
        if block[5] == 3:
            i += 4 + struct.unpack_from(">I", block, i)[0]
        if block[i + 3] != 16:
            continue
        n, = struct.unpack_from(">I", block, i + 4)
        i += 8
        strings = []
        for _ in range(n):
            flags, length = struct.unpack_from(">II", block, i)
            if flags & 255 != 9:
                raise ValueError("no string at %d of an R vector" % i)
            i += 8
            strings.append(block[i:i + length].decode("utf-8", "replace"))
            i += length
        out.append(strings)
    return out


def austen(root):
    """Six novels; each is a vector of the lines of its text."""
    data = (root / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb").read_bytes()
    return [CAL.book("\n".join(lines)) for lines in r_strings(data)]


def dict_file(name, entry):
    def texts(root):
        # A few bytes of GCIDE are no UTF-8; `pieces` leaves their paragraphs out.
        text = gzip.decompress((root / ("usr/share/dictd/%s.dict.dz" % name)).read_bytes()).decode("utf-8", "replace")
        return ["\n\n".join(filter(None, map(entry, re.split(r"\n(?=\S)", text))))]
    return texts


def paragraphs(text):
    """Wrapped lines joined, by the paragraph."""
    return [" ".join(p.split()) for p in re.split(r"\n\s*\n", text) if p.strip()]


def webster(entry):
    """'Abdomen, n. The belly, ...': without syllables, etymology and references."""
    head, _, rest = entry.partition("\n")
    word = head.split("\\")[0].strip()
    body = " ".join(paragraphs(rest))
    body = re.sub(r"\[(1913 Webster|WordNet[^]]*|PJC|Webster 1913 Suppl\.|[A-Z]{2,4})\]|\[[^]]*\]", "", body)
    body = re.sub(r"[{}]", "", body)
    body = re.sub(r"\s+", " ", body).strip()
    return "%s: %s" % (word, body) if word and len(body) > 60 else ""


def foldoc(entry):
    head, _, rest = entry.partition("\n")
    body = "\n".join(re.sub(r"[{}]", "", p) for p in paragraphs(rest) if not re.fullmatch(r"\(?[\d-]+\)?", p))
    return "%s\n%s" % (head.strip(), body) if len(body) > 60 else ""


def jargon(root):
    text = CAL.read(root, "usr/share/dictd/jargon.dict.dz")
    return [CAL.jargon(text)]


def devil(root):
    text = CAL.read(root, "usr/share/dictd/devil.dict.dz")
    return [CAL.book(text)]


def wordnet(root):
    """'hibernation: the act of retiring into inactivity; "he emerged from ..."'"""
    out = []
    for part in ("noun", "verb", "adj", "adv"):
        for line in (root / ("usr/share/wordnet/data." + part)).read_text(encoding="latin-1").splitlines():
            if line.startswith("  "):
                continue
            data, _, gloss = line.partition(" | ")
            fields = data.split()
            words = [fields[4 + 2 * i].split("(")[0].replace("_", " ") for i in range(int(fields[3], 16))]
            out.append("%s: %s." % (", ".join(words), gloss.strip()))
    # Neighbours in the file are near in meaning: a paragraph of eight.
    return ["\n\n".join("\n".join(out[i:i + 8]) for i in range(0, len(out), 8))]


def handbook(root):
    folder = root / "usr/share/doc/debian-handbook/html/en-US"
    pages = []
    for path in sorted(folder.glob("*.html")):
        text = path.read_text(encoding="utf-8")
        body = re.search(r"<body.*?>(.*)</body>", text, re.DOTALL)
        text = re.sub(r'<ul class="docnav.*?</ul>|<p id="title">.*?</p>', "", body.group(1) if body else text, flags=re.DOTALL)
        pages.append(CAL.page(text))
    return pages


def sqlite(root):
    return [CAL.page(CAL.read(root, CAL.SQLITE % p)) for p in CAL.PAGES]


def sherlock(root):
    return [CAL.sherlock(CAL.read(root, "usr/share/gocode/src/github.com/pierrec/lz4/testdata/pg1661.txt"))]


def alice(root):
    return [CAL.faker(CAL.read(root, CAL.FAKER % "en_US"))]


# Name, package, how it is read, most bytes of it (evenly from the whole), terms.
SOURCES = [
    ("Six novels (J. Austen, 1811 to 1818)", "r-cran-janeaustenr", austen, 8_000_000, "author died in 1817"),
    ("The Adventures of Sherlock Holmes (A. C. Doyle, 1892)", "golang-github-pierrec-lz4-dev", sherlock, 8_000_000,
     "author died in 1930"),
    ("Alice's Adventures in Wonderland (L. Carroll, 1865)", "php-faker", alice, 8_000_000, "author died in 1898"),
    ("The Devil's Dictionary (A. Bierce, 1911)", "dict-devil", devil, 8_000_000, "public domain"),
    ("Webster's dictionary of 1913 in GCIDE", "dict-gcide", dict_file("gcide", webster), 10_000_000, "GPL 3 or later"),
    ("Glosses of WordNet 3.0", "wordnet-base", wordnet, 7_000_000, "WordNet licence"),
    ("The Free On-line Dictionary of Computing", "dict-foldoc", dict_file("foldoc", foldoc), 8_000_000,
     "GFDL 1.1 or later"),
    ("The Jargon File 4.4.7", "dict-jargon", jargon, 8_000_000, "public domain"),
    ("SQLite's documentation", "sqlite3-doc", sqlite, 8_000_000, "public domain"),
    ("The Debian Administrator's Handbook", "debian-handbook", handbook, 8_000_000, "GPL 2 or later, or CC BY-SA 3.0"),
]

ASCII = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "--",
                       "\u2026": "...", "\u00a0": " ", "\u2212": "-", "\u2192": "->", "\u00ae": "(R)", "\u2022": "*",
                       "\t": "    "})


def pieces(text, size=2000):
    """Paragraphs in pieces of at least `size` bytes; what is neither ASCII nor becomes it without accents is left out."""
    out, piece, length = [], [], 0
    for paragraph in re.split(r"\n\n+", text):
        paragraph = unicodedata.normalize("NFKD", paragraph.translate(ASCII))
        paragraph = "".join(c for c in paragraph if not unicodedata.combining(c))
        paragraph = "\n".join(line.rstrip() for line in paragraph.split("\n")).strip("\n")
        if not paragraph or CAL.UNWANTED.search(paragraph) or not all(c == "\n" or " " <= c <= "~" for c in paragraph):
            continue
        piece.append(paragraph)
        length += len(paragraph) + 2
        if length >= size:
            out.append("\n\n".join(piece))
            piece, length = [], 0
    return out + (["\n\n".join(piece)] if length >= size // 2 else [])


def make(tmp, debs):
    """(train, calib, eval, rows of a table): texts, and of every source what came of it."""
    train, calib, held, rows = [], [], [], []
    for name, package, how, limit, terms in SOURCES:
        root = pathlib.Path(tmp) / package
        subprocess.run(["dpkg-deb", "-x", str(CAL.download(package, debs)), str(root)], check=True)
        parts = [p for text in how(root) for p in pieces(text)]
        keep = min(1.0, limit / sum(map(len, parts)))
        parts = [p for i, p in enumerate(parts) if int((i + 1) * keep) > int(i * keep)]
        for i, piece in enumerate(parts):
            (held if i % 40 == 7 else calib if i % 40 in (20, 33) else train).append(piece)
        rows.append((name, "%s %s" % (package, CAL.PACKAGES[package][0]), sum(len(p) + 2 for p in parts), terms))
    # Mixed: whatever length is taken sees every kind of text.
    rng = random.Random(12)
    for part in (train, calib, held):
        rng.shuffle(part)
    return train, "\n\n".join(calib) + "\n", "\n\n".join(held) + "\n", rows
