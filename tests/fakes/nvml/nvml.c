/* A libnvidia-ml.so.1 without a GPU: it answers from a state file.
 *
 * The file is named by FAKE_NVML_STATE, or by fakeNvmlUse(). It is read again whenever another one
 * has been renamed into its place, so a test changes the machine by writing it anew. What stands in
 * it are traces over time (power, utilisation, who is alive), and everything that NVML returns is
 * computed from these at the moment of the call. scenario.py writes it; parse() below is its
 * grammar.
 *
 * Beside it lies STATE.calls, a table of counters, one slot a function: each call adds one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))

typedef int nvmlReturn_t;
typedef void *nvmlDevice_t;

enum {
    OK = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    GPU_IS_LOST = 15,
    INSUFFICIENT_MEMORY = 20,
    ARGUMENT_VERSION_MISMATCH = 25,
    UNKNOWN = 999,
};

enum { VALUE_DOUBLE, VALUE_UINT, VALUE_ULONG, VALUE_ULONG_LONG, VALUE_LONG_LONG, VALUE_INT,
       VALUE_USHORT };

#define NS_PER_US 1000LL
#define NS_PER_S 1000000000LL
#define NOT_AVAILABLE UINT64_MAX
#define NO_INSTANCE UINT32_MAX
#define RING_SAMPLES 100
#define RING_NS (10 * NS_PER_S)
#define POLL_MS 10

/* ---- what the state file says -------------------------------------------------------------- */

typedef struct {
    int64_t from;
    int64_t value;
} point;

/* Piecewise constant; 0 before its first point. */
typedef struct {
    point *at;
    size_t count;
} trace;

typedef struct {
    uint32_t pid;
    int kinds; /* 1 compute, 2 graphics, 4 MPS */
    int64_t memory; /* bytes, or -1: not available */
    int64_t from;
    int64_t until; /* -1: alive */
    char instance[96]; /* the MIG instance's UUID, or "-" */
    trace sm;
    trace mem;
} process;

typedef struct {
    uint32_t slot;
    char uuid[96];
    char profile[32];
    uint32_t gi, ci, gi_slices, ci_slices, sms;
    int64_t memory_total, memory_used;
} instance;

typedef struct {
    int64_t gi; /* -1: the whole GPU */
    trace graphics;
    trace sm;
} gpm_trace;

typedef struct {
    uint64_t time_us;
    uint32_t pid, sm, mem, enc, dec;
} row;

typedef struct {
    char function[64];
    char device[96];
    int64_t number; /* a fault's code; a delay's ms, -1: until the file says otherwise */
} rule;

typedef struct {
    int64_t id, scope, result, type;
} field_rule;

typedef struct {
    int64_t index;
    char uuid[96], name[96];
    uint32_t domain, bus, slot, pci_id, pci_subsystem;
    int64_t minor, arch, cc_major, cc_minor;
    int64_t refresh_ns, averaging_ns, sample_period_ns, sample_size_exact;
    int64_t limit, min_limit, max_limit, default_limit, enforced_limit;
    int64_t memory_total, memory_reserved, memory_used;
    int64_t temperature, memory_temperature, reasons, reasons_supported;
    int64_t compute_mode, persistence, pstate, util_gpu, util_memory;
    int64_t mig, mig_max, gpm;
    int64_t clock0, clock1, clock2, clock3, max0, max1, max2, max3;
    trace power[3], epochs;
    rule *unsupported;
    field_rule *fields;
    process *processes;
    instance *instances;
    gpm_trace *gpms;
    row *garbage;
    size_t unsupported_count, fields_count, processes_count, instances_count, gpms_count,
        garbage_count;
} gpu;

typedef struct {
    int64_t virtual_ns; /* -1: CLOCK_MONOTONIC */
    int64_t wall_offset_us;
    char driver[80], nvml[80];
    int64_t cuda;
    gpu *gpus;
    rule *faults, *delays;
    size_t gpus_count, faults_count, delays_count;
} state;

static const struct {
    const char *name;
    size_t offset;
} settings[] = {
#define SETTING(name) {#name, offsetof(gpu, name)}
    SETTING(minor),
    SETTING(arch),
    SETTING(cc_major),
    SETTING(cc_minor),
    SETTING(refresh_ns),
    SETTING(averaging_ns),
    SETTING(sample_period_ns),
    SETTING(sample_size_exact),
    SETTING(limit),
    SETTING(min_limit),
    SETTING(max_limit),
    SETTING(default_limit),
    SETTING(enforced_limit),
    SETTING(memory_total),
    SETTING(memory_reserved),
    SETTING(memory_used),
    SETTING(temperature),
    SETTING(memory_temperature),
    SETTING(reasons),
    SETTING(reasons_supported),
    SETTING(compute_mode),
    SETTING(persistence),
    SETTING(pstate),
    SETTING(util_gpu),
    SETTING(util_memory),
    SETTING(mig),
    SETTING(mig_max),
    SETTING(gpm),
    SETTING(clock0),
    SETTING(clock1),
    SETTING(clock2),
    SETTING(clock3),
    SETTING(max0),
    SETTING(max1),
    SETTING(max2),
    SETTING(max3),
};

/* A pointer to one more, zeroed element of an array that grows by doubling. */
#define GROW(array, count) \
    (((count) & ((count) - 1)) == 0 \
         ? (void)((array) = grown((array), (count) ? 2 * (count) : 1, sizeof *(array))) \
         : (void)0, \
     memset(&(array)[(count)], 0, sizeof *(array)), &(array)[(count)++])

static void *grown(void *array, size_t count, size_t size)
{
    void *larger = realloc(array, count * size);
    if (!larger)
        abort();
    return larger;
}

static void add_point(trace *t, int64_t from, int64_t value)
{
    point *p = GROW(t->at, t->count);
    p->from = from;
    p->value = value;
}

static void drop(state *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->gpus_count; i++) {
        gpu *g = &s->gpus[i];
        for (size_t j = 0; j < g->processes_count; j++) {
            free(g->processes[j].sm.at);
            free(g->processes[j].mem.at);
        }
        for (size_t j = 0; j < g->gpms_count; j++) {
            free(g->gpms[j].graphics.at);
            free(g->gpms[j].sm.at);
        }
        for (size_t j = 0; j < 3; j++)
            free(g->power[j].at);
        free(g->epochs.at);
        free(g->unsupported);
        free(g->fields);
        free(g->processes);
        free(g->instances);
        free(g->gpms);
        free(g->garbage);
    }
    free(s->gpus);
    free(s->faults);
    free(s->delays);
    free(s);
}

static int add_rule(rule **rules, size_t *count, const char *line, const char *format)
{
    rule *r = GROW(*rules, *count);
    return sscanf(line, format, r->function, r->device, &r->number) == 3;
}

static gpm_trace *gpm_of(gpu *g, int64_t gi)
{
    for (size_t i = 0; i < g->gpms_count; i++)
        if (g->gpms[i].gi == gi)
            return &g->gpms[i];
    gpm_trace *t = GROW(g->gpms, g->gpms_count);
    t->gi = gi;
    return t;
}

static int set(gpu *g, const char *name, int64_t value)
{
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        if (strcmp(settings[i].name, name) == 0) {
            *(int64_t *)((char *)g + settings[i].offset) = value;
            return 1;
        }
    return 0;
}

/* One line about the GPU that is being described; 0: not understood. */
static int parse_gpu_line(gpu *g, const char *line)
{
    int64_t a, b, c;
    char word[96];
    process *last = g->processes_count ? &g->processes[g->processes_count - 1] : NULL;

    if (sscanf(line, "set %95s %" SCNd64, word, &a) == 2)
        return set(g, word, a);
    if (sscanf(line, "uuid %95s", g->uuid) == 1 || sscanf(line, "name %95[^\n]", g->name) == 1)
        return 1;
    if (strncmp(line, "pci ", 4) == 0)
        return sscanf(line, "pci %u %u %u %u %u", &g->domain, &g->bus, &g->slot, &g->pci_id,
                      &g->pci_subsystem) == 5;
    if (sscanf(line, "unsupported %95s", word) == 1) {
        rule *r = GROW(g->unsupported, g->unsupported_count);
        snprintf(r->function, sizeof r->function, "%.63s", word);
        return 1;
    }
    if (strncmp(line, "field ", 6) == 0) {
        field_rule *f = GROW(g->fields, g->fields_count);
        return sscanf(line, "field %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64, &f->id, &f->scope,
                      &f->result, &f->type) == 4;
    }
    if (sscanf(line, "power %" SCNd64 " %" SCNd64 " %" SCNd64, &a, &b, &c) == 3 && a >= 0 && a < 3)
        return add_point(&g->power[a], b, c), 1;
    if (sscanf(line, "epoch %" SCNd64 " %" SCNd64, &a, &b) == 2)
        return add_point(&g->epochs, a, b), 1;
    if (strncmp(line, "process ", 8) == 0) {
        process *p = GROW(g->processes, g->processes_count);
        return sscanf(line, "process %u %d %" SCNd64 " %" SCNd64 " %" SCNd64 " %95s", &p->pid,
                      &p->kinds, &p->memory, &p->from, &p->until, p->instance) == 6;
    }
    if (last && sscanf(line, "sm %" SCNd64 " %" SCNd64, &a, &b) == 2)
        return add_point(&last->sm, a, b), 1;
    if (last && sscanf(line, "mem %" SCNd64 " %" SCNd64, &a, &b) == 2)
        return add_point(&last->mem, a, b), 1;
    if (strncmp(line, "instance ", 9) == 0) {
        instance *i = GROW(g->instances, g->instances_count);
        return sscanf(line, "instance %u %95s %31s %u %u %u %u %u %" SCNd64 " %" SCNd64, &i->slot,
                      i->uuid, i->profile, &i->gi, &i->ci, &i->gi_slices, &i->ci_slices, &i->sms,
                      &i->memory_total, &i->memory_used) == 10;
    }
    int64_t d;
    if (sscanf(line, "gpm %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64, &a, &b, &c, &d) == 4) {
        gpm_trace *t = gpm_of(g, a);
        add_point(&t->graphics, b, c);
        add_point(&t->sm, b, d);
        return 1;
    }
    if (strncmp(line, "garbage ", 8) == 0) {
        row *r = GROW(g->garbage, g->garbage_count);
        return sscanf(line, "garbage %" SCNu64 " %u %u %u %u %u", &r->time_us, &r->pid, &r->sm,
                      &r->mem, &r->enc, &r->dec) == 6;
    }
    return 0;
}

static int parse_line(state *s, const char *line)
{
    int64_t a;
    if (strncmp(line, "clock ", 6) == 0)
        return sscanf(line, "clock %" SCNd64 " %" SCNd64, &s->virtual_ns, &s->wall_offset_us) == 2;
    if (strncmp(line, "versions ", 9) == 0)
        return sscanf(line, "versions %79s %79s %" SCNd64, s->driver, s->nvml, &s->cuda) == 3;
    if (strncmp(line, "fault ", 6) == 0)
        return add_rule(&s->faults, &s->faults_count, line, "fault %63s %95s %" SCNd64);
    if (strncmp(line, "delay ", 6) == 0)
        return add_rule(&s->delays, &s->delays_count, line, "delay %63s %95s %" SCNd64);
    if (sscanf(line, "gpu %" SCNd64, &a) == 1) {
        gpu *g = GROW(s->gpus, s->gpus_count);
        g->index = a;
        return 1;
    }
    return s->gpus_count && parse_gpu_line(&s->gpus[s->gpus_count - 1], line);
}

static state *parse(FILE *file, const char *path)
{
    state *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->virtual_ns = -1;
    char line[512];
    for (int number = 1; fgets(line, sizeof line, file); number++)
        if (line[0] != '\n' && !parse_line(s, line)) {
            fprintf(stderr, "fake nvml: %s:%d: %s", path, number, line);
            drop(s);
            return NULL;
        }
    return s;
}

/* ---- the library's own state, all below one lock ------------------------------------------- */

typedef struct {
    char name[56];
    uint64_t count;
} counter;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char state_path[4096];
static int path_known;
static state *now_state;
static struct stat seen;
static int broken;
static int users; /* nvmlInit less nvmlShutdown */
static uint32_t generation;
static counter *counters;
static size_t counters_count;

static void map_counters(void)
{
    char path[sizeof state_path + 8];
    struct stat facts;
    snprintf(path, sizeof path, "%s.calls", state_path);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    if (fstat(fd, &facts) == 0 && facts.st_size >= (off_t)sizeof(counter)) {
        void *map =
            mmap(NULL, (size_t)facts.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (map != MAP_FAILED) {
            counters = map;
            counters_count = (size_t)facts.st_size / sizeof(counter);
        }
    }
    close(fd);
}

static void use(const char *path)
{
    if (counters)
        munmap(counters, counters_count * sizeof(counter));
    counters = NULL;
    counters_count = 0;
    drop(now_state);
    now_state = NULL;
    memset(&seen, 0, sizeof seen);
    broken = 0;
    users = 0;
    path_known = 1;
    snprintf(state_path, sizeof state_path, "%s", path ? path : "");
    if (state_path[0])
        map_counters();
}

/* Point the library at another state file, as if it were freshly loaded; NULL: at none. */
API void fakeNvmlUse(const char *path);
API void fakeNvmlUse(const char *path)
{
    pthread_mutex_lock(&lock);
    use(path);
    pthread_mutex_unlock(&lock);
}

static int same_file(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static void refresh(void)
{
    struct stat facts;
    if (!path_known)
        use(getenv("FAKE_NVML_STATE"));
    if (!state_path[0] || stat(state_path, &facts) != 0 || same_file(&facts, &seen))
        return;
    FILE *file = fopen(state_path, "re");
    if (!file)
        return;
    if (fstat(fileno(file), &facts) == 0) {
        state *fresh = parse(file, state_path);
        broken = !fresh;
        if (fresh) {
            drop(now_state);
            now_state = fresh;
        }
        seen = facts;
    }
    fclose(file);
}

static void count_call(const char *function)
{
    for (size_t i = 0; i < counters_count; i++)
        if (strncmp(counters[i].name, function, sizeof counters[i].name) == 0) {
            __atomic_fetch_add(&counters[i].count, 1, __ATOMIC_RELAXED);
            return;
        }
}

static int64_t monotonic_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * NS_PER_S + t.tv_nsec;
}

static int64_t now_ns(void)
{
    return now_state->virtual_ns >= 0 ? now_state->virtual_ns : monotonic_ns();
}

static int64_t wall_us(int64_t ns)
{
    return ns / NS_PER_US + now_state->wall_offset_us;
}

/* ---- handles, and the way into each function ----------------------------------------------- */

#define MAGIC 0x4E56ULL

/* A handle says when, which GPU, and which MIG slot: as with the real library it outlives what it
 * pointed at, and a slot's handle comes to mean another instance when the layout changes. */
static nvmlDevice_t handle_of(const gpu *g, const instance *i)
{
    uint64_t value = MAGIC << 48 | (uint64_t)(generation & 0xFFFFFF) << 24 |
                     (uint64_t)(g->index + 1) << 8 | (i ? i->slot + 1 : 0);
    return (nvmlDevice_t)(uintptr_t)value;
}

typedef struct {
    const char *function;
    enum { NO_DEVICE, BY_HANDLE, BY_INDEX, BY_UUID, BY_BUS_ID } by;
    nvmlDevice_t handle;
    uint32_t index;
    const char *text;
    int initialises; /* needs no nvmlInit before it */
    int takes_mig; /* answers for a MIG instance too */
    gpu *gpu;
    instance *instance;
} call;

static gpu *gpu_at(int64_t index)
{
    for (size_t i = 0; i < now_state->gpus_count; i++)
        if (now_state->gpus[i].index == index)
            return &now_state->gpus[i];
    return NULL;
}

static instance *instance_at(const gpu *g, uint32_t slot)
{
    for (size_t i = 0; g->mig == 1 && i < g->instances_count; i++)
        if (g->instances[i].slot == slot)
            return &g->instances[i];
    return NULL;
}

static instance *instance_named(const gpu *g, const char *uuid)
{
    for (size_t i = 0; g->mig == 1 && i < g->instances_count; i++)
        if (strcasecmp(g->instances[i].uuid, uuid) == 0)
            return &g->instances[i];
    return NULL;
}

static nvmlReturn_t locate_handle(call *c)
{
    uint64_t value = (uint64_t)(uintptr_t)c->handle;
    if (value >> 48 != MAGIC || (value >> 24 & 0xFFFFFF) != (generation & 0xFFFFFF))
        return INVALID_ARGUMENT;
    c->gpu = gpu_at((int64_t)(value >> 8 & 0xFFFF) - 1);
    if (!c->gpu)
        return GPU_IS_LOST;
    if ((value & 0xFF) == 0)
        return OK;
    c->instance = instance_at(c->gpu, (uint32_t)(value & 0xFF) - 1);
    if (!c->instance)
        return NOT_FOUND;
    return c->takes_mig ? OK : NOT_SUPPORTED;
}

static nvmlReturn_t locate(call *c)
{
    c->gpu = NULL;
    c->instance = NULL;
    switch (c->by) {
    case NO_DEVICE:
        return OK;
    case BY_HANDLE:
        return locate_handle(c);
    case BY_INDEX:
        c->gpu = gpu_at(c->index);
        return c->gpu ? OK : INVALID_ARGUMENT;
    case BY_UUID:
        if (!c->text)
            return INVALID_ARGUMENT;
        for (size_t i = 0; i < now_state->gpus_count; i++) {
            gpu *g = &now_state->gpus[i];
            instance *found = instance_named(g, c->text);
            if (found || strcasecmp(g->uuid, c->text) == 0) {
                c->gpu = g;
                c->instance = found;
                return OK;
            }
        }
        return NOT_FOUND;
    case BY_BUS_ID: {
        unsigned domain, bus, slot;
        if (!c->text || sscanf(c->text, "%x:%x:%x.0", &domain, &bus, &slot) != 3)
            return INVALID_ARGUMENT;
        for (size_t i = 0; i < now_state->gpus_count; i++) {
            gpu *g = &now_state->gpus[i];
            if (g->domain == domain && g->bus == bus && g->slot == slot) {
                c->gpu = g;
                return OK;
            }
        }
        return NOT_FOUND;
    }
    }
    return UNKNOWN;
}

static int applies(const rule *r, const call *c)
{
    char index[24];
    if (fnmatch(r->function, c->function, 0) != 0)
        return 0;
    if (strcmp(r->device, "*") == 0)
        return 1;
    if (!c->gpu)
        return 0;
    snprintf(index, sizeof index, "%" PRId64, c->gpu->index);
    return strcmp(r->device, index) == 0 || strcasecmp(r->device, c->gpu->uuid) == 0 ||
           (c->instance && strcasecmp(r->device, c->instance->uuid) == 0);
}

static int64_t pause_ms(const call *c)
{
    int64_t longest = 0;
    for (size_t i = 0; i < now_state->delays_count; i++)
        if (applies(&now_state->delays[i], c)) {
            if (now_state->delays[i].number < 0)
                return INT64_MAX;
            if (now_state->delays[i].number > longest)
                longest = now_state->delays[i].number;
        }
    return longest;
}

static nvmlReturn_t end(nvmlReturn_t result)
{
    pthread_mutex_unlock(&lock);
    return result;
}

/* Count, wait, fail as the file says, and find the device. OK: the lock is held until end(). */
static nvmlReturn_t begin(call *c)
{
    int64_t begun = monotonic_ns();
    nvmlReturn_t found;
    pthread_mutex_lock(&lock);
    refresh();
    count_call(c->function);
    for (;;) {
        if (broken)
            return end(UNKNOWN);
        if (!now_state)
            return end(c->initialises ? DRIVER_NOT_LOADED : UNINITIALIZED);
        if (!users && !c->initialises)
            return end(UNINITIALIZED);
        found = locate(c);
        int64_t left_ms = pause_ms(c);
        if (left_ms != INT64_MAX)
            left_ms -= (monotonic_ns() - begun) / 1000000;
        if (left_ms <= 0)
            break;
        pthread_mutex_unlock(&lock);
        usleep((useconds_t)(left_ms < POLL_MS ? left_ms : POLL_MS) * 1000);
        pthread_mutex_lock(&lock);
        refresh();
    }
    for (size_t i = 0; i < now_state->faults_count; i++)
        if (applies(&now_state->faults[i], c))
            return end((nvmlReturn_t)now_state->faults[i].number);
    for (size_t i = 0; c->gpu && i < c->gpu->unsupported_count; i++)
        if (fnmatch(c->gpu->unsupported[i].function, c->function, 0) == 0)
            return end(NOT_SUPPORTED);
    return found == OK ? OK : end(found);
}

#define SYSTEM_CALL() \
    call c = {.function = __func__, .by = NO_DEVICE}; \
    nvmlReturn_t begun = begin(&c); \
    if (begun != OK) \
        return begun

#define DEVICE_CALL(mig) \
    call c = {.function = __func__, .by = BY_HANDLE, .handle = device, .takes_mig = (mig)}; \
    nvmlReturn_t begun = begin(&c); \
    if (begun != OK) \
        return begun; \
    gpu *g = c.gpu; \
    (void)g

#define NO_MIG 0
#define MIG_TOO 1

#define NEED(condition, otherwise) \
    do { \
        if (!(condition)) \
            return end(otherwise); \
    } while (0)

static nvmlReturn_t put_text(const char *text, char *buffer, unsigned size)
{
    NEED(buffer, INVALID_ARGUMENT);
    NEED(strlen(text) < size, INSUFFICIENT_SIZE);
    strcpy(buffer, text);
    return end(OK);
}

/* ---- arithmetic over traces ---------------------------------------------------------------- */

static int64_t value_at(const trace *t, int64_t ns)
{
    int64_t value = 0;
    for (size_t i = 0; i < t->count && t->at[i].from <= ns; i++)
        value = t->at[i].value;
    return value;
}

static __int128 integral(const trace *t, int64_t from, int64_t to)
{
    __int128 sum = 0;
    for (size_t i = 0; i < t->count; i++) {
        int64_t begin_ns = t->at[i].from > from ? t->at[i].from : from;
        int64_t end_ns = i + 1 < t->count && t->at[i + 1].from < to ? t->at[i + 1].from : to;
        if (end_ns > begin_ns)
            sum += (__int128)t->at[i].value * (end_ns - begin_ns);
    }
    return sum;
}

/* The mean over a window that ends at `to`, rounded; the window does not reach before the trace. */
static int64_t mean(const trace *t, int64_t to, int64_t window)
{
    int64_t from = to - window;
    if (t->count && from < t->at[0].from)
        from = t->at[0].from;
    if (window <= 0 || to <= from)
        return value_at(t, to);
    return (int64_t)((integral(t, from, to) + (to - from) / 2) / (to - from));
}

static int alive(const process *p, int64_t ns)
{
    return p->from <= ns && (p->until < 0 || ns < p->until);
}

/* A process's mean over a whole window, of which it need not have been alive all the time. */
static int64_t share(const process *p, const trace *t, int64_t to, int64_t window)
{
    int64_t from = to - window > p->from ? to - window : p->from;
    int64_t until = p->until >= 0 && p->until < to ? p->until : to;
    if (until <= from)
        return 0;
    return (int64_t)((integral(t, from, until) + window / 2) / window);
}

static uint64_t energy_mj(const gpu *g, int64_t ns)
{
    const point *epoch = NULL;
    for (size_t i = 0; i < g->epochs.count && g->epochs.at[i].from <= ns; i++)
        epoch = &g->epochs.at[i];
    if (!epoch)
        return 0;
    if (g->refresh_ns > 0)
        ns -= ns % g->refresh_ns;
    __int128 picojoules = integral(&g->power[0], epoch->from, ns);
    return (uint64_t)epoch->value + (uint64_t)(picojoules / 1000000000);
}

/* ---- the system ---------------------------------------------------------------------------- */

API nvmlReturn_t nvmlInitWithFlags(unsigned flags);
API nvmlReturn_t nvmlInit_v2(void);
API nvmlReturn_t nvmlShutdown(void);
API const char *nvmlErrorString(nvmlReturn_t result);
API nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned length);
API nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned length);
API nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version);
API nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version);

static nvmlReturn_t initialise(const char *function)
{
    call c = {.function = function, .by = NO_DEVICE, .initialises = 1};
    nvmlReturn_t begun = begin(&c);
    if (begun != OK)
        return begun;
    if (users++ == 0)
        generation++;
    return end(OK);
}

nvmlReturn_t nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    return initialise(__func__);
}

nvmlReturn_t nvmlInit_v2(void)
{
    return initialise(__func__);
}

nvmlReturn_t nvmlShutdown(void)
{
    SYSTEM_CALL();
    users--;
    return end(OK);
}

const char *nvmlErrorString(nvmlReturn_t result)
{
    static const char *const texts[] = {
        "Success", "Uninitialized", "Invalid Argument", "Not Supported", "Insufficient Permissions",
        "Already Initialized", "Not Found", "Insufficient Size", "Insufficient External Power",
        "Driver Not Loaded", "Timeout", "Interrupt Request Issue", "NVML Shared Library Not Found",
        "Function Not Found", "Corrupted infoROM", "GPU is lost", "GPU requires reset",
        "The operating system has blocked the request", "Driver/library version mismatch",
        "In use by another client", "Insufficient Memory", "No data", "vGPU ECC not supported",
        "Insufficient resources", "Frequency not supported", "Argument version mismatch",
        "Deprecated", "Not ready", "GPU not found", "Invalid state", "Reset type not supported"};
    if (result >= 0 && (size_t)result < sizeof texts / sizeof *texts)
        return texts[result];
    return "Unknown Error";
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned length)
{
    SYSTEM_CALL();
    return put_text(now_state->driver, version, length);
}

nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned length)
{
    call c = {.function = __func__, .by = NO_DEVICE, .initialises = 1};
    nvmlReturn_t begun = begin(&c);
    if (begun != OK)
        return begun;
    return put_text(now_state->nvml, version, length);
}

static nvmlReturn_t cuda_version(const char *function, int *version)
{
    call c = {.function = function, .by = NO_DEVICE, .initialises = 1};
    nvmlReturn_t begun = begin(&c);
    if (begun != OK)
        return begun;
    NEED(version, INVALID_ARGUMENT);
    *version = (int)now_state->cuda;
    return end(OK);
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version)
{
    return cuda_version(__func__, version);
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    return cuda_version(__func__, version);
}

/* ---- finding devices ----------------------------------------------------------------------- */

API nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count);
API nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *found);
API nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *found);
API nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *found);

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count)
{
    SYSTEM_CALL();
    NEED(count, INVALID_ARGUMENT);
    *count = (unsigned)now_state->gpus_count;
    return end(OK);
}

static nvmlReturn_t find(call c, nvmlDevice_t *found)
{
    nvmlReturn_t begun = begin(&c);
    if (begun != OK)
        return begun;
    NEED(found, INVALID_ARGUMENT);
    *found = handle_of(c.gpu, c.instance);
    return end(OK);
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *found)
{
    return find((call){.function = __func__, .by = BY_INDEX, .index = index}, found);
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *found)
{
    return find((call){.function = __func__, .by = BY_UUID, .text = uuid}, found);
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *found)
{
    return find((call){.function = __func__, .by = BY_BUS_ID, .text = bus_id}, found);
}

/* ---- one value a device -------------------------------------------------------------------- */

/* A function that stores one value. In `expression`, g is the GPU and c.instance the instance. */
#define GETTER(function, type, mig, expression) \
    API nvmlReturn_t function(nvmlDevice_t device, type *value); \
    nvmlReturn_t function(nvmlDevice_t device, type *value) \
    { \
        DEVICE_CALL(mig); \
        NEED(value, INVALID_ARGUMENT); \
        *value = (type)(expression); \
        return end(OK); \
    }

GETTER(nvmlDeviceGetIndex, unsigned, MIG_TOO, c.instance ? (int64_t)c.instance->slot : g->index)
GETTER(nvmlDeviceGetMinorNumber, unsigned, NO_MIG, g->minor)
GETTER(nvmlDeviceGetArchitecture, unsigned, MIG_TOO, g->arch)
GETTER(nvmlDeviceGetPersistenceMode, unsigned, NO_MIG, g->persistence)
GETTER(nvmlDeviceGetComputeMode, unsigned, NO_MIG, g->compute_mode)
GETTER(nvmlDeviceGetPerformanceState, unsigned, NO_MIG, g->pstate)
GETTER(nvmlDeviceGetPowerState, unsigned, NO_MIG, g->pstate)
GETTER(nvmlDeviceGetPowerManagementLimit, unsigned, NO_MIG, g->limit)
GETTER(nvmlDeviceGetPowerManagementDefaultLimit, unsigned, NO_MIG, g->default_limit)
GETTER(nvmlDeviceGetEnforcedPowerLimit, unsigned, NO_MIG, g->enforced_limit)
GETTER(nvmlDeviceGetPowerUsage, unsigned, NO_MIG, mean(&g->power[0], now_ns(), g->averaging_ns))
GETTER(nvmlDeviceGetTotalEnergyConsumption, uint64_t, NO_MIG, energy_mj(g, now_ns()))
GETTER(nvmlDeviceGetCurrentClocksThrottleReasons, uint64_t, NO_MIG, g->reasons)
GETTER(nvmlDeviceGetCurrentClocksEventReasons, uint64_t, NO_MIG, g->reasons)
GETTER(nvmlDeviceGetSupportedClocksThrottleReasons, uint64_t, NO_MIG, g->reasons_supported)
GETTER(nvmlDeviceGetSupportedClocksEventReasons, uint64_t, NO_MIG, g->reasons_supported)
GETTER(nvmlDeviceIsMigDeviceHandle, unsigned, MIG_TOO, c.instance != NULL)
GETTER(nvmlDeviceGetMaxMigDeviceCount, unsigned, NO_MIG, g->mig == 1 ? g->mig_max : 0)

API nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned length);
API nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned length);
API nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t device, char *serial, unsigned length);
API nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor);
API nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t device, unsigned *least,
                                                              unsigned *most);
API nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, unsigned type, unsigned *mhz);
API nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, unsigned type, unsigned *mhz);
API nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned sensor, unsigned *celsius);

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned length)
{
    DEVICE_CALL(MIG_TOO);
    return put_text(c.instance ? c.instance->uuid : g->uuid, uuid, length);
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned length)
{
    char text[192];
    DEVICE_CALL(MIG_TOO);
    if (c.instance)
        snprintf(text, sizeof text, "%s MIG %s", g->name, c.instance->profile);
    else
        snprintf(text, sizeof text, "%s", g->name);
    return put_text(text, name, length);
}

nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t device, char *serial, unsigned length)
{
    (void)serial;
    (void)length;
    DEVICE_CALL(NO_MIG);
    return end(NOT_SUPPORTED);
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor)
{
    DEVICE_CALL(MIG_TOO);
    NEED(major && minor, INVALID_ARGUMENT);
    *major = (int)g->cc_major;
    *minor = (int)g->cc_minor;
    return end(OK);
}

nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t device, unsigned *least,
                                                          unsigned *most)
{
    DEVICE_CALL(NO_MIG);
    NEED(least && most, INVALID_ARGUMENT);
    *least = (unsigned)g->min_limit;
    *most = (unsigned)g->max_limit;
    return end(OK);
}

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, unsigned type, unsigned *mhz)
{
    DEVICE_CALL(NO_MIG);
    NEED(mhz && type < 4, INVALID_ARGUMENT);
    *mhz = (unsigned)(&g->clock0)[type];
    return end(OK);
}

nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, unsigned type, unsigned *mhz)
{
    DEVICE_CALL(NO_MIG);
    NEED(mhz && type < 4, INVALID_ARGUMENT);
    *mhz = (unsigned)(&g->max0)[type];
    return end(OK);
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned sensor, unsigned *celsius)
{
    DEVICE_CALL(NO_MIG);
    NEED(celsius && sensor == 0, INVALID_ARGUMENT);
    *celsius = (unsigned)g->temperature;
    return end(OK);
}

/* ---- structures a device ------------------------------------------------------------------- */

typedef struct {
    unsigned version, sensor;
    int temperature;
} temperature_v1;

typedef struct {
    char bus_id_legacy[16];
    unsigned domain, bus, device, pci_id, subsystem;
    char bus_id[32];
} pci_info;

typedef struct {
    uint64_t total, free, used;
} memory_v1;

typedef struct {
    unsigned version;
    uint64_t total, reserved, free, used;
} memory_v2;

typedef struct {
    unsigned gpu, memory;
} utilization;

typedef struct {
    uint32_t id, scope;
    int64_t time_us, latency_us;
    uint32_t type;
    nvmlReturn_t result;
    union {
        double d;
        unsigned u;
        unsigned long ul;
        unsigned long long ull;
        long long ll;
        int i;
        unsigned short us;
    } value;
} field_value;

API nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, temperature_v1 *found);
API nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, pci_info *pci);
API nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, memory_v1 *memory);
API nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, memory_v2 *memory);
API nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, utilization *rates);
API nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, field_value *values);

nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, temperature_v1 *found)
{
    DEVICE_CALL(NO_MIG);
    NEED(found, INVALID_ARGUMENT);
    NEED(found->version == 0x100000C, ARGUMENT_VERSION_MISMATCH);
    NEED(found->sensor == 0, INVALID_ARGUMENT);
    found->temperature = (int)g->temperature;
    return end(OK);
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, pci_info *pci)
{
    DEVICE_CALL(MIG_TOO);
    NEED(pci, INVALID_ARGUMENT);
    memset(pci, 0, sizeof *pci);
    pci->domain = g->domain;
    pci->bus = g->bus;
    pci->device = g->slot;
    pci->pci_id = g->pci_id;
    pci->subsystem = g->pci_subsystem;
    snprintf(pci->bus_id_legacy, sizeof pci->bus_id_legacy, "%04X:%02X:%02X.0",
             g->domain & 0xFFFF, g->bus & 0xFF, g->slot & 0xFF);
    snprintf(pci->bus_id, sizeof pci->bus_id, "%08X:%02X:%02X.0", g->domain, g->bus, g->slot);
    return end(OK);
}

/* Whether a process is one of this instance, or on this GPU at all. */
static int belongs(const gpu *g, const instance *i, const process *p)
{
    if (g->mig != 1 || strcmp(p->instance, "-") == 0)
        return i == NULL;
    const instance *own = instance_named(g, p->instance);
    return own && (!i || i == own);
}

static memory_v2 memory_of(const gpu *g, const instance *i)
{
    int64_t now = now_ns();
    int64_t used = i ? i->memory_used : g->memory_used;
    for (size_t k = 0; k < g->processes_count; k++) {
        const process *p = &g->processes[k];
        if (alive(p, now) && p->memory > 0 && belongs(g, i, p))
            used += p->memory;
    }
    int64_t total = i ? i->memory_total : g->memory_total;
    int64_t reserved = i ? 0 : g->memory_reserved;
    return (memory_v2){.total = (uint64_t)total,
                       .reserved = (uint64_t)reserved,
                       .free = (uint64_t)(total - reserved - used),
                       .used = (uint64_t)used};
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, memory_v1 *memory)
{
    DEVICE_CALL(MIG_TOO);
    NEED(memory, INVALID_ARGUMENT);
    memory_v2 found = memory_of(g, c.instance);
    memory->total = found.total;
    memory->free = found.free;
    memory->used = found.used + found.reserved; /* version 1 knows no other place for it */
    return end(OK);
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, memory_v2 *memory)
{
    DEVICE_CALL(MIG_TOO);
    NEED(memory, INVALID_ARGUMENT);
    NEED(memory->version == (sizeof *memory | 2u << 24), ARGUMENT_VERSION_MISMATCH);
    memory_v2 found = memory_of(g, c.instance);
    found.version = memory->version;
    *memory = found;
    return end(OK);
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, utilization *rates)
{
    DEVICE_CALL(NO_MIG);
    NEED(rates, INVALID_ARGUMENT);
    NEED(g->mig != 1, NOT_SUPPORTED);
    int64_t now = now_ns(), sm = 0, mem = 0;
    for (size_t i = 0; i < g->processes_count; i++) {
        sm += share(&g->processes[i], &g->processes[i].sm, now, g->sample_period_ns);
        mem += share(&g->processes[i], &g->processes[i].mem, now, g->sample_period_ns);
    }
    if (g->util_gpu >= 0) {
        sm = g->util_gpu;
        mem = g->util_memory;
    }
    rates->gpu = (unsigned)(sm < 100 ? sm : 100);
    rates->memory = (unsigned)(mem < 100 ? mem : 100);
    return end(OK);
}

/* A field's natural value and type; not OK where this GPU has none. */
static nvmlReturn_t field(const gpu *g, uint32_t id, uint32_t scope, int64_t *value, uint32_t *type)
{
    const trace *power = scope < 3 ? &g->power[scope] : NULL;
    int64_t now = now_ns();
    *type = VALUE_UINT;
    switch (id) {
    case 82: /* memory temperature */
        *value = g->memory_temperature;
        return g->memory_temperature >= 0 ? OK : NOT_SUPPORTED;
    case 83: /* total energy consumption */
        *value = (int64_t)energy_mj(g, now);
        *type = VALUE_ULONG_LONG;
        return OK;
    case 185: /* average power */
    case 186: /* instant power */
        if (!power || !power->count)
            return NOT_SUPPORTED;
        *value = id == 185 ? mean(power, now, NS_PER_S) : value_at(power, now);
        return OK;
    case 187:
    case 188:
    case 189:
    case 190: { /* least, most, default and current limit */
        const int64_t limits[] = {g->min_limit, g->max_limit, g->default_limit, g->limit};
        *value = limits[id - 187];
        return scope == 0 ? OK : NOT_SUPPORTED;
    }
    default:
        return NOT_SUPPORTED;
    }
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, field_value *values)
{
    DEVICE_CALL(NO_MIG);
    NEED(values && count > 0, INVALID_ARGUMENT);
    for (int i = 0; i < count; i++) {
        field_value *v = &values[i];
        int64_t value = 0;
        v->time_us = wall_us(now_ns());
        v->latency_us = 10;
        v->value.ull = 0;
        v->result = field(g, v->id, v->scope, &value, &v->type);
        for (size_t k = 0; k < g->fields_count; k++) {
            const field_rule *r = &g->fields[k];
            if (r->id != v->id || (r->scope >= 0 && r->scope != v->scope))
                continue;
            v->result = (nvmlReturn_t)r->result;
            if (r->type >= 0)
                v->type = (uint32_t)r->type;
        }
        if (v->result != OK)
            continue;
        switch (v->type) {
        case VALUE_DOUBLE:
            v->value.d = (double)value;
            break;
        case VALUE_UINT:
            v->value.u = (unsigned)value;
            break;
        case VALUE_ULONG:
            v->value.ul = (unsigned long)value;
            break;
        case VALUE_ULONG_LONG:
            v->value.ull = (unsigned long long)value;
            break;
        case VALUE_LONG_LONG:
            v->value.ll = value;
            break;
        case VALUE_INT:
            v->value.i = (int)value;
            break;
        case VALUE_USHORT:
            v->value.us = (unsigned short)value;
            break;
        default:
            break;
        }
    }
    return end(OK);
}

/* ---- processes ----------------------------------------------------------------------------- */

typedef struct {
    unsigned pid;
    uint64_t used;
} process_v1;

typedef struct {
    unsigned pid;
    uint64_t used;
    unsigned gi, ci;
} process_v2; /* and v3 */

typedef struct {
    unsigned pid;
    uint64_t time_us;
    unsigned sm, mem, enc, dec;
} sample;

/* The protocol of all lists: too small a buffer, none at all above all, is told the size. */
static nvmlReturn_t list(const char *function, nvmlDevice_t device, int kind, unsigned *count,
                         void *infos, int version)
{
    call c = {.function = function, .by = BY_HANDLE, .handle = device, .takes_mig = 1};
    nvmlReturn_t begun = begin(&c);
    if (begun != OK)
        return begun;
    NEED(count && (infos || !*count), INVALID_ARGUMENT);
    int64_t now = now_ns();
    unsigned room = infos ? *count : 0, found = 0;
    for (size_t i = 0; i < c.gpu->processes_count; i++) {
        const process *p = &c.gpu->processes[i];
        if (!(p->kinds & kind) || !alive(p, now) || !belongs(c.gpu, c.instance, p))
            continue;
        if (found < room) {
            const instance *own = instance_named(c.gpu, p->instance);
            uint64_t used = p->memory < 0 ? NOT_AVAILABLE : (uint64_t)p->memory;
            if (version == 1)
                ((process_v1 *)infos)[found] = (process_v1){p->pid, used};
            else
                ((process_v2 *)infos)[found] = (process_v2){
                    p->pid, used, own ? own->gi : NO_INSTANCE, own ? own->ci : NO_INSTANCE};
        }
        found++;
    }
    *count = found;
    return end(found > room ? INSUFFICIENT_SIZE : OK);
}

#define LIST(function, kind, version) \
    API nvmlReturn_t function(nvmlDevice_t device, unsigned *count, void *infos); \
    nvmlReturn_t function(nvmlDevice_t device, unsigned *count, void *infos) \
    { \
        return list(__func__, device, kind, count, infos, version); \
    }

LIST(nvmlDeviceGetComputeRunningProcesses, 1, 1)
LIST(nvmlDeviceGetComputeRunningProcesses_v2, 1, 2)
LIST(nvmlDeviceGetComputeRunningProcesses_v3, 1, 3)
LIST(nvmlDeviceGetGraphicsRunningProcesses, 2, 1)
LIST(nvmlDeviceGetGraphicsRunningProcesses_v2, 2, 2)
LIST(nvmlDeviceGetGraphicsRunningProcesses_v3, 2, 3)
LIST(nvmlDeviceGetMPSComputeRunningProcesses, 4, 1)
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v2, 4, 2)
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v3, 4, 3)

/* The driver's ring, newest first: at the end of each period, one sample a process that was busy
 * in it. A reset of the GPU empties it. */
static size_t ring(const gpu *g, sample *samples)
{
    int64_t period = g->sample_period_ns, now = now_ns(), oldest = now - RING_NS;
    size_t count = 0;
    for (size_t i = 1; i < g->epochs.count; i++)
        if (g->epochs.at[i].from <= now && g->epochs.at[i].from > oldest)
            oldest = g->epochs.at[i].from;
    for (int64_t at = now - now % period; at > oldest && at > 0; at -= period)
        for (size_t i = g->processes_count; i-- > 0;) {
            const process *p = &g->processes[i];
            int64_t sm = share(p, &p->sm, at, period), mem = share(p, &p->mem, at, period);
            if (!sm && !mem)
                continue;
            if (count == RING_SAMPLES)
                return count;
            samples[count++] = (sample){.pid = p->pid,
                                        .time_us = (uint64_t)wall_us(at),
                                        .sm = (unsigned)sm,
                                        .mem = (unsigned)mem};
        }
    return count;
}

API nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device, sample *samples,
                                                 unsigned *count, unsigned long long last_seen);

nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device, sample *samples, unsigned *count,
                                             unsigned long long last_seen)
{
    sample kept[RING_SAMPLES];
    DEVICE_CALL(NO_MIG);
    NEED(count, INVALID_ARGUMENT);
    NEED(g->mig != 1 && g->sample_period_ns > 0, NOT_SUPPORTED);
    size_t in_ring = ring(g, kept), fresh = 0;
    while (fresh < in_ring && kept[fresh].time_us > last_seen)
        fresh++;
    size_t found = fresh + g->garbage_count;
    if (!samples) { /* most drivers name their ring's size here; some, what they have */
        *count = (unsigned)(g->sample_size_exact ? found : RING_SAMPLES + g->garbage_count);
        return end(*count ? INSUFFICIENT_SIZE : OK);
    }
    NEED(found, NOT_FOUND);
    if (*count < found) {
        *count = (unsigned)found;
        return end(INSUFFICIENT_SIZE);
    }
    for (size_t i = 0; i < fresh; i++)
        samples[i] = kept[fresh - 1 - i];
    for (size_t i = 0; i < g->garbage_count; i++) {
        const row *r = &g->garbage[i];
        samples[fresh + i] = (sample){r->pid, r->time_us, r->sm, r->mem, r->enc, r->dec};
    }
    *count = (unsigned)found;
    return end(OK);
}

/* ---- MIG ----------------------------------------------------------------------------------- */

typedef struct {
    unsigned sms, copy_engines, decoders, encoders, jpeg, ofa, gi_slices, ci_slices;
    uint64_t memory_mib;
} attributes;

API nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned *current, unsigned *pending);
API nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned index,
                                                     nvmlDevice_t *found);
API nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t device,
                                                              nvmlDevice_t *found);
API nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t device, unsigned *id);
API nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t device, unsigned *id);
API nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t device, attributes *found);

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned *current, unsigned *pending)
{
    DEVICE_CALL(NO_MIG);
    NEED(current && pending, INVALID_ARGUMENT);
    NEED(g->mig >= 0, NOT_SUPPORTED);
    *current = *pending = (unsigned)g->mig;
    return end(OK);
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned index,
                                                 nvmlDevice_t *found)
{
    DEVICE_CALL(NO_MIG);
    NEED(g->mig >= 0, NOT_SUPPORTED);
    NEED(found && (g->mig != 1 || index < (unsigned)g->mig_max), INVALID_ARGUMENT);
    instance *i = instance_at(g, index);
    NEED(i, NOT_FOUND);
    *found = handle_of(g, i);
    return end(OK);
}

nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t device, nvmlDevice_t *found)
{
    DEVICE_CALL(MIG_TOO);
    NEED(found && c.instance, INVALID_ARGUMENT);
    *found = handle_of(g, NULL);
    return end(OK);
}

nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t device, unsigned *id)
{
    DEVICE_CALL(MIG_TOO);
    NEED(id && c.instance, INVALID_ARGUMENT);
    *id = c.instance->gi;
    return end(OK);
}

nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t device, unsigned *id)
{
    DEVICE_CALL(MIG_TOO);
    NEED(id && c.instance, INVALID_ARGUMENT);
    *id = c.instance->ci;
    return end(OK);
}

nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t device, attributes *found)
{
    DEVICE_CALL(MIG_TOO);
    NEED(found, INVALID_ARGUMENT);
    NEED(c.instance, NOT_SUPPORTED);
    *found = (attributes){.sms = c.instance->sms,
                          .copy_engines = c.instance->gi_slices,
                          .gi_slices = c.instance->gi_slices,
                          .ci_slices = c.instance->ci_slices,
                          .memory_mib = (uint64_t)c.instance->memory_total >> 20};
    return end(OK);
}

/* ---- GPM ----------------------------------------------------------------------------------- */

typedef struct {
    int taken;
    int64_t index, gi, at;
    __int128 graphics, sm;
} gpm_sample;

typedef struct {
    unsigned version, supported;
} gpm_support;

typedef struct {
    unsigned id;
    nvmlReturn_t result;
    double value;
    const char *short_name, *long_name, *unit;
} gpm_metric;

typedef struct {
    unsigned version, count;
    gpm_sample *first, *second;
    gpm_metric metrics[];
} gpm_metrics;

API nvmlReturn_t nvmlGpmQueryDeviceSupport(nvmlDevice_t device, gpm_support *support);
API nvmlReturn_t nvmlGpmSampleAlloc(gpm_sample **allocated);
API nvmlReturn_t nvmlGpmSampleFree(gpm_sample *allocated);
API nvmlReturn_t nvmlGpmSampleGet(nvmlDevice_t device, gpm_sample *into);
API nvmlReturn_t nvmlGpmMigSampleGet(nvmlDevice_t device, unsigned gi, gpm_sample *into);
API nvmlReturn_t nvmlGpmMetricsGet(gpm_metrics *get);

nvmlReturn_t nvmlGpmQueryDeviceSupport(nvmlDevice_t device, gpm_support *support)
{
    DEVICE_CALL(MIG_TOO);
    NEED(support, INVALID_ARGUMENT);
    NEED(support->version == 1, ARGUMENT_VERSION_MISMATCH);
    support->supported = g->gpm == 1;
    return end(OK);
}

nvmlReturn_t nvmlGpmSampleAlloc(gpm_sample **allocated)
{
    SYSTEM_CALL();
    NEED(allocated, INVALID_ARGUMENT);
    *allocated = calloc(1, sizeof **allocated);
    return end(*allocated ? OK : INSUFFICIENT_MEMORY);
}

nvmlReturn_t nvmlGpmSampleFree(gpm_sample *allocated)
{
    SYSTEM_CALL();
    NEED(allocated, INVALID_ARGUMENT);
    free(allocated);
    return end(OK);
}

static nvmlReturn_t take(gpu *g, int64_t gi, gpm_sample *into)
{
    int64_t now = now_ns();
    *into = (gpm_sample){.taken = 1, .index = g->index, .gi = gi, .at = now};
    for (size_t i = 0; i < g->gpms_count; i++)
        if (g->gpms[i].gi == gi) {
            into->graphics = integral(&g->gpms[i].graphics, 0, now);
            into->sm = integral(&g->gpms[i].sm, 0, now);
        }
    return end(OK);
}

nvmlReturn_t nvmlGpmSampleGet(nvmlDevice_t device, gpm_sample *into)
{
    DEVICE_CALL(NO_MIG);
    NEED(into, INVALID_ARGUMENT);
    NEED(g->gpm == 1, NOT_SUPPORTED);
    return take(g, -1, into);
}

nvmlReturn_t nvmlGpmMigSampleGet(nvmlDevice_t device, unsigned gi, gpm_sample *into)
{
    DEVICE_CALL(NO_MIG);
    NEED(into, INVALID_ARGUMENT);
    NEED(g->gpm == 1 && g->mig == 1, NOT_SUPPORTED);
    for (size_t i = 0; i < g->instances_count; i++)
        if (g->instances[i].gi == gi)
            return take(g, gi, into);
    return end(NOT_FOUND);
}

nvmlReturn_t nvmlGpmMetricsGet(gpm_metrics *get)
{
    SYSTEM_CALL();
    NEED(get && get->first && get->second, INVALID_ARGUMENT);
    NEED(get->version == 1, ARGUMENT_VERSION_MISMATCH);
    const gpm_sample *a = get->first, *b = get->second;
    NEED(a->taken && b->taken && a->index == b->index && a->gi == b->gi && a->at < b->at,
         INVALID_ARGUMENT);
    for (unsigned i = 0; i < get->count; i++) {
        gpm_metric *m = &get->metrics[i];
        m->result = m->id == 1 || m->id == 2 ? OK : NOT_SUPPORTED;
        m->value = 0;
        if (m->result != OK)
            continue;
        __int128 busy = m->id == 1 ? b->graphics - a->graphics : b->sm - a->sm;
        m->value = (double)busy / (double)(b->at - a->at);
        m->short_name = m->id == 1 ? "GRACT" : "SMUTIL";
        m->long_name = m->id == 1 ? "Graphics Util" : "SM Util";
        m->unit = "%";
    }
    return end(OK);
}
