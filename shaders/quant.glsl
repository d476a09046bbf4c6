// Codes and scales: what the quantization kernels agree on. Codes are int8, four to a word.
#ifndef QUANT_GLSL
#define QUANT_GLSL

#extension GL_EXT_control_flow_attributes : require

// GRID: which codes there are, as functions take it: all integers lo .. hi, or in kernels called NAME_uneven (LEVEL_TABLE) the
// levels of a table, int8 ascending, the last one repeated where they are fewer than TABLE_LEVELS. A code is its level, so w = code *
// s + o in both: only who chooses a level asks for the table. GRID_PUSH ends the push constants of those.
#ifdef LEVEL_TABLE
#define GRID      uvec4(table0, table1, table2, table3)
#define GRID_PUSH uint table0, table1, table2, table3;
#else
#define GRID lo, hi
#define GRID_PUSH
#endif

// Scales are [rows, groups], or [rows, 2, groups] where offsets is 1: a row's scales, then its offsets, w = code * s + o.
// Place of a group's scale; its offset lies `groups` after it.
uint scale_place(uint row, uint g, uint groups, uint offsets)
{
    return row * (groups << offsets) + g;
}

// Scales in a byte, without a sign (formats/quant_type.h).
float byte_scale(float s, uint scale_type)
{
    if (s == 0.0)
        return 0.0;
    bool power = scale_type == STORED_E8M0;
    s = clamp(s, power ? 1.17549435e-38 : 0.0009765625, power ? 2.12676479e37 : 224.0);
    if (power)
        return uintBitsToFloat((floatBitsToUint(s) + 0x7fffffu) & 0x7f800000u);
    // Three bits behind the first; below 2^-7 steps stay.
    uint step = max(floatBitsToUint(s) & 0x7f800000u, 120u << 23) - (3u << 23);
    return roundEven(s * uintBitsToFloat((254u << 23) - step)) * uintBitsToFloat(step);
}

// A scale as it will be stored: rounded to scale_type, finite, and not zero unless it was. Subnormal halves are allowed:
// a coarse scale is better than none. Clamping to numbers of the type first keeps the rounding inside its range.
float storable_scale(float s, uint scale_type)
{
    if (scale_type >= STORED_E8M0)
        return byte_scale(s, scale_type);
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

float nearest_level(float x, int lo, int hi)
{
    return clamp(roundEven(x), float(lo), float(hi));
}

int table_level(uvec4 table, uint place)
{
    return bitfieldExtract(int(table[place >> 2]), int(8u * (place & 3u)), 8);
}

// Halfway between two the lower one.
float nearest_level(float x, uvec4 table)
{
    float last = float(table_level(table, 0u)), level = last;
    [[unroll]] for (uint k = 1u; k < TABLE_LEVELS; k++) {
        float next = float(table_level(table, k));
        level = 2.0 * x > last + next ? next : level;
        last = next;
    }
    return level;
}

// How many levels are below it.
uint table_place(uvec4 table, int code)
{
    uint place = 0u;
    [[unroll]] for (uint k = 0u; k < TABLE_LEVELS; k++)
        place += table_level(table, k) < code ? 1u : 0u;
    return place;
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
