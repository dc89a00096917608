// Without a CUDA compiler there are no devices. With PYFOCUS_CUDA=EMULATE there are two, both the host: their memory is
// the host's, their streams do their work at once. See launch.cuh for how the kernels run there.
#include "device.h"

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>

namespace pyfocus {

void no_cuda(const char* function) {
  fail(ErrorKind::Resource, "%s: this build has no CUDA; install a wheel that has, or work on the CPU", function);
}

#if defined(PYFOCUS_EMULATE)
namespace {

constexpr int kDevices = 2;  // a second one, so that what belongs to another device can be tried

std::atomic<int64_t> used{0}, mapped{0}, limit{0};

struct Stream {
  int device;
};

// The size lies in front of the memory, 64 bytes before it, so that what is released can be counted.
constexpr int64_t kHead = 64;

void check_device(const char* function, int device) {
  PYFOCUS_CHECK(device >= 0 && device < kDevices, "%s: device must be 0 to %d, got %d", function, kDevices - 1, device);
}

// Counted in `total`, and every byte 0xff: as undefined as a device's, NaN.
void* allocate(int64_t bytes, std::atomic<int64_t>& total) {
  char* block =
      static_cast<char*>(std::aligned_alloc(kHead, static_cast<size_t>((bytes + 2 * kHead - 1) / kHead * kHead)));
  if (!block) fail(ErrorKind::Resource, "device_allocate: out of memory: %lld bytes", static_cast<long long>(bytes));
  std::memcpy(block, &bytes, sizeof bytes);
  std::memset(block + kHead, 0xff, static_cast<size_t>(bytes));
  total += bytes;
  return block + kHead;
}

void release(void* memory, std::atomic<int64_t>& total) noexcept {
  if (!memory) return;
  char* block = static_cast<char*>(memory) - kHead;
  int64_t bytes;
  std::memcpy(&bytes, block, sizeof bytes);
  total -= bytes;
  std::free(block);
}

}  // namespace

int device_count() { return kDevices; }
std::string device_reason() { return {}; }
const char* device_archs() { return "host"; }
int device_runtime_version() { return 0; }
int device_driver_version() { return 0; }

DeviceFacts device_facts(int device) {
  check_device("device_facts", device);
  const int64_t all = limit.load() > 0 ? limit.load() : int64_t{8} << 30;
  return {"the host, emulating a device", 0, 0, 1, all, all - used.load()};
}

void* device_allocate(int device, int64_t bytes) {
  check_device("device_allocate", device);
  PYFOCUS_CHECK(bytes >= 0, "device_allocate: bytes must not be negative, got %lld", static_cast<long long>(bytes));
  if (bytes == 0) return nullptr;
  const int64_t most = limit.load();
  if (most > 0 && used.load() + bytes > most)
    fail(ErrorKind::Resource, "device_allocate: out of memory on device %d: %lld bytes wanted, %lld of %lld free",
         device, static_cast<long long>(bytes), static_cast<long long>(most - used.load()),
         static_cast<long long>(most));
  return allocate(bytes, used);
}

void device_release(int, void* memory) noexcept { release(memory, used); }

void* pinned_allocate(int64_t bytes) {
  PYFOCUS_CHECK(bytes >= 0, "pinned_allocate: bytes must not be negative, got %lld", static_cast<long long>(bytes));
  return bytes == 0 ? nullptr : std::malloc(static_cast<size_t>(bytes));
}
void pinned_release(void* memory) noexcept { std::free(memory); }

void* mapped_allocate(int device, int64_t bytes) {
  check_device("mapped_allocate", device);
  PYFOCUS_CHECK(bytes >= 0, "mapped_allocate: bytes must not be negative, got %lld", static_cast<long long>(bytes));
  return bytes == 0 ? nullptr : allocate(bytes, mapped);
}
void mapped_release(int, void* memory) noexcept { release(memory, mapped); }

void device_copy(int device, void* destination, const void* source, int64_t bytes, void*) {
  check_device("device_copy", device);
  if (bytes > 0) std::memcpy(destination, source, static_cast<size_t>(bytes));
}
void device_fill(int device, void* destination, int byte, int64_t bytes, void*) {
  check_device("device_fill", device);
  if (bytes > 0) std::memset(destination, byte, static_cast<size_t>(bytes));
}

void* stream_create(int device) {
  check_device("stream_create", device);
  return new Stream{device};
}
void stream_destroy(int, void* stream) noexcept { delete static_cast<Stream*>(stream); }
void stream_synchronize(int device, void*) { check_device("stream_synchronize", device); }
int stream_device(int device, void* stream) {
  return is_default_stream(stream) ? device : static_cast<const Stream*>(stream)->device;
}

void* event_create(int device) {
  check_device("event_create", device);
  return new double(0);
}
void event_destroy(void* event) noexcept { delete static_cast<double*>(event); }
void event_record(int device, void* event, void*) {
  check_device("event_record", device);
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  *static_cast<double*>(event) = std::chrono::duration<double, std::milli>(now).count();
}
void event_synchronize(void*) {}
void stream_wait(int device, void*, void*) { check_device("stream_wait", device); }
double event_milliseconds(void* start, void* end) { return *static_cast<double*>(end) - *static_cast<double*>(start); }

void device_limit(int64_t bytes) { limit = bytes; }
int64_t device_in_use() { return used.load(); }
int64_t mapped_in_use() { return mapped.load(); }

#else
namespace {

[[noreturn]] void none(const char* function) { no_cuda(function); }

}  // namespace

int device_count() { return 0; }
std::string device_reason() { return "this build has no CUDA"; }
const char* device_archs() { return ""; }
int device_runtime_version() { return 0; }
int device_driver_version() { return 0; }
DeviceFacts device_facts(int) { none("device_facts"); }
void* device_allocate(int, int64_t) { none("device_allocate"); }
void device_release(int, void*) noexcept {}
void* pinned_allocate(int64_t) { none("pinned_allocate"); }
void pinned_release(void*) noexcept {}
void* mapped_allocate(int, int64_t) { none("mapped_allocate"); }
void mapped_release(int, void*) noexcept {}
void device_copy(int, void*, const void*, int64_t, void*) { none("device_copy"); }
void device_fill(int, void*, int, int64_t, void*) { none("device_fill"); }
void* stream_create(int) { none("stream_create"); }
void stream_destroy(int, void*) noexcept {}
void stream_synchronize(int, void*) { none("stream_synchronize"); }
int stream_device(int device, void*) { return device; }
void* event_create(int) { none("event_create"); }
void event_destroy(void*) noexcept {}
void event_record(int, void*, void*) { none("event_record"); }
void event_synchronize(void*) { none("event_synchronize"); }
void stream_wait(int, void*, void*) { none("stream_wait"); }
double event_milliseconds(void*, void*) { none("event_milliseconds"); }
void device_limit(int64_t) {}
int64_t device_in_use() { return 0; }
int64_t mapped_in_use() { return 0; }
#endif

}  // namespace pyfocus
