// What attention's kernels for GPUs share: products of a tile of rows that a workgroup owns with tiles of other rows that pass
// by, all in f32.
//
// A workgroup owns OWN rows (queries; keys in attn_bwd_kv), and has four invocations for each. As (ty, tx), tx below 16, one
// has the rows ty*4 .. ty*4+3; of a tile of SPAN other rows the pairs with rows tx, tx+16, ...; of sums over those
// rows the dimensions tx*4 .. tx*4+3 of every 64. So 8 numbers of 16 bytes from shared memory are 64 multiply-adds of a pair's
// product (SPAN 64), and 3 are 32 of a sum (heads of 128).
//
// DIM: heads of this size only, whose rows are loaded by 16 bytes. Without: any even size up to HEAD_MAX.
#ifndef ATTN_TILE_GLSL
#define ATTN_TILE_GLSL

#ifdef DIM
#define dim uint(DIM)
#define NUMBERS vec4
#else
#define dim dim_of_head
#define NUMBERS vec2
#endif
#ifdef HEAD_MAX
#define HEAD HEAD_MAX
#elif defined(DIM)
#define HEAD uint(DIM)
#else
#define HEAD HEAD_DIM_MAX
#endif

layout(constant_id = SPEC_TILE) const uint OWN = 32;
const uint WIDE = uint(SPAN) / 16u;            // other rows of an invocation
const uint PARTS = HEAD / 64u;                 // 4 dimensions of each 64 are an invocation's
const uint CHUNK = 8u, CHUNK_STRIDE = 9u;      // pairs: so many 4 dimensions of each row are in shared memory at a time
const uint ROW = HEAD / 4u, ROWS = 512u / ROW; // sums: so many whole rows of so many 4 dimensions
const uint PAIRS_SIZE = (OWN + uint(SPAN)) * CHUNK_STRIDE;
const uint WEIGHT_STRIDE = OWN / 4u + 1u;

// A score of a product of q and k, and what its gradient is multiplied by.
#ifdef CAP
layout(push_constant) uniform Push { uint windows, ctx, heads, kv_heads, dim_of_head, sliding; float scale; uint start; float cap; };
#define SCORE(s) (cap * tanh(clamp((s) * scale / cap, -15.0, 15.0)))
#define SLOPE(s) *(1.0 - SCORE(s) / cap * (SCORE(s) / cap))
#else
layout(push_constant) uniform Push { uint windows, ctx, heads, kv_heads, dim_of_head, sliding; float scale; uint start; };
#define SCORE(s) (s) * scale
#define SLOPE(s)
#endif

shared vec4 stage[PAIRS_SIZE > 512u ? PAIRS_SIZE : 512u];
shared vec4 weights[uint(SPAN) * WEIGHT_STRIDE]; // of other row j and the four own rows of ty: [j * WEIGHT_STRIDE + ty]

// Four dimensions from d on of the row at `at`.
#ifdef DIM
#define LOAD4(src, at, d) src[((at) + (d)) >> 2]
#define IN_HEAD(d) true
#else
#define IN_HEAD(d) ((d) < dim)
#define LOAD4(src, at, d) vec4(src[((at) + (d)) >> 1], (d) + 2u < dim ? src[(((at) + (d)) >> 1) + 1u] : vec2(0.0))
#endif

// stage[to + r * CHUNK_STRIDE + c] = dimensions from d0 + 4 c on of n rows from row0 on; zero past the window and the head.
#define STAGE_CHUNK(to, n, src, base, stride, row0, d0)                                                                \
    for (uint e_ = gl_LocalInvocationID.x; e_ < (n)*CHUNK; e_ += gl_WorkGroupSize.x) {                                 \
        uint pos_ = (row0) + e_ / CHUNK, d_ = (d0) + e_ % CHUNK * 4u;                                                  \
        stage[(to) + e_ / CHUNK * CHUNK_STRIDE + e_ % CHUNK] =                                                         \
            pos_ < ctx && IN_HEAD(d_) ? LOAD4(src, (base) + pos_ * (stride), d_) : vec4(0.0);                             \
    }

// stage[r * ROW + c] = dimensions from d0 + 4 c on of ROWS rows from row0 on.
#define STAGE_ROWS(src, base, stride, row0, d0)                                                                        \
    for (uint e_ = gl_LocalInvocationID.x; e_ < ROWS * ROW; e_ += gl_WorkGroupSize.x) {                                \
        uint pos_ = (row0) + e_ / ROW, d_ = (d0) + e_ % ROW * 4u;                                                      \
        stage[e_] = pos_ < ctx && IN_HEAD(d_) ? LOAD4(src, (base) + pos_ * (stride), d_) : vec4(0.0);                     \
    }

uint own_row()
{
    return gl_LocalInvocationID.x / 16u * 4u;
}

uint other_row()
{
    return gl_LocalInvocationID.x % 16u;
}

// s[i][h] += products of own row i and other row tx + 16 h over a chunk of dimensions.
void add_pairs(inout float s[4][WIDE])
{
    uint own = own_row() * CHUNK_STRIDE, other = (OWN + other_row()) * CHUNK_STRIDE;
    [[dont_unroll]] for (uint d = 0u; d < CHUNK; d++) {
        vec4 b[WIDE];
        [[unroll]] for (uint h = 0u; h < WIDE; h++)
            b[h] = stage[other + h * 16u * CHUNK_STRIDE + d];
        [[unroll]] for (uint i = 0u; i < 4u; i++) {
            vec4 a = stage[own + i * CHUNK_STRIDE + d];
            [[unroll]] for (uint h = 0u; h < WIDE; h++) {
                s[i][h] += a.x * b[h].x;
                s[i][h] += a.y * b[h].y;
                s[i][h] += a.z * b[h].z;
                s[i][h] += a.w * b[h].w;
            }
        }
    }
}

// s = products of OWN rows of `own_src` from own0 on and SPAN rows of `other_src` from other0 on.
#define PAIRS(s, own_src, own_base, own_stride, own0, other_src, other_base, other_stride, other0)                     \
    [[unroll]] for (uint i = 0u; i < 4u; i++)                                                                          \
        [[unroll]] for (uint h = 0u; h < WIDE; h++)                                                                    \
            s[i][h] = 0.0;                                                                                             \
    [[dont_unroll]] for (uint d0 = 0u; d0 < dim; d0 += CHUNK * 4u) {                                                   \
        barrier();                                                                                                     \
        STAGE_CHUNK(0u, OWN, own_src, own_base, own_stride, own0, d0)                                                  \
        STAGE_CHUNK(OWN * CHUNK_STRIDE, uint(SPAN), other_src, other_base, other_stride, other0, d0)                   \
        barrier();                                                                                                     \
        add_pairs(s);                                                                                                  \
    }

// sum[i][part] += weights of own row i times the ROWS other rows in `stage`, which are from j0 on.
void add_rows(uint j0, uint d0, inout vec4 sum[4][PARTS])
{
    uint ty = gl_LocalInvocationID.x / 16u, tx = gl_LocalInvocationID.x % 16u;
    [[dont_unroll]] for (uint j = 0u; j < ROWS; j++) {
        vec4 w = weights[(j0 + j) * WEIGHT_STRIDE + ty];
        [[unroll]] for (uint part = 0u; part < PARTS; part++)
            if (IN_HEAD(d0 + part * 64u)) {
                vec4 x = stage[j * ROW + part * 16u + tx];
                [[unroll]] for (uint i = 0u; i < 4u; i++)
                    sum[i][part] += w[i] * x;
            }
    }
}

// sum += weights times the rows of src from row0 on, as far as `end`, dimensions d0 to d0 + HEAD.
#define ADD_ROWS(sum, src, base, stride, row0, end, d0)                                                                \
    [[dont_unroll]] for (uint j0 = 0u; j0 < uint(SPAN) && (row0) + j0 < (end); j0 += ROWS) {                           \
        barrier();                                                                                                     \
        STAGE_ROWS(src, base, stride, (row0) + j0, d0)                                                                 \
        barrier();                                                                                                     \
        add_rows(j0, d0, sum);                                                                                         \
    }

#define CLEAR(sum)                                                                                                     \
    [[unroll]] for (uint i = 0u; i < 4u; i++)                                                                          \
        [[unroll]] for (uint part = 0u; part < PARTS; part++)                                                          \
            sum[i][part] = vec4(0.0);

// Own row i's four dimensions of each part, times factor[i], to the row at base + (row0 + i) * stride of dst.
#ifdef DIM
#define STORE4(dst, at, d, x) dst[((at) + (d)) >> 2] = x;
#else
#define STORE4(dst, at, d, x)                                                                                          \
    {                                                                                                                  \
        dst[((at) + (d)) >> 1] = (x).xy;                                                                               \
        if ((d) + 2u < dim)                                                                                            \
            dst[(((at) + (d)) >> 1) + 1u] = (x).zw;                                                                    \
    }
#endif
#define STORE_ROWS(dst, sum, factor, base, stride, row0, d0)                                                           \
    [[unroll]] for (uint i = 0u; i < 4u; i++)                                                                          \
        [[unroll]] for (uint part = 0u; part < PARTS; part++) {                                                        \
            uint pos_ = (row0) + own_row() + i, d_ = (d0) + part * 64u + other_row() * 4u;                             \
            if (pos_ < ctx && IN_HEAD(d_))                                                                               \
                STORE4(dst, (base) + pos_ * (stride), d_, sum[i][part] * factor[i])                                    \
        }

// Whether the query at `pos` sees the key at `key`.
bool sees(uint pos, uint key)
{
    return key <= pos && (sliding == 0u || key + sliding > pos);
}

#endif
