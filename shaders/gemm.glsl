// What products on GPUs share: operands, and loads of four elements.
#ifndef GEMM_GLSL
#define GEMM_GLSL

layout(set = 0, binding = 0, std430) readonly buffer A { vec4 a[]; };
layout(set = 0, binding = 1, std430) readonly buffer B { vec4 b[]; };
layout(set = 0, binding = 2, std430) readonly buffer Old { float old[]; };
layout(set = 0, binding = 3, std430) writeonly buffer C { float c[]; };
layout(push_constant) uniform Push { uint m, n, k, lda, ldb, ldc; float alpha, beta; };

// Four elements of a row from kk on; zero beyond the matrix. One vec4 load where the row stride allows.
vec4 load_a(uint row, uint kk)
{
    uint at = row * lda + kk;
    if (row < m && kk + 3u < k && (lda & 3u) == 0u)
        return a[at >> 2];
    vec4 v = vec4(0.0);
    [[unroll]] for (uint i = 0u; i < 4u; i++)
        if (row < m && kk + i < k)
            v[i] = a[(at + i) >> 2][(at + i) & 3u];
    return v;
}

vec4 load_b(uint row, uint kk)
{
    uint at = row * ldb + kk;
    if (row < n && kk + 3u < k && (ldb & 3u) == 0u)
        return b[at >> 2];
    vec4 v = vec4(0.0);
    [[unroll]] for (uint i = 0u; i < 4u; i++)
        if (row < n && kk + i < k)
            v[i] = b[(at + i) >> 2][(at + i) & 3u];
    return v;
}

#endif
