/* Kernels: which variant, its pipeline, and the pipeline cache on disk. */
#include "host/gpu/gpu_pipeline_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/log.h"
#include "host/base/os.h"
#include "host/gpu/gpu_memory.h"
#include "host/gpu/spirv_barriers.h"
#include "host/gpu/spirv_shared.h"

/* Variants of a kernel that are taken before the others where they are made for the call: rows of gpu_pipelines.kernels. */
struct preference {
    unsigned n, row[GPU_PREFER_MAX];
};

struct gpu_pipelines {
    struct gpu_kernel *kernels; /* one per row of kernel_variants */
    unsigned n_kernels;
    bool forced; /* gpu_create was asked for a variant */
    /* What gpu_create or gpu_kernel_prefer asked for, and what is in use (gpu_kernel_force). */
    struct preference asked[KERNEL_COUNT], preferred[KERNEL_COUNT];
    unsigned first[KERNEL_COUNT]; /* its first row */
    VkPipelineCache cache;
    char cache_path[4096]; /* "" : not kept */
    struct hash128 cache_hash;
};

/* ---- the cache file: this header, then the driver's bytes ---- */

#define CACHE_MAGIC "gsqpipe1"
#define CACHE_MAX   (UINT64_C(256) << 20)
struct cache_header {
    char magic[8];
    struct hash128 hash; /* of the bytes that follow: drivers trust them */
};

static bool cache_matches(const struct gpu_probe *p, const char *data, size_t size)
{
    VkPipelineCacheHeaderVersionOne h;
    if (size < sizeof h)
        return false;
    memcpy(&h, data, sizeof h);
    return h.headerVersion == VK_PIPELINE_CACHE_HEADER_VERSION_ONE && h.vendorID == p->vendor &&
           h.deviceID == p->device && memcmp(h.pipelineCacheUUID, p->cache_uuid, VK_UUID_SIZE) == 0;
}

/* What an earlier run left, or an empty cache. A damaged file is as good as none. */
static bool cache_load(struct gpu *g, struct err *e)
{
    struct gpu_pipelines *ps = g->pipelines;
    char *file = NULL;
    size_t size = 0;
    VkPipelineCacheCreateInfo info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO};
    if (ps->cache_path[0] && os_stat(ps->cache_path, NULL) == OS_FILE &&
        os_read_file(ps->cache_path, CACHE_MAX, &file, &size, NULL) && size > sizeof(struct cache_header)) {
        struct cache_header h;
        memcpy(&h, file, sizeof h);
        const char *data = file + sizeof h;
        struct hash128 hash = hash_bytes(data, size - sizeof h, (struct hash128){0});
        if (memcmp(h.magic, CACHE_MAGIC, 8) == 0 && memcmp(&h.hash, &hash, sizeof hash) == 0 &&
            cache_matches(&g->probe, data, size - sizeof h)) {
            info.initialDataSize = size - sizeof h;
            info.pInitialData = data;
            ps->cache_hash = hash;
        } else {
            log_debug("%s is not usable here and will be replaced", ps->cache_path);
        }
    }
    VkResult r = vkCreatePipelineCache(g->device, &info, NULL, &ps->cache);
    free(file);
    return r >= 0 || vk_error(e, "vkCreatePipelineCache", r);
}

/* Best effort: a run without a cache file is only slower to start. */
static void cache_save(struct gpu *g)
{
    struct gpu_pipelines *ps = g->pipelines;
    size_t size = 0;
    char *file = NULL;
    struct err e = {0};
    if (!ps->cache_path[0] || g->lost || vkGetPipelineCacheData(g->device, ps->cache, &size, NULL) < 0 || size == 0 ||
        size > CACHE_MAX || !(file = malloc(sizeof(struct cache_header) + size)))
        goto done;
    if (vkGetPipelineCacheData(g->device, ps->cache, &size, file + sizeof(struct cache_header)) != VK_SUCCESS)
        goto done;
    struct cache_header h = {.hash = hash_bytes(file + sizeof h, size, (struct hash128){0})};
    memcpy(h.magic, CACHE_MAGIC, 8);
    memcpy(file, &h, sizeof h);
    if (memcmp(&h.hash, &ps->cache_hash, sizeof h.hash) != 0 &&
        !os_write_file(ps->cache_path, file, sizeof h + size, &e))
        log_warn("the pipeline cache is not kept: %s", e.msg);
done:
    free(file);
}

/* ---- which variants this device has ---- */

static uint32_t subgroup_size(const struct gpu_probe *p, const struct kernel_variant *v)
{
    switch (v->subgroup_size) {
    case KERNEL_SUBGROUP_SMALLEST:
        return p->subgroup_least;
    case KERNEL_SUBGROUP_LARGEST:
        return p->subgroup_most;
    default:
        return p->info.subgroup_size;
    }
}

/* Specialization constants of a variant on this device; returns how many. */
static uint32_t constants_of(const struct gpu_probe *p, const struct gpu_kernel *k,
                             struct spirv_constant out[KERNEL_SPEC_MAX + 5])
{
    const struct kernel_variant *v = k->variant;
    uint32_t n = 0;
    out[n++] = (struct spirv_constant){SPEC_WORKGROUP, k->local_size};
    out[n++] = (struct spirv_constant){SPEC_SUBGROUP, k->subgroup_size};
    const uint32_t *tile = v->needs & GPU_CAP_BF16 ? p->coopmat_bf16 : p->coopmat;
    if ((v->needs & GPU_CAP_COOPMAT) && tile[0])
        for (uint32_t i = 0; i < 3; i++)
            out[n++] = (struct spirv_constant){SPEC_COOPMAT_M + i, tile[i]};
    for (uint32_t i = 0; i < v->n_spec; i++)
        out[n++] = (struct spirv_constant){v->spec[i].id, v->spec[i].value};
    return n;
}

static bool variant_usable(const struct gpu_probe *p, const struct gpu_kernel *k)
{
    const struct gpu_info *i = &p->info;
    const struct kernel_variant *v = k->variant;
    uint32_t local_size = k->local_size;
    if ((v->needs & ~i->caps) || local_size > i->max_invocations || k->shared_bytes > i->shared_bytes)
        return false;
    /* Full subgroups need a workgroup of whole ones, and a size is chosen for whole ones. */
    return !((v->needs & GPU_CAP_SUBGROUP) || v->subgroup_size) ||
           (local_size % k->subgroup_size == 0 && local_size / k->subgroup_size <= p->max_subgroups);
}

bool gpu_pipelines_init(struct gpu *g, const char *variant, const char *cache_dir, struct err *e)
{
    struct gpu_pipelines *ps = g->pipelines = calloc(1, sizeof *ps);
    if (!ps)
        return err_nomem(e, "pipelines", sizeof *ps);
    const struct gpu_info *info = &g->probe.info;
    while (kernel_variants[ps->n_kernels].kernel < KERNEL_COUNT)
        ps->n_kernels++;
    ps->kernels = calloc(ps->n_kernels + 1, sizeof *ps->kernels);
    if (!ps->kernels)
        return err_nomem(e, "the kernel table", (ps->n_kernels + 1) * sizeof *ps->kernels);
    ps->forced = variant;
    bool known = !variant;
    for (unsigned i = 0; i < ps->n_kernels; i++) {
        struct gpu_kernel *k = &ps->kernels[i];
        k->variant = &kernel_variants[i];
        if (i == 0 || k->variant->kernel != k[-1].variant->kernel)
            ps->first[k->variant->kernel] = i;
        k->subgroup_size = subgroup_size(&g->probe, k->variant);
        k->local_size = k->variant->local_size == KERNEL_WG_SUBGROUP ? k->subgroup_size : k->variant->local_size;
        struct spirv_constant constants[KERNEL_SPEC_MAX + 5];
        if (!spirv_shared_bytes(k->variant->words, k->variant->n_words, constants,
                                constants_of(&g->probe, k, constants), &k->shared_bytes, e))
            return err_context(e, "kernel %s, variant %s", kernel_decls[k->variant->kernel].name, k->variant->name);
        k->usable = variant_usable(&g->probe, k);
        if (variant && strcmp(variant, k->variant->name) == 0) {
            known = true;
            if (k->usable)
                ps->asked[k->variant->kernel] = (struct preference){1, {i}};
        }
    }
    memcpy(ps->preferred, ps->asked, sizeof ps->preferred);
    if (!known) {
        err_set(e, ERR_USER, "no kernel has a variant '%s'", variant);
        return err_hint(e, "`gsq devices` lists the variants; 'base' runs everywhere");
    }
    if (cache_dir) {
        int n = snprintf(ps->cache_path, sizeof ps->cache_path, "%s/pipelines-%04x-%04x-%s.bin", cache_dir,
                         g->probe.vendor, g->probe.device, info->driver_uuid_hex);
        struct err why = {0};
        if (n < 0 || (size_t)n >= sizeof ps->cache_path || !os_mkdirs(cache_dir, &why)) {
            log_warn("the pipeline cache is not kept: %s", why.msg[0] ? why.msg : "the path is too long");
            ps->cache_path[0] = 0;
        }
    }
    return cache_load(g, e);
}

void gpu_pipelines_drop(struct gpu *g)
{
    struct gpu_pipelines *ps = g->pipelines;
    if (ps->cache)
        cache_save(g);
    for (unsigned i = 0; g->device && ps->kernels && i < ps->n_kernels; i++) {
        struct gpu_kernel *k = &ps->kernels[i];
        vkDestroyPipeline(g->device, k->pipeline, NULL);
        vkDestroyPipelineLayout(g->device, k->layout, NULL);
        vkDestroyDescriptorSetLayout(g->device, k->set_layout, NULL);
        k->pipeline = VK_NULL_HANDLE;
        k->layout = VK_NULL_HANDLE;
        k->set_layout = VK_NULL_HANDLE;
    }
    if (ps->cache)
        vkDestroyPipelineCache(g->device, ps->cache, NULL);
    ps->cache = VK_NULL_HANDLE;
}

bool gpu_pipelines_renew(struct gpu *g, struct err *e)
{
    return cache_load(g, e);
}

void gpu_pipelines_destroy(struct gpu *g)
{
    struct gpu_pipelines *ps = g->pipelines;
    if (!ps)
        return;
    gpu_pipelines_drop(g);
    free(ps->kernels);
    free(ps);
    g->pipelines = NULL;
}

/* ---- one pipeline ---- */

/* The shader against its row of kernels.def. */
bool gpu_kernel_reflect(struct gpu_kernel *k, struct err *e)
{
    if (k->reflected)
        return true;
    const struct kernel_variant *v = k->variant;
    const struct kernel_decl *d = &kernel_decls[v->kernel];
    if (!spirv_reflect(v->words, v->n_words, &k->spirv, e))
        return err_context(e, "kernel %s, variant %s", d->name, v->name);
    if (k->spirv.n_buffers != d->n_buffers)
        return err_set(e, ERR_BUG, "kernel %s, variant %s: the shader has %u buffers, kernels.def has %u (%s)", d->name,
                       v->name, k->spirv.n_buffers, d->n_buffers, d->buffers);
    if (k->spirv.push_bytes != d->push_bytes)
        return err_set(e, ERR_BUG,
                       "kernel %s, variant %s: the shader has %u bytes of push constants, kernels.def has %u", d->name,
                       v->name, k->spirv.push_bytes, d->push_bytes);
    k->reflected = true;
    return true;
}

VkDescriptorType gpu_binding_type(const struct gpu_kernel *k, unsigned binding)
{
    return k->spirv.texels >> binding & 1 ? VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER : VK_DESCRIPTOR_TYPE_STORAGE_BUFFER;
}

static bool create_layouts(struct gpu *g, struct gpu_kernel *k, struct err *e)
{
    VkDescriptorSetLayoutBinding bindings[SPIRV_MAX_BINDINGS] = {0};
    for (uint32_t i = 0; i < k->spirv.n_buffers; i++)
        bindings[i] = (VkDescriptorSetLayoutBinding){
            .binding = i,
            .descriptorType = gpu_binding_type(k, i),
            .descriptorCount = 1,
            .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT,
        };
    bool push = g->probe.info.caps & GPU_CAP_PUSH_DESCRIPTOR;
    VkDescriptorSetLayoutCreateInfo set = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
        .flags = push ? VK_DESCRIPTOR_SET_LAYOUT_CREATE_PUSH_DESCRIPTOR_BIT_KHR : 0,
        .bindingCount = k->spirv.n_buffers,
        .pBindings = bindings,
    };
    VK(e, vkCreateDescriptorSetLayout(g->device, &set, NULL, &k->set_layout));
    VkPushConstantRange range = {VK_SHADER_STAGE_COMPUTE_BIT, 0, k->spirv.push_bytes};
    VkPipelineLayoutCreateInfo layout = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
        .setLayoutCount = 1,
        .pSetLayouts = &k->set_layout,
        .pushConstantRangeCount = k->spirv.push_bytes ? 1 : 0,
        .pPushConstantRanges = &range,
    };
    VK(e, vkCreatePipelineLayout(g->device, &layout, NULL, &k->layout));
    return true;
fail:
    return false;
}

static bool create_pipeline(struct gpu *g, struct gpu_kernel *k, struct err *e)
{
    const struct kernel_variant *v = k->variant;
    const struct gpu_probe *p = &g->probe;
    VkSpecializationMapEntry entries[KERNEL_SPEC_MAX + 5];
    struct spirv_constant constants[KERNEL_SPEC_MAX + 5];
    uint32_t n = constants_of(p, k, constants), size_each = (uint32_t)sizeof *constants;
    for (uint32_t i = 0; i < n; i++)
        entries[i] = (VkSpecializationMapEntry){constants[i].id,
                                                i * size_each + (uint32_t)offsetof(struct spirv_constant, value), 4};
    VkSpecializationInfo spec = {n, entries, n * sizeof *constants, constants};

    VkShaderModule module = VK_NULL_HANDLE;
    VkShaderModuleCreateInfo code = {
        .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
        .codeSize = v->n_words * 4,
        .pCode = v->words,
    };
    VkPipelineShaderStageRequiredSubgroupSizeCreateInfo size = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO,
        .requiredSubgroupSize = k->subgroup_size,
    };
    VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .stage = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                  .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                  .pName = "main",
                  .pSpecializationInfo = &spec},
        .layout = k->layout,
    };
    if (g->statistics)
        info.flags =
            VK_PIPELINE_CREATE_CAPTURE_STATISTICS_BIT_KHR | VK_PIPELINE_CREATE_CAPTURE_INTERNAL_REPRESENTATIONS_BIT_KHR;
    if (v->needs & GPU_CAP_SUBGROUP)
        info.stage.flags = VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT;
    if (p->subgroup_size_fixed && ((v->needs & GPU_CAP_SUBGROUP) || v->subgroup_size))
        info.stage.pNext = &size;
    bool ok = false;
    uint32_t *shared = NULL;
    size_t n_shared;
    if (!spirv_share_by_barriers(v->words, v->n_words, &shared, &n_shared, e))
        return false;
    if (shared) {
        code.pCode = shared;
        code.codeSize = n_shared * 4;
    }
    VK(e, vkCreateShaderModule(g->device, &code, NULL, &module));
    info.stage.module = module;
    uint64_t start = os_now_ns();
    VK(e, vkCreateComputePipelines(g->device, g->pipelines->cache, 1, &info, NULL, &k->pipeline));
    log_debug("kernel %s, variant %s: pipeline made in %.1f ms", kernel_decls[v->kernel].name, v->name,
              (double)(os_now_ns() - start) * 1e-6);
    ok = true;
fail:
    vkDestroyShaderModule(g->device, module, NULL);
    free(shared);
    return ok;
}

/* Whether this device can run it, and it is made for a call with these push constants; push NULL: for any call. */
static bool takes(const struct gpu_kernel *k, const void *push)
{
    const struct kernel_variant *v = k->variant;
    uint32_t value;
    if (!k->usable || !v->where.most)
        return k->usable;
    if (!push)
        return false;
    memcpy(&value, (const char *)push + v->where.at - kernel_decls[v->kernel].n_buffers * sizeof(struct gpu_view),
           sizeof value);
    return value % v->where.step == 0 && value <= v->where.most;
}

struct gpu_kernel *gpu_kernel_chosen(struct gpu *g, unsigned kernel, const void *push)
{
    struct gpu_pipelines *ps = g->pipelines;
    const struct preference *first = &ps->preferred[kernel];
    for (unsigned i = 0; i < first->n; i++)
        if (takes(&ps->kernels[first->row[i]], push))
            return &ps->kernels[first->row[i]];
    for (unsigned i = ps->first[kernel]; i < ps->n_kernels; i++)
        if (ps->kernels[i].variant->kernel == kernel && !ps->kernels[i].variant->tune && takes(&ps->kernels[i], push))
            return &ps->kernels[i];
    return NULL;
}

bool gpu_kernel_make(struct gpu *g, struct gpu_kernel *k, struct err *e)
{
    if (k->pipeline)
        return true;
    if (!gpu_kernel_reflect(k, e))
        return false;
    return ((k->layout || create_layouts(g, k, e)) && create_pipeline(g, k, e)) ||
           err_context(e, "kernel %s, variant %s", kernel_decls[k->variant->kernel].name, k->variant->name);
}

struct gpu_kernel *gpu_kernel_get(struct gpu *g, unsigned kernel, const void *push, struct err *e)
{
    struct gpu_kernel *k = gpu_kernel_chosen(g, kernel, push);
    if (k && k->pipeline)
        return k;
    const char *name = kernel_decls[kernel].name, *v;
    if (!k && !gpu_kernel_variant_at(g, kernel, 0, &v, NULL)) {
        err_set(e, ERR_BUG, "no shader for kernel %s in this build", name);
        return NULL;
    }
    if (!k) {
        err_set(e, ERR_BUG, "no variant of kernel %s runs on %s", name, g->probe.info.name);
        return NULL;
    }
    return gpu_kernel_make(g, k, e) ? k : NULL;
}

/* ---- questions ---- */

const void *gpu_kernel_push(unsigned kernel, const void *args)
{
    return args ? (const char *)args + kernel_decls[kernel].n_buffers * sizeof(struct gpu_view) : NULL;
}

const char *gpu_kernel_variant(struct gpu *g, unsigned kernel, const void *args, struct err *e)
{
    struct gpu_kernel *k = gpu_kernel_get(g, kernel, gpu_kernel_push(kernel, args), e);
    return k ? k->variant->name : NULL;
}

uint32_t gpu_kernel_local_size(struct gpu *g, unsigned kernel)
{
    struct gpu_kernel *k = gpu_kernel_chosen(g, kernel, NULL);
    return k ? k->local_size : 0;
}

/* A specialization constant of a variant. */
static uint32_t constant_of(const struct gpu_kernel *k, uint32_t id, uint32_t otherwise)
{
    if (!k)
        return otherwise;
    if (id == SPEC_WORKGROUP)
        return k->local_size;
    if (id == SPEC_SUBGROUP)
        return k->subgroup_size;
    for (uint32_t i = 0; i < k->variant->n_spec; i++)
        if (k->variant->spec[i].id == id)
            return k->variant->spec[i].value;
    return otherwise;
}

uint32_t gpu_kernel_constant(struct gpu *g, unsigned kernel, const void *args, uint32_t id, uint32_t otherwise)
{
    return constant_of(gpu_kernel_chosen(g, kernel, gpu_kernel_push(kernel, args)), id, otherwise);
}

struct gpu_kernel *gpu_kernel_at(const struct gpu *g, unsigned kernel, unsigned i)
{
    const struct gpu_pipelines *ps = g->pipelines;
    for (unsigned row = 0; row < ps->n_kernels; row++)
        if (ps->kernels[row].variant->kernel == kernel && i-- == 0)
            return &ps->kernels[row];
    return NULL;
}

bool gpu_kernel_variant_at(const struct gpu *g, unsigned kernel, unsigned i, const char **name, bool *usable)
{
    const struct gpu_kernel *k = gpu_kernel_at(g, kernel, i);
    if (!k)
        return false;
    if (name)
        *name = k->variant->name;
    if (usable)
        *usable = k->usable;
    return true;
}

bool gpu_kernel_candidate(const struct gpu *g, unsigned kernel, unsigned i)
{
    const struct gpu_kernel *k = gpu_kernel_at(g, kernel, i);
    return k && k->usable && k->variant->tune;
}

bool gpu_kernels_forced(const struct gpu *g)
{
    return g->pipelines->forced;
}

/* The row of a variant that the device can run; -1 and *e: none. */
static int usable_row(const struct gpu *g, unsigned kernel, const char *variant, struct err *e)
{
    const struct gpu_pipelines *ps = g->pipelines;
    for (unsigned i = 0; i < ps->n_kernels; i++) {
        const struct gpu_kernel *k = &ps->kernels[i];
        if (k->variant->kernel != kernel || strcmp(k->variant->name, variant) != 0)
            continue;
        if (k->usable)
            return (int)i;
        err_set(e, ERR_USER, "%s cannot run variant %s of kernel %s", g->probe.info.name, variant,
                kernel_decls[kernel].name);
        return -1;
    }
    err_set(e, ERR_USER, "kernel %s has no variant %s", kernel_decls[kernel].name, variant);
    return -1;
}

uint32_t gpu_kernel_shared_bytes(const struct gpu *g, unsigned kernel, unsigned i)
{
    const struct gpu_kernel *k = gpu_kernel_at(g, kernel, i);
    return k ? k->shared_bytes : 0;
}

bool gpu_kernel_force(struct gpu *g, unsigned kernel, const char *variant, struct err *e)
{
    struct gpu_pipelines *ps = g->pipelines;
    ps->preferred[kernel] = ps->asked[kernel];
    if (!variant)
        return true;
    int row = usable_row(g, kernel, variant, e);
    if (row >= 0)
        ps->preferred[kernel] = (struct preference){1, {(unsigned)row}};
    return row >= 0;
}

bool gpu_kernel_prefer(struct gpu *g, unsigned kernel, const char *const *variants, unsigned n, struct err *e)
{
    struct preference p = {0};
    if (n > GPU_PREFER_MAX)
        return err_set(e, ERR_BUG, "%u variants of kernel %s are preferred at once", n, kernel_decls[kernel].name);
    for (; p.n < n; p.n++) {
        int row = usable_row(g, kernel, variants[p.n], e);
        if (row < 0)
            return false;
        p.row[p.n] = (unsigned)row;
    }
    g->pipelines->asked[kernel] = g->pipelines->preferred[kernel] = p;
    return true;
}

bool gpu_kernel_usable(const struct gpu *g, unsigned kernel, const char *variant, struct err *e)
{
    return usable_row(g, kernel, variant, e) >= 0;
}

bool gpu_kernel_needs(const struct gpu *g, unsigned kernel, const char *variant, uint32_t cap)
{
    int row = usable_row(g, kernel, variant, NULL);
    return row >= 0 && (g->pipelines->kernels[row].variant->needs & cap);
}

unsigned gpu_kernel_preferred(const struct gpu *g, unsigned kernel, const char *names[GPU_PREFER_MAX])
{
    const struct preference *p = &g->pipelines->asked[kernel];
    for (unsigned i = 0; i < p->n; i++)
        names[i] = g->pipelines->kernels[p->row[i]].variant->name;
    return p->n;
}

struct hash128 gpu_kernel_hash(const struct gpu_kernel *k, struct hash128 h)
{
    const struct kernel_variant *v = k->variant;
    h = hash_bytes(v->name, strlen(v->name), h);
    h = hash_bytes(v->words, (size_t)v->n_words * 4, h);
    h = hash_bytes(&k->local_size, sizeof k->local_size, h);
    h = hash_bytes(&v->where, sizeof v->where, h);
    if (v->subgroup_size)
        h = hash_bytes(&k->subgroup_size, sizeof k->subgroup_size, h);
    for (uint32_t s = 0; s < v->n_spec; s++)
        h = hash_bytes(&v->spec[s], sizeof v->spec[s], h);
    return h;
}

/* The variants of a kernel that some call may take, in the order in which they are tried. */
static struct hash128 hash_taken(const struct gpu_pipelines *ps, unsigned kernel, struct hash128 h)
{
    const struct preference *first = &ps->preferred[kernel];
    bool all = false;
    for (unsigned i = 0; i < first->n && !all; i++) {
        h = gpu_kernel_hash(&ps->kernels[first->row[i]], h);
        all = takes(&ps->kernels[first->row[i]], NULL);
    }
    for (unsigned i = 0; i < ps->n_kernels && !all; i++) {
        const struct gpu_kernel *k = &ps->kernels[i];
        if (k->variant->kernel != kernel || k->variant->tune || !k->usable)
            continue;
        h = gpu_kernel_hash(k, h);
        all = takes(k, NULL);
    }
    return h;
}

uint64_t gpu_kernels_identity(struct gpu *g)
{
    struct hash128 h = {0};
    uint32_t subgroup = g->probe.info.subgroup_size;
    h = hash_bytes(&subgroup, sizeof subgroup, h);
    for (unsigned i = 0; i < KERNEL_COUNT; i++) {
        h = hash_bytes(kernel_decls[i].name, strlen(kernel_decls[i].name), h);
        h = hash_taken(g->pipelines, i, h);
    }
    return h.lo ^ h.hi;
}
