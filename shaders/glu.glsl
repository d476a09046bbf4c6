// The gate of a gated linear unit: g * sigma(g), or gelu by tanh, which is g * sigma(2 t) with t = sqrt(2 / pi) (g + 0.044715 g^3), or
// g * sigma(1.702 g), where gate and up have limits and one is added to up.
#ifndef GLU_GLSL
#define GLU_GLSL

#ifdef GELU
#define STEEP(g) (1.5957691216057308 * (g) * (1.0 + 0.044715 * (g) * (g)))
#define SLOPE(g) *(1.5957691216057308 * (1.0 + 0.134145 * (g) * (g)))
#elif defined(CLAMPED)
#define STEEP(g) (1.702 * (g))
#define SLOPE(g) *1.702
#else
#define STEEP(g) (g)
#define SLOPE(g)
#endif
#ifdef CLAMPED
#define LIMIT    7.0
#define GATE(g)  min(g, LIMIT)
#define UP(u)    (clamp(u, -LIMIT, LIMIT) + 1.0)
#else
#define GATE(g)  g
#define UP(u)    u
#endif

#endif
