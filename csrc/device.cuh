// What every CUDA source needs of the runtime: its errors as ours, and the current device for a while.
#pragma once

#include <cuda_runtime.h>

#include "check.h"

namespace pyfocus {

inline void check_cuda(const char* name, cudaError_t error) {
  if (error == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());
  fail(error == cudaErrorMemoryAllocation ? ErrorKind::Resource : ErrorKind::Device, "%s: %s (%s)", name,
       cudaGetErrorString(error), cudaGetErrorName(error));
}

// The current device of this thread, for as long as this object lives.
class DeviceScope {
 public:
  DeviceScope(const char* name, int device) {
    check_cuda(name, cudaGetDevice(&before_));
    if (device != before_) check_cuda(name, cudaSetDevice(device));
    changed_ = device != before_;
  }
  ~DeviceScope() {
    if (changed_) static_cast<void>(cudaSetDevice(before_));
  }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

}  // namespace pyfocus
