// A view of somebody else's array: pointer, shape, strides, dtype, device. It owns nothing and copies nothing.
#pragma once

#include <cstdint>

#include "check.h"

namespace pyfocus {

enum class Dtype : uint8_t { U8, U16, F32, F64, I32, F16, BF16 };
enum class Device : uint8_t { Cpu, Cuda };

inline const char* dtype_name(Dtype dtype) {
  constexpr const char* kNames[] = {"uint8", "uint16", "float32", "float64", "int32", "float16", "bfloat16"};
  return kNames[static_cast<int>(dtype)];
}

inline int64_t dtype_size(Dtype dtype) {
  constexpr int64_t kSizes[] = {1, 2, 4, 8, 4, 2, 2};
  return kSizes[static_cast<int>(dtype)];
}

struct Place {
  Device device = Device::Cpu;
  int index = 0;  // of a CUDA device
  bool operator==(const Place& other) const {
    return device == other.device && (device == Device::Cpu || index == other.index);
  }
};

struct Tensor {
  static constexpr int kMaxDims = 4;
  void* data = nullptr;
  int ndim = 0;
  int64_t shape[kMaxDims] = {};
  int64_t stride[kMaxDims] = {};  // in elements, not bytes
  Dtype dtype = Dtype::F32;
  Device device = Device::Cpu;
  int device_index = 0;
  bool read_only = false;

  Place place() const { return {device, device_index}; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
  int64_t count() const {
    int64_t n = 1;
    for (int i = 0; i < ndim; ++i) n *= shape[i];
    return n;
  }
  bool is_contiguous() const {
    if (count() == 0) return true;  // producers give empty arrays any strides
    int64_t expected = 1;
    for (int i = ndim - 1; i >= 0; --i) {
      if (shape[i] != 1 && stride[i] != expected) return false;
      expected *= shape[i];
    }
    return true;
  }
};

// One op argument with its checks; every failure names the function and the argument.
inline void check_tensor(const char* function, const char* name, const Tensor& t, Dtype dtype, int ndim) {
  PYFOCUS_CHECK(t.dtype == dtype, "%s: %s must be %s, got %s", function, name, dtype_name(dtype), dtype_name(t.dtype));
  PYFOCUS_CHECK(t.ndim == ndim, "%s: %s must have %d dimensions, got %d", function, name, ndim, t.ndim);
}

// Where all arrays of a call must lie: on the same device as the first one. `other` may be null.
inline void check_place(const char* function, const char* name, const Tensor* other, const Place& place) {
  if (!other || other->place() == place) return;
  const auto word = [](Device device) { return device == Device::Cpu ? "cpu" : "cuda"; };
  fail(ErrorKind::Argument, "%s: %s must be on the device of the first array, %s:%d, got %s:%d", function, name,
       word(place.device), place.index, word(other->device), other->device_index);
}

// For what reads small arrays of parameters on the host.
inline void check_on_cpu(const char* function, const char* name, const Tensor& t) {
  PYFOCUS_CHECK(t.device == Device::Cpu, "%s: %s must be in CPU memory, got a CUDA array", function, name);
}

inline void check_contiguous(const char* function, const char* name, const Tensor& t) {
  PYFOCUS_CHECK(t.is_contiguous(), "%s: %s must be contiguous (C order), got strides", function, name);
}

inline void check_output(const char* function, const char* name, const Tensor& t, Dtype dtype, int ndim) {
  check_tensor(function, name, t, dtype, ndim);
  check_contiguous(function, name, t);
  PYFOCUS_CHECK(!t.read_only, "%s: %s is written to, got a read-only array", function, name);
}

inline void check_shape(const char* function, const char* name, const Tensor& t, int axis, int64_t expected) {
  PYFOCUS_CHECK(t.shape[axis] == expected, "%s: %s must have size %lld on axis %d, got %lld", function, name,
                static_cast<long long>(expected), axis, static_cast<long long>(t.shape[axis]));
}

}  // namespace pyfocus
