// Columns of a projection that lies grouped by key head, each [q dim | k dim | v values | z values]. Without groups all q come first,
// then all k, then all v, and z is a matrix of its own.
#ifndef DELTA_GLSL
#define DELTA_GLSL

// Of channel c of [q of all heads | k | v].
uint grouped_channel(uint c, uint heads, uint dim, uint values)
{
    uint span = 2u * (dim + values), keys = heads * dim;
    if (c < keys)
        return c / dim * span + c % dim;
    c -= keys;
    if (c < keys)
        return c / dim * span + dim + c % dim;
    c -= keys;
    return c / values * span + 2u * dim + c % values;
}

// Of column c of z.
uint grouped_gate(uint c, uint dim, uint values)
{
    return c / values * 2u * (dim + values) + 2u * dim + values + c % values;
}

#endif
