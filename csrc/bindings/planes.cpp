// Bindings of the ops that read planes where they lie: warp, luminance, demosaic, unpack, thin.
#include <array>
#include <vector>

#include "array.h"
#include "bindings.h"
#include "demosaic.h"
#include "luminance.h"
#include "thin.h"
#include "unpack.h"
#include "warp.h"

namespace pyfocus {
namespace {

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

}  // namespace

void bind_planes(py::module_& m) {
  m.def(
      "warp",
      [](const py::object& source, const py::object& matrices, const py::object& destination, const py::object& valid,
         int interpolation, bool root, bool square, bool narrow, const Offsets& mosaic, const py::object& table,
         const Values& scale, const Values& offset, int threads, uintptr_t stream) {
        const Array from(source), maps(matrices), to(destination);
        const auto seen = optional_array(valid), counts = optional_array(table);
        PYFOCUS_CHECK(interpolation >= 0 && interpolation <= 2, "warp: interpolation must be 0, 1 or 2, got %d",
                      interpolation);
        const PlaneSource planes = planes_of("warp", from, mosaic, counts, scale, offset);
        const Execution on = execution("warp", threads, stream, from);
        const py::gil_scoped_release release;
        warp(planes, maps.view, to.view, seen ? &seen->view : nullptr, static_cast<Interpolation>(interpolation), root,
             square, narrow, on);
      },
      py::arg("source"), py::arg("matrices"), py::arg("destination"), py::arg("valid") = py::none(),
      py::arg("interpolation") = 1, py::arg("root") = false, py::arg("square") = false, py::arg("narrow") = false,
      py::arg("mosaic") = py::none(), py::arg("table") = py::none(), py::arg("scale") = py::none(),
      py::arg("offset") = py::none(), py::arg("threads") = 0, py::arg("stream") = 0,
      "Resample 1 to 4 planes (uint8, uint16, float32) through a (C, 3, 3) float64 map from destination to source "
      "pixels.");
  m.def(
      "luminance",
      [](const py::object& source, const std::vector<float>& weights, const py::object& destination, int64_t factor,
         int64_t row_step, bool square_root, const Offsets& mosaic, const py::object& table, const Values& scale,
         const Values& offset, int threads, uintptr_t stream) {
        const Array from(source), to(destination);
        const auto counts = optional_array(table);
        const PlaneSource planes = planes_of("luminance", from, mosaic, counts, scale, offset);
        PYFOCUS_CHECK(static_cast<int>(weights.size()) == planes.planes,
                      "luminance: weights must have one value per plane (%d), got %zu", planes.planes, weights.size());
        const Execution on = execution("luminance", threads, stream, from);
        const py::gil_scoped_release release;
        luminance(planes, weights.data(), factor, row_step, square_root, to.view, on);
      },
      py::arg("source"), py::arg("weights"), py::arg("destination"), py::arg("factor") = 1, py::arg("row_step") = 1,
      py::arg("square_root") = false, py::arg("mosaic") = py::none(), py::arg("table") = py::none(),
      py::arg("scale") = py::none(), py::arg("offset") = py::none(), py::arg("threads") = 0, py::arg("stream") = 0,
      "Weighted sum of the planes, averaged over blocks of factor x factor pixels.");
  m.def(
      "demosaic",
      [](const py::object& source, std::array<int, 2> red, std::array<float, 4> scale, std::array<float, 4> offset,
         const py::object& destination, int threads, uintptr_t stream) {
        const Array from(source), to(destination);
        const Execution on = execution("demosaic", threads, stream, from);
        const py::gil_scoped_release release;
        demosaic(from.view, red[0], red[1], scale.data(), offset.data(), to.view, on);
      },
      py::arg("source"), py::arg("red"), py::arg("scale"), py::arg("offset"), py::arg("destination"),
      py::arg("threads") = 0, py::arg("stream") = 0, "Bayer mosaic to R, G, B in square-root encoding.");
  m.def(
      "unpack",
      [](const py::object& source, const py::object& destination, const std::vector<float>& scale,
         const std::vector<float>& offset, bool srgb, const Offsets& mosaic, int threads, uintptr_t stream) {
        const Array from(source), to(destination);
        const auto planes = static_cast<size_t>(from.view.shape[0]);
        PYFOCUS_CHECK(scale.size() == planes && offset.size() == planes && (!mosaic || mosaic->size() == planes),
                      "unpack: scale, offset and mosaic must have one value per plane (%zu), got %zu and %zu", planes,
                      scale.size(), offset.size());
        const auto* offsets = mosaic_offsets("unpack", mosaic);
        const Execution on = execution("unpack", threads, stream, from);
        const py::gil_scoped_release release;
        unpack(from.view, to.view, offsets, srgb, scale.data(), offset.data(), on);
      },
      py::arg("source"), py::arg("destination"), py::arg("scale"), py::arg("offset"), py::arg("srgb") = false,
      py::arg("mosaic") = py::none(), py::arg("threads") = 0, py::arg("stream") = 0,
      "Planes of linear light to a uint8 or uint16 array, interleaved or mosaic.");
  m.def(
      "thin",
      [](const py::object& source, int64_t step_y, int64_t step_x, const py::object& destination, int threads,
         uintptr_t stream) {
        const Array from(source), to(destination);
        const Execution on = execution("thin", threads, stream, from);
        const py::gil_scoped_release release;
        thin(from.view, step_y, step_x, to.view, on);
      },
      py::arg("source"), py::arg("step_y"), py::arg("step_x"), py::arg("destination"), py::arg("threads") = 0,
      py::arg("stream") = 0, "Every step-th pixel of every step-th row of uint8 or float32 planes.");
}

}  // namespace pyfocus
