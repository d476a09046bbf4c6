#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "quant.glsl"
#include "gumbel.glsl"
#include "gumbel_step.glsl"
#include "lanes.glsl"

READ_WORDS(0, old_state);
layout(set = 0, binding = 1, std430) writeonly buffer State1 { uint state1[]; };
layout(set = 0, binding = 1, std430) writeonly buffer State4 { uvec4 state4[]; };
layout(set = 0, binding = 2, std430) buffer Scales { float scales[]; };
layout(set = 0, binding = 3, std430) buffer Smom { float smom[]; };
READ_WORDS(4, codes);
READ(5, w);
READ(6, grad);
layout(set = 0, binding = 7, std430) buffer Diff1 { float diff1[]; };
layout(set = 0, binding = 7, std430) buffer Diff4 { vec4 diff4[]; };

layout(constant_id = SPEC_COLUMNS) const uint COLUMNS = 256;

shared float partial[COLUMNS / GUMBEL_COLS];
shared float totals[COLUMNS / GUMBEL_COLS];

// Columns col .. col + 3 of a row, `at` being the first's element, of which the first n are there.
#define FOUR(x, at, n, four) \
    (four ? x##_4[(at) >> 2] : vec4(x##_1[at], x##_1[(at) + min(1u, n - 1u)], x##_1[(at) + min(2u, n - 1u)], x##_1[(at) + n - 1u]))
#define FOUR_WORDS(x, at, n, four) \
    (four ? x##_4[(at) >> 2] : uvec4(x##_1[at], x##_1[(at) + min(1u, n - 1u)], x##_1[(at) + min(2u, n - 1u)], x##_1[(at) + n - 1u]))

uint codes_of(uint row_at, uint col, uint n, bool four)
{
    uint word = codes_1[row_at + col / 4u];
    for (uint e = 0u; e < n && !four; e++)
        word = bitfieldInsert(word, codes_1[row_at + (col + e) / 4u] >> 8u * ((col + e) & 3u), int(8u * e), 8);
    return word;
}

void store_diff(uint at, uint n, bool four, vec4 v)
{
    if (four)
        diff4[at >> 2] = v;
    else
        [[unroll]] for (uint e = 0u; e < 4u; e++)
            if (e < n)
                diff1[at + e] = v[e];
}

// The difference from four mean levels.
vec4 difference(vec4 mean, float s, float o, uint at, uint n, bool four)
{
    vec4 soft = s * mean + o;
    if (origin != 0.0)
        soft -= origin * FOUR(w, at, n, four);
    return soft;
}

// A workgroup takes as many groups as it has room for, a power of two of invocations for each and four columns an invocation.
// Of a larger group mean levels wait in diff for the new scale, else in a register.
void main()
{
    uint wg_lanes = COLUMNS / GUMBEL_COLS, lane = gl_LocalInvocationID.x, lanes = 1u;
    while (4u * lanes < group && lanes < wg_lanes)
        lanes *= 2u;
    uint unit = wg_index() * (wg_lanes / lanes) + lane / lanes, mine = lane & (lanes - 1u), n_cols = cols, n_words = GUMBEL_WORDS(levels);
    bool live = unit < rows * groups;
    unit = live ? unit : 0u;
    uint row = unit / groups, g = unit - row * groups;
    uint begin = g * group, end = live ? min(begin + group, n_cols) : begin;
    uint place = scale_place(row, g, groups, offsets), behind = place + groups * offsets;
    bool four = ((n_cols | group) & 3u) == 0u, whole = group <= 4u * lanes;
    float s = scales[place], sum = 0.0, total = 0.0, z = centre();
    vec4 next = vec4(0.0);
    for (uint col = begin + 4u * mine; col < end; col += 4u * lanes) {
        uint n = min(end - col, 4u), at = row * n_cols + col, state_at = row * n_words * n_cols + col;
        vec4 grads = FOUR(grad, at, n, four);
        uint c0 = codes_of(row * ldc, col, n, four);
        uvec4 words[WORDS];
        [[unroll]] for (uint j = 0u; j < WORDS; j++)
            words[j] = j < n_words ? FOUR_WORDS(old_state, state_at + j * n_cols, n, four) : uvec4(0u);
        // One column at a time, its values in x: what comes behind moves up, results follow.
        [[dont_unroll]] for (uint e = 0u; e < 4u; e++) {
            uint state[WORDS];
            [[unroll]] for (uint j = 0u; j < WORDS; j++)
                state[j] = words[j].x;
            float mean, mean1, gr = e < n ? grads.x : 0.0;
            levels_of lv = find_levels(levels, relative, GRID, code_at(c0, 0u));
            mean = step_weight(lv, element_number(row0 + row, n_cols, col + e), s, gr, state, mean1);
            sum += gr * (mean - z);
            total += gr;
            [[unroll]] for (uint j = 0u; j < WORDS; j++)
                words[j] = uvec4(words[j].yzw, state[j]);
            next = vec4(next.yzw, mean1);
            grads = grads.yzwx;
            c0 >>= 8;
        }
        [[unroll]] for (uint j = 0u; j < WORDS; j++)
            if (j < n_words) {
                uint to = state_at + j * n_cols;
                if (four)
                    state4[to >> 2] = words[j];
                else
                    [[unroll]] for (uint e = 0u; e < 4u; e++)
                        if (e < n)
                            state1[to + e] = words[j][e];
            }
        if (!whole)
            store_diff(at, n, four, next);
    }
    partial[lane] = sum;
    totals[lane] = total;
    for (uint half_size = lanes / 2u; half_size > 0u; half_size /= 2u) {
        barrier();
        if (mine < half_size) {
            partial[lane] += partial[lane + half_size];
            totals[lane] += totals[lane + half_size];
        }
    }
    // The group's first lane has both sums.
    if (live && mine == 0u) {
        float m = smom[place], mo = smom[behind], o = offsets != 0u ? scales[behind] : 0.0;
        step_group(s, o, m, mo, partial[lane], totals[lane]);
        scales[place] = s;
        smom[place] = m;
        if (offsets != 0u) {
            scales[behind] = o;
            smom[behind] = mo;
        }
        partial[lane] = s;
        totals[lane] = o;
    }
    barrier();
    s = partial[lane - mine];
    float o = totals[lane - mine];
    for (uint col = begin + 4u * mine; col < end; col += 4u * lanes) {
        uint n = min(end - col, 4u), at = row * n_cols + col;
        if (!whole)
            next = four ? diff4[at >> 2] : vec4(diff1[at], diff1[at + min(1u, n - 1u)], diff1[at + min(2u, n - 1u)], diff1[at + n - 1u]);
        store_diff(at, n, four, difference(next, s, o, at, n, four));
    }
}
