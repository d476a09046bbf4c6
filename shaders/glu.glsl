// The gate of a gated linear unit: g * sigma(g), or gelu by tanh, which is g * sigma(2 t) with t = sqrt(2 / pi) (g + 0.044715 g^3).
#ifndef GLU_GLSL
#define GLU_GLSL

#ifdef GELU
#define STEEP(g) (1.5957691216057308 * (g) * (1.0 + 0.044715 * (g) * (g)))
#define SLOPE(g) *(1.5957691216057308 * (1.0 + 0.134145 * (g) * (g)))
#else
#define STEEP(g) (g)
#define SLOPE(g)
#endif

#endif
