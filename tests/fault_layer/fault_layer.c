/* A Vulkan layer that makes a chosen call fail, as a driver does that resets its device or has no memory left.
 *
 *     VK_ADD_LAYER_PATH=BUILD/fault_layer VK_INSTANCE_LAYERS=VK_LAYER_GSQ_fault GSQ_FAULT=CALL:N[:always] gsq ...
 *
 * CALL is vkQueueSubmit2 or vkWaitSemaphores: the N-th returns VK_ERROR_DEVICE_LOST, and so does all work on that device from
 * then on. It happens once; with `always`, to every device at its N-th call. Or vkAllocateMemory: the N-th of the process
 * returns VK_ERROR_OUT_OF_DEVICE_MEMORY; with `always`, all from the N-th on. GSQ_FAULT=count: nothing fails.
 * GSQ_FAULT_AFTER=TEXT, GSQ_FAULT_LOG=FILE: calls count from when the file holds the text, after a loss from when it holds it
 * once more. How many submissions a run makes depends on the machine's speed: a place in its work is found by what it logs.
 * GSQ_FAULT_REFUSE=K: after a loss, the next K devices cannot be made. When a device goes, its calls are told on stderr. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vulkan/vk_layer.h>
#include <vulkan/vulkan.h>

enum call { SUBMIT, WAIT, ALLOCATE, CALLS };
static const char *const call_names[CALLS] = {"vkQueueSubmit2", "vkWaitSemaphores", "vkAllocateMemory"};

static struct {
    int call; /* CALLS: none */
    unsigned long at;
    bool always;
    unsigned long refuse;          /* devices, after a loss */
    const char *after, *log;       /* NULL: calls count from the beginning */
    unsigned long losses, reached; /* how often the log was seen to hold the text */
    unsigned long calls[CALLS];
    bool happened;
} fault;

/* Dispatchable handles of one instance, or of one device, begin with the same pointer. */
static void *key_of(const void *handle)
{
    void *key;
    memcpy(&key, handle, sizeof key);
    return key;
}

enum { MOST = 16 };
static struct instance {
    void *key;
    VkInstance handle;
    PFN_vkGetInstanceProcAddr next;
    PFN_vkDestroyInstance destroy; /* asked for later, it would be the topmost layer's */
} instances[MOST];
static struct device {
    void *key;
    VkDevice handle;
    PFN_vkGetDeviceProcAddr next;
    unsigned long calls[CALLS];
    bool lost;
} devices[MOST];

static struct instance *instance_of(const void *handle)
{
    for (int i = 0; i < MOST; i++)
        if (instances[i].key && instances[i].key == key_of(handle))
            return &instances[i];
    return NULL;
}

static struct device *device_of(const void *handle)
{
    for (int i = 0; i < MOST; i++)
        if (devices[i].key && devices[i].key == key_of(handle))
            return &devices[i];
    abort();
}

/* The driver's function below this layer. */
#define NEXT(d, name) ((PFN_##name)(d)->next((d)->handle, #name))

/* ---- faults ---- */

static void read_fault(void)
{
    const char *text = getenv("GSQ_FAULT"), *refuse = getenv("GSQ_FAULT_REFUSE");
    fault.call = CALLS;
    for (int i = 0; text && i < CALLS; i++) {
        size_t n = strlen(call_names[i]);
        char *end;
        if (strncmp(text, call_names[i], n) != 0 || text[n] != ':')
            continue;
        fault.call = i;
        fault.at = strtoul(text + n + 1, &end, 10);
        fault.always = strcmp(end, ":always") == 0;
    }
    fault.refuse = refuse ? strtoul(refuse, NULL, 10) : 0;
    fault.after = getenv("GSQ_FAULT_AFTER");
    fault.log = getenv("GSQ_FAULT_LOG");
    if (fault.after && !fault.log)
        fputs("fault: GSQ_FAULT_AFTER is looked for in GSQ_FAULT_LOG, which is not set\n", stderr);
}

/* Whether the log has come to where calls count. */
static bool counts(void)
{
    if (!fault.after || !*fault.after || fault.reached > fault.losses)
        return true;
    FILE *f = fault.log ? fopen(fault.log, "r") : NULL;
    char line[4096];
    fault.reached = 0;
    while (f && fgets(line, sizeof line, f))
        fault.reached += strstr(line, fault.after) != NULL;
    if (f)
        fclose(f);
    return fault.reached > fault.losses;
}

/* Whether this call is the one that fails. */
static bool fails(struct device *d, enum call call)
{
    if (!counts())
        return false;
    unsigned long all = ++fault.calls[call], of_device = ++d->calls[call];
    if ((int)call != fault.call)
        return false;
    if (fault.always)
        return (call == ALLOCATE ? all : of_device) >= fault.at;
    if (fault.happened || all != fault.at)
        return false;
    return fault.happened = true;
}

/* What is under way ends first: this driver has not lost anything. */
static bool is_lost(struct device *d, bool now)
{
    if (now && !d->lost) {
        NEXT(d, vkDeviceWaitIdle)(d->handle);
        fprintf(stderr, "fault: the device is lost\n");
        d->lost = true;
        fault.losses++;
    }
    return d->lost;
}

static VKAPI_ATTR VkResult VKAPI_CALL submit(VkQueue queue, uint32_t n, const VkSubmitInfo2 *info, VkFence fence)
{
    struct device *d = device_of(queue);
    if (is_lost(d, fails(d, SUBMIT)))
        return VK_ERROR_DEVICE_LOST;
    return NEXT(d, vkQueueSubmit2)(queue, n, info, fence);
}

static VKAPI_ATTR VkResult VKAPI_CALL wait(VkDevice device, const VkSemaphoreWaitInfo *info, uint64_t timeout)
{
    struct device *d = device_of(device);
    if (is_lost(d, fails(d, WAIT)))
        return VK_ERROR_DEVICE_LOST;
    return NEXT(d, vkWaitSemaphores)(device, info, timeout);
}

static VKAPI_ATTR VkResult VKAPI_CALL counter(VkDevice device, VkSemaphore semaphore, uint64_t *value)
{
    struct device *d = device_of(device);
    return d->lost ? VK_ERROR_DEVICE_LOST : NEXT(d, vkGetSemaphoreCounterValue)(device, semaphore, value);
}

static VKAPI_ATTR VkResult VKAPI_CALL wait_idle(VkDevice device)
{
    struct device *d = device_of(device);
    return d->lost ? VK_ERROR_DEVICE_LOST : NEXT(d, vkDeviceWaitIdle)(device);
}

static VKAPI_ATTR VkResult VKAPI_CALL query_results(VkDevice device, VkQueryPool pool, uint32_t first, uint32_t n,
                                                    size_t size, void *data, VkDeviceSize stride,
                                                    VkQueryResultFlags flags)
{
    struct device *d = device_of(device);
    if (d->lost)
        return VK_ERROR_DEVICE_LOST;
    return NEXT(d, vkGetQueryPoolResults)(device, pool, first, n, size, data, stride, flags);
}

static VKAPI_ATTR VkResult VKAPI_CALL allocate(VkDevice device, const VkMemoryAllocateInfo *info,
                                               const VkAllocationCallbacks *callbacks, VkDeviceMemory *memory)
{
    struct device *d = device_of(device);
    if (fails(d, ALLOCATE))
        return VK_ERROR_OUT_OF_DEVICE_MEMORY;
    return NEXT(d, vkAllocateMemory)(device, info, callbacks, memory);
}

/* ---- instances and devices ---- */

/* The loader's word on what lies below, in the chain of a create info. */
static void *link_info(const void *chain, VkStructureType type)
{
    for (const VkBaseInStructure *p = chain; p; p = p->pNext)
        if (p->sType == type && ((const VkLayerInstanceCreateInfo *)p)->function == VK_LAYER_LINK_INFO)
            return (void *)p;
    return NULL;
}

static VKAPI_ATTR VkResult VKAPI_CALL create_instance(const VkInstanceCreateInfo *info,
                                                      const VkAllocationCallbacks *callbacks, VkInstance *out)
{
    VkLayerInstanceCreateInfo *link = link_info(info->pNext, VK_STRUCTURE_TYPE_LOADER_INSTANCE_CREATE_INFO);
    if (!link)
        return VK_ERROR_INITIALIZATION_FAILED;
    PFN_vkGetInstanceProcAddr next = link->u.pLayerInfo->pfnNextGetInstanceProcAddr;
    link->u.pLayerInfo = link->u.pLayerInfo->pNext;
    PFN_vkCreateInstance create = (PFN_vkCreateInstance)next(VK_NULL_HANDLE, "vkCreateInstance");
    VkResult r = create(info, callbacks, out);
    for (int i = 0; r == VK_SUCCESS && i < MOST; i++)
        if (!instances[i].key) {
            instances[i] =
                (struct instance){key_of(*out), *out, next, (PFN_vkDestroyInstance)next(*out, "vkDestroyInstance")};
            break;
        }
    read_fault();
    return r;
}

static VKAPI_ATTR void VKAPI_CALL destroy_instance(VkInstance instance, const VkAllocationCallbacks *callbacks)
{
    struct instance *i = instance ? instance_of(instance) : NULL;
    if (!i)
        return;
    i->destroy(instance, callbacks);
    *i = (struct instance){0};
}

static VKAPI_ATTR VkResult VKAPI_CALL create_device(VkPhysicalDevice physical, const VkDeviceCreateInfo *info,
                                                    const VkAllocationCallbacks *callbacks, VkDevice *out)
{
    VkLayerDeviceCreateInfo *link = link_info(info->pNext, VK_STRUCTURE_TYPE_LOADER_DEVICE_CREATE_INFO);
    const struct instance *i = instance_of(physical);
    if (!link || !i)
        return VK_ERROR_INITIALIZATION_FAILED;
    if (fault.happened && fault.refuse) {
        fault.refuse--;
        fprintf(stderr, "fault: a device is refused\n");
        return VK_ERROR_INITIALIZATION_FAILED;
    }
    PFN_vkGetInstanceProcAddr next = link->u.pLayerInfo->pfnNextGetInstanceProcAddr;
    PFN_vkGetDeviceProcAddr next_device = link->u.pLayerInfo->pfnNextGetDeviceProcAddr;
    link->u.pLayerInfo = link->u.pLayerInfo->pNext;
    PFN_vkCreateDevice create = (PFN_vkCreateDevice)next(i->handle, "vkCreateDevice");
    VkResult r = create(physical, info, callbacks, out);
    for (int k = 0; r == VK_SUCCESS && k < MOST; k++)
        if (!devices[k].key) {
            devices[k] = (struct device){.key = key_of(*out), .handle = *out, .next = next_device};
            break;
        }
    return r;
}

static VKAPI_ATTR void VKAPI_CALL destroy_device(VkDevice device, const VkAllocationCallbacks *callbacks)
{
    if (!device)
        return;
    struct device *d = device_of(device);
    fprintf(stderr, "fault:");
    for (int i = 0; i < CALLS; i++)
        fprintf(stderr, " %s %lu", call_names[i], d->calls[i]);
    fprintf(stderr, "\n");
    NEXT(d, vkDestroyDevice)(device, callbacks);
    *d = (struct device){0};
}

/* ---- what the loader asks for ---- */

static PFN_vkVoidFunction mine(const char *name)
{
    static const struct {
        const char *name;
        PFN_vkVoidFunction function;
    } all[] = {
        {"vkCreateInstance", (PFN_vkVoidFunction)create_instance},
        {"vkDestroyInstance", (PFN_vkVoidFunction)destroy_instance},
        {"vkCreateDevice", (PFN_vkVoidFunction)create_device},
        {"vkDestroyDevice", (PFN_vkVoidFunction)destroy_device},
        {"vkQueueSubmit2", (PFN_vkVoidFunction)submit},
        {"vkWaitSemaphores", (PFN_vkVoidFunction)wait},
        {"vkGetSemaphoreCounterValue", (PFN_vkVoidFunction)counter},
        {"vkDeviceWaitIdle", (PFN_vkVoidFunction)wait_idle},
        {"vkGetQueryPoolResults", (PFN_vkVoidFunction)query_results},
        {"vkAllocateMemory", (PFN_vkVoidFunction)allocate},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(all[i].name, name) == 0)
            return all[i].function;
    return NULL;
}

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL device_proc(VkDevice device, const char *name)
{
    PFN_vkVoidFunction own = strcmp(name, "vkGetDeviceProcAddr") == 0 ? (PFN_vkVoidFunction)device_proc : mine(name);
    struct device *d = device_of(device);
    return own ? own : d->next(device, name);
}

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL instance_proc(VkInstance instance, const char *name)
{
    PFN_vkVoidFunction own = strcmp(name, "vkGetInstanceProcAddr") == 0 ? (PFN_vkVoidFunction)instance_proc
                             : strcmp(name, "vkGetDeviceProcAddr") == 0 ? (PFN_vkVoidFunction)device_proc
                                                                        : mine(name);
    const struct instance *i = instance ? instance_of(instance) : NULL;
    return own ? own : i ? i->next(instance, name) : NULL;
}

VKAPI_ATTR VkResult VKAPI_CALL vkNegotiateLoaderLayerInterfaceVersion(VkNegotiateLayerInterface *v)
{
    if (v->loaderLayerInterfaceVersion < 2)
        return VK_ERROR_INITIALIZATION_FAILED;
    v->loaderLayerInterfaceVersion = 2;
    v->pfnGetInstanceProcAddr = instance_proc;
    v->pfnGetDeviceProcAddr = device_proc;
    v->pfnGetPhysicalDeviceProcAddr = NULL;
    return VK_SUCCESS;
}
