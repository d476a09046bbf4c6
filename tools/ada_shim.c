/* Goes before Mesa's no-op shim for NVIDIA cards, which knows none after Ampere: what the shim says of an RTX 3000 becomes
 * what an RTX 4000 would say, its chip and its classes, so that the driver compiles for Ada. scripts/gpu-drivers.sh builds and
 * preloads it; no part of gsq. Structures: include/nvif of Linux and Mesa, ioctl.h and cl0080.h. */
#include <dlfcn.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>

enum {
    DRM_NOUVEAU_NVIF = 0x40 + 0x07,
    HEAD = 24, // bytes of nvif_ioctl_v0, before a call's own
    SCLASS = 1,
    METHOD = 4,
    DEVICE_INFO = 0,
    AD102 = 0x192,
};

static const int32_t classes[][2] = {
    {0xc797, 0xc997}, // AMPERE_B, ADA_A: 3D
    {0xc7c0, 0xc9c0}, // AMPERE_COMPUTE_B, ADA_COMPUTE_A
    {0xc6b5, 0xc7b5}, // AMPERE_DMA_COPY_A, _B
};

static void be_ada(uint8_t *call)
{
    uint8_t *data = call + HEAD; // version, method or count, 6 bytes, and then:
    if (call[1] == METHOD && data[1] == DEVICE_INFO) {
        uint16_t chip = AD102;
        memcpy(data + 8 + 2, &chip, sizeof chip);
    }
    for (int i = 0; call[1] == SCLASS && i < data[1]; i++) { // class, least and largest version
        int32_t class;
        memcpy(&class, data + 8 + 8 * i, sizeof class);
        for (size_t j = 0; j < sizeof classes / sizeof *classes; j++)
            if (class == classes[j][0])
                memcpy(data + 8 + 8 * i, &classes[j][1], sizeof class);
    }
}

int ioctl(int fd, unsigned long request, ...)
{
    static int (*shim)(int, unsigned long, ...);
    va_list rest;
    va_start(rest, request);
    void *call = va_arg(rest, void *);
    va_end(rest);
    if (!shim) {
        void *found = dlsym(RTLD_NEXT, "ioctl");
        memcpy(&shim, &found, sizeof shim);
    }
    int result = shim(fd, request, call);
    if (result == 0 && _IOC_TYPE(request) == 'd' && _IOC_NR(request) == DRM_NOUVEAU_NVIF)
        be_ada(call);
    return result;
}
