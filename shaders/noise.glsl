// Noise as a function of counters: nothing is stored, and runs repeat.
#ifndef NOISE_GLSL
#define NOISE_GLSL

// pcg4d (Jarzynski and Olano, JCGT 9(3), 2020).
uvec4 pcg4d(uvec4 v)
{
    v = v * 1664525u + 1013904223u;
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    v ^= v >> 16u;
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    return v;
}

// Uniform in (0, 1): all 2^23 values are exact and neither end is reached.
float uniform_of(uint bits)
{
    return (float(bits >> 9) + 0.5) * (1.0 / 8388608.0);
}

// -log2(-ln(1 - v)): Gumbel noise in units of ln 2. Where v is small, which makes the largest noise, the logarithm of a
// number near one would keep few digits (Vulkan promises an absolute error only), hence the series.
float gumbel_log2(float v)
{
    float near = v * (1.0 + v * (0.5 + v * (1.0 / 3.0 + v * (0.25 + v * 0.2))));
    float far = -0.69314718056 * log2(1.0 - v);
    return -log2(v < 0.0625 ? near : far);
}

#endif
