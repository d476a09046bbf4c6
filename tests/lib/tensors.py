#!/usr/bin/env python3
"""Compares tensors of two model folders byte for byte: tensors.py A B SUFFIX... Exits 1 on a difference."""
import sys

import tensor_file

suffixes = tuple(sys.argv[3:])
a, b = ({k: t for k, t in tensor_file.load_folder(f).items() if k.endswith(suffixes)} for f in sys.argv[1:3])
if not a or a.keys() != b.keys():
    sys.exit("different tensors: %d and %d" % (len(a), len(b)))
for key in a:
    if a[key] != b[key]:
        sys.exit("%s differs" % key)
