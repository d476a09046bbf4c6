#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "quant.glsl"
#include "gumbel.glsl"
#include "lanes.glsl"

READ_WORDS(0, state);
READ_WORDS(1, codes);
layout(set = 0, binding = 2, std430) writeonly buffer CodesOut { uint codes_out[]; };
layout(push_constant) uniform Push { uint rows, cols, ldc, levels, relative; int lo, hi; GRID_PUSH };

// The level of the largest logit of one weight, whose state is element e of each of its words.
float largest(uvec4 words[WORDS], uint e, int c0)
{
    levels_of lv = find_levels(levels, relative, GRID, c0);
    uint one[WORDS];
    float l[LEVELS], m[LEVELS];
    [[unroll]] for (uint j = 0u; j < WORDS; j++)
        one[j] = words[j][e];
    load_state(lv, one, l, m);
    float best = 0.0, best_level = float(c0);
    bool found = false;
    [[unroll]] for (uint k = 0u; k < LEVELS; k++) {
        bool nearer = abs(lv.d[k] - float(c0)) < abs(best_level - float(c0));
        bool better = lv.valid[k] && (!found || l[k] > best || (l[k] == best && nearer));
        best = better ? l[k] : best;
        best_level = better ? lv.d[k] : best_level;
        found = found || better;
    }
    return best_level;
}

// One invocation per word.
void main()
{
    uint i = item_index(), per_row = ldc, n = cols, n_words = GUMBEL_WORDS(levels), end = rows * n_words * n;
    if (i >= rows * per_row)
        return;
    uint row = i / per_row, col = (i - row * per_row) * 4u, at = row * n_words * n + col;
    uint word = LOAD1(codes, i);
    uvec4 words[WORDS];
    [[unroll]] for (uint j = 0u; j < WORDS; j++)
        words[j] = LOAD4_TO(state, (at + min(j, n_words - 1u) * n) & ~3u, end);
    // Rows that do not start on fours.
    for (uint e = 0u; e < 4u && (n & 3u) != 0u; e++)
        [[unroll]] for (uint j = 0u; j < WORDS; j++)
            words[j][e] = LOAD1(state, at + min(j, n_words - 1u) * n + min(e, n - 1u - col));
    uint result = 0u;
    [[unroll]] for (uint e = 0u; e < 4u; e++)
        result |= col + e < n ? code_to_lane(largest(words, e, code_at(word, e)), e) : 0u;
    codes_out[i] = result;
}
