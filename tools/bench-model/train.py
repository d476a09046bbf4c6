#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Trains the bench model, its tokenizer too, and writes its folder: see scripts/train-bench-model.sh.

Repeats: the texts have check sums, random numbers come from seeds and the number of the step, algorithms are
deterministic, and the kernels and threads of the CPU are chosen here. A run that was killed goes on from its last
checkpoint and ends in the same bytes.
"""
import argparse
import array
import hashlib
import math
import os
import pathlib
import random
import signal
import sys
import tempfile
import time


def cpu_has(flag):
    try:
        return flag in pathlib.Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False


# Read when a process starts, hence the second start. OpenBLAS takes its slowest kernels for a processor newer than
# itself; glibc gives large blocks back to the kernel after every operation, and clearing the new pages costs more than
# the arithmetic; cuBLAS repeats its sums only with a workspace of its own.
if "GSQ_BENCH_MODEL" not in os.environ:
    os.environ["GSQ_BENCH_MODEL"] = "started"
    os.environ.setdefault("OPENBLAS_CORETYPE", "SkylakeX" if cpu_has("avx512bw") and cpu_has("avx512vl") else "Haswell")
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(1 << 32)
    os.environ["MALLOC_TRIM_THRESHOLD_"] = str(1 << 34)
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    threads = sys.argv[sys.argv.index("--threads") + 1] if "--threads" in sys.argv[:-1] else "1"
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = threads
    os.execv(sys.executable, [sys.executable] + sys.argv)

import torch  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path[:0] = [str(HERE), str(HERE.parent / "demo-model")]
import bpe  # noqa: E402
import model  # noqa: E402
import texts  # noqa: E402

# Rows of every matrix divide by 256, as K-quants want it. `windows` of `context` tokens a step.
SIZES = {
    "small": dict(hidden=256, inner=768, layers=6, heads=4, kv=2, vocab=2048, context=256, windows=16, steps=4000, rate=5e-3),
    "large": dict(hidden=512, inner=1536, layers=12, heads=8, kv=4, vocab=4096, context=512, windows=64, steps=3000, rate=3e-3),
}
EVAL_WINDOWS = 64
WARM = 50
LOG_EVERY = 200
MOMENTUM = 0.95
DECAY = 0.05


def config_of(size):
    config = dict(model.CONFIG)
    config.update(hidden_size=size["hidden"], intermediate_size=size["inner"], num_hidden_layers=size["layers"],
                  num_attention_heads=size["heads"], num_key_value_heads=size["kv"], head_dim=64, vocab_size=size["vocab"],
                  max_position_embeddings=2 * size["context"], bos_token_id=size["vocab"] - 2,
                  eos_token_id=size["vocab"] - 1)
    return config


def orthogonal(g):
    """Nearly U V^T of g = U S V^T: five steps of the odd polynomial of Jordan's Muon (2024), whose singular values end
    between 0.7 and 1.2."""
    tall = g.shape[0] > g.shape[1]
    x = g.t() if tall else g
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        a = x @ x.t()
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
    return x.t() if tall else x


class Optimizer:
    """Muon for the matrices of the blocks: momentum, made orthogonal, as large as a step of Adam (0.2 a weight). Adam for
    embeddings and norms."""

    def __init__(self, weights):
        self.matrices = {n: w for n, w in weights.items() if w.dim() > 1 and "embed" not in n}
        self.momentum = {n: torch.zeros_like(w) for n, w in self.matrices.items()}
        self.adam = torch.optim.AdamW([w for n, w in weights.items() if n not in self.matrices], betas=(0.9, 0.95),
                                      eps=1e-8, weight_decay=0.0)

    @torch.no_grad()
    def step(self, rate):
        for name, w in self.matrices.items():
            m = self.momentum[name].mul_(MOMENTUM).add_(w.grad)
            update = orthogonal(w.grad + MOMENTUM * m)
            w.mul_(1 - rate * DECAY).sub_(update, alpha=rate * 0.2 * max(w.shape) ** 0.5)
            w.grad = None
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)

    def state(self):
        return {"momentum": self.momentum, "adam": self.adam.state_dict()}

    def load(self, state):
        for name, m in self.momentum.items():
            m.copy_(state["momentum"][name])
        self.adam.load_state_dict(state["adam"])


class Windows:
    """Which tokens a step sees, by its number alone. An epoch visits all windows once; the next one cuts them elsewhere.
    One window of eight is BOS and what follows, as a prompt is; the others begin anywhere, as those of an evaluation do."""

    def __init__(self, stream, context, bos):
        self.stream, self.context, self.bos = stream, context, bos
        self.count = (len(stream) - context) // context - 1
        self.epoch, self.order = -1, []

    def one(self, number):
        epoch, at = divmod(number, self.count)
        if epoch != self.epoch:
            rng = random.Random(1000 + epoch)
            self.epoch, self.shift, self.order = epoch, rng.randrange(self.context), list(range(self.count))
            rng.shuffle(self.order)
        begin = self.shift + self.order[at] * self.context
        if number % 8 == 0:
            return torch.cat([self.bos, self.stream[begin:begin + self.context]])
        return self.stream[begin:begin + self.context + 1]

    def batch(self, step, n):
        return torch.stack([self.one(step * n + i) for i in range(n)]).long()


def rate_at(step, steps, peak):
    """Warm-up, a plateau, and from the middle on a straight line to zero."""
    return peak * min(1.0, (step + 1) / WARM, (steps - step) / (steps * 0.5))


def write_whole(path, write):
    """A file that is there whole or not at all."""
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as f:
        write(f)
        f.flush()
        os.fsync(f.fileno())
    os.replace(part, path)


def prepare(out, work, debs, vocab):
    """Texts and tokenizer, once: calib.txt and eval.txt in `out`, the tokens and what PROVENANCE.md says of them in `work`."""
    tokens, rows = work / "tokens.u16", work / "sources.txt"
    merges = work / "merges.txt"
    if not tokens.exists():
        with tempfile.TemporaryDirectory() as tmp:
            train, calib, held, table = texts.make(tmp, debs)
        text = "\n\n".join(train) + "\n"
        print("texts: %d bytes to train on, %d and %d for calibration and evaluation" % (len(text), len(calib), len(held)), flush=True)
        write_whole(out / "calib.txt", lambda f: f.write(calib.encode()))
        write_whole(out / "eval.txt", lambda f: f.write(held.encode()))
        found = bpe.train(text, vocab)
        write_whole(merges, lambda f: f.write("\n".join(" ".join(m) for m in found).encode()))
        tokenizer = bpe.Tokenizer(found)
        ids = array.array("H")
        for piece in train:
            ids.extend(tokenizer.encode(piece + "\n\n"))
        lines = ["| %s | %s | %d | %s |" % row for row in table]
        lines += ["", "Trained on %d bytes (SHA-256 `%s`), %d tokens." %
                  (len(text), hashlib.sha256(text.encode()).hexdigest(), len(ids))]
        write_whole(rows, lambda f: f.write("\n".join(lines).encode()))
        write_whole(tokens, ids.tofile)
    tokenizer = bpe.Tokenizer([m.split(" ") for m in merges.read_text().split("\n")])
    ids = array.array("H")
    ids.frombytes(tokens.read_bytes())
    return tokenizer, torch.tensor(ids, dtype=torch.int32), rows.read_text()


def held_out(net, tokenizer, out, context, device):
    ids = [tokenizer.bos] + tokenizer.encode((out / "eval.txt").read_text(encoding="utf-8"))
    ids = torch.tensor(ids[:EVAL_WINDOWS * (context + 1)]).view(EVAL_WINDOWS, context + 1).to(device)
    with torch.no_grad():
        return sum(net.loss(ids[i:i + 8]).item() for i in range(0, EVAL_WINDOWS, 8)) / (EVAL_WINDOWS // 8)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("out", type=pathlib.Path, help="folder of the model")
    parser.add_argument("--size", choices=sorted(SIZES), help="default: large on a GPU, else small")
    parser.add_argument("--steps", type=int, help="default: small 4000, large 3000; may be another when a run goes on, until the rate falls")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU; another number, other bytes")
    parser.add_argument("--debs", help="folder with the packages, or for them")
    parser.add_argument("--stop-at", type=int, help="stop after this step of them, as if killed")
    parser.add_argument("--minutes", type=float, default=4, help="between checkpoints")
    a = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = a.size or ("large" if device.type == "cuda" else "small")
    size = SIZES[name]
    steps = a.steps or size["steps"]
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(a.threads)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
    torch.manual_seed(1)

    work = a.out.with_name(a.out.name + ".work")
    a.out.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    # What the bytes depend on, beside the number of steps; not how often it was stopped.
    arithmetic = "%d thread%s, OpenBLAS %s" % (a.threads, "" if a.threads == 1 else "s", os.environ["OPENBLAS_CORETYPE"])
    identity = {"size": size, "torch": str(torch.__version__),
                "arithmetic": torch.cuda.get_device_name() if device.type == "cuda" else arithmetic}
    debs = a.debs or str(work / "debs")
    pathlib.Path(debs).mkdir(parents=True, exist_ok=True)
    tokenizer, stream, table = prepare(a.out, work, debs, size["vocab"])
    config = config_of(size)
    weights = {n: w.detach().to(device).requires_grad_() for n, w in model.init_weights(config).items()}
    net, optimizer = model.Llama(weights, config), Optimizer(weights)
    parameters = sum(w.numel() for w in weights.values())
    windows = Windows(stream, size["context"], torch.tensor([tokenizer.bos], dtype=torch.int32))
    tokens_of_step = size["windows"] * size["context"]
    print("%s: %.1f M parameters, %d steps of %d tokens, %d tokens of text, on %s" %
          (name, parameters / 1e6, steps, tokens_of_step, len(stream), identity["arithmetic"]), flush=True)

    begin, running, log = 0, None, []
    checkpoint = work / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location="cpu")
        if state["identity"] != identity:
            sys.exit("error: %s was begun as %s, not as %s; remove the folder, or ask for the same" %
                     (work, state["identity"], identity))
        if state["steps"] != steps and state["step"] > min(state["steps"], steps) // 2:
            sys.exit("error: step %d of %s is behind the middle of %d steps, where the rate falls; %d can no longer be asked for" %
                     (state["step"], work, min(state["steps"], steps), steps))
        with torch.no_grad():
            for n, w in weights.items():
                w.copy_(state["weights"][n])
        optimizer.load(state["optimizer"])
        begin, running, log = state["step"], state["running"], state["log"]
        print("goes on at step %d" % begin, flush=True)

    def save(step):
        state = {"identity": identity, "steps": steps, "step": step, "running": running, "log": log, "optimizer": optimizer.state(),
                 "weights": {n: w.detach() for n, w in weights.items()}}
        write_whole(checkpoint, lambda f: torch.save(state, f))

    asked = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda n, frame: asked.append(n))
    last = steps if a.stop_at is None else min(a.stop_at, steps)
    wall, cpu, saved = time.time(), time.process_time(), time.time()
    for step in range(begin, last):
        loss = net.loss(windows.batch(step, size["windows"]).to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(weights.values()), 1.0)
        optimizer.step(rate_at(step, steps, size["rate"]))
        value = loss.item()
        if not math.isfinite(value):
            sys.exit("error: the loss of step %d is %s" % (step, value))
        running = value if running is None else 0.95 * running + 0.05 * value
        done = step + 1
        if done % LOG_EVERY == 0 or done == steps:
            log.append((done, running, held_out(net, tokenizer, a.out, size["context"], device)))
            print("step %d  loss %.4f  held out %.4f" % log[-1], flush=True)
        if done % 20 == 0:
            each = (time.time() - wall) / (done - begin)
            print("step %d of %d  loss %.4f  %.0f tokens/s, %.0f a CPU second, %.0f min left" %
                  (done, steps, running, tokens_of_step / each,
                   tokens_of_step * (done - begin) / (time.process_time() - cpu), each * (steps - done) / 60), flush=True)
        if asked or done == last or time.time() - saved > 60 * a.minutes:
            save(done)
            saved = time.time()
        if asked:
            print("stopped at step %d; the same command goes on" % done)
            sys.exit(128 + asked[0])
    if last < steps:
        return

    # As the file has them.
    net.w = {n: w.detach().half().float() for n, w in weights.items()}
    final = held_out(net, tokenizer, a.out, size["context"], device)
    model.save_model(a.out, weights, tokenizer, config)
    data = (a.out / "model.safetensors").read_bytes()
    write_whole(a.out / "PROVENANCE.md", lambda f: f.write("""# The bench model, {name}

Made by scripts/train-bench-model.sh, with the text it was trained on; ours (Apache License 2.0). {parameters:.1f} M parameters,
{steps} steps of {tokens} tokens, PyTorch {torch}, {arithmetic}. model.safetensors has the SHA-256 `{sha}`.

| text | package of Debian 12 | bytes | terms |
| --- | --- | ---: | --- |
{table}
Of these calib.txt and eval.txt were held out. Held-out loss in F16, {windows} windows of {context} tokens: {final:.4f} nats a token.

| step | loss | held out |
| ---: | ---: | ---: |
{log}
""".format(name=name, parameters=parameters / 1e6, steps=steps, tokens=tokens_of_step, torch=torch.__version__,
           arithmetic=identity["arithmetic"], sha=hashlib.sha256(data).hexdigest(), table=table, windows=EVAL_WINDOWS,
           context=size["context"], final=final, log="\n".join("| %d | %.4f | %.4f |" % row for row in log)).encode()))
    print("%s: held-out loss %.4f" % (a.out, final))


if __name__ == "__main__":
    main()
