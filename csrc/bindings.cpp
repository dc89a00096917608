// The Python module `_C`: arrays in through DLPack, the GIL released, errors typed. The only file that knows Python.
// No arithmetic and no algorithm here: each function makes views, fills the op's parameters and calls its launcher.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "demosaic.h"
#include "ecc.h"
#include "isa.h"
#include "luminance.h"
#include "parallel.h"
#include "pyramid.h"
#include "tensor.h"
#include "third_party/dlpack/dlpack.h"
#include "unpack.h"
#include "warp.h"

namespace py = pybind11;

namespace pyfocus {
namespace {

// A borrowed view of a Python array that stays alive as long as this object does.
class Array {
 public:
  explicit Array(const py::handle& object) {
    if (borrow(object)) return;
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

 private:
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
    }
    throw py::type_error("expected uint8, uint16, int32, float32 or float64 elements");
  }

  DLManagedTensorVersioned* versioned_ = nullptr;
  DLManagedTensor* legacy_ = nullptr;
};

// Optional array: None gives a tensor without data.
std::optional<Array> optional_array(const py::object& object) {
  if (object.is_none()) return std::nullopt;
  return std::optional<Array>(std::in_place, object);
}

void translate(std::exception_ptr error) {
  try {
    if (error) std::rethrow_exception(error);
  } catch (const Error& e) {
    const py::object errors = py::module_::import("pyfocus.errors");
    const char* name = e.kind() == ErrorKind::Argument    ? "ArgumentError"
                       : e.kind() == ErrorKind::Cancelled ? "Cancelled"
                                                          : "ResourceError";
    py::set_error(errors.attr(name), e.what());
  } catch (const std::bad_alloc&) {
    py::set_error(py::module_::import("pyfocus.errors").attr("ResourceError"), "out of memory");
  }
}

void bind_machine(py::module_& m) {
  m.def("threads", &threads, "Default number of threads.");
  m.def("set_threads", &set_threads, py::arg("count"),
        "Set the default number of threads; 0: all this process may use.");
  m.def("isa", [] { return "x86-64-v" + std::to_string(static_cast<int>(isa())); }, "Instruction set in use.");
  m.def(
      "set_isa",
      [](int level) {
        PYFOCUS_CHECK(level == 0 || (level >= 2 && level <= 4), "set_isa: level must be 0 (best), 2, 3 or 4, got %d",
                      level);
        set_isa(level == 0 ? best_isa() : static_cast<Isa>(level));
      },
      py::arg("level"), "Use at most x86-64-v<level>; 0: the best this processor has.");
}

// Arguments that several functions share: how the counts of a source become values, and where a mosaic's planes start.
using Offsets = std::optional<std::vector<std::array<int, 2>>>;
using Values = std::optional<std::vector<float>>;

const float* per_plane(const char* function, const char* name, const Values& values, int planes) {
  if (!values) return nullptr;
  PYFOCUS_CHECK(static_cast<int>(values->size()) == planes, "%s: %s must have one value per plane (%d), got %zu",
                function, name, planes, values->size());
  return values->data();
}

const int (*mosaic_offsets(const char* function, const Offsets& mosaic))[2] {
  if (!mosaic) return nullptr;
  PYFOCUS_CHECK(mosaic->size() >= 1 && mosaic->size() <= kMaxPlanes, "%s: a mosaic has 1 to 4 planes, got %zu",
                function, mosaic->size());
  for (const auto& offset : *mosaic)
    PYFOCUS_CHECK((offset[0] | 1) == 1 && (offset[1] | 1) == 1, "%s: mosaic offsets must be 0 or 1, got (%d, %d)",
                  function, offset[0], offset[1]);
  return reinterpret_cast<const int (*)[2]>(mosaic->data());
}

PlaneSource planes_of(const char* function, const Array& source, const Offsets& mosaic,
                      const std::optional<Array>& table, const Values& scale, const Values& offset) {
  const int planes = mosaic ? static_cast<int>(mosaic->size()) : static_cast<int>(source.view.shape[0]);
  return plane_source(function, source.view, mosaic_offsets(function, mosaic), planes, table ? &table->view : nullptr,
                      per_plane(function, "scale", scale, planes), per_plane(function, "offset", offset, planes));
}

void bind_planes(py::module_& m) {
  m.def(
      "warp",
      [](const py::object& source, const py::object& matrices, const py::object& destination, const py::object& valid,
         int interpolation, bool root, bool square, const Offsets& mosaic, const py::object& table, const Values& scale,
         const Values& offset, int threads) {
        const Array from(source), maps(matrices), to(destination);
        const auto seen = optional_array(valid), counts = optional_array(table);
        PYFOCUS_CHECK(interpolation >= 0 && interpolation <= 2, "warp: interpolation must be 0, 1 or 2, got %d",
                      interpolation);
        const PlaneSource planes = planes_of("warp", from, mosaic, counts, scale, offset);
        const py::gil_scoped_release release;
        warp(planes, maps.view, to.view, seen ? &seen->view : nullptr, static_cast<Interpolation>(interpolation), root,
             square, threads);
      },
      py::arg("source"), py::arg("matrices"), py::arg("destination"), py::arg("valid") = py::none(),
      py::arg("interpolation") = 1, py::arg("root") = false, py::arg("square") = false, py::arg("mosaic") = py::none(),
      py::arg("table") = py::none(), py::arg("scale") = py::none(), py::arg("offset") = py::none(),
      py::arg("threads") = 0,
      "Resample 1 to 4 planes (uint8, uint16, float32) through a (C, 3, 3) float64 map from destination to source "
      "pixels.");
  m.def(
      "luminance",
      [](const py::object& source, const std::vector<float>& weights, const py::object& destination, int64_t factor,
         int64_t row_step, bool square_root, const Offsets& mosaic, const py::object& table, const Values& scale,
         const Values& offset, int threads) {
        const Array from(source), to(destination);
        const auto counts = optional_array(table);
        const PlaneSource planes = planes_of("luminance", from, mosaic, counts, scale, offset);
        PYFOCUS_CHECK(static_cast<int>(weights.size()) == planes.planes,
                      "luminance: weights must have one value per plane (%d), got %zu", planes.planes, weights.size());
        const py::gil_scoped_release release;
        luminance(planes, weights.data(), factor, row_step, square_root, to.view, threads);
      },
      py::arg("source"), py::arg("weights"), py::arg("destination"), py::arg("factor") = 1, py::arg("row_step") = 1,
      py::arg("square_root") = false, py::arg("mosaic") = py::none(), py::arg("table") = py::none(),
      py::arg("scale") = py::none(), py::arg("offset") = py::none(), py::arg("threads") = 0,
      "Weighted sum of the planes, averaged over blocks of factor x factor pixels.");
  m.def(
      "demosaic",
      [](const py::object& source, std::array<int, 2> red, std::array<float, 4> scale, std::array<float, 4> offset,
         const py::object& destination, int threads) {
        const Array from(source), to(destination);
        const py::gil_scoped_release release;
        demosaic(from.view, red[0], red[1], scale.data(), offset.data(), to.view, threads);
      },
      py::arg("source"), py::arg("red"), py::arg("scale"), py::arg("offset"), py::arg("destination"),
      py::arg("threads") = 0, "Bayer mosaic to R, G, B in square-root encoding.");
  m.def(
      "unpack",
      [](const py::object& source, const py::object& destination, const std::vector<float>& scale,
         const std::vector<float>& offset, bool srgb, const Offsets& mosaic, int threads) {
        const Array from(source), to(destination);
        const auto planes = static_cast<size_t>(from.view.shape[0]);
        PYFOCUS_CHECK(scale.size() == planes && offset.size() == planes && (!mosaic || mosaic->size() == planes),
                      "unpack: scale, offset and mosaic must have one value per plane (%zu), got %zu and %zu", planes,
                      scale.size(), offset.size());
        const auto* offsets = mosaic_offsets("unpack", mosaic);
        const py::gil_scoped_release release;
        unpack(from.view, to.view, offsets, srgb, scale.data(), offset.data(), threads);
      },
      py::arg("source"), py::arg("destination"), py::arg("scale"), py::arg("offset"), py::arg("srgb") = false,
      py::arg("mosaic") = py::none(), py::arg("threads") = 0,
      "Planes of linear light to a uint8 or uint16 array, interleaved or mosaic.");
}

void bind_pyramid(py::module_& m) {
  m.def(
      "pyramid_down",
      [](const py::object& source, const py::object& destination, bool add, int threads) {
        const Array from(source), to(destination);
        const py::gil_scoped_release release;
        pyramid_down(from.view, to.view, add, threads);
      },
      py::arg("source"), py::arg("destination"), py::arg("add") = false, py::arg("threads") = 0,
      "Next coarser Gaussian level.");
  m.def(
      "pyramid_up",
      [](const py::object& source, const py::object& destination, float gain, bool add, int threads) {
        const Array from(source), to(destination);
        const py::gil_scoped_release release;
        pyramid_up(from.view, to.view, gain, add, threads);
      },
      py::arg("source"), py::arg("destination"), py::arg("gain") = 1.0f, py::arg("add") = false, py::arg("threads") = 0,
      "Coarse level interpolated to the finer grid.");
  m.def(
      "pyramid_smooth",
      [](const py::object& source, const py::object& destination, int threads) {
        const Array from(source), to(destination);
        const py::gil_scoped_release release;
        pyramid_smooth(from.view, to.view, threads);
      },
      py::arg("source"), py::arg("destination"), py::arg("threads") = 0, "5-tap binomial in both directions.");
  m.def(
      "pyramid_energy",
      [](const py::object& fine, const py::object& coarse, const py::object& energy, int threads) {
        const Array from(fine), below(coarse), to(energy);
        const py::gil_scoped_release release;
        pyramid_energy(from.view, below.view, to.view, threads);
      },
      py::arg("fine"), py::arg("coarse"), py::arg("energy"), py::arg("threads") = 0,
      "Mean squared detail of a level, pooled to the coarser grid.");
  m.def(
      "pyramid_rate",
      [](const py::object& rating, const py::object& coarse, const py::object& valid, float slope, float floor,
         const py::object& peak, const py::object& before, int threads) {
        const Array rate(rating), below(coarse), top(peak), old(before);
        const auto seen = optional_array(valid);
        const py::gil_scoped_release release;
        pyramid_rate(rate.view, below.view, seen ? &seen->view : nullptr, slope, floor, top.view, old.view, threads);
      },
      py::arg("rating"), py::arg("coarse"), py::arg("valid"), py::arg("slope"), py::arg("floor"), py::arg("peak"),
      py::arg("before"), py::arg("threads") = 0, "Add the noise floor, apply the mask, update the running maximum.");
  m.def(
      "pyramid_fold",
      [](const py::object& fine, const py::object& coarse, const py::object& rating, const py::object& before,
         const py::object& peak, int power, const py::object& numerator, const py::object& denominator, int threads) {
        const Array from(fine), below(coarse), rate(rating), old(before), top(peak), sum(numerator),
            weight(denominator);
        const py::gil_scoped_release release;
        pyramid_fold(from.view, below.view, rate.view, old.view, top.view, power, sum.view, weight.view, threads);
      },
      py::arg("fine"), py::arg("coarse"), py::arg("rating"), py::arg("before"), py::arg("peak"), py::arg("power"),
      py::arg("numerator"), py::arg("denominator"), py::arg("threads") = 0, "Fold one frame's detail into a level.");
  m.def(
      "pyramid_collapse",
      [](const py::object& numerator, const py::object& denominator, const py::object& coarse,
         const py::object& destination, int threads) {
        const Array sum(numerator), weight(denominator), below(coarse), to(destination);
        const py::gil_scoped_release release;
        pyramid_collapse(sum.view, weight.view, below.view, to.view, threads);
      },
      py::arg("numerator"), py::arg("denominator"), py::arg("coarse"), py::arg("destination"), py::arg("threads") = 0,
      "Weighted mean of a level's detail on top of the coarser result.");
  m.def(
      "pyramid_valid",
      [](const py::object& source, const py::object& destination, int threads) {
        const Array from(source), to(destination);
        const py::gil_scoped_release release;
        pyramid_valid(from.view, to.view, threads);
      },
      py::arg("source"), py::arg("destination"), py::arg("threads") = 0,
      "Validity on the coarser grid: all 5 x 5 pixels below.");
}

void bind_ecc(py::module_& m) {
  m.attr("ECC_CHUNK_ROWS") = kEccChunkRows;
  m.def("ecc_sum_count", &ecc_sum_count, py::arg("parameters"), "Length of the sums of ecc.");
  m.def(
      "ecc",
      [](const py::object& fixed, const py::object& moving, const py::object& matrix, int parameters,
         const py::object& workspace, const py::object& sums, const py::object& mask, int64_t row_step, int threads) {
        const Array still(fixed), moved(moving), map(matrix), scratch(workspace), out(sums);
        const auto seen = optional_array(mask);
        const py::gil_scoped_release release;
        ecc(still.view, moved.view, seen ? &seen->view : nullptr, map.view, parameters, scratch.view, out.view,
            row_step, threads);
      },
      py::arg("fixed"), py::arg("moving"), py::arg("matrix"), py::arg("parameters"), py::arg("workspace"),
      py::arg("sums"), py::arg("mask") = py::none(), py::arg("row_step") = 1, py::arg("threads") = 0,
      "Sums of one registration step: normal equations and correlation in one pass.");
}

}  // namespace
}  // namespace pyfocus

PYBIND11_MODULE(_C, m, py::mod_gil_not_used()) {
  using namespace pyfocus;
  m.doc() = "Native kernels of pyfocus. Arrays cross through DLPack; outputs and workspaces come from the caller.";
  py::register_local_exception_translator(&translate);
  bind_machine(m);
  bind_planes(m);
  bind_pyramid(m);
  bind_ecc(m);
}
