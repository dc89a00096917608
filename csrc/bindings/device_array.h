// Memory of a CUDA device with a shape, as Python holds it; views share the memory. Where it is `mapped` it lies in the
// host, and kernels of the device take it like their own.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <vector>

#include "device.h"
#include "tensor.h"
#include "third_party/dlpack/dlpack.h"

namespace pyfocus {

inline Dtype dtype_named(const std::string& name) {
  for (Dtype dtype : {Dtype::U8, Dtype::U16, Dtype::F32, Dtype::F64, Dtype::I32, Dtype::F16, Dtype::BF16})
    if (name == dtype_name(dtype)) return dtype;
  fail(ErrorKind::Argument, "dtype must be uint8, uint16, int32, float16, bfloat16, float32 or float64, got %s",
       name.c_str());
}

inline DLDataType dlpack_type(Dtype dtype) {
  const uint8_t bits = static_cast<uint8_t>(8 * dtype_size(dtype));
  if (dtype == Dtype::U8 || dtype == Dtype::U16) return {kDLUInt, bits, 1};
  if (dtype == Dtype::I32) return {kDLInt, bits, 1};
  return {static_cast<uint8_t>(dtype == Dtype::BF16 ? kDLBfloat : kDLFloat), bits, 1};
}

class DeviceArray {
 public:
  DeviceArray(const std::vector<int64_t>& shape, Dtype dtype, int device, bool mapped) : mapped_(mapped) {
    view_.dtype = dtype;
    view_.device = Device::Cuda;
    view_.device_index = device;
    set_shape(shape);
    const int64_t bytes = view_.count() * dtype_size(dtype);
    view_.data = mapped ? mapped_allocate(device, bytes) : device_allocate(device, bytes);
    memory_ = std::shared_ptr<void>(view_.data, [device, mapped](void* memory) {
      mapped ? mapped_release(device, memory) : device_release(device, memory);
    });
  }

  const Tensor& view() const { return view_; }
  bool mapped() const { return mapped_; }
  const std::shared_ptr<void>& memory() const { return memory_; }

  std::shared_ptr<DeviceArray> reshape(const std::vector<int64_t>& shape) const {
    check_contiguous("DeviceArray.reshape", "the array", view_);
    auto other = std::make_shared<DeviceArray>(*this);
    other->set_shape(shape);
    PYFOCUS_CHECK(other->view_.count() == view_.count(),
                  "DeviceArray.reshape: shape must have as many elements as before, %lld, got %lld",
                  static_cast<long long>(view_.count()), static_cast<long long>(other->view_.count()));
    return other;
  }

  // The same memory with its axes in another order.
  std::shared_ptr<DeviceArray> transpose(const std::vector<int>& order) const {
    PYFOCUS_CHECK(static_cast<int>(order.size()) == view_.ndim,
                  "DeviceArray.transpose: order must have %d axes, got %zu", view_.ndim, order.size());
    auto other = std::make_shared<DeviceArray>(*this);
    unsigned seen = 0;
    for (int i = 0; i < view_.ndim; ++i) {
      const int axis = order[static_cast<size_t>(i)];
      PYFOCUS_CHECK(axis >= 0 && axis < view_.ndim && !(seen >> axis & 1u),
                    "DeviceArray.transpose: order must name each axis once, got %d", axis);
      seen |= 1u << axis;
      other->view_.shape[i] = view_.shape[axis], other->view_.stride[i] = view_.stride[axis];
    }
    return other;
  }

  std::shared_ptr<DeviceArray> part(int64_t start, int64_t stop) const {
    PYFOCUS_CHECK(view_.ndim > 0 && 0 <= start && start <= stop && stop <= view_.shape[0],
                  "DeviceArray.part: start and stop must lie within the %lld rows, got %lld and %lld",
                  static_cast<long long>(view_.ndim ? view_.shape[0] : 0), static_cast<long long>(start),
                  static_cast<long long>(stop));
    auto other = std::make_shared<DeviceArray>(*this);
    other->view_.data = static_cast<char*>(view_.data) + start * view_.stride[0] * dtype_size(view_.dtype);
    other->view_.shape[0] = stop - start;
    return other;
  }

 private:
  void set_shape(const std::vector<int64_t>& shape) {
    PYFOCUS_CHECK(shape.size() <= Tensor::kMaxDims, "DeviceArray: at most 4 dimensions, got %zu", shape.size());
    view_.ndim = static_cast<int>(shape.size());
    int64_t dense = 1;
    for (int i = view_.ndim - 1; i >= 0; --i) {
      PYFOCUS_CHECK(shape[i] >= 0, "DeviceArray: sizes must not be negative, got %lld",
                    static_cast<long long>(shape[i]));
      PYFOCUS_CHECK(shape[i] == 0 || dense < (int64_t{1} << 40) / shape[i], "DeviceArray: more than 2^40 elements");
      view_.shape[i] = shape[i];
      view_.stride[i] = dense;
      dense *= shape[i];
    }
  }

  Tensor view_;
  bool mapped_;
  std::shared_ptr<void> memory_;
};

}  // namespace pyfocus
