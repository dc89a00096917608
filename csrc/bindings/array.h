// Somebody's Python array as a Tensor: DLPack's C exchange table where the producer has one, __dlpack__ otherwise.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>

#include "device_array.h"
#include "tensor.h"
#include "third_party/dlpack/dlpack.h"

namespace py = pybind11;

namespace pyfocus {

// A borrowed view of a Python array that stays alive as long as this object does.
class Array {
 public:
  explicit Array(const py::handle& object) {
    if (own(object) || borrow(object)) return;
    py::object method = py::getattr(object, "__dlpack__", py::none());
    if (method.is_none())
      throw py::type_error("expected an array with __dlpack__ (NumPy, torch, CuPy), got " +
                           py::str(py::type::handle_of(object).attr("__name__")).cast<std::string>());
    py::object capsule;
    try {
      capsule = method(py::arg("max_version") = py::make_tuple(DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION));
    } catch (py::error_already_set& error) {
      if (!error.matches(PyExc_TypeError)) throw;
      capsule = method();  // a producer older than DLPack 1.0
    }
    take(capsule);
  }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  ~Array() {
    if (versioned_ && versioned_->deleter) versioned_->deleter(versioned_);
    if (legacy_ && legacy_->deleter) legacy_->deleter(legacy_);
  }

  Tensor view;
  void* stream = nullptr;  // on which the producer works, where it says so

 private:
  bool own(const py::handle& object) {
    if (!py::isinstance<DeviceArray>(object)) return false;
    view = object.cast<const DeviceArray&>().view();
    return true;
  }

  // torch >= 2.11 hands out views through a table of C functions on the type: no capsule, no Python call.
  bool borrow(const py::handle& object) {
    PyObject* type = reinterpret_cast<PyObject*>(Py_TYPE(object.ptr()));
    PyObject* capsule = PyObject_GetAttrString(type, "__dlpack_c_exchange_api__");
    if (!capsule) {
      PyErr_Clear();
      return false;
    }
    auto* api = static_cast<DLPackExchangeAPI*>(PyCapsule_GetPointer(capsule, "dlpack_exchange_api"));
    Py_DECREF(capsule);
    if (!api) {
      PyErr_Clear();
      return false;
    }
    if (api->header.version.major != DLPACK_MAJOR_VERSION || !api->dltensor_from_py_object_no_sync) return false;
    if (py::bool_(py::getattr(object, "requires_grad", py::bool_(false))))
      throw py::value_error("the array requires gradients; call detach() first");
    DLTensor tensor;
    if (api->dltensor_from_py_object_no_sync(object.ptr(), &tensor) != 0) throw py::error_already_set();
    fill(tensor, false);
    if (view.device == Device::Cuda && api->current_work_stream &&
        api->current_work_stream(kDLCUDA, view.device_index, &stream) != 0)
      throw py::error_already_set();
    return true;
  }

  void take(const py::object& capsule) {
    const char* name = PyCapsule_GetName(capsule.ptr());
    const std::string kind = name ? name : "";
    if (kind == "dltensor_versioned") {
      auto* managed = static_cast<DLManagedTensorVersioned*>(PyCapsule_GetPointer(capsule.ptr(), name));
      if (managed->version.major != DLPACK_MAJOR_VERSION) throw py::buffer_error("unknown DLPack version");
      fill(managed->dl_tensor, managed->flags & DLPACK_FLAG_BITMASK_READ_ONLY);
      PyCapsule_SetName(capsule.ptr(), "used_dltensor_versioned");  // only now ours: until here the capsule frees it
      versioned_ = managed;
    } else if (kind == "dltensor") {
      auto* managed = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), name));
      fill(managed->dl_tensor, false);
      PyCapsule_SetName(capsule.ptr(), "used_dltensor");
      legacy_ = managed;
    } else {
      throw py::type_error("__dlpack__ did not return a DLPack capsule");
    }
  }

  void fill(const DLTensor& t, bool read_only) {
    if (t.ndim > Tensor::kMaxDims)
      throw py::value_error("expected at most 4 dimensions, got " + std::to_string(t.ndim));
    view.data = static_cast<char*>(t.data) + t.byte_offset;
    view.ndim = t.ndim;
    view.read_only = read_only;
    int64_t dense = 1;
    for (int i = t.ndim - 1; i >= 0; --i) {
      view.shape[i] = t.shape[i];
      view.stride[i] = t.strides ? t.strides[i] : dense;
      dense *= t.shape[i];
    }
    view.device = t.device.device_type == kDLCUDA ? Device::Cuda : Device::Cpu;
    view.device_index = t.device.device_id;
    if (t.device.device_type != kDLCPU && t.device.device_type != kDLCUDA && t.device.device_type != kDLCUDAHost)
      throw py::value_error("expected an array in CPU or CUDA memory");
    view.dtype = dtype(t.dtype);
  }

  static Dtype dtype(const DLDataType& type) {
    if (type.lanes == 1) {
      if (type.code == kDLUInt && type.bits == 8) return Dtype::U8;
      if (type.code == kDLBool && type.bits == 8) return Dtype::U8;
      if (type.code == kDLUInt && type.bits == 16) return Dtype::U16;
      if (type.code == kDLInt && type.bits == 32) return Dtype::I32;
      if (type.code == kDLFloat && type.bits == 32) return Dtype::F32;
      if (type.code == kDLFloat && type.bits == 64) return Dtype::F64;
      if (type.code == kDLFloat && type.bits == 16) return Dtype::F16;
      if (type.code == kDLBfloat && type.bits == 16) return Dtype::BF16;
    }
    throw py::type_error(
        "expected uint8, uint16, int32, float32 or float64 elements, or float16 or bfloat16 where an op takes them");
  }

  DLManagedTensorVersioned* versioned_ = nullptr;
  DLManagedTensor* legacy_ = nullptr;
};

// Optional array: None gives a tensor without data.
inline std::optional<Array> optional_array(const py::object& object) {
  if (object.is_none()) return std::nullopt;
  return std::optional<Array>(std::in_place, object);
}

// The caller's `stream`, which must be of the first array's device, or the one on which that array's producer works.
inline Execution execution(const char* function, int threads, uintptr_t stream, const Array& first) {
  void* given = stream ? reinterpret_cast<void*>(stream) : first.stream;
  if (stream && first.view.device == Device::Cuda) check_stream(function, first.view.device_index, given);
  return {threads, given};
}

}  // namespace pyfocus
