// Powers of two that bring numbers into f16's range, 6e-8 to 65504, which neither activations nor gradients keep to.
#ifndef HALF_SCALE_GLSL
#define HALF_SCALE_GLSL

float largest(vec4 v)
{
    v = abs(v);
    return max(max(v.x, v.y), max(v.z, v.w));
}

// The power of two that brings numbers up to `top` (not 0) below `room`, a power of two itself, and no lower than half of it.
float scale_to(float top, float room)
{
    uint e = floatBitsToUint(room) + (126u << 23) - (floatBitsToUint(top) & 0x7F800000u);
    return uintBitsToFloat(clamp(e, 1u << 23, 254u << 23));
}

// The scale for a step whose largest number is `top`: what it was, unless there was none (0), or it would overflow.
float next_scale(float was, float top)
{
    if (!(top > 0.0))
        return was;
    return was == 0.0 ? scale_to(top, 4096.0) : top * was < 32768.0 ? was : scale_to(top, 32768.0);
}

#endif
