#!/usr/bin/env bash
# Texts from the command line: no more is read than wanted, other kinds of files, Ctrl-C while one is tokenized.
# shellcheck source=tests/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
command -v python3 >/dev/null || skip "python3 is needed"

python3 - "$tmp" "$demo/calib.txt" <<'END'
import gzip, json, sys
out, source = sys.argv[1:]
text = open(source, encoding="utf-8").read()
paragraphs = [p for p in text.split("\n\n") if p][:40]
whole = "\n\n".join(paragraphs)
lines = "".join(json.dumps({"id": i, "text": p}) + "\n" for i, p in enumerate(paragraphs))
open(out + "/plain.txt", "w", encoding="utf-8", newline="").write(whole)
open(out + "/lines.jsonl", "w", encoding="utf-8").write(lines)
gzip.open(out + "/lines.jsonl.gz", "wt", encoding="utf-8").write(lines)
gzip.open(out + "/packed", "wt", encoding="utf-8", newline="").write(whole)
with open(out + "/long.txt", "w", encoding="utf-8") as f:
    for i in range(60_000_000 // len(text)):
        f.write(text)
open(out + "/a.parquet", "wb").write(b"PAR1\x15\x04\x15\x10")
END

eval=("$gsq" eval "$demo" --ctx 64 --json)
run "${eval[@]}" --text "$tmp/plain.txt"
want=$(field token_hash "$tmp/out")
for file in lines.jsonl lines.jsonl.gz packed; do
    run "${eval[@]}" --text "$tmp/$file"
    check "$file has the tokens of the plain text" test "$(field token_hash "$tmp/out")" = "$want"
done
for threads in 1 5; do
    run "${eval[@]}" --text "$tmp/plain.txt" --threads "$threads"
    check "$threads threads: the same tokens" test "$(field token_hash "$tmp/out")" = "$want"
done
expect 'a Parquet file' 2 'a.parquet is a Parquet file' 'JSON lines' -- "${eval[@]}" --text "$tmp/a.parquet"
expect 'a Parquet file to learn from' 2 'a.parquet is a Parquet file' 'JSON lines' -- \
    "$gsq" quantize "$demo" -o "$tmp/out.gguf" --calib "$tmp/a.parquet"

# The first windows of a long text are those of a short one, and take no more time or memory to speak of.
cat >"$tmp/measure.py" <<'END'
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=open(sys.argv[0] + ".out", "w"), stderr=subprocess.DEVNULL)
use = resource.getrusage(resource.RUSAGE_CHILDREN)
print(f"{use.ru_utime + use.ru_stime:.2f} {use.ru_maxrss // 1024}")
END
read -r short_s short_mib < <(python3 "$tmp/measure.py" "${eval[@]}" --windows 4 --text "$tmp/plain.txt")
short=$(field token_hash "$tmp/measure.py.out")
read -r long_s long_mib < <(python3 "$tmp/measure.py" "${eval[@]}" --windows 4 --text "$tmp/long.txt")
check "4 windows: $short_s CPU s and $short_mib MiB of a short text, $long_s CPU s and $long_mib MiB of 60 MB" \
    at_most "$long_mib" "$((short_mib + 20))"
check 'and the same tokens' test "$(field token_hash "$tmp/measure.py.out")" = "$short"

# Ctrl-C while the whole of it is tokenized.
python3 - "${eval[@]}" --text "$tmp/long.txt" >"$tmp/stop" <<'END'
import signal, subprocess, sys, time
p = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
for line in p.stdout:
    if '"tokenize"' in line:
        break
begin = time.time()
p.send_signal(signal.SIGINT)
said = p.communicate()[1]
print(p.returncode, round(time.time() - begin, 2), said.strip().splitlines()[-1])
END
read -r code seconds said <"$tmp/stop"
check "Ctrl-C while a text is tokenized: exit $code after $seconds s, $said" test "$code" -eq 130
check 'within moments' at_most "$seconds" 3 # a second, where the machine is not busy
done_testing
