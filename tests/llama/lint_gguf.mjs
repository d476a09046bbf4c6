// lint_gguf.mjs FOLDER FILE...: what @huggingface/gguf, installed in FOLDER, reads in a GGUF, against what it should be.
// Exits 1 naming each file's first fault.
import { createRequire } from "node:module";
import { statSync } from "node:fs";
import { resolve } from "node:path";

const [folder, ...files] = process.argv.slice(2);
const { gguf, GGMLQuantizationType, GGUFValueType } = createRequire(resolve(folder, "package.json"))("@huggingface/gguf");

async function lint(file) {
  const { metadata, typedMetadata, tensorInfos, tensorDataOffset, parameterCount } = await gguf(file, {
    allowLocalFile: true,
    typedMetadata: true,
    computeParametersCount: true,
  });
  const fault = (text) => {
    throw new Error(text);
  };
  const typed = (key, type) => {
    const found = typedMetadata[key] ?? fault(`${key} is missing`);
    found.type === type || fault(`${key} is a ${GGUFValueType[found.type]}, not a ${GGUFValueType[type]}`);
    return found.value;
  };
  metadata.version === 3 || fault(`version ${metadata.version}`);
  const arch = typed("general.architecture", GGUFValueType.STRING);
  for (const key of ["context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count"])
    typed(`${arch}.${key}`, GGUFValueType.UINT32) > 0 || fault(`${arch}.${key} is 0`);
  typed(`${arch}.attention.layer_norm_rms_epsilon`, GGUFValueType.FLOAT32);
  typed("general.file_type", GGUFValueType.UINT32);
  typed("tokenizer.ggml.model", GGUFValueType.STRING);
  const tokens = typed("tokenizer.ggml.tokens", GGUFValueType.ARRAY);
  const types = typed("tokenizer.ggml.token_type", GGUFValueType.ARRAY);
  tokens.length === types.length || fault(`${tokens.length} tokens with ${types.length} types`);
  BigInt(tensorInfos.length) === BigInt(metadata.tensor_count) || fault("tensors are missing");

  const alignment = BigInt(metadata["general.alignment"] ?? 32);
  const size = BigInt(statSync(file).size) - tensorDataOffset;
  let weights = 0n;
  let last = -1n;
  for (const { name, shape, dtype, offset } of tensorInfos) {
    GGMLQuantizationType[dtype] ?? fault(`${name} has the unknown type ${dtype}`);
    shape.length > 1 || dtype === GGMLQuantizationType.F32 || fault(`${name} is a vector that is not F32`);
    (offset % alignment === 0n && offset > last && offset < size) || fault(`${name} has the offset ${offset}`);
    weights += shape.reduce((a, b) => a * b, 1n);
    last = offset;
  }
  size % alignment === 0n || fault("the last tensor is not padded");
  BigInt(parameterCount) === weights || fault(`${parameterCount} parameters, ${weights} weights`);
}

let bad = 0;
for (const file of files) {
  try {
    await lint(file);
  } catch (e) {
    console.error(`${file}: ${e.message}`);
    bad++;
  }
}
console.log(`${files.length} files, ${bad} with faults`);
process.exit(bad ? 1 : 0);
