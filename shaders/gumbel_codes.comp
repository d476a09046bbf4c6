#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "quant.glsl"
#include "gumbel.glsl"
#include "lanes.glsl"

READ(0, logits);
READ_WORDS(1, codes);
layout(set = 0, binding = 2, std430) writeonly buffer CodesOut { uint codes_out[]; };
layout(push_constant) uniform Push { uint rows, cols, ldc, levels, relative; int lo, hi; };

// The level of the largest of one weight's logits, of which element e of each l is one.
float largest(vec4 l[LEVELS], uint e, int c0)
{
    levels_of lv = find_levels(levels, relative, lo, hi, c0);
    float best = 0.0, best_level = float(c0);
    bool found = false;
    [[unroll]] for (uint k = 0u; k < LEVELS; k++) {
        bool nearer = abs(lv.d[k] - float(c0)) < abs(best_level - float(c0));
        bool better = lv.valid[k] && (!found || l[k][e] > best || (l[k][e] == best && nearer));
        best = better ? l[k][e] : best;
        best_level = better ? lv.d[k] : best_level;
        found = found || better;
    }
    return best_level;
}

// One invocation per word.
void main()
{
    uint i = item_index(), per_row = ldc, n = cols, n_levels = levels, end = rows * n_levels * n;
    if (i >= rows * per_row)
        return;
    uint row = i / per_row, col = (i - row * per_row) * 4u, state = row * n_levels * n + col;
    uint word = LOAD1(codes, i);
    vec4 l[LEVELS];
    [[unroll]] for (uint k = 0u; k < LEVELS; k++)
        l[k] = LOAD4_TO(logits, (state + min(k, n_levels - 1u) * n) & ~3u, end);
    // Rows that do not start on fours.
    for (uint e = 0u; e < 4u && (n & 3u) != 0u; e++)
        [[unroll]] for (uint k = 0u; k < LEVELS; k++)
            l[k][e] = LOAD1(logits, state + min(k, n_levels - 1u) * n + min(e, n - 1u - col));
    uint result = 0u;
    [[unroll]] for (uint e = 0u; e < 4u; e++)
        result |= col + e < n ? code_to_lane(largest(l, e, code_at(word, e)), e) : 0u;
    codes_out[i] = result;
}
