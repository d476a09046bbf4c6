#!/usr/bin/env python3
"""Makes data/gsq-calibration-1.txt, the text of `--calib default`, from packages of Debian 12 and data/own.txt.

    scripts/make-calibration.py [--debs FOLDER] [--out FILE] [--check]

The packages are taken from FOLDER, or downloaded by apt-get. --check compares with data/gsq-calibration-1.txt instead of
writing. Each package is known by its SHA-256, so the text comes out the same everywhere. data/README.md says where each part
comes from and under which terms; the table there is printed by this script.
"""
import argparse
import gzip
import hashlib
import html.parser
import pathlib
import re
import subprocess
import sys
import tempfile

TOP = pathlib.Path(__file__).resolve().parent.parent
FAKER = "usr/share/php/Faker/Provider/%s/Text.php"
SQLITE = "usr/share/doc/sqlite3/%s.html"
PAGES = """whentouse lang_upsert faq lang_select howtocorrupt json1 optoverview different isolation lang_with wal
datatype3 testing fts5 atomiccommit queryplanner lang_createtable appfileformat lang_aggfunc foreignkeys security
lang_datefunc lockingv3 arch windowfunctions nulls cli rtree mostdeployed quirks lang_transaction eqp
partialindex rowvalue withoutrowid fasterthanfs vtab lang_altertable""".split()
YTDLP = "usr/lib/python3/dist-packages/yt_dlp/%s.py"

PACKAGES = {
    "dict-jargon": ("4.4.7-3.1", "all"),
    "golang-github-pierrec-lz4-dev": ("2.5.2-2", "all"),
    "libsqlite3-dev": ("3.40.1-2+deb12u2", "amd64"),
    "librust-csv-dev": ("1.1.6-1", "amd64"),
    "librust-walkdir-dev": ("2.3.2-1", "amd64"),
    "libstb-dev": ("0.0~git20220908.8b5f1f3+ds-1", "amd64"),
    "node-tweetnacl": ("1.0.3+dfsg-3", "all"),
    "php-faker": ("1.20.0+dfsg-1", "all"),
    "sqlite3-doc": ("3.40.1-2+deb12u2", "all"),
    "yt-dlp": ("2023.03.04-1", "all"),
}
SUMS = {
    "dict-jargon": "405f8168d7994ed2cb71407bb95493daec2e9aa66fc0461dafa74a9d6728a8c1",
    "golang-github-pierrec-lz4-dev": "1dc71cab6853fb03005f102bf1a71d906d2413c144e1f96c80bb3af99e701550",
    "libsqlite3-dev": "afb550eb103e717000a2c7adae2e06e3eebd2952bf7d243ae2f1ca8594307563",
    "librust-csv-dev": "65240da8c7a7bc551ccfe039f2f9c9b8924e229e50fddbb4402f5db7eca01d8b",
    "librust-walkdir-dev": "8b90341f4141832529778ba38e4d82a2d05c95eeada0f2cdc6f2819da627c6ec",
    "libstb-dev": "4f85f82942c61845ac96d64d722ef1b2f4897d6662cb98bc5ff78596b8fbb144",
    "node-tweetnacl": "3edd21af1d6ef01dfa5859ef87f7026cbc1ce06da6b06e32102db30ffdf19b0e",
    "php-faker": "25dc2058d5d33aae702c9a59aa0b13046d46536022c7774fa3042fd601dd7b6f",
    "sqlite3-doc": "466e30d7066e2641fa13e56bc662a2ad521b8cc9c17dde9c9dac3d4f105e32f2",
    "yt-dlp": "f3fec8f9041a2d346bf13304780baa767ab2d2cf3a1e5c84229a51c21a3cb7e5",
}

# What is not worth learning from, and what nobody wants to find in a text that comes with a program: paragraphs with
# slurs, with words about where a text was downloaded, and with badges.
UNWANTED = re.compile(r"gutenberg|ebook|img\.shields|\bnigg|\bfagg?ot|\bretard|\bcoon\b|\bkike|\bchink|\bspic\b|\bcunt|\brape|"
                      r"[\x00-\x08\x0b-\x1f\x7f\ufffd]", re.IGNORECASE)


def book(text):
    """A chapter or more of prose: lines of a paragraph joined."""
    out = []
    for paragraph in re.split(r"\n\s*\n", text):
        lines = [line.strip() for line in paragraph.splitlines()]
        out.append(" ".join(line for line in lines if line))
    return "\n\n".join(p for p in out if p)


def sherlock(text):
    text = text[text.index("ADVENTURE I. A SCANDAL IN BOHEMIA"):text.rindex("*** END OF THIS PROJECT")]
    return book(text)


def faker(text):
    """The string of a PHP file. Western texts are wrapped at some column; Chinese ones have a paragraph in a line."""
    text = re.search(r"\$baseText = <<<'EOT'\n(.*?)\nEOT;", text, re.DOTALL).group(1)
    lines = text.split("\n")
    if max(map(len, lines)) > 300:
        return "\n\n".join(line.strip() for line in lines if line.strip())
    return book(text)


def jargon(text):
    """Every fourth entry, its lines joined: "word, n." and the paragraphs below."""
    out = []
    text = text[text.index("\n(TM)\n"):]
    for i, entry in enumerate(re.split(r"\n(?=\S)", text)):
        head, _, rest = entry.partition("\n")
        if i % 4 or not rest.strip():
            continue
        first, _, rest = rest.partition("\n\n")
        paragraphs = [" ".join(p.split()) for p in re.split(r"\n\s*\n", rest)]
        body = [re.sub(r"\{([^}]*?) ?\}", r"\1", p) for p in paragraphs if p]
        if body:
            word = " ".join(first.split()).rstrip(",")
            out.append(head.strip() + (" (%s)\n" % word if word else "\n") + "\n".join(body))
    return "\n\n".join(out)


class Page(html.parser.HTMLParser):
    """A page of SQLite's documentation as Markdown."""
    SKIP = {"script", "style", "svg", "button", "title", "table", "form"}
    BREAK = {"p", "div", "ul", "ol", "dl", "blockquote", "dd", "dt", "center"}

    def __init__(self):
        super().__init__()
        self.out, self.skip, self.pre, self.hidden, self.depth = [], 0, False, 0, 0

    def handle_starttag(self, tag, attrs):
        if tag in self.SKIP:
            self.skip += 1
        if tag == "div":
            self.depth += 1
            if "nosearch" in dict(attrs).get("class", "") and not self.hidden:
                self.hidden = self.depth
        if self.skip or self.hidden:
            return
        if tag in ("h1", "h2", "h3"):
            self.out.append("\n\n" + "#" * int(tag[1]) + " ")
        elif tag == "pre":
            self.pre = True
            self.out.append("\n\n```\n")
        elif tag == "li":
            self.out.append("\n\n* ")
        elif tag in self.BREAK:
            self.out.append("\n\n")
        elif tag in ("b", "strong") and not self.pre:
            self.out.append("**")
        elif tag in ("code", "tt") and not self.pre:
            self.out.append("`")

    def handle_endtag(self, tag):
        if tag in self.SKIP and self.skip:
            self.skip -= 1
        if not self.skip and not self.hidden:
            if tag == "pre":
                self.pre = False
                self.out.append("\n```\n\n")
            elif tag in ("h1", "h2", "h3") or tag in self.BREAK:
                self.out.append("\n\n")
            elif tag in ("b", "strong") and not self.pre:
                self.out.append("**")
            elif tag in ("code", "tt") and not self.pre:
                self.out.append("`")
        if tag == "div":
            if self.hidden == self.depth:
                self.hidden = 0
            self.depth -= 1

    def handle_data(self, data):
        if not self.skip and not self.hidden:
            self.out.append(data if self.pre else re.sub(r"\s+", " ", data))


def page(text):
    p = Page()
    p.feed(text)
    text = "".join(p.out)
    text = text[:text.index("This page last modified")] if "This page last modified" in text else text
    parts = re.split(r"(```\n.*?\n```)", text, flags=re.DOTALL)
    for i, part in enumerate(parts):
        if part.startswith("```"):
            parts[i] = re.sub(r"\n\s*\n+", "\n\n", "```\n" + part[4:-4].strip("\n") + "\n```")
            continue
        part = re.sub(r"\*\*\s*\*\*|``", "", part)
        part = re.sub(r"\n\s*\* *\n\s*", "\n\n* ", part)
        part = "\n".join(line.strip() for line in part.split("\n"))
        parts[i] = re.sub(r"\n\n+", "\n\n", part)
    return "".join(parts).strip()


def code(text):
    return text.expandtabs(4).strip("\n")


def metadata(text):
    """README of a Python package, behind its header lines; without its lists of options, which are wide tables."""
    return text.partition("\n\n")[2]


def own(text):
    return text


# Name, kind of text, package (None: ours), files, how each is read, most bytes of it.
SOURCES = [
    ("The Adventures of Sherlock Holmes (A. C. Doyle, 1892)", "golang-github-pierrec-lz4-dev",
     ["usr/share/gocode/src/github.com/pierrec/lz4/testdata/pg1661.txt"], sherlock, 120000),
    ("Alice's Adventures in Wonderland (L. Carroll, 1865)", "php-faker", [FAKER % "en_US"], faker, 60000),
    ("SQLite's documentation", "sqlite3-doc", [SQLITE % p for p in PAGES], page, 230000),
    ("The Jargon File 4.4.7", "dict-jargon", ["usr/share/dictd/jargon.dict.dz"], jargon, 120000),
    ("yt-dlp's README (Markdown)", "yt-dlp", ["usr/lib/python3/dist-packages/yt_dlp-2023.3.4.dist-info/METADATA"],
     metadata, 50000),
    ("yt-dlp (Python)", "yt-dlp", [YTDLP % m for m in ("cookies", "jsinterp", "postprocessor/ffmpeg", "YoutubeDL")],
     code, 100000),
    ("stb (C)", "libstb-dev", ["usr/include/stb/stb_%s.h" % m for m in ("ds", "sprintf", "image_write")], code, 80000),
    ("sqlite3.h (C)", "libsqlite3-dev", ["usr/include/sqlite3.h"], code, 40000),
    ("csv (Rust)", "librust-csv-dev",
     ["usr/share/cargo/registry/csv-1.1.6/src/%s.rs" % m for m in ("tutorial", "writer")], code, 50000),
    ("walkdir (Rust)", "librust-walkdir-dev", ["usr/share/cargo/registry/walkdir-2.3.2/src/lib.rs"], code, 25000),
    ("TweetNaCl (JavaScript)", "node-tweetnacl", ["usr/share/nodejs/tweetnacl/nacl.js"], code, 16000),
    ("Die Leiden des jungen Werther (J. W. v. Goethe, 1774)", "php-faker", [FAKER % "de_DE"], faker, 48000),
    ("Madame Bovary (G. Flaubert, 1857)", "php-faker", [FAKER % "fr_FR"], faker, 48000),
    ("Trafalgar (B. Pérez Galdós, 1873)", "php-faker", [FAKER % "es_ES"], faker, 48000),
    ("Dom Casmurro (Machado de Assis, 1899)", "php-faker", [FAKER % "pt_BR"], faker, 35000),
    ("Krakatit (K. Čapek, 1924)", "php-faker", [FAKER % "cs_CZ"], faker, 30000),
    ("吶喊 (Lu Xun, 1922)", "php-faker", [FAKER % "zh_TW"], faker, 50000),
    ("Questions, answers, notes, data, and a little of fourteen languages", None, ["data/own.txt"], own, 20000),
]


def download(package, folder):
    version, arch = PACKAGES[package]
    name = "%s_%s_%s.deb" % (package, version.replace(":", "%3a"), arch)
    got = pathlib.Path(folder) / name
    if not got.exists():
        subprocess.run(["apt-get", "-qq", "download", "%s=%s" % (package, version)], cwd=folder, check=False)
    if not got.exists():
        sys.exit("error: there is no %s %s here; old packages are at https://snapshot.debian.org/ (then --debs FOLDER)" %
                 (package, version))
    found = hashlib.sha256(got.read_bytes()).hexdigest()
    if found != SUMS[package]:
        sys.exit("error: %s has the SHA-256 %s, expected %s" % (got, found, SUMS[package]))
    return got


def read(root, name):
    data = (root / name).read_bytes()
    if name.endswith(".dz"):
        data = gzip.decompress(data)
    return data.decode("utf-8-sig").replace("\r\n", "\n")


def cleaned(text, limit):
    """Paragraphs, without unwanted ones, up to a limit of bytes."""
    out, size = [], 0
    for paragraph in re.split(r"\n\n+", text):
        paragraph = "\n".join(line.rstrip() for line in paragraph.split("\n")).strip("\n")
        if not paragraph or UNWANTED.search(paragraph):
            continue
        size += len(paragraph.encode()) + 2
        if size > limit:
            break
        out.append(paragraph)
    return out


def mix(sources):
    """Pieces of all sources in turn: next is the one of which the smallest share was taken. Pieces are short at the
    beginning, so that a few windows see every kind of text, and longer behind, for long windows."""
    totals = [sum(len(p.encode()) + 2 for p in s) for s in sources]
    taken, at, out, size = [0] * len(sources), [0] * len(sources), [], 0
    while True:
        left = [i for i, s in enumerate(sources) if at[i] < len(s)]
        if not left:
            return "\n\n".join(out) + "\n"
        i = min(left, key=lambda k: (taken[k] / totals[k], -totals[k], k))
        piece = 0
        while at[i] < len(sources[i]) and piece < (1500 if size < 150000 else 6000):
            paragraph = sources[i][at[i]]
            out.append(paragraph)
            at[i] += 1
            piece += len(paragraph.encode()) + 2
        taken[i] += piece
        size += piece


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--debs", help="folder with the packages, or for them")
    p.add_argument("--out", default=str(TOP / "data" / "gsq-calibration-1.txt"))
    p.add_argument("--check", action="store_true")
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        tmp = pathlib.Path(tmp)
        debs = pathlib.Path(a.debs) if a.debs else tmp
        debs.mkdir(parents=True, exist_ok=True)
        roots = {None: TOP}
        for package in PACKAGES:
            roots[package] = tmp / package
            subprocess.run(["dpkg-deb", "-x", str(download(package, debs)), str(roots[package])], check=True)
        parts = []
        for name, package, files, how, limit in SOURCES:
            parts.append(cleaned("\n\n".join(how(read(roots[package], f)) for f in files), limit))
    text = mix(parts)
    for (name, package, files, how, limit), part in zip(SOURCES, parts):
        print("| %s | %s | %d |" % (name, "%s %s" % (package, PACKAGES[package][0]) if package else "ours",
                                    sum(len(s.encode()) + 2 for s in part)))
    data = text.encode()
    print("%d bytes, SHA-256 %s" % (len(data), hashlib.sha256(data).hexdigest()))
    if not a.check:
        pathlib.Path(a.out).write_bytes(data)
    elif pathlib.Path(a.out).read_bytes() != data:
        sys.exit("error: %s is another text" % a.out)


if __name__ == "__main__":
    main()
