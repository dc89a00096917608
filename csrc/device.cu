// The accelerator through the CUDA runtime. The runtime is linked statically and finds the driver when first asked, so
// the same binary works on a machine without one: device_count() is then 0 and device_reason() says why.
#include <cudaTypedefs.h>

#include <atomic>
#include <mutex>
#include <unordered_map>

#include "device.cuh"
#include "device.h"

namespace pyfocus {
namespace {

std::mutex sizes_lock;
std::unordered_map<void*, int64_t> sizes;  // of what was given, to count what is in use
std::atomic<int64_t> used{0}, mapped{0};

void count(void* memory, int64_t bytes, std::atomic<int64_t>& total) {
  const std::lock_guard<std::mutex> hold(sizes_lock);
  sizes[memory] = bytes;
  total += bytes;
}

void discount(void* memory, std::atomic<int64_t>& total) {
  const std::lock_guard<std::mutex> hold(sizes_lock);
  const auto found = sizes.find(memory);
  if (found == sizes.end()) return;
  total -= found->second;
  sizes.erase(found);
}

cudaStream_t as_stream(void* stream) { return static_cast<cudaStream_t>(stream); }
cudaEvent_t as_event(void* event) { return static_cast<cudaEvent_t>(event); }

// A function of the driver as CUDA 12.0 has it, or null: its library is not linked.
template <class Function>
Function driver_function(const char* name) {
  void* found = nullptr;
#if CUDART_VERSION >= 12050
  const cudaError_t error = cudaGetDriverEntryPointByVersion(name, &found, 12000, cudaEnableDefault, nullptr);
#else
  const cudaError_t error = cudaGetDriverEntryPoint(name, &found, cudaEnableDefault, nullptr);
#endif
  if (error == cudaSuccess) return reinterpret_cast<Function>(found);
  static_cast<void>(cudaGetLastError());
  return nullptr;
}

}  // namespace

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  static_cast<void>(cudaGetLastError());  // no driver is no error: what follows must not find it
  return 0;
}

std::string device_reason() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess) return count > 0 ? std::string() : std::string("no CUDA device");
  static_cast<void>(cudaGetLastError());
  return cudaGetErrorString(error);
}

const char* device_archs() { return PYFOCUS_CUDA_ARCHS; }

int device_runtime_version() { return CUDART_VERSION; }

int device_driver_version() {
  int version = 0;
  if (cudaDriverGetVersion(&version) == cudaSuccess) return version;
  static_cast<void>(cudaGetLastError());
  return 0;
}

DeviceFacts device_facts(int device) {
  const int count = device_count();
  PYFOCUS_CHECK(device >= 0 && device < count, "device_facts: device must be 0 to %d, got %d", count - 1, device);
  cudaDeviceProp properties;
  check_cuda("device_facts", cudaGetDeviceProperties(&properties, device));
  const DeviceScope scope("device_facts", device);
  size_t free = 0, all = 0;
  check_cuda("device_facts", cudaMemGetInfo(&free, &all));
  return {properties.name,           properties.major,          properties.minor, properties.multiProcessorCount,
          static_cast<int64_t>(all), static_cast<int64_t>(free)};
}

void* device_allocate(int device, int64_t bytes) {
  PYFOCUS_CHECK(bytes >= 0, "device_allocate: bytes must not be negative, got %lld", static_cast<long long>(bytes));
  if (bytes == 0) return nullptr;
  const DeviceScope scope("device_allocate", device);
  void* memory = nullptr;
  const cudaError_t error = cudaMalloc(&memory, static_cast<size_t>(bytes));
  if (error == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    size_t free = 0, all = 0;
    static_cast<void>(cudaMemGetInfo(&free, &all));
    fail(ErrorKind::Resource, "device_allocate: out of memory on device %d: %lld bytes wanted, %lld of %lld free",
         device, static_cast<long long>(bytes), static_cast<long long>(free), static_cast<long long>(all));
  }
  check_cuda("device_allocate", error);
  count(memory, bytes, used);
  return memory;
}

void device_release(int device, void* memory) noexcept {
  if (!memory) return;
  discount(memory, used);  // first: once it is free, another thread may be given the same address
  int before = 0;
  static_cast<void>(cudaGetDevice(&before));
  static_cast<void>(cudaSetDevice(device));
  static_cast<void>(cudaFree(memory));  // also waits for the work that uses it
  static_cast<void>(cudaSetDevice(before));
}

void* pinned_allocate(int64_t bytes) {
  PYFOCUS_CHECK(bytes >= 0, "pinned_allocate: bytes must not be negative, got %lld", static_cast<long long>(bytes));
  if (bytes == 0) return nullptr;
  void* memory = nullptr;
  check_cuda("pinned_allocate", cudaMallocHost(&memory, static_cast<size_t>(bytes)));
  return memory;
}

void pinned_release(void* memory) noexcept {
  if (memory) static_cast<void>(cudaFreeHost(memory));
}

void* mapped_allocate(int device, int64_t bytes) {
  PYFOCUS_CHECK(bytes >= 0, "mapped_allocate: bytes must not be negative, got %lld", static_cast<long long>(bytes));
  if (bytes == 0) return nullptr;
  const DeviceScope scope("mapped_allocate", device);
  void *memory = nullptr, *there = nullptr;
  const cudaError_t error = cudaHostAlloc(&memory, static_cast<size_t>(bytes), cudaHostAllocMapped);
  if (error == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    fail(ErrorKind::Resource, "mapped_allocate: out of page-locked host memory: %lld bytes wanted",
         static_cast<long long>(bytes));
  }
  check_cuda("mapped_allocate", error);
  const cudaError_t mapping = cudaHostGetDevicePointer(&there, memory, 0);
  if (mapping != cudaSuccess || there != memory) {  // not where host and device share one range of addresses
    static_cast<void>(cudaGetLastError());
    static_cast<void>(cudaFreeHost(memory));
    fail(ErrorKind::Resource, "mapped_allocate: device %d cannot work in the host's memory at its own address", device);
  }
  count(memory, bytes, mapped);
  return memory;
}

void mapped_release(int device, void* memory) noexcept {
  if (!memory) return;
  discount(memory, mapped);
  int before = 0;
  static_cast<void>(cudaGetDevice(&before));
  static_cast<void>(cudaSetDevice(device));
  static_cast<void>(cudaDeviceSynchronize());  // a kernel may still be at work in it
  static_cast<void>(cudaFreeHost(memory));
  static_cast<void>(cudaSetDevice(before));
}

void device_copy(int device, void* destination, const void* source, int64_t bytes, void* stream) {
  if (bytes <= 0) return;
  const DeviceScope scope("device_copy", device);
  check_cuda("device_copy",
             cudaMemcpyAsync(destination, source, static_cast<size_t>(bytes), cudaMemcpyDefault, as_stream(stream)));
}

void device_fill(int device, void* destination, int byte, int64_t bytes, void* stream) {
  if (bytes <= 0) return;
  const DeviceScope scope("device_fill", device);
  check_cuda("device_fill", cudaMemsetAsync(destination, byte, static_cast<size_t>(bytes), as_stream(stream)));
}

void* stream_create(int device) {
  const DeviceScope scope("stream_create", device);
  cudaStream_t stream = nullptr;
  check_cuda("stream_create", cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}

void stream_destroy(int, void* stream) noexcept {
  if (stream) static_cast<void>(cudaStreamDestroy(as_stream(stream)));
}

void stream_synchronize(int device, void* stream) {
  const DeviceScope scope("stream_synchronize", device);
  check_cuda("stream_synchronize", cudaStreamSynchronize(as_stream(stream)));
}

// By the driver's functions: the runtime's cudaStreamGetDevice came with 12.8, and asks for as new a driver.
int stream_device(int device, void* stream) {
  if (is_default_stream(stream)) return device;
  static const auto context_of = driver_function<PFN_cuStreamGetCtx_v9020>("cuStreamGetCtx");
  static const auto push = driver_function<PFN_cuCtxPushCurrent_v4000>("cuCtxPushCurrent");
  static const auto pop = driver_function<PFN_cuCtxPopCurrent_v4000>("cuCtxPopCurrent");
  static const auto device_of_current = driver_function<PFN_cuCtxGetDevice_v2000>("cuCtxGetDevice");
  CUcontext context = nullptr;
  if (!context_of || !push || !pop || !device_of_current) return device;
  if (context_of(as_stream(stream), &context) != CUDA_SUCCESS || push(context) != CUDA_SUCCESS) return device;
  CUdevice found = device;
  if (device_of_current(&found) != CUDA_SUCCESS) found = device;
  static_cast<void>(pop(&context));
  return found;
}

void* event_create(int device) {
  const DeviceScope scope("event_create", device);
  cudaEvent_t event = nullptr;
  check_cuda("event_create", cudaEventCreate(&event));
  return event;
}

void event_destroy(void* event) noexcept {
  if (event) static_cast<void>(cudaEventDestroy(as_event(event)));
}

void event_record(int device, void* event, void* stream) {
  const DeviceScope scope("event_record", device);
  check_cuda("event_record", cudaEventRecord(as_event(event), as_stream(stream)));
}

void event_synchronize(void* event) { check_cuda("event_synchronize", cudaEventSynchronize(as_event(event))); }

void stream_wait(int device, void* stream, void* event) {
  const DeviceScope scope("stream_wait", device);
  check_cuda("stream_wait", cudaStreamWaitEvent(as_stream(stream), as_event(event), 0));
}

double event_milliseconds(void* start, void* end) {
  float milliseconds = 0;
  check_cuda("event_milliseconds", cudaEventElapsedTime(&milliseconds, as_event(start), as_event(end)));
  return static_cast<double>(milliseconds);
}

void device_limit(int64_t) {}
int64_t device_in_use() { return used.load(); }
int64_t mapped_in_use() { return mapped.load(); }

}  // namespace pyfocus
