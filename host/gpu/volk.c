/* The Vulkan loader's entry points, found at run time. */
#define VOLK_IMPLEMENTATION
#include <volk.h>
