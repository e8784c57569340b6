/* A libnvidia-ml.so.1 for machines without a GPU. It answers with the struct layouts of NVML's own header, so that the
 * real binding runs against it; what it answers stands in the text file that NVIDIA_FAKE_NVML names, read at every
 * call. See fake_nvml.py for the lines of that file. A torn last line, without its newline, is not read. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS, UNINITIALIZED, INVALID_ARGUMENT, NOT_SUPPORTED, NOT_FOUND = 6, INSUFFICIENT_SIZE, DRIVER_NOT_LOADED = 9,
       GPU_IS_LOST = 15, VERSION_MISMATCH = 25 };
enum { DEVICES = 16, PROCESSES = 64, MIB = 1 << 20 };

typedef struct { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; } process_info;
typedef struct { unsigned gpu, memory; } utilization;
typedef struct { unsigned long long total, free, used; } memory_v1;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2;

typedef struct { char list[12]; unsigned pid; long long mib; } process;  /* mib -1: without a figure */
typedef struct {
    char name[96], uuid[96];
    unsigned long long total, reserved, used, reasons;  /* MiB */
    int parent, gpu_instance, compute_instance, lost, count;
    unsigned busy;
    process processes[PROCESSES];
} device;
typedef struct { char driver[80]; int count, error; device devices[DEVICES]; } state;

static int initialised = 0;

/* A process of this machine gives its memory back when it ends. */
static int lives(unsigned pid) {
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = 0;
    char *end = strrchr(text, ')');
    return end && end[2] != 'Z' && end[2] != 'X';
}

static device *device_at(state *s, int index) {
    if (index < 0 || index >= DEVICES) return NULL;
    while (s->count <= index) s->devices[s->count++].parent = -1;
    return &s->devices[index];
}

static void take_process(device *d, const char *list, const char *rest) {
    unsigned pid;
    char figure[32] = "", where[32] = "";
    if (sscanf(rest, "%u %31s %31s", &pid, figure, where) < 2) return;
    int at = 0;
    while (at < d->count && (d->processes[at].pid != pid || strcmp(d->processes[at].list, list))) at++;
    if (at == PROCESSES || (strcmp(where, "foreign") && !lives(pid))) return;
    if (at == d->count) d->count++;
    process *p = &d->processes[at];
    snprintf(p->list, sizeof p->list, "%.11s", list);
    p->pid = pid;
    p->mib = isdigit((unsigned char)*figure) ? atoll(figure) : -1;
}

static void take_line(state *s, const char *line, const char *function) {
    char word[96], rest[256] = "";
    int index, at = 0;
    if (sscanf(line, "driver %79s", s->driver) == 1) return;
    if (sscanf(line, "fail %95s %d", word, &at) == 2) {
        if (!strcmp(word, function) || !strcmp(word, "*")) s->error = at;
        return;
    }
    if (sscanf(line, "%d %95s %255[^\n]", &index, word, rest) < 2) return;
    device *d = device_at(s, index);
    if (!d) return;
    if (!strcmp(word, "name")) snprintf(d->name, sizeof d->name, "%.95s", rest);
    else if (!strcmp(word, "uuid")) snprintf(d->uuid, sizeof d->uuid, "%.95s", rest);
    else if (!strcmp(word, "lost")) d->lost = 1;
    else if (!strcmp(word, "parent")) sscanf(rest, "%d %d %d", &d->parent, &d->gpu_instance, &d->compute_instance);
    else if (!strcmp(word, "reasons")) d->reasons = strtoull(rest, NULL, 0);
    else if (!strcmp(word, "busy")) d->busy = strtoul(rest, NULL, 0);
    else if (!strcmp(word, "memory")) sscanf(rest, "%llu %llu %llu", &d->total, &d->reserved, &d->used);
    else take_process(d, word, rest);
}

/* The state for one call of one function, or the error that it is to answer. */
static int look(state *s, const char *function) {
    for (;;) {
        const char *path = getenv("NVIDIA_FAKE_NVML");
        FILE *file = path ? fopen(path, "r") : NULL;
        char line[512];
        int hangs = 0;
        memset(s, 0, sizeof *s);
        if (!file) return DRIVER_NOT_LOADED;
        while (fgets(line, sizeof line, file)) {
            char word[96];
            if (!strchr(line, '\n')) break;
            if (sscanf(line, "hang %95s", word) == 1) hangs |= !strcmp(word, function) || !strcmp(word, "*");
            else take_line(s, line, function);
        }
        fclose(file);
        if (!hangs) return s->error ? s->error : initialised || !strcmp(function, "nvmlInitWithFlags") ? 0 : UNINITIALIZED;
        usleep(1000);
    }
}

/* A handle is the device's place in the file, counted from 1. */
typedef void *handle;
static handle handle_of(int index) { return (handle)(long)(index + 1); }
static int index_of(handle h) { return (int)(long)h - 1; }

#define LOOK(function)                                        \
    state s;                                                  \
    int error = look(&s, function);                           \
    if (error) return error
#define DEVICE(function, h)                                   \
    LOOK(function);                                           \
    if (index_of(h) < 0 || index_of(h) >= s.count) return INVALID_ARGUMENT; \
    device *d = &s.devices[index_of(h)];                      \
    if (d->lost) return GPU_IS_LOST

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    LOOK("nvmlInitWithFlags");
    initialised = 1;
    return SUCCESS;
}

int nvmlShutdown(void) {
    initialised = 0;
    return SUCCESS;
}

const char *nvmlErrorString(int error) {
    static char text[32];
    snprintf(text, sizeof text, "fake error %d", error);
    return text;
}

static int text_out(const char *text, char *out, unsigned length) {
    if (strlen(text) >= length) return INSUFFICIENT_SIZE;
    strcpy(out, text);
    return SUCCESS;
}

int nvmlSystemGetDriverVersion(char *out, unsigned length) {
    LOOK("nvmlSystemGetDriverVersion");
    return text_out(s.driver, out, length);
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    LOOK("nvmlDeviceGetCount_v2");
    *count = 0;
    for (int n = 0; n < s.count; n++) *count += s.devices[n].parent < 0;
    return SUCCESS;
}

/* The n-th device of a parent; of -1 the n-th whole GPU. */
static int nth(state *s, int parent, unsigned n, handle *out) {
    for (int index = 0; index < s->count; index++)
        if (s->devices[index].parent == parent && !n--) {
            *out = handle_of(index);
            return s->devices[index].lost ? GPU_IS_LOST : SUCCESS;
        }
    return parent < 0 ? INVALID_ARGUMENT : NOT_FOUND;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, handle *out) {
    LOOK("nvmlDeviceGetHandleByIndex_v2");
    return nth(&s, -1, index, out);
}

int nvmlDeviceGetHandleByUUID(const char *uuid, handle *out) {
    LOOK("nvmlDeviceGetHandleByUUID");
    for (int index = 0; index < s.count; index++)
        if (!strcmp(s.devices[index].uuid, uuid)) {
            *out = handle_of(index);
            return SUCCESS;
        }
    return NOT_FOUND;
}

int nvmlDeviceGetMigMode(handle h, unsigned *current, unsigned *pending) {
    DEVICE("nvmlDeviceGetMigMode", h);
    handle first;
    *current = *pending = nth(&s, index_of(h), 0, &first) == SUCCESS;
    return SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(handle h, unsigned *count) {
    DEVICE("nvmlDeviceGetMaxMigDeviceCount", h);
    *count = 7;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(handle h, unsigned index, handle *out) {
    DEVICE("nvmlDeviceGetMigDeviceHandleByIndex", h);
    return nth(&s, index_of(h), index, out);
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle h, handle *out) {
    DEVICE("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", h);
    if (d->parent < 0) return INVALID_ARGUMENT;
    *out = handle_of(d->parent);
    return SUCCESS;
}

int nvmlDeviceGetGpuInstanceId(handle h, unsigned *out) {
    DEVICE("nvmlDeviceGetGpuInstanceId", h);
    *out = d->gpu_instance;
    return d->parent < 0 ? NOT_SUPPORTED : SUCCESS;
}

int nvmlDeviceGetComputeInstanceId(handle h, unsigned *out) {
    DEVICE("nvmlDeviceGetComputeInstanceId", h);
    *out = d->compute_instance;
    return d->parent < 0 ? NOT_SUPPORTED : SUCCESS;
}

int nvmlDeviceGetName(handle h, char *out, unsigned length) {
    DEVICE("nvmlDeviceGetName", h);
    return text_out(d->name, out, length);
}

int nvmlDeviceGetUUID(handle h, char *out, unsigned length) {
    DEVICE("nvmlDeviceGetUUID", h);
    return text_out(d->uuid, out, length);
}

/* What the device holds for programs, in MiB: what the file says, and the largest figure of each listed process. */
static unsigned long long used_mib(const device *d) {
    unsigned long long sum = d->used;
    for (int n = 0; n < d->count; n++) {
        long long most = d->processes[n].mib;
        int first = 1;
        for (int m = 0; m < d->count; m++)
            if (d->processes[m].pid == d->processes[n].pid) {
                if (m < n) first = 0;
                if (d->processes[m].mib > most) most = d->processes[m].mib;
            }
        if (first && most > 0) sum += most;
    }
    return sum;
}

int nvmlDeviceGetMemoryInfo(handle h, memory_v1 *out) {
    DEVICE("nvmlDeviceGetMemoryInfo", h);
    unsigned long long used = used_mib(d) + d->reserved;
    *out = (memory_v1){d->total * MIB, (d->total - used) * MIB, used * MIB};
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo_v2(handle h, memory_v2 *out) {
    DEVICE("nvmlDeviceGetMemoryInfo_v2", h);
    if (out->version != (sizeof *out | 2u << 24)) return VERSION_MISMATCH;
    unsigned long long used = used_mib(d);
    out->total = d->total * MIB;
    out->reserved = d->reserved * MIB;
    out->used = used * MIB;
    out->free = (d->total - d->reserved - used) * MIB;
    return SUCCESS;
}

static int list(const char *function, const char *name, handle h, unsigned *count, process_info *out) {
    DEVICE(function, h);
    unsigned found = 0;
    for (int n = 0; n < d->count; n++) found += !strcmp(d->processes[n].list, name);
    unsigned room = *count;
    *count = found;
    if (found > room) return INSUFFICIENT_SIZE;
    for (int n = 0; n < d->count; n++) {
        process *p = &d->processes[n];
        if (strcmp(p->list, name)) continue;
        *out++ = (process_info){p->pid, p->mib < 0 ? ~0ull : (unsigned long long)p->mib * MIB, ~0u, ~0u};
    }
    return SUCCESS;
}

#define LIST(function, name) \
    int function(handle h, unsigned *count, process_info *out) { return list(#function, name, h, count, out); }

LIST(nvmlDeviceGetComputeRunningProcesses_v2, "compute")
LIST(nvmlDeviceGetComputeRunningProcesses_v3, "compute")
LIST(nvmlDeviceGetGraphicsRunningProcesses_v2, "graphics")
LIST(nvmlDeviceGetGraphicsRunningProcesses_v3, "graphics")
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v2, "mps")
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v3, "mps")

static int reasons(const char *function, handle h, unsigned long long *out) {
    DEVICE(function, h);
    if (d->parent >= 0) return NOT_SUPPORTED;
    *out = d->reasons;
    return SUCCESS;
}

int nvmlDeviceGetCurrentClocksEventReasons(handle h, unsigned long long *out) {
    return reasons("nvmlDeviceGetCurrentClocksEventReasons", h, out);
}

int nvmlDeviceGetCurrentClocksThrottleReasons(handle h, unsigned long long *out) {
    return reasons("nvmlDeviceGetCurrentClocksThrottleReasons", h, out);
}

int nvmlDeviceGetUtilizationRates(handle h, utilization *out) {
    DEVICE("nvmlDeviceGetUtilizationRates", h);
    *out = (utilization){d->busy, 0};
    return d->parent < 0 ? SUCCESS : NOT_SUPPORTED;
}
