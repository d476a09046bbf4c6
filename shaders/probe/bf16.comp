#version 460
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_EXT_bfloat16 : require
layout(local_size_x = 32) in;
layout(set = 0, binding = 0, std430) buffer C { float c[]; };
shared bf16vec4 x[64];
void main()
{
    x[gl_LocalInvocationID.x] = bf16vec4(vec4(c[gl_LocalInvocationID.x]));
    coopmat<bfloat16_t, gl_ScopeSubgroup, 16, 16, gl_MatrixUseA> a;
    coopmat<bfloat16_t, gl_ScopeSubgroup, 16, 16, gl_MatrixUseB> b;
    coopMatLoad(a, x, 0u, 4u, gl_CooperativeMatrixLayoutRowMajor);
    coopMatLoad(b, x, 0u, 4u, gl_CooperativeMatrixLayoutColumnMajor);
    coopmat<float, gl_ScopeSubgroup, 16, 16, gl_MatrixUseAccumulator> s = coopmat<float, gl_ScopeSubgroup, 16, 16, gl_MatrixUseAccumulator>(0.0);
    coopMatStore(coopMatMulAdd(a, b, s), c, 0u, 16u, gl_CooperativeMatrixLayoutRowMajor);
}
