#!/usr/bin/env python3
"""server_match.py FOLDER KEPT...: whether vLLM, by what it reads of quantization_config, builds as quantized what the folder has as codes,
and nothing else.  KEPT: layers whose experts are in 16 bits.  It asks by its own names: one for q_a and kv_a, one for gate and up, one for all
experts of a layer (gptq), or expert 0's three matrices (compressed-tensors).  Patterns are matched from the name's beginning on."""
import json, os, re, struct, sys

JOINT = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj"),
         "fused_qkv_a_proj": ("q_a_proj", "kv_a_proj_with_mqa")}


def stored(folder):
    """{module: whether it is codes}"""
    raw = open(os.path.join(folder, "model.safetensors"), "rb").read()
    size, = struct.unpack("<Q", raw[:8])
    out = {}
    for name, t in json.loads(raw[8:8 + size]).items():
        module, _, part = name.rpartition(".")
        if part in ("qweight", "weight_packed"):
            out[module] = True
        elif part == "weight" and len(t["shape"]) == 2:
            out[module] = False
    return out


def quantized(q, name):
    if q["quant_method"] == "gptq":
        for pattern, rule in q.get("dynamic", {}).items():
            if re.match(pattern[2:], name):
                return pattern[0] != "-"
        return True

    def ignored(n):
        return any(re.match(x[3:], n) if x.startswith("re:") else x == n for x in q["ignore"])

    front, _, last = name.rpartition(".")
    if last in JOINT and name not in q["ignore"]:
        parts = {bool(ignored(front + "." + part)) for part in JOINT[last]}
        assert len(parts) == 1, name
        return not parts.pop()
    return not ignored(name)


folder, kept = sys.argv[1], sys.argv[2:]
q = json.load(open(os.path.join(folder, "config.json")))["quantization_config"]
modules, asked = stored(folder), 0
for module, codes in modules.items():
    front, _, last = module.rpartition(".")
    if "embed_tokens" in module or module == "lm_head":
        continue
    names = [module]
    expert = re.match(r"(.*\.experts)\.([0-9]+)\.", module)
    if expert:
        names = [expert.group(1)] if q["quant_method"] == "gptq" else [module]
        assert codes == (expert.group(1).split(".")[2] not in kept), module
    else:
        names = [front + "." + joint for joint, parts in JOINT.items() if last in parts and all(front + "." + p in modules for p in parts)] or names
    for name in names:
        asked += 1
        if quantized(q, name) != codes:
            sys.exit(f"{name}: vLLM would take it as {'codes' if not codes else '16 bits'}, the folder has the other")
assert any(modules.values()) and not all(modules.values())
print(asked, "names")
