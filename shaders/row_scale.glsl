// Operands in f16 with a power of two for each of their rows: what one token, channel or unit holds of 1e5 takes no bits from the
// others. To be included below gemm.glsl, which ALONG_K=1 lets share a row out to neighbouring invocations. ROOM_FIRST, ROOM: what a
// row's largest number stays below in the first step along k that has one, and in later ones; where one would be larger
// still, the row's scale falls, and the sums of that row with it.
#ifndef ROW_SCALE_GLSL
#define ROW_SCALE_GLSL

#include "half_scale.glsl"

const uint SHARERS = TILE_K / 4u; // invocations that have a row's blocks
const float SCALE_START = 85070591730234615865843651857942052864.0; // 2^126, of rows of nothing but zeros so far

mat4 next[UNITS];   // of the next step
vec4 scales[UNITS]; // of the rows of a block

shared vec4 factors[(TILE_M + TILE_N) / 4u]; // by which the scales of A's rows and of B's fell; in the end one over the scales
shared uint fell_in;                         // the last step in which one did, from 1 on

float factor_a(uint row)
{
    return factors[row / 4u][row % 4u];
}

float factor_b(uint row)
{
    return factors[(TILE_M + row) / 4u][row % 4u];
}

void start_scales()
{
    if (gl_LocalInvocationID.x == 0u)
        fell_in = 0u;
    [[unroll]] for (uint u = 0u; u < UNITS; u++)
        scales[u] = vec4(SCALE_START);
}

// A block of the next step, by rows and scaled. There is a barrier before it and one behind it in every step.
mat4 scaled_block(unit x, uint u, uint step_number)
{
    mat4 v = by_rows(x, next[u]);
    vec4 top = vec4(largest(v[0]), largest(v[1]), largest(v[2]), largest(v[3])), fall = vec4(1.0);
    [[unroll]] for (uint s = 1u; s < SHARERS; s *= 2u)
        top = max(top, subgroupShuffleXor(top, s));
    bvec4 falls = greaterThanEqual(top * scales[u], vec4(ROOM));
    if (any(falls)) {
        fell_in = step_number;
        [[unroll]] for (uint i = 0u; i < 4u; i++) {
            float was = scales[u][i], now = scale_to(top[i], was == SCALE_START ? ROOM_FIRST : ROOM);
            scales[u][i] = falls[i] ? now : was;
            fall[i] = falls[i] ? now / was : 1.0;
        }
    }
    factors[((x.of_a ? 0u : TILE_M) + x.row) / 4u] = fall;
    [[unroll]] for (uint i = 0u; i < 4u; i++)
        v[i] *= scales[u][i];
    return v;
}

// To be asked behind the second barrier: whether `factors` are to be applied to the sums.
bool scales_fell(uint step_number)
{
    return fell_in == step_number;
}

// From here on `factors` are what makes the sums those of the operands as they were.
void tell_inverse(unit units[UNITS])
{
    barrier();
    [[unroll]] for (uint u = 0u; u < UNITS; u++)
        factors[((units[u].of_a ? 0u : TILE_M) + units[u].row) / 4u] = 1.0 / scales[u];
    barrier();
}

#endif
