#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "quant.glsl"
#include "gumbel.glsl"

layout(set = 0, binding = 0, std430) readonly buffer Logits { float logits[]; };
layout(set = 0, binding = 1, std430) readonly buffer Codes { uint codes[]; };
layout(set = 0, binding = 2, std430) writeonly buffer CodesOut { uint codes_out[]; };
layout(push_constant) uniform Push { uint rows, cols, ldc, levels, relative; int lo, hi; };

void main()
{
    uint i = item_index();
    if (i >= rows * ldc)
        return;
    uint row = i / ldc;
    uint col0 = (i % ldc) * 4u;
    uint word = codes[i];
    uint result = 0u;
    for (uint lane = 0u; lane < 4u && col0 + lane < cols; lane++) {
        int c0 = code_at(word, lane);
        levels_of lv = find_levels(levels, relative, lo, hi, c0);
        float best = 0.0;
        float best_level = float(c0);
        bool found = false;
        [[unroll]] for (uint k = 0u; k < LEVELS; k++)
            if (lv.valid[k]) {
                float l = logits[(row * levels + k) * cols + col0 + lane];
                bool nearer = abs(lv.d[k] - float(c0)) < abs(best_level - float(c0));
                if (!found || l > best || (l == best && nearer)) {
                    best = l;
                    best_level = lv.d[k];
                    found = true;
                }
            }
        result |= code_to_lane(best_level, lane);
    }
    codes_out[i] = result;
}
