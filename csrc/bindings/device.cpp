// Bindings of the device: facts, arrays in its memory, pinned host arrays, copies, streams and events.
#include "device.h"

#include <memory>
#include <vector>

#include "array.h"
#include "bindings.h"

namespace pyfocus {
namespace {

// The DLPack capsule of a view: it keeps the memory alive for as long as somebody uses it.
py::capsule dlpack(const DeviceArray& array) {
  struct Managed {
    DLManagedTensor tensor;
    std::shared_ptr<void> memory;
    int64_t shape[Tensor::kMaxDims], stride[Tensor::kMaxDims];
  };
  auto* managed = new Managed;
  const Tensor& view = array.view();
  managed->memory = array.memory();
  for (int i = 0; i < view.ndim; ++i) managed->shape[i] = view.shape[i], managed->stride[i] = view.stride[i];
  DLTensor& t = managed->tensor.dl_tensor;
  t.data = view.data;
  t.device = {kDLCUDA, view.device_index};
  t.ndim = view.ndim;
  t.dtype = dlpack_type(view.dtype);
  t.shape = managed->shape;
  t.strides = managed->stride;
  t.byte_offset = 0;
  managed->tensor.manager_ctx = managed;
  managed->tensor.deleter = [](DLManagedTensor* self) { delete static_cast<Managed*>(self->manager_ctx); };
  return py::capsule(&managed->tensor, "dltensor", [](PyObject* capsule) {
    if (!PyCapsule_IsValid(capsule, "dltensor")) return;  // somebody took it, and will delete it
    auto* tensor = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule, "dltensor"));
    tensor->deleter(tensor);
  });
}

int64_t bytes_of(const char* function, const char* name, const Tensor& t) {
  check_contiguous(function, name, t);
  return t.count() * dtype_size(t.dtype);
}

void copy(const py::object& destination, const py::object& source, uintptr_t stream) {
  const Array to(destination), from(source);
  PYFOCUS_CHECK(!to.view.read_only, "device_copy: destination is written to, got a read-only array");
  PYFOCUS_CHECK(to.view.dtype == from.view.dtype, "device_copy: destination must be %s like the source, got %s",
                dtype_name(from.view.dtype), dtype_name(to.view.dtype));
  const int64_t bytes = bytes_of("device_copy", "destination", to.view);
  PYFOCUS_CHECK(bytes == bytes_of("device_copy", "source", from.view),
                "device_copy: destination must have as many elements as the source, %lld, got %lld",
                static_cast<long long>(from.view.count()), static_cast<long long>(to.view.count()));
  const Array& there = to.view.device == Device::Cuda ? to : from;
  PYFOCUS_CHECK(there.view.device == Device::Cuda,
                "device_copy: one of the arrays must be on a device, got two on the CPU");
  const Execution on = execution("device_copy", 0, stream, there);
  const py::gil_scoped_release release;
  device_copy(there.view.device_index, to.view.data, from.view.data, bytes, on.stream);
}

void fill(const py::object& destination, int byte, uintptr_t stream) {
  const Array to(destination);
  PYFOCUS_CHECK(to.view.device == Device::Cuda, "device_fill: destination must be on a device, got one on the CPU");
  PYFOCUS_CHECK(byte >= 0 && byte <= 255, "device_fill: byte must be 0 to 255, got %d", byte);
  const Execution on = execution("device_fill", 0, stream, to);
  const py::gil_scoped_release release;
  device_fill(to.view.device_index, to.view.data, byte, bytes_of("device_fill", "destination", to.view), on.stream);
}

py::tuple shape_of(const DeviceArray& array) {
  py::tuple shape(array.view().ndim);
  for (int i = 0; i < array.view().ndim; ++i) shape[i] = array.view().shape[i];
  return shape;
}

// Page-locked host memory with the buffer protocol: np.asarray(pinned) is a view of it.
struct Pinned {
  Pinned(const std::vector<int64_t>& shape_, const std::string& dtype_) : shape(shape_), dtype(dtype_named(dtype_)) {
    int64_t bytes = dtype_size(dtype);
    for (int64_t n : shape) bytes *= n;
    memory = pinned_allocate(bytes);
  }
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;
  ~Pinned() { pinned_release(memory); }
  std::vector<int64_t> shape;
  Dtype dtype;
  void* memory = nullptr;
};

py::buffer_info buffer(const Pinned& p) {
  const char* format = p.dtype == Dtype::U8    ? "B"
                       : p.dtype == Dtype::U16 ? "H"
                       : p.dtype == Dtype::F32 ? "f"
                       : p.dtype == Dtype::F64 ? "d"
                                               : "i";
  std::vector<py::ssize_t> shape(p.shape.begin(), p.shape.end()), strides(p.shape.size());
  py::ssize_t stride = dtype_size(p.dtype);
  for (size_t i = shape.size(); i-- > 0;) strides[i] = stride, stride *= shape[i];
  return py::buffer_info(p.memory, dtype_size(p.dtype), format, static_cast<py::ssize_t>(shape.size()), shape, strides);
}

struct Stream {
  explicit Stream(int device_) : device(device_), handle(stream_create(device_)) {}
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() { stream_destroy(device, handle); }
  int device;
  void* handle;
};

struct Event {
  explicit Event(int device_) : device(device_), handle(event_create(device_)) {}
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() { event_destroy(handle); }
  int device;
  void* handle;
};

void check_device(const char* function, const char* name, int device, int expected) {
  PYFOCUS_CHECK(device == expected, "%s: %s must be of the same device, cuda:%d, got one of cuda:%d", function, name,
                expected, device);
}

void bind_arrays(py::module_& m) {
  py::class_<DeviceArray, std::shared_ptr<DeviceArray>>(m, "DeviceArray",
                                                        "An array in the memory of a CUDA device, or mapped.")
      .def(py::init([](const std::vector<int64_t>& shape, const std::string& dtype, int device, bool mapped) {
             return std::make_shared<DeviceArray>(shape, dtype_named(dtype), device, mapped);
           }),
           py::arg("shape"), py::arg("dtype") = "float32", py::arg("device") = 0, py::arg("mapped") = false)
      .def_property_readonly("shape", &shape_of)
      .def_property_readonly("ndim", [](const DeviceArray& a) { return a.view().ndim; })
      .def_property_readonly("size", [](const DeviceArray& a) { return a.view().count(); })
      .def_property_readonly("dtype", [](const DeviceArray& a) { return dtype_name(a.view().dtype); })
      .def_property_readonly("nbytes",
                             [](const DeviceArray& a) { return a.view().count() * dtype_size(a.view().dtype); })
      .def_property_readonly("device", [](const DeviceArray& a) { return a.view().device_index; })
      .def_property_readonly("mapped", &DeviceArray::mapped)
      .def("reshape", &DeviceArray::reshape, py::arg("shape"), "The same memory as another shape.")
      .def("transpose", &DeviceArray::transpose, py::arg("order"), "The same memory with its axes in another order.")
      .def("part", &DeviceArray::part, py::arg("start"), py::arg("stop"),
           "Rows start to stop of the first axis, a view.")
      .def("__dlpack_device__",
           [](const DeviceArray& a) { return py::make_tuple(int{kDLCUDA}, a.view().device_index); })
      .def("__dlpack__", [](const DeviceArray& a, const py::kwargs&) { return dlpack(a); });
  py::class_<Pinned>(m, "PinnedArray", py::buffer_protocol(), "Page-locked host memory, for copies that do not wait.")
      .def(py::init<const std::vector<int64_t>&, const std::string&>(), py::arg("shape"), py::arg("dtype") = "float32")
      .def_buffer([](Pinned& p) { return buffer(p); });
  m.def("device_copy", &copy, py::arg("destination"), py::arg("source"), py::arg("stream") = 0,
        "Copy between device and host memory, or from device to device on a stream of the destination's, in stream "
        "order.");
  m.def("device_fill", &fill, py::arg("destination"), py::arg("byte") = 0, py::arg("stream") = 0,
        "Set every byte of a device array, in stream order.");
}

void bind_streams(py::module_& m) {
  py::class_<Event>(m, "Event", "A point in a stream's work.")
      .def(py::init<int>(), py::arg("device") = 0)
      .def(
          "synchronize", [](const Event& e) { event_synchronize(e.handle); }, py::call_guard<py::gil_scoped_release>())
      .def(
          "milliseconds_since",
          [](const Event& e, const Event& start) {
            check_device("Event.milliseconds_since", "start", start.device, e.device);
            return event_milliseconds(start.handle, e.handle);
          },
          py::arg("start"));
  py::class_<Stream>(m, "Stream", "A queue of a device's work; ``handle`` is what ``stream=`` takes.")
      .def(py::init<int>(), py::arg("device") = 0)
      .def_property_readonly("handle", [](const Stream& s) { return reinterpret_cast<uintptr_t>(s.handle); })
      .def_property_readonly("device", [](const Stream& s) { return s.device; })
      .def(
          "synchronize", [](const Stream& s) { stream_synchronize(s.device, s.handle); },
          py::call_guard<py::gil_scoped_release>())
      .def(
          "record",
          [](const Stream& s, const Event& e) {
            check_device("Stream.record", "event", e.device, s.device);
            event_record(s.device, e.handle, s.handle);
          },
          py::arg("event"))
      .def(
          "wait", [](const Stream& s, const Event& e) { stream_wait(s.device, s.handle, e.handle); }, py::arg("event"));
}

}  // namespace

void bind_device(py::module_& m) {
  m.def("device_count", &device_count, "Usable CUDA devices.");
  m.def("device_reason", &device_reason, "Why there is no usable CUDA device; empty when there is one.");
  m.def("device_archs", &device_archs, "What the kernels were compiled for; empty without CUDA.");
  m.def(
      "device_versions", [] { return py::make_tuple(device_runtime_version(), device_driver_version()); },
      "(CUDA runtime, newest CUDA of the driver) as 1000 major + 10 minor; 0 for none.");
  m.def(
      "device_facts",
      [](int device) {
        const DeviceFacts f = device_facts(device);
        py::dict facts;
        facts["name"] = f.name;
        facts["compute_capability"] = std::to_string(f.major) + "." + std::to_string(f.minor);
        facts["processors"] = f.processors;
        facts["memory"] = f.memory;
        facts["memory_free"] = f.memory_free;
        return facts;
      },
      py::arg("device") = 0, "Name, compute capability, multiprocessors and bytes of memory of a device.");
  m.def("device_limit", &device_limit, py::arg("bytes"), "Emulated devices: let allocations past this fail; 0: none.");
  m.def("device_in_use", &device_in_use, "Bytes of device memory that this module holds.");
  m.def("mapped_in_use", &mapped_in_use, "Bytes of page-locked host memory mapped for devices that this module holds.");
  bind_arrays(m);
  bind_streams(m);
}

}  // namespace pyfocus
