// The Gumbel-Softmax model of a weight (docs/method.md 2; arXiv 2604.18556): its levels, its noise, its state, its soft value.
// Shared by gumbel_init, gumbel_step and gumbel_codes; tests/ref/ref_quant.c is the same in C.
//
// Levels: absolute (relative = 0) d_k = lo + k; relative d_k = c0 + k - 2 around the start code c0, those outside
// [lo, hi] masked; of a table (quant.glsl) its five levels around the start code's, those beyond its ends masked. At most LEVELS of them. A variant with DEFINES LEVEL_COUNT=n is for calls of n absolute levels alone.
//
// State: of each level but the start code's, in state[rows, GUMBEL_WORDS(levels), cols]. A softmax knows its logits'
// differences only, and the gradients of a weight's logits add up to 0: logits are counted from the start code's, and its
// momentum is what the others lack.
#ifndef GUMBEL_GLSL
#define GUMBEL_GLSL

#extension GL_EXT_control_flow_attributes : require
#include "noise.glsl"

#ifdef LEVEL_COUNT
const uint LEVELS = LEVEL_COUNT;
#else
const uint LEVELS = GUMBEL_LEVELS;
#endif
const uint PLANES = LEVELS - 1u; // levels with a state
const uint WORDS = GUMBEL_WORDS(LEVELS);
const uint PACKED_LOGIT = GUMBEL_LOGIT_BITS(GUMBEL_LEVELS);
const float MASKED = -1.0e30; // in place of a masked level's logit: far below any other, and no NaN in differences

// ---- noise: a function of (seed, tensor, step, element) -------------------------------------------------------------
// Steps beyond any real one, for the start's normal noise.
const uint NOISE_INIT_A = 0xffffffffu;
const uint NOISE_INIT_B = 0xfffffffeu;

// row * cols + col in 64 bits: low word, high word.
uvec2 element_number(uint row, uint cols, uint col)
{
    uint high, low, carry;
    umulExtended(row, cols, high, low);
    low = uaddCarry(low, col, carry);
    return uvec2(low, high + carry);
}

// A word for each level, of which the upper 23 bits count; the fifth is made of the bits that the others leave. Returns one
// more, for rounding, mixed out of the fifth.
uint noise_words(uvec2 element, uint tensor, uint step, uint seed, out uint bits[LEVELS])
{
    uvec4 v = pcg4d(uvec4(element.x, element.y ^ (tensor * 0x9e3779b9u), step, seed));
    uint rest = (v.x & 511u) | ((v.y & 511u) << 9) | ((v.z & 511u) << 18) | (v.w << 27);
    rest = (rest ^ (rest >> 16)) * 0x85ebca6bu;
    rest = (rest ^ (rest >> 13)) * 0xc2b2ae35u;
    rest ^= rest >> 16;
    [[unroll]] for (uint k = 0u; k < LEVELS; k++)
        bits[k] = k < 4u ? v[k & 3u] : rest;
    rest = (rest ^ (rest >> 15)) * 0x2c1b3c6du;
    return rest ^ (rest >> 12);
}

// ---- levels ----------------------------------------------------------------------------------------------------------
struct levels_of {
    float d[LEVELS];
    bool valid[LEVELS];
    uint start; // the start code's
    uint logit_bits, momentum_bits;
};

#ifdef LEVEL_TABLE
levels_of find_levels(uint levels, uint relative, uvec4 table, int c0)
{
    levels_of l;
    int first = int(table_place(table, c0)) - int(LEVELS / 2u), before = 0;
    l.start = LEVELS / 2u;
    l.logit_bits = GUMBEL_LOGIT_BITS(LEVELS);
    l.momentum_bits = GUMBEL_MOMENTUM_BITS(LEVELS);
    [[unroll]] for (int k = 0; k < int(LEVELS); k++) {
        int d = table_level(table, uint(clamp(first + k, 0, int(TABLE_LEVELS) - 1)));
        l.d[k] = float(d);
        l.valid[k] = first + k >= 0 && (k == 0 || first + k == 0 || d != before);
        before = d;
    }
    return l;
}
#else
levels_of find_levels(uint levels, uint relative, int lo, int hi, int c0)
{
    levels_of l;
#ifdef LEVEL_COUNT
    int first = lo;
#else
    int first = relative != 0u ? c0 - int(LEVELS / 2u) : lo;
#endif
    l.start = uint(c0 - first);
#ifdef LEVEL_COUNT
    levels = LEVELS;
#endif
    l.logit_bits = GUMBEL_LOGIT_BITS(levels);
    l.momentum_bits = GUMBEL_MOMENTUM_BITS(levels);
    [[unroll]] for (int k = 0; k < int(LEVELS); k++) {
        int d = first + k;
        l.d[k] = float(d);
#ifdef LEVEL_COUNT
        l.valid[k] = true;
#else
        l.valid[k] = uint(k) < levels && d >= lo && d <= hi;
#endif
    }
    return l;
}
#endif

// ---- state -----------------------------------------------------------------------------------------------------------
// Of a level: its logit, an integer, in the low bits of a word, and in the upper ones its momentum, the upper bits of an f32.
// Where there are more than three such levels, the fourth's 24 bits lie in the middle of the others' words, 8 in each.
// Logits are counted in units that the host chooses; kappa and rates belong to them.
int stored_logit(levels_of lv, uint word)
{
    return bitfieldExtract(int(word), 0, int(lv.logit_bits));
}

float stored_momentum(levels_of lv, uint word)
{
    return uintBitsToFloat(word & ~(0xffffffffu >> lv.momentum_bits));
}

// One word a level, whatever lies between logit and momentum; 0 of levels that do not exist.
void unpack_state(levels_of lv, uint words[WORDS], out uint state[PLANES])
{
    uint fourth = 0u;
    [[unroll]] for (uint j = 0u; j < PLANES; j++) {
        state[j] = j < WORDS ? words[min(j, WORDS - 1u)] : fourth;
        if (j < WORDS && PLANES > WORDS)
            fourth |= bitfieldExtract(words[min(j, WORDS - 1u)], int(PACKED_LOGIT), 8) << (8u * j);
    }
    if (PLANES > WORDS)
        state[PLANES - 1u] = lv.logit_bits == PACKED_LOGIT ?
            bitfieldInsert(fourth << 8u, fourth, 0, int(PACKED_LOGIT)) : 0u;
}

void pack_state(levels_of lv, uint state[PLANES], out uint words[WORDS])
{
    uint last = state[PLANES - 1u], fourth = bitfieldInsert(last >> 8u, last, 0, int(PACKED_LOGIT));
    [[unroll]] for (uint j = 0u; j < WORDS; j++)
        words[j] = PLANES > WORDS && lv.logit_bits == PACKED_LOGIT ?
            bitfieldInsert(state[j], fourth >> (8u * j), int(PACKED_LOGIT), 8) : state[j];
}

void load_state(levels_of lv, uint words[WORDS], out float l[LEVELS], out float m[LEVELS])
{
    uint state[PLANES];
    float others = 0.0;
    unpack_state(lv, words, state);
    [[unroll]] for (uint j = 0u; j < PLANES; j++)
        others += stored_momentum(lv, state[j]);
    [[unroll]] for (uint k = 0u; k < LEVELS; k++) {
        uint word = k < lv.start ? state[min(k, PLANES - 1u)] : state[max(k, 1u) - 1u];
        l[k] = k == lv.start ? 0.0 : float(stored_logit(lv, word));
        m[k] = k == lv.start ? -others : stored_momentum(lv, word);
    }
}

// Both parts rounded up or down at random, so that each is right on average. noise: of this plane.
uint store_level(levels_of lv, float logit, float momentum, uint noise)
{
    float up = (float(noise & 0xffffu) + 0.5) * (1.0 / 65536.0), most = float((1 << (lv.logit_bits - 1u)) - 1);
    int l = int(clamp(floor(logit + up), -most, most));
    uint m = (floatBitsToUint(momentum) + (noise >> lv.momentum_bits)) & ~(0xffffffffu >> lv.momentum_bits);
    return bitfieldInsert(m, uint(l), 0, int(lv.logit_bits));
}

// The levels' values as those of planes, logits counted from the start code's. noise: of the weight; its planes' parts of it
// lie a quarter of the range apart.
void store_state(levels_of lv, float l[LEVELS], float m[LEVELS], uint noise, out uint words[WORDS])
{
    uint state[PLANES];
    float own = 0.0;
    [[unroll]] for (uint k = 0u; k < LEVELS; k++)
        own = k == lv.start ? l[k] : own;
    [[unroll]] for (uint j = 0u; j < PLANES; j++) {
        float logit = j < lv.start ? l[j] : l[j + 1u];
        float momentum = j < lv.start ? m[j] : m[j + 1u];
        bool valid = j < lv.start ? lv.valid[j] : lv.valid[j + 1u];
        state[j] = valid ? store_level(lv, logit - own, momentum, noise + j * 0x40004000u) : 0u;
    }
    pack_state(lv, state, words);
}

// ---- soft value: p = softmax((kappa l + Gumbel) / tau), returns the mean level -------------------------------------
float soft_level(levels_of lv, float logits[LEVELS], uint bits[LEVELS], float tau, float kappa, out float p[LEVELS])
{
    // In base 2: x / ln 2 with x the exponent of the softmax.
    float inverse_tau = 1.0 / tau;
    float gain = kappa * 1.44269504089;
    float most = MASKED;
    [[unroll]] for (uint k = 0u; k < LEVELS; k++) {
        float x = (gain * logits[k] + gumbel_log2(uniform_of(bits[k]))) * inverse_tau;
        p[k] = lv.valid[k] ? x : MASKED;
        most = max(most, p[k]);
    }
    float sum = 0.0;
    [[unroll]] for (uint k = 0u; k < LEVELS; k++) {
        p[k] = lv.valid[k] ? exp2(p[k] - most) : 0.0;
        sum += p[k];
    }
    float scale = 1.0 / sum;
    float mean = 0.0;
    [[unroll]] for (uint k = 0u; k < LEVELS; k++) {
        p[k] *= scale;
        mean += p[k] * lv.d[k];
    }
    return mean;
}

// soft - origin * w. Without an origin w does not count, whatever it is.
float from_origin(float soft, float origin, float w)
{
    return origin == 0.0 ? soft : soft - origin * w;
}

#endif
