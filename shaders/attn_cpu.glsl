// Rows of heads for the attention kernels on a CPU device; `dim_` is the shader's copy of the number of dimensions.
#ifndef ATTN_CPU_GLSL
#define ATTN_CPU_GLSL

// Four dimensions from d on of the row at `at`; zero beyond the head. Texels that rows start on:
#define LOAD_ALIGNED(buf, at, d) \
    mix(vec4(0.0), texelFetch(buf, int(((at) + min(d, max(dim_, 4u) - 4u)) >> 2)), bvec4((d) < dim_))
// Rows that start within one (the number of dimensions is even, so that halves need not be told apart):
vec4 join(vec4 t0, vec4 t1, uint at, uint left)
{
    vec4 v = (at & 2u) == 0u ? t0 : vec4(t0.zw, t1.xy);
    return vec4(v.xy, left > 2u ? v.zw : vec2(0.0));
}
#define LOAD_ANY(buf, at, d)                                                                       \
    mix(vec4(0.0),                                                                                 \
        join(texelFetch(buf, int(((at) + min(d, dim_ - 2u)) >> 2)),                                \
             texelFetch(buf, int(((at) + min((d) + 3u, dim_ - 1u)) >> 2)), (at) + (d), dim_ - (d)), \
        bvec4((d) < dim_))

// Four dimensions into the vec4 view `buf` or, where rows start within a texel, the vec2 view `buf2` of a buffer.
#define STORE_ALIGNED(buf, buf2, at, d, x) buf[((at) + (d)) >> 2] = x
#define STORE_ANY(buf, buf2, at, d, x)                 \
    {                                                  \
        vec4 x_ = x;                                   \
        buf2[((at) + (d)) >> 1] = x_.xy;               \
        if ((d) + 2u < dim_)                           \
            buf2[(((at) + (d)) >> 1) + 1u] = x_.zw;    \
    }

#endif
