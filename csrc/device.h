// The accelerator as the host sees it: what there is, memory, copies, streams and events. No CUDA header reaches out
// of here: streams and events are void*. device.cu is the real thing; device.cpp stands in for it where there is no
// CUDA compiler, or (PYFOCUS_CUDA=EMULATE) lets the host play the device, so that tests run the kernels' own source.
#pragma once

#include <cstdint>
#include <string>

#include "check.h"

namespace pyfocus {

// Where and how a launcher works: `threads` of the pool on the CPU (0: the default), `stream` on a CUDA device
// (a cudaStream_t; null: the legacy default stream). What the inputs lie on decides which of them counts.
struct Execution {
  int threads = 0;
  void* stream = nullptr;
};

struct DeviceFacts {
  std::string name;
  int major = 0, minor = 0, processors = 0;
  int64_t memory = 0, memory_free = 0;  // bytes
};

int device_count();                    // usable devices; 0 never fails
std::string device_reason();           // why device_count() is 0, in words; empty when it is not
const char* device_archs();            // what the kernels were compiled for: "sm_75 sm_80 ... compute_120", "host", ""
int device_runtime_version();          // of the CUDA runtime linked in, 13000 for 13.0; 0 without
int device_driver_version();           // the newest CUDA that the driver takes; 0 without
DeviceFacts device_facts(int device);  // Argument error for a device that is not there

// Device memory of one device, and page-locked host memory. Failures are Resource errors; null for 0 bytes.
void* device_allocate(int device, int64_t bytes);
void device_release(int device, void* memory) noexcept;
void* pinned_allocate(int64_t bytes);
void pinned_release(void* memory) noexcept;

// Page-locked host memory that kernels of the device read and write over the bus, at the address that the host has for
// it. Releasing waits for the device's work.
void* mapped_allocate(int device, int64_t bytes);
void mapped_release(int device, void* memory) noexcept;

// In stream order, between any two of host and device memory; host memory that is not pinned makes the call wait.
void device_copy(int device, void* destination, const void* source, int64_t bytes, void* stream);
void device_fill(int device, void* destination, int byte, int64_t bytes, void* stream);

void* stream_create(int device);
void stream_destroy(int device, void* stream) noexcept;
void stream_synchronize(int device, void* stream);
void* event_create(int device);
void event_destroy(void* event) noexcept;
void event_record(int device, void* event, void* stream);
void event_synchronize(void* event);
void stream_wait(int device, void* stream, void* event);  // later work of the stream waits for the event
double event_milliseconds(void* start, void* end);        // between two recorded and reached events

// The device whose work a stream queues; neither waits nor changes anything. It is `device` for the default streams
// (null, and CUDA's handles 1 and 2), which are those of whatever device is current, and for a stream that cannot be
// asked: its use then says what is wrong with it.
int stream_device(int device, void* stream);

inline bool is_default_stream(const void* stream) { return reinterpret_cast<uintptr_t>(stream) <= 2; }

// What runs on `device`, because the arrays lie there, takes no other device's stream.
inline void check_stream(const char* function, int device, void* stream) {
  const int other = stream_device(device, stream);
  PYFOCUS_CHECK(other == device, "%s: stream must be of the device of the arrays, cuda:%d, got one of cuda:%d",
                function, device, other);
}

// For tests of the emulation only: allocations fail past so many bytes in use; 0: no limit. No effect on real devices.
void device_limit(int64_t bytes);
int64_t device_in_use();  // bytes of device memory allocated here and not released
int64_t mapped_in_use();  // the same of mapped host memory

// What a launcher does with arrays on a CUDA device: call the op's CUDA launcher, or say that there is none.
[[noreturn]] void no_cuda(const char* function);

}  // namespace pyfocus

#if defined(PYFOCUS_CUDA)
#define PYFOCUS_ON_CUDA(function, call) return call
#else
#define PYFOCUS_ON_CUDA(function, call) ::pyfocus::no_cuda(function)
#endif
