#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "quant.glsl"
#include "gumbel.glsl"

layout(set = 0, binding = 0, std430) writeonly buffer State { uint state[]; };
layout(set = 0, binding = 1, std430) readonly buffer Scales { float scales[]; };
layout(set = 0, binding = 2, std430) writeonly buffer Smom { float smom[]; };
layout(set = 0, binding = 3, std430) readonly buffer Codes { uint codes[]; };
layout(set = 0, binding = 4, std430) readonly buffer W { float w[]; };
layout(set = 0, binding = 5, std430) writeonly buffer Diff { float diff[]; };
layout(push_constant) uniform Push
{
    uint rows, cols, group, groups, ldc, levels, relative;
    int lo, hi;
    uint seed, tensor, row0;
    float tau, kappa, init_noise, init_gap, origin;
    uint offsets;
    GRID_PUSH
};

// Box-Muller.
vec2 normal_pair(uint a, uint b)
{
    float radius = sqrt(max(0.0, -2.0 * log(uniform_of(a))));
    float angle = 6.28318530718 * uniform_of(b) - 3.14159265359;
    return radius * vec2(cos(angle), sin(angle));
}

void main()
{
    uint i = item_index();
    if (i >= rows * cols)
        return;
    uint row = i / cols;
    uint col = i % cols;
    uint n_words = GUMBEL_WORDS(levels), at = row * n_words * cols + col;
    int c0 = code_at(codes[row * ldc + col / 4u], col % 4u);
    levels_of lv = find_levels(levels, relative, GRID, c0);

    uvec2 element = element_number(row0 + row, cols, col);
    uint bits[LEVELS];
    float normal[LEVELS];
    noise_words(element, tensor, NOISE_INIT_A, seed, bits);
    vec2 pair = normal_pair(bits[0], bits[1]);
    normal[0] = pair.x;
    normal[1] = pair.y;
    pair = normal_pair(bits[2], bits[3]);
    normal[2] = pair.x;
    normal[3] = pair.y;
    uint rounding = noise_words(element, tensor, NOISE_INIT_B, seed, bits);
    normal[4] = normal_pair(bits[0], bits[1]).x;

    float l[LEVELS], m[LEVELS];
    [[unroll]] for (uint k = 0u; k < LEVELS; k++) {
        float distance = float(int(lv.start) - int(k)); // in levels
        l[k] = init_noise * (normal[k] - 0.5 * init_gap * distance * distance);
        m[k] = 0.0;
    }
    uint words[WORDS];
    store_state(lv, l, m, rounding, words);
    [[unroll]] for (uint j = 0u; j < WORDS; j++)
        if (j < n_words)
            state[at + j * cols] = words[j];
    uint place = scale_place(row, col / group, groups, offsets);
    float o = offsets != 0u ? scales[place + groups] : 0.0;
    if (col % group == 0u) {
        smom[place] = 0.0;
        if (offsets != 0u)
            smom[place + groups] = 0.0;
    }

    float p[LEVELS];
    noise_words(element, tensor, 0u, seed, bits);
    load_state(lv, words, l, m);
    float soft = scales[place] * soft_level(lv, l, bits, tau, kappa, p) + o;
    diff[i] = from_origin(soft, origin, w[i]);
}
