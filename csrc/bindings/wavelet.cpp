// Bindings of the wavelet's steps.
#include "wavelet.h"

#include "array.h"
#include "bindings.h"

namespace pyfocus {
namespace {

// pool and spread: a grid to the one below it or above it.
using Regrid = void (*)(const Tensor&, const Tensor&, float, const Tensor*, const Execution&);

void bind_regrid(py::module_& m, const char* name, Regrid regrid, const char* text) {
  m.def(
      name,
      [name, regrid](const py::object& source, const py::object& destination, float gain, const py::object& add,
                     int threads, uintptr_t stream) {
        const Array from(source), to(destination);
        const auto plus = optional_array(add);
        const Execution on = execution(name, threads, stream, from);
        const py::gil_scoped_release release;
        regrid(from.view, to.view, gain, plus ? &plus->view : nullptr, on);
      },
      py::arg("source"), py::arg("destination"), py::arg("gain") = 1.0f, py::arg("add") = py::none(),
      py::arg("threads") = 0, py::arg("stream") = 0, text);
}

}  // namespace

void bind_wavelet(py::module_& m) {
  m.def(
      "wavelet_measure",
      [](const py::object& fine, const py::object& low, const py::object& energy, int threads, uintptr_t stream) {
        const Array from(fine), below(low), to(energy);
        const Execution on = execution("wavelet_measure", threads, stream, from);
        const py::gil_scoped_release release;
        wavelet_measure(from.view, below.view, to.view, on);
      },
      py::arg("fine"), py::arg("low"), py::arg("energy"), py::arg("threads") = 0, py::arg("stream") = 0,
      "Next coarser level, and the energy of the three bands beside it.");
  m.def(
      "wavelet_fold",
      [](const py::object& fine, const py::object& rating, const py::object& before, const py::object& peak, int power,
         const py::object& sums, const py::object& weight, int threads, uintptr_t stream) {
        const Array from(fine), rate(rating), old(before), top(peak), sum(sums), total(weight);
        const Execution on = execution("wavelet_fold", threads, stream, from);
        const py::gil_scoped_release release;
        wavelet_fold(from.view, rate.view, old.view, top.view, power, sum.view, total.view, on);
      },
      py::arg("fine"), py::arg("rating"), py::arg("before"), py::arg("peak"), py::arg("power"), py::arg("sums"),
      py::arg("weight"), py::arg("threads") = 0, py::arg("stream") = 0, "Fold one frame's bands into a level.");
  m.def(
      "wavelet_merge",
      [](const py::object& low, const py::object& sums, const py::object& weight, const py::object& destination,
         int threads, uintptr_t stream) {
        const Array below(low), sum(sums), total(weight), to(destination);
        const Execution on = execution("wavelet_merge", threads, stream, below);
        const py::gil_scoped_release release;
        wavelet_merge(below.view, sum.view, total.view, to.view, on);
      },
      py::arg("low"), py::arg("sums"), py::arg("weight"), py::arg("destination"), py::arg("threads") = 0,
      py::arg("stream") = 0, "The finer level, or the picture, from the coarser one and the mean bands.");
  bind_regrid(m, "wavelet_pool", &wavelet_pool, "A grid summed to the coarser one.");
  bind_regrid(m, "wavelet_spread", &wavelet_spread, "A grid interpolated to the finer one.");
  m.def(
      "wavelet_valid",
      [](const py::object& source, const py::object& destination, int threads, uintptr_t stream) {
        const Array from(source), to(destination);
        const Execution on = execution("wavelet_valid", threads, stream, from);
        const py::gil_scoped_release release;
        wavelet_valid(from.view, to.view, on);
      },
      py::arg("source"), py::arg("destination"), py::arg("threads") = 0, py::arg("stream") = 0,
      "Validity on the coarser grid: most of the 2 x 2 pixels below.");
}

}  // namespace pyfocus
