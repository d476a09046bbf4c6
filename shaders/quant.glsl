// Codes and scales: what the quantization kernels agree on. Codes are int8, four to a word.
#ifndef QUANT_GLSL
#define QUANT_GLSL

// Scales are [rows, groups], or [rows, 2, groups] where offsets is 1: a row's scales, then its offsets, w = code * s + o.
// Place of a group's scale; its offset lies `groups` after it.
uint scale_place(uint row, uint g, uint groups, uint offsets)
{
    return row * (groups << offsets) + g;
}

// A scale as it will be stored: rounded to scale_type, finite, and not zero unless it was. Subnormal halves are allowed:
// a coarse scale is better than none. Clamping to numbers of the type first keeps the rounding inside its range.
float storable_scale(float s, uint scale_type)
{
    float least = scale_type == STORED_F16 ? 5.9604644775390625e-8 : 1.17549435e-38;
    float most = scale_type == STORED_F16 ? 65504.0 : scale_type == STORED_BF16 ? 3.38953139e38 : 3.40282347e38;
    float a = round_to_scale_type(clamp(abs(s), least, most), scale_type);
    return s == 0.0 ? 0.0 : s < 0.0 ? -a : a;
}

// 1 / s; a scale of zero gives code 0 everywhere.
float inverse_scale(float s)
{
    return s == 0.0 ? 0.0 : 1.0 / s;
}

float quantized_level(float w, float inverse, float lo, float hi)
{
    return clamp(roundEven(w * inverse), lo, hi);
}

int code_at(uint word, uint lane)
{
    return bitfieldExtract(int(word), int(8u * lane), 8);
}

uint code_to_lane(float level, uint lane)
{
    return (uint(int(level)) & 0xffu) << (8u * lane);
}

#endif
