// What row_scale.glsl is to f16, for operands that reach as far as f32: no scale. To be included below gemm.glsl.
#ifndef NO_SCALE_GLSL
#define NO_SCALE_GLSL

mat4 next[UNITS]; // of the next step

void start_scales()
{
}

mat4 scaled_block(unit x, uint u, uint step_number)
{
    return by_rows(x, next[u]);
}

void tell_inverse(unit units[UNITS])
{
}

float factor_a(uint row)
{
    return 1.0;
}

float factor_b(uint row)
{
    return 1.0;
}

#endif
