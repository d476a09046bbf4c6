// What attention's kernels for matrix cores share: products of a tile of rows that a workgroup owns with tiles of other rows
// that pass by; operands rounded to f16, sums in f32.
//
// A workgroup owns OWN rows (queries; keys in attn_bwd_kv), four invocations for each, and meets SPAN others at a time, which
// lie in shared memory with all their dimensions; its own pass through in chunks of 32. Products of pairs go through shared
// memory as f32, so that every invocation knows which pairs it has: of row l / 4, the eight others from l % 4 * 8 on.
// Each operand is multiplied by a power of two (half_scale.glsl): that of its own rows is fixed, that of others goes down where a
// tile needs it, and the sums with it.
#ifndef ATTN_COOPMAT_GLSL
#define ATTN_COOPMAT_GLSL

#include "half_scale.glsl"

layout(constant_id = SPEC_SUBGROUP) const uint SUBGROUP = 32;
layout(constant_id = SPEC_TILE) const uint OWN = 64;
layout(constant_id = SPEC_COOPMAT_M) const uint CM = 8; // as defaults what lavapipe has: older validation layers look at these alone
layout(constant_id = SPEC_COOPMAT_N) const uint CN = 8;
layout(constant_id = SPEC_COOPMAT_K) const uint CK = 8;

// CAPPED: a score of scale * q k; SLOPE: what its gradient is multiplied by.
#ifdef CAP
layout(push_constant) uniform Push { uint windows, ctx, heads, kv_heads, dim, sliding; float scale; uint start; float cap; };
#define CAPPED(s) (cap * tanh(clamp((s) / cap, -15.0, 15.0)))
#define SLOPE(s) *(1.0 - CAPPED(s) / cap * (CAPPED(s) / cap))
#else
layout(push_constant) uniform Push { uint windows, ctx, heads, kv_heads, dim, sliding; float scale; uint start; };
#define CAPPED(s) s
#define SLOPE(s)
#endif

const uint SPAN = 32u, HEAD = 128u, CHUNK = 32u;
// Of rows in shared memory: in fours of f16, and of f32.
const uint OWN_STRIDE = CHUNK / 4u + 2u, OTHER_STRIDE = HEAD / 4u + 2u, WEIGHT_STRIDE = SPAN / 4u + 2u, PAIR_STRIDE = SPAN + 4u;
const uint COUNT = gl_WorkGroupSize.x / SUBGROUP;
// Tiles of the pairs; all subgroups share them out.
const uint PAIR_COLS = SPAN / CN, PAIR_TILES = OWN / CM * PAIR_COLS, PAIRS_EACH = (PAIR_TILES + COUNT - 1u) / COUNT;
// Tiles of the sums, OWN x HEAD: a subgroup has those of one row of tiles, in every SUM_STEP'th column.
const uint SUM_ROWS = OWN / CM, SUM_STEP = COUNT / SUM_ROWS, SUMS_EACH = HEAD / CN / SUM_STEP;
const uint OTHER_LOADS = SPAN * HEAD / 4u / gl_WorkGroupSize.x, OWN_LOADS = OWN * CHUNK / 4u / gl_WorkGroupSize.x;

shared f16vec4 own_s[OWN * OWN_STRIDE];
shared f16vec4 other_s[SPAN * OTHER_STRIDE];
shared f16vec4 weight_s[OWN * WEIGHT_STRIDE];
shared float pair_s[OWN * PAIR_STRIDE > COUNT * CM * CN ? OWN * PAIR_STRIDE : COUNT * CM * CN];
shared float most[COUNT];

#define SUM coopmat<float, gl_ScopeSubgroup, CM, CN, gl_MatrixUseAccumulator>
#define LEFT coopmat<float16_t, gl_ScopeSubgroup, CM, CK, gl_MatrixUseA>
#define RIGHT coopmat<float16_t, gl_ScopeSubgroup, CK, CN, gl_MatrixUseB>

// Of the workgroup; invocations l to l + 3 of a row are in one subgroup.
uint lane()
{
    return gl_SubgroupID * SUBGROUP + gl_SubgroupInvocationID;
}

// The largest of the workgroup; a barrier.
float top_of_all(float top)
{
    top = subgroupMax(top);
    if (subgroupElect())
        most[gl_SubgroupID] = top;
    barrier();
    [[unroll]] for (uint i = 0u; i < COUNT; i++)
        top = max(top, most[i]);
    return top;
}

// Four dimensions from d on of the row at `pos`; zero past the window and the head, whose size is a multiple of 8.
#define LOAD4(src, base, stride, pos, d)                                                                               \
    ((pos) < ctx && (d) < dim ? src[((base) + (pos) * (stride) + (d)) >> 2] : vec4(0.0))

// Where an invocation's part of a tile of rows starts that is `fours` wide: it goes on by whole rows.
#define PLACE(row, four, fours) uint row = lane() / (fours), four = lane() % (fours);

// out = the largest number of a tile of other rows.
#define TOP_OF_OTHERS(out, src, base, stride, row0)                                                                    \
    float out = 0.0;                                                                                                   \
    {                                                                                                                  \
        PLACE(r_, c_, HEAD / 4u)                                                                                       \
        [[unroll]] for (uint i = 0u; i < OTHER_LOADS; i++)                                                             \
            out = max(out, largest(LOAD4(src, base, stride, (row0) + r_ + i * (SPAN / OTHER_LOADS), c_ * 4u)));        \
    }

// other_s = that tile, times `factor`; it is in the cache now, and registers are scarce on Arc, hence a loop.
#define STAGE_OTHERS(src, base, stride, row0, factor)                                                                  \
    {                                                                                                                  \
        PLACE(r_, c_, HEAD / 4u)                                                                                       \
        [[dont_unroll]] for (uint i = 0u; i < OTHER_LOADS; i++)                                                             \
            other_s[r_ * OTHER_STRIDE + c_ + i * (SPAN / OTHER_LOADS) * OTHER_STRIDE] = f16vec4(                       \
                LOAD4(src, base, stride, (row0) + r_ + i * (SPAN / OTHER_LOADS), c_ * 4u) * (factor));                 \
    }

// The power of two for its own rows.
#define OWN_SCALE(out, src, base, stride, row0)                                                                        \
    float out = 0.0;                                                                                                   \
    [[dont_unroll]] for (uint e_ = lane(); e_ < OWN * (HEAD / 4u); e_ += gl_WorkGroupSize.x)                           \
        out = max(out, largest(LOAD4(src, base, stride, (row0) + e_ / (HEAD / 4u), e_ % (HEAD / 4u) * 4u)));           \
    out = top_of_all(out);                                                                                             \
    out = out > 0.0 ? scale_to(out, 32768.0) : 1.0;                                                                    \
    barrier();

void add_pairs(uint d0, inout SUM s[PAIRS_EACH])
{
    [[dont_unroll]] for (uint kk = 0u; kk < CHUNK; kk += CK)
        [[unroll]] for (uint i = 0u; i < PAIRS_EACH; i++) {
            uint tile = gl_SubgroupID + i * COUNT;
            if (tile < PAIR_TILES) {
                LEFT a;
                RIGHT b;
                coopMatLoad(a, own_s, tile / PAIR_COLS * CM * OWN_STRIDE + kk / 4u, OWN_STRIDE, gl_CooperativeMatrixLayoutRowMajor);
                coopMatLoad(b, other_s, tile % PAIR_COLS * CN * OTHER_STRIDE + (d0 + kk) / 4u, OTHER_STRIDE,
                            gl_CooperativeMatrixLayoutColumnMajor);
                s[i] = coopMatMulAdd(a, b, s[i]);
            }
        }
}

void store_pairs(SUM s[PAIRS_EACH])
{
    [[unroll]] for (uint i = 0u; i < PAIRS_EACH; i++) {
        uint tile = gl_SubgroupID + i * COUNT;
        if (tile < PAIR_TILES)
            coopMatStore(s[i], pair_s, tile / PAIR_COLS * CM * PAIR_STRIDE + tile % PAIR_COLS * CN, PAIR_STRIDE,
                         gl_CooperativeMatrixLayoutRowMajor);
    }
}

// pair_s = products of its own rows of src, from row0 on and times `factor`, with the staged ones; ends with a barrier.
#define PAIRS(src, base, stride, row0, factor)                                                                         \
    {                                                                                                                  \
        SUM s_[PAIRS_EACH];                                                                                            \
        [[unroll]] for (uint i = 0u; i < PAIRS_EACH; i++)                                                              \
            s_[i] = SUM(0.0);                                                                                          \
        [[dont_unroll]] for (uint d0 = 0u; d0 < dim; d0 += CHUNK) {                                                    \
            PLACE(r_, c_, CHUNK / 4u)                                                                                  \
            [[unroll]] for (uint i = 0u; i < OWN_LOADS; i++)                                                           \
                own_s[r_ * OWN_STRIDE + c_ + i * (OWN / OWN_LOADS) * OWN_STRIDE] = f16vec4(                            \
                    LOAD4(src, base, stride, (row0) + r_ + i * (OWN / OWN_LOADS), d0 + c_ * 4u) * (factor));           \
            barrier();                                                                                                 \
            add_pairs(d0, s_);                                                                                         \
            barrier();                                                                                                 \
        }                                                                                                              \
        store_pairs(s_);                                                                                               \
        barrier();                                                                                                     \
    }

// Weights of the row l / 4 and the eight others from l % 4 * 8 on, times `factor`.
void put_weights(float w[8], float factor)
{
    uint to = lane() / 4u * WEIGHT_STRIDE + lane() % 4u * 2u;
    weight_s[to] = f16vec4(vec4(w[0], w[1], w[2], w[3]) * factor);
    weight_s[to + 1u] = f16vec4(vec4(w[4], w[5], w[6], w[7]) * factor);
}

uint sum_row()
{
    return gl_SubgroupID % SUM_ROWS * CM;
}

// The first dimension of this subgroup's tile i of sums.
uint sum_col(uint i)
{
    return (gl_SubgroupID / SUM_ROWS + i * SUM_STEP) * CN;
}

// sum += weight_s times the staged rows.
void add_others(inout SUM sum[SUMS_EACH])
{
    [[dont_unroll]] for (uint kk = 0u; kk < SPAN; kk += CK) {
        LEFT a;
        coopMatLoad(a, weight_s, sum_row() * WEIGHT_STRIDE + kk / 4u, WEIGHT_STRIDE, gl_CooperativeMatrixLayoutRowMajor);
        [[unroll]] for (uint i = 0u; i < SUMS_EACH; i++)
            if (sum_col(i) < dim) {
                RIGHT b;
                coopMatLoad(b, other_s, kk * OTHER_STRIDE + sum_col(i) / 4u, OTHER_STRIDE, gl_CooperativeMatrixLayoutRowMajor);
                sum[i] = coopMatMulAdd(a, b, sum[i]);
            }
    }
}

// From the scale that the sums have (0: nothing is summed yet) to a new one.
float change(float was, float now)
{
    return was != 0.0 ? now / was : 1.0;
}

void rescale(inout SUM sum[SUMS_EACH], float by)
{
    if (by != 1.0) {
        [[unroll]] for (uint i = 0u; i < SUMS_EACH; i++)
            sum[i] = sum[i] * by;
    }
}

// put(place, number) of all rows from row0 on: factor of each row (an expression of its number `row`) times the sums.
#define STORE_SUMS(put, sum, base, stride, row0, factor)                                                               \
    [[unroll]] for (uint i = 0u; i < SUMS_EACH; i++) {                                                                 \
        coopMatStore(sum[i], pair_s, gl_SubgroupID * CM * CN, CN, gl_CooperativeMatrixLayoutRowMajor);                 \
        subgroupMemoryBarrierShared();                                                                                 \
        subgroupBarrier();                                                                                             \
        [[unroll]] for (uint n_ = 0u; n_ < CM * CN / SUBGROUP; n_++) {                                                 \
            uint e_ = gl_SubgroupInvocationID + n_ * SUBGROUP;                                                         \
            uint row = sum_row() + e_ / CN, d_ = sum_col(i) + e_ % CN;                                                 \
            if ((row0) + row < ctx && d_ < dim) {                                                                      \
                float x_ = (factor)*pair_s[gl_SubgroupID * CM * CN + e_];                                              \
                put((base) + ((row0) + row) * (stride) + d_, x_);                                                      \
            }                                                                                                          \
        }                                                                                                              \
        subgroupBarrier();                                                                                             \
    }

// Whether the query at `pos` sees the key at `key`.
bool sees(uint pos, uint key)
{
    return key <= pos && pos < ctx && (sliding == 0u || key + sliding > pos);
}

#endif
