/*
 * A TensorFlow device of type "GPU" whose memory is ordinary host RAM.
 *
 * TensorFlow loads it through its PluggableDevice C API and then believes that it has GPUs: devices are listed,
 * variables live in their memory, TensorFlow's own BFC allocator hands that memory out, memory growth can be set
 * until the devices are initialised, and a full device fails with the errors of a real card. It registers no
 * kernels, so almost all arithmetic runs on the CPU.
 *
 * From the environment, read once per process:
 *   RAMGPU_COUNT  how many devices there are (default 1, at most 8)
 *   RAMGPU_MIB    the memory of each device in MiB (default 512)
 *
 * Every operation is finished when its function returns, so streams, events and timers carry no state.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/experimental/stream_executor/stream_executor.h"

#define MAX_DEVICES 8
#define MIB (UINT64_C(1) << 20)
#define DEVICE_ALIGNMENT 256
#define HOST_ALIGNMENT 64

struct SP_Stream_st {
  char unused;
};
struct SP_Event_st {
  char unused;
};
struct SP_Timer_st {
  char unused;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t used[MAX_DEVICES];
static uint64_t peak[MAX_DEVICES];
static int64_t allocations[MAX_DEVICES];
static char bus_id[MAX_DEVICES][16];

static uint64_t number_from(const char *variable, uint64_t fallback, uint64_t ceiling) {
  const char *text = getenv(variable);
  char *end = NULL;
  uint64_t value = text ? strtoull(text, &end, 10) : 0;
  if (!text || end == text || *end || !value) return fallback;
  return value < ceiling ? value : ceiling;
}

static uint64_t device_bytes(void) { return number_from("RAMGPU_MIB", 512, 1 << 20) * MIB; }

static void succeed(TF_Status *status) { TF_SetStatus(status, TF_OK, ""); }

/* ---- memory ------------------------------------------------------------------------------------------------ */

static void *aligned(size_t alignment, uint64_t size) {
  void *memory = NULL;
  return posix_memalign(&memory, alignment, size ? size : 1) ? NULL : memory;
}

static void allocate(const SP_Device *device, uint64_t size, int64_t space, SP_DeviceMemoryBase *out) {
  int d = device->ordinal;
  out->struct_size = SP_DEVICE_MEMORY_BASE_STRUCT_SIZE;
  out->ext = NULL;
  out->opaque = NULL;
  out->size = 0;
  out->payload = 0;
  pthread_mutex_lock(&lock);
  if (size <= device_bytes() - used[d] && (out->opaque = aligned(DEVICE_ALIGNMENT, size))) {
    out->size = size;
    used[d] += size;
    allocations[d] += 1;
    if (used[d] > peak[d]) peak[d] = used[d];
  }
  pthread_mutex_unlock(&lock);
}

static void deallocate(const SP_Device *device, SP_DeviceMemoryBase *memory) {
  pthread_mutex_lock(&lock);
  used[device->ordinal] -= memory->size;
  pthread_mutex_unlock(&lock);
  free(memory->opaque);
  memory->opaque = NULL;
  memory->size = 0;
}

static void *allocate_host(const SP_Device *device, uint64_t size) { return aligned(HOST_ALIGNMENT, size); }

static void deallocate_host(const SP_Device *device, void *memory) { free(memory); }

static TF_Bool allocator_stats(const SP_Device *device, SP_AllocatorStats *out) {
  int d = device->ordinal;
  memset(out, 0, sizeof *out);
  out->struct_size = SP_ALLOCATORSTATS_STRUCT_SIZE;
  pthread_mutex_lock(&lock);
  out->num_allocs = allocations[d];
  out->bytes_in_use = (int64_t)used[d];
  out->peak_bytes_in_use = (int64_t)peak[d];
  pthread_mutex_unlock(&lock);
  out->has_bytes_limit = 1;
  out->bytes_limit = (int64_t)device_bytes();
  return 1;
}

static TF_Bool memory_usage(const SP_Device *device, int64_t *unused_bytes, int64_t *total) {
  pthread_mutex_lock(&lock);
  *unused_bytes = (int64_t)(device_bytes() - used[device->ordinal]);
  pthread_mutex_unlock(&lock);
  *total = (int64_t)device_bytes();
  return 1;
}

/* ---- streams, events, timers: everything has already happened ------------------------------------------------ */

static void create_stream(const SP_Device *device, SP_Stream *stream, TF_Status *status) {
  *stream = calloc(1, sizeof **stream);
  succeed(status);
}
static void destroy_stream(const SP_Device *device, SP_Stream stream) { free(stream); }
static void depend(const SP_Device *device, SP_Stream later, SP_Stream earlier, TF_Status *status) { succeed(status); }
static void stream_status(const SP_Device *device, SP_Stream stream, TF_Status *status) { succeed(status); }

static void create_event(const SP_Device *device, SP_Event *event, TF_Status *status) {
  *event = calloc(1, sizeof **event);
  succeed(status);
}
static void destroy_event(const SP_Device *device, SP_Event event) { free(event); }
static SE_EventStatus event_status(const SP_Device *device, SP_Event event) { return SE_EVENT_COMPLETE; }
static void on_event(const SP_Device *device, SP_Stream stream, SP_Event event, TF_Status *status) { succeed(status); }
static void block_for_event(const SP_Device *device, SP_Event event, TF_Status *status) { succeed(status); }
static void block_for_stream(const SP_Device *device, SP_Stream stream, TF_Status *status) { succeed(status); }
static void synchronize(const SP_Device *device, TF_Status *status) { succeed(status); }

static void create_timer(const SP_Device *device, SP_Timer *timer, TF_Status *status) {
  *timer = calloc(1, sizeof **timer);
  succeed(status);
}
static void destroy_timer(const SP_Device *device, SP_Timer timer) { free(timer); }
static void on_timer(const SP_Device *device, SP_Stream stream, SP_Timer timer, TF_Status *status) { succeed(status); }
static uint64_t nanoseconds(SP_Timer timer) { return 0; }

static TF_Bool call_host(const SP_Device *device, SP_Stream stream, SE_StatusCallbackFn callback, void *argument) {
  TF_Status *status = TF_NewStatus();
  callback(argument, status);
  TF_DeleteStatus(status);
  return 1;
}

/* ---- copies and fills ---------------------------------------------------------------------------------------- */

static void copy_to_host(const SP_Device *device, SP_Stream stream, void *to, const SP_DeviceMemoryBase *from,
                         uint64_t size, TF_Status *status) {
  memcpy(to, from->opaque, size);
  succeed(status);
}
static void copy_to_device(const SP_Device *device, SP_Stream stream, SP_DeviceMemoryBase *to, const void *from,
                           uint64_t size, TF_Status *status) {
  memcpy(to->opaque, from, size);
  succeed(status);
}
static void copy_within(const SP_Device *device, SP_Stream stream, SP_DeviceMemoryBase *to,
                        const SP_DeviceMemoryBase *from, uint64_t size, TF_Status *status) {
  memmove(to->opaque, from->opaque, size);
  succeed(status);
}
static void sync_copy_to_host(const SP_Device *device, void *to, const SP_DeviceMemoryBase *from, uint64_t size,
                              TF_Status *status) {
  copy_to_host(device, NULL, to, from, size, status);
}
static void sync_copy_to_device(const SP_Device *device, SP_DeviceMemoryBase *to, const void *from, uint64_t size,
                                TF_Status *status) {
  copy_to_device(device, NULL, to, from, size, status);
}
static void sync_copy_within(const SP_Device *device, SP_DeviceMemoryBase *to, const SP_DeviceMemoryBase *from,
                             uint64_t size, TF_Status *status) {
  copy_within(device, NULL, to, from, size, status);
}
static void fill_bytes(const SP_Device *device, SP_Stream stream, SP_DeviceMemoryBase *to, uint8_t pattern,
                       uint64_t size, TF_Status *status) {
  memset(to->opaque, pattern, size);
  succeed(status);
}
static void fill_zero(const SP_Device *device, SP_Stream stream, SP_DeviceMemoryBase *to, uint64_t size,
                      TF_Status *status) {
  fill_bytes(device, stream, to, 0, size, status);
}
static void fill_words(const SP_Device *device, SP_Stream stream, SP_DeviceMemoryBase *to, uint32_t pattern,
                       uint64_t size, TF_Status *status) {
  uint32_t *words = to->opaque;
  for (uint64_t i = 0; i < size / sizeof *words; i++) words[i] = pattern;
  succeed(status);
}

/* ---- the platform -------------------------------------------------------------------------------------------- */

static void device_count(const SP_Platform *platform, int *count, TF_Status *status) {
  *count = (int)number_from("RAMGPU_COUNT", 1, MAX_DEVICES);
  succeed(status);
}

static void create_device(const SP_Platform *platform, SE_CreateDeviceParams *params, TF_Status *status) {
  SP_Device *device = params->device;
  snprintf(bus_id[params->ordinal], sizeof bus_id[0], "0000:%02x:00.0", params->ordinal);
  device->struct_size = SP_DEVICE_STRUCT_SIZE;
  device->ordinal = params->ordinal;
  device->hardware_name = "GPU made of RAM";
  device->device_vendor = "tf_mem_magic tests";
  device->pci_bus_id = bus_id[params->ordinal];
  succeed(status);
}
static void destroy_device(const SP_Platform *platform, SP_Device *device) {}

static int32_t numa_node(const SP_Device *device) { return 0; }
static int64_t bandwidth(const SP_Device *device) { return -1; }
static double gigaflops(const SP_Device *device) { return -1; }

static void create_device_fns(const SP_Platform *platform, SE_CreateDeviceFnsParams *params, TF_Status *status) {
  SP_DeviceFns *fns = params->device_fns;
  fns->struct_size = SP_DEVICE_FNS_STRUCT_SIZE;
  fns->get_numa_node = numa_node;
  fns->get_memory_bandwidth = bandwidth;
  fns->get_gflops = gigaflops;
  succeed(status);
}
static void destroy_device_fns(const SP_Platform *platform, SP_DeviceFns *fns) {}

static void create_executor(const SP_Platform *platform, SE_CreateStreamExecutorParams *params, TF_Status *status) {
  SP_StreamExecutor *executor = params->stream_executor;
  executor->struct_size = SP_STREAMEXECUTOR_STRUCT_SIZE;
  executor->allocate = allocate;
  executor->deallocate = deallocate;
  executor->host_memory_allocate = allocate_host;
  executor->host_memory_deallocate = deallocate_host;
  executor->unified_memory_allocate = allocate_host;
  executor->unified_memory_deallocate = deallocate_host;
  executor->get_allocator_stats = allocator_stats;
  executor->device_memory_usage = memory_usage;
  executor->create_stream = create_stream;
  executor->destroy_stream = destroy_stream;
  executor->create_stream_dependency = depend;
  executor->get_stream_status = stream_status;
  executor->create_event = create_event;
  executor->destroy_event = destroy_event;
  executor->get_event_status = event_status;
  executor->record_event = on_event;
  executor->wait_for_event = on_event;
  executor->create_timer = create_timer;
  executor->destroy_timer = destroy_timer;
  executor->start_timer = on_timer;
  executor->stop_timer = on_timer;
  executor->memcpy_dtoh = copy_to_host;
  executor->memcpy_htod = copy_to_device;
  executor->memcpy_dtod = copy_within;
  executor->sync_memcpy_dtoh = sync_copy_to_host;
  executor->sync_memcpy_htod = sync_copy_to_device;
  executor->sync_memcpy_dtod = sync_copy_within;
  executor->block_host_for_event = block_for_event;
  executor->block_host_until_done = block_for_stream;
  executor->synchronize_all_activity = synchronize;
  executor->mem_zero = fill_zero;
  executor->memset = fill_bytes;
  executor->memset32 = fill_words;
  executor->host_callback = call_host;
  succeed(status);
}
static void destroy_executor(const SP_Platform *platform, SP_StreamExecutor *executor) {}

static void create_timer_fns(const SP_Platform *platform, SP_TimerFns *fns, TF_Status *status) {
  fns->nanoseconds = nanoseconds;
  succeed(status);
}
static void destroy_timer_fns(const SP_Platform *platform, SP_TimerFns *fns) {}

static void destroy_platform(SP_Platform *platform) {}
static void destroy_platform_fns(SP_PlatformFns *fns) {}

/* Called by TensorFlow when it loads the library: which platform this is. */
void SE_InitPlugin(SE_PlatformRegistrationParams *params, TF_Status *status) {
  SP_Platform *platform = params->platform;
  SP_PlatformFns *fns = params->platform_fns;
  platform->struct_size = SP_PLATFORM_STRUCT_SIZE;
  platform->name = "RAM_GPU";
  platform->type = "GPU";
  platform->supports_unified_memory = 0;
  platform->use_bfc_allocator = 1;
  platform->force_memory_growth = 0;
  fns->struct_size = SP_PLATFORM_FNS_STRUCT_SIZE;
  fns->get_device_count = device_count;
  fns->create_device = create_device;
  fns->destroy_device = destroy_device;
  fns->create_device_fns = create_device_fns;
  fns->destroy_device_fns = destroy_device_fns;
  fns->create_stream_executor = create_executor;
  fns->destroy_stream_executor = destroy_executor;
  fns->create_timer_fns = create_timer_fns;
  fns->destroy_timer_fns = destroy_timer_fns;
  params->destroy_platform = destroy_platform;
  params->destroy_platform_fns = destroy_platform_fns;
  succeed(status);
}

/* TensorFlow also asks for kernels; there are none. */
void TF_InitKernel(void) {}
