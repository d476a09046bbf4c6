#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_samplerless_texture_functions : require
#include "common.glsl"
#include "quant.glsl"
#include "gumbel.glsl"
#include "gumbel_step.glsl"
#include "texel.glsl"

layout(set = 0, binding = 0) uniform utextureBuffer old_state;
layout(set = 0, binding = 1, std430) writeonly buffer State { uvec4 state[]; };
layout(set = 0, binding = 2, std430) buffer Scales { float scales[]; };
layout(set = 0, binding = 3, std430) buffer Smom { float smom[]; };
layout(set = 0, binding = 4) uniform utextureBuffer codes;
layout(set = 0, binding = 5) uniform textureBuffer w;
layout(set = 0, binding = 6) uniform textureBuffer grad;
layout(set = 0, binding = 7, std430) buffer Diff { vec4 diff[]; };

// The next step's mean levels wait for the group's new scale: in private memory as far as it goes, else in diff, which is
// slow to read.
const uint KEPT = 32u;

vec4 from_origin4(vec4 soft, vec4 w4)
{
    return origin == 0.0 ? soft : soft - origin * w4;
}

// One invocation per (row, group).
void main()
{
    uint unit = item_index(), n_cols = cols, n_levels = levels, n_words = GUMBEL_WORDS(levels);
    if (unit >= rows * groups)
        return;
    uint row = unit / groups;
    uint begin = (unit % groups) * group;
    uint end = min(begin + group, n_cols);
    uint at0 = row * n_cols, state0 = at0 * n_words, codes0 = row * ldc;
    uint place = scale_place(row, unit % groups, groups, offsets), behind = place + groups * offsets;
    float s = scales[place], o = offsets != 0u ? scales[behind] : 0.0;
    float sum = 0.0, total = 0.0, z = centre();

    // Four columns at a time where groups and rows start on texels, one where not.
    bool four = ((n_cols | group) & 3u) == 0u;
    bool kept = group <= 4u * KEPT;
    vec4 means[KEPT];
    for (uint col = begin; col < end && four; col += 4u) {
        uvec4 words = texelFetch(codes, int((codes0 + col / 4u) >> 2));
        uint pos = (codes0 + col / 4u) & 3u;
        uint word = pos == 0u ? words.x : pos == 1u ? words.y : pos == 2u ? words.z : words.w;
        vec4 g = TEXEL4(grad, at0 + col), next;
        uvec4 of[WORDS];
        [[unroll]] for (uint j = 0u; j < WORDS; j++)
            of[j] = TEXEL4(old_state, state0 + min(j, n_words - 1u) * n_cols + col);
        [[unroll]] for (uint e = 0u; e < 4u; e++) {
            uint one[WORDS];
            float n;
            [[unroll]] for (uint j = 0u; j < WORDS; j++)
                one[j] = j < n_words ? of[j][e] : 0u;
            levels_of lv = find_levels(n_levels, relative, GRID, code_at(word, e));
            sum += g[e] * (step_weight(lv, element_number(row0 + row, n_cols, col + e), s, g[e], one, n) - z);
            total += g[e];
            [[unroll]] for (uint j = 0u; j < WORDS; j++)
                of[j][e] = one[j];
            next[e] = n;
        }
        [[unroll]] for (uint j = 0u; j < WORDS; j++)
            if (j < n_words)
                state[(state0 + j * n_cols + col) >> 2] = of[j];
        means[min((col - begin) / 4u, KEPT - 1u)] = next;
        if (!kept)
            diff[(at0 + col) >> 2] = next;
    }
    for (uint col = begin; col < end && !four; col++) {
        uvec4 words = texelFetch(codes, int((codes0 + col / 4u) >> 2));
        uint pos = (codes0 + col / 4u) & 3u;
        uint word = pos == 0u ? words.x : pos == 1u ? words.y : pos == 2u ? words.z : words.w;
        float g = TEXEL1(grad, at0 + col), next;
        uint one[WORDS];
        [[unroll]] for (uint j = 0u; j < WORDS; j++)
            one[j] = j < n_words ? TEXEL1(old_state, state0 + min(j, n_words - 1u) * n_cols + col) : 0u;
        levels_of lv = find_levels(n_levels, relative, GRID, code_at(word, col & 3u));
        sum += g * (step_weight(lv, element_number(row0 + row, n_cols, col), s, g, one, next) - z);
        total += g;
        [[unroll]] for (uint j = 0u; j < WORDS; j++)
            if (j < n_words) {
                uint at = state0 + j * n_cols + col;
                state[at >> 2][at & 3u] = one[j];
            }
        uint at = at0 + col;
        diff[at >> 2][at & 3u] = next;
    }

    float m = smom[place], mo = smom[behind];
    step_group(s, o, m, mo, sum, total);
    scales[place] = s;
    smom[place] = m;
    if (offsets != 0u) {
        scales[behind] = o;
        smom[behind] = mo;
    }
    for (uint i = 0u; begin + 4u * i < end && four && kept; i++)
        diff[((at0 + begin) >> 2) + i] = from_origin4(s * means[i] + o, TEXEL4(w, at0 + begin + 4u * i));
    for (uint at = at0 + begin; at < at0 + end && four && !kept; at += 4u)
        diff[at >> 2] = from_origin4(s * diff[at >> 2] + o, TEXEL4(w, at));
    for (uint at = at0 + begin; at < at0 + end && !four; at++)
        diff[at >> 2][at & 3u] = from_origin(s * diff[at >> 2][at & 3u] + o, origin, TEXEL1(w, at));
}
