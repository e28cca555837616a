/*
 * NVIDIA's management library without a card: what the tests write into a file is what it tells.
 *
 * Compiled against NVIDIA's own nvml.h, so that the real nvidia-ml-py meets real structures. The file named by
 * FAKE_NVML is read anew at each call. Its lines:
 *
 *   card UUID NAME TOTAL RESERVED USED      sizes in MiB; "_" in NAME is a space; cards count from 0
 *   mig UUID TOTAL USED                     an instance of the card above it, which is then in MIG mode
 *   process PID MIB [graphics]              on the card or instance above it; a MIB below 0 is "not available"
 *   fails FUNCTION CODE                     this function returns this nvmlReturn_t
 *
 * Each call appends its function's name to the file named by FAKE_NVML_LOG, where there is one. With OLD defined,
 * the functions that came with version 3 of the process list and version 2 of the memory figures do not exist.
 */
#define NVML_NO_UNVERSIONED_FUNC_DEFS
#include <nvml.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NODES 32
#define MAX_PROCESSES 64
#define MIB (1ULL << 20)

struct process {
  unsigned int pid;
  long long mib;
  int graphics;
};

struct node { /* a card, or an instance of one */
  int parent; /* index of the card of an instance; -1 for a card */
  char uuid[80];
  char name[80];
  unsigned long long total, reserved, used;
  struct process processes[MAX_PROCESSES];
  int process_count;
};

static struct node nodes[MAX_NODES];
static int node_count;

static nvmlReturn_t begin(const char *function) {
  const char *path = getenv("FAKE_NVML");
  const char *log = getenv("FAKE_NVML_LOG");
  nvmlReturn_t answer = NVML_SUCCESS;
  char line[512], word[128];
  int card = -1;
  FILE *file;
  if (log != NULL && (file = fopen(log, "a")) != NULL) {
    fprintf(file, "%s\n", function);
    fclose(file);
  }
  node_count = 0;
  if (path == NULL || (file = fopen(path, "r")) == NULL) return NVML_ERROR_DRIVER_NOT_LOADED;
  while (fgets(line, sizeof line, file) != NULL) {
    struct node *last = node_count > 0 ? &nodes[node_count - 1] : NULL;
    struct node fresh;
    int code;
    memset(&fresh, 0, sizeof fresh);
    fresh.parent = -1;
    if (node_count < MAX_NODES && sscanf(line, "card %79s %79s %llu %llu %llu", fresh.uuid, fresh.name, &fresh.total,
                                         &fresh.reserved, &fresh.used) == 5) {
      card = node_count;
      nodes[node_count++] = fresh;
    } else if (card >= 0 && node_count < MAX_NODES &&
               sscanf(line, "mig %79s %llu %llu", fresh.uuid, &fresh.total, &fresh.used) == 3) {
      fresh.parent = card;
      snprintf(fresh.name, sizeof fresh.name, "%.60s MIG", nodes[card].name);
      nodes[node_count++] = fresh;
    } else if (last != NULL && strncmp(line, "process ", 8) == 0 && last->process_count < MAX_PROCESSES) {
      struct process *p = &last->processes[last->process_count++];
      sscanf(line, "process %u %lld", &p->pid, &p->mib);
      p->graphics = strstr(line, "graphics") != NULL;
    } else if (sscanf(line, "fails %127s %d", word, &code) == 2 && strcmp(word, function) == 0) {
      answer = (nvmlReturn_t)code;
    }
  }
  fclose(file);
  return answer;
}

static struct node *node_of(nvmlDevice_t handle) {
  uintptr_t number = (uintptr_t)handle;
  return number >= 1 && number <= (uintptr_t)node_count ? &nodes[number - 1] : NULL;
}

static nvmlDevice_t handle_of(int node) { return (nvmlDevice_t)(uintptr_t)(node + 1); }

static int child(int card, unsigned int wanted) { /* the wanted'th card (card -1) or instance of a card; -1: none */
  for (int i = 0; i < node_count; i++)
    if (nodes[i].parent == card && wanted-- == 0) return i;
  return -1;
}

#define BEGIN                               \
  nvmlReturn_t answer_ = begin(__func__);   \
  if (answer_ != NVML_SUCCESS) return answer_
#define NODE(handle)                              \
  BEGIN;                                          \
  struct node *node = node_of(handle);            \
  if (node == NULL) return NVML_ERROR_GPU_IS_LOST

nvmlReturn_t nvmlInitWithFlags(unsigned int flags) {
  (void)flags;
  BEGIN;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlShutdown(void) {
  BEGIN;
  return NVML_SUCCESS;
}

const char *nvmlErrorString(nvmlReturn_t result) {
  return result == NVML_ERROR_GPU_NOT_FOUND ? "No supported GPUs were found" : "an error that only the driver knows";
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count) {
  BEGIN;
  for (*count = 0; child(-1, *count) >= 0; ++*count) continue;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device) {
  BEGIN;
  int found = child(-1, index);
  if (found < 0) return NVML_ERROR_INVALID_ARGUMENT;
  *device = handle_of(found);
  return NVML_SUCCESS;
}

static nvmlReturn_t copy(const char *text, char *into, unsigned int length, int spaces) {
  if (strlen(text) >= length) return NVML_ERROR_INSUFFICIENT_SIZE;
  strcpy(into, text);
  for (char *c = into; spaces && *c != 0; c++)
    if (*c == '_') *c = ' ';
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length) {
  NODE(device);
  return copy(node->name, name, length, 1);
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length) {
  NODE(device);
  return copy(node->uuid, uuid, length, 0);
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor) {
  NODE(device);
  (void)node;
  *major = 7;
  *minor = 5;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
  NODE(device);
  memory->total = node->total * MIB;
  memory->used = (node->used + node->reserved) * MIB;
  memory->free = memory->total - memory->used;
  return NVML_SUCCESS;
}

#ifndef OLD
nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory) {
  NODE(device);
  if (memory->version != NVML_STRUCT_VERSION(Memory, 2)) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  memory->total = node->total * MIB;
  memory->reserved = node->reserved * MIB;
  memory->used = node->used * MIB;
  memory->free = memory->total - memory->used - memory->reserved;
  return NVML_SUCCESS;
}
#endif

static nvmlReturn_t processes(struct node *node, int graphics, unsigned int *count, nvmlProcessInfo_v2_t *infos) {
  unsigned int room = *count;
  *count = 0;
  for (int i = 0; i < node->process_count; i++) {
    struct process *p = &node->processes[i];
    if (p->graphics != graphics) continue;
    if (*count < room) {
      nvmlProcessInfo_v2_t *info = &infos[*count];
      info->pid = p->pid;
      info->usedGpuMemory = p->mib < 0 ? (unsigned long long)NVML_VALUE_NOT_AVAILABLE : (unsigned long long)p->mib * MIB;
      info->gpuInstanceId = info->computeInstanceId = 0xFFFFFFFF;
    }
    ++*count;
  }
  return *count > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t device, unsigned int *count,
                                                     nvmlProcessInfo_v2_t *infos) {
  NODE(device);
  return processes(node, 0, count, infos);
}

nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v2(nvmlDevice_t device, unsigned int *count,
                                                      nvmlProcessInfo_v2_t *infos) {
  NODE(device);
  return processes(node, 1, count, infos);
}

#ifndef OLD
nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *count,
                                                     nvmlProcessInfo_t *infos) {
  NODE(device);
  return processes(node, 0, count, infos);
}

nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, unsigned int *count,
                                                      nvmlProcessInfo_t *infos) {
  NODE(device);
  return processes(node, 1, count, infos);
}
#endif

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending) {
  NODE(device);
  *current = *pending = child((int)(node - nodes), 0) >= 0 ? NVML_DEVICE_MIG_ENABLE : NVML_DEVICE_MIG_DISABLE;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned int *count) {
  NODE(device);
  (void)node;
  *count = 7;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index, nvmlDevice_t *instance) {
  NODE(device);
  int found = child((int)(node - nodes), index);
  if (found < 0) return NVML_ERROR_NOT_FOUND;
  *instance = handle_of(found);
  return NVML_SUCCESS;
}
