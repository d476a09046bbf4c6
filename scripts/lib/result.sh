# Sourced by benchmarks and by tests/*.sh: what gsq --json says in the end.
# shellcheck shell=bash

# A field of the result's line.
field() { # NAME FILE
    python3 -c 'import json, sys
for line in open(sys.argv[2]):
    o = json.loads(line)
    if o["event"] == "result":
        print(o[sys.argv[1]])' "$1" "$2"
}
