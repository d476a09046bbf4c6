# SPDX-License-Identifier: Apache-2.0
"""Byte-level BPE in plain Python: training, encoding, tokenizer.json."""

import collections
import hashlib
import json
import re
import struct

BOS = "<|bos|>"
EOS = "<|eos|>"

# The pattern of Llama 3, as it goes into tokenizer.json ...
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
# ... and in the words of Python's `re`, which has no \p{..}: a letter is a
# word character that is no digit and no underscore. The two agree on our
# texts (checked by `plain_text`), not on all of Unicode.
PYTHON_SPLIT = re.compile(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|(?:[^\r\n\w]|_)?[^\W\d_]+|\d{1,3}"
    r"| ?(?:[^\s\w]|_)+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def plain_text(text):
    """True if PYTHON_SPLIT means the same as LLAMA3_SPLIT for this text."""
    return all(c == "\n" or " " <= c <= "~" or c in "ëê" for c in set(text))


def byte_alphabet():
    """GPT-2's printable stand-in for each of the 256 bytes."""
    keep = (list(range(0x21, 0x7F)) + list(range(0xA1, 0xAD))
            + list(range(0xAE, 0x100)))
    table = {b: chr(b) for b in keep}
    extra = 0
    for b in range(256):
        if b not in table:
            table[b] = chr(256 + extra)
            extra += 1
    return table


ALPHABET = byte_alphabet()


def symbols(piece):
    return [ALPHABET[b] for b in piece.encode()]


def merge(word, pair):
    """Joins every occurrence of `pair` in a list of symbols, from the left."""
    out = []
    i = 0
    while i < len(word):
        if i + 1 < len(word) and (word[i], word[i + 1]) == pair:
            out.append(word[i] + word[i + 1])
            i += 2
        else:
            out.append(word[i])
            i += 1
    return out


def train(text, vocab_size):
    """Returns the merges that fill a vocabulary of `vocab_size`, of which
    256 are bytes and two are BOS and EOS."""
    counts = collections.Counter(PYTHON_SPLIT.findall(text))
    words = [(symbols(piece), n) for piece, n in sorted(counts.items())]
    pairs = collections.Counter()
    holders = collections.defaultdict(set)  # pair -> words that have it
    for i, (word, n) in enumerate(words):
        for pair in zip(word, word[1:]):
            pairs[pair] += n
            holders[pair].add(i)
    merges = []
    while len(merges) < vocab_size - 256 - 2:
        # The pair itself breaks ties, so that the result is reproducible.
        best = max(pairs.items(), key=lambda item: (item[1], item[0]))[0]
        merges.append(best)
        for i in holders.pop(best):
            word, n = words[i]
            joined = merge(word, best)
            for pair in zip(word, word[1:]):
                pairs[pair] -= n
                if pair != best:
                    holders[pair].discard(i)
            for pair in zip(joined, joined[1:]):
                pairs[pair] += n
                holders[pair].add(i)
            words[i] = (joined, n)
        del pairs[best]
    return merges


class Tokenizer:
    def __init__(self, merges):
        self.merges = [tuple(m) for m in merges]
        self.rank = {pair: i for i, pair in enumerate(self.merges)}
        names = sorted(ALPHABET.values()) + [x + y for x, y in self.merges]
        self.vocab = {name: i for i, name in enumerate(names)}
        assert len(self.vocab) == 256 + len(self.merges)
        self.bos = len(self.vocab)
        self.eos = self.bos + 1
        self.cache = {}

    @classmethod
    def load(cls, path):
        with open(path, encoding="utf-8") as f:
            data = json.load(f)
        self = cls([m.split(" ") for m in data["model"]["merges"]])
        assert self.vocab == data["model"]["vocab"]
        return self

    def encode_piece(self, piece):
        word = symbols(piece)
        while len(word) > 1:
            rank, pair = min((self.rank.get(p, 1 << 30), p)
                             for p in zip(word, word[1:]))
            if rank == 1 << 30:
                break
            word = merge(word, pair)
        return [self.vocab[s] for s in word]

    def encode(self, text):
        """Token ids without BOS."""
        assert plain_text(text)
        ids = []
        for piece in PYTHON_SPLIT.findall(text):
            if piece not in self.cache:
                self.cache[piece] = self.encode_piece(piece)
            ids += self.cache[piece]
        return ids

    def decode(self, ids):
        back = {c: b for b, c in ALPHABET.items()}
        names = {i: name for name, i in self.vocab.items()}
        data = bytes(back[c] for i in ids for c in names.get(i, ""))
        return data.decode("utf-8", "replace")

    def to_json(self):
        """The layout that Hugging Face's tokenizers library reads."""
        def special(ident, content):
            return {"id": ident, "content": content, "single_word": False,
                    "lstrip": False, "rstrip": False, "normalized": False,
                    "special": True}

        def byte_level(use_regex, prefix=False):
            return {"type": "ByteLevel", "add_prefix_space": prefix,
                    "trim_offsets": True, "use_regex": use_regex}

        bos = {"SpecialToken": {"id": BOS, "type_id": 0}}
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [special(self.bos, BOS), special(self.eos, EOS)],
            "normalizer": None,
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Split", "pattern": {"Regex": LLAMA3_SPLIT},
                     "behavior": "Isolated", "invert": False},
                    byte_level(False),
                ],
            },
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}},
                         {"SpecialToken": {"id": BOS, "type_id": 1}},
                         {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {
                    BOS: {"id": BOS, "ids": [self.bos], "tokens": [BOS]}},
            },
            "decoder": byte_level(True, prefix=True),
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": self.vocab,
                "merges": [" ".join(m) for m in self.merges],
            },
        }


def digest(ids):
    """SHA-256 of the ids as little-endian 32-bit words."""
    return hashlib.sha256(struct.pack(f"<{len(ids)}I", *ids)).hexdigest()
