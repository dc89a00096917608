// Bindings of the pyramid's steps.
#include "pyramid.h"

#include "array.h"
#include "bindings.h"

namespace pyfocus {

void bind_pyramid(py::module_& m) {
  m.def(
      "pyramid_down",
      [](const py::object& source, const py::object& destination, bool add, int threads, uintptr_t stream) {
        const Array from(source), to(destination);
        const Execution on = execution(threads, stream, from);
        const py::gil_scoped_release release;
        pyramid_down(from.view, to.view, add, on);
      },
      py::arg("source"), py::arg("destination"), py::arg("add") = false, py::arg("threads") = 0, py::arg("stream") = 0,
      "Next coarser Gaussian level.");
  m.def(
      "pyramid_up",
      [](const py::object& source, const py::object& destination, float gain, bool add, int threads, uintptr_t stream) {
        const Array from(source), to(destination);
        const Execution on = execution(threads, stream, from);
        const py::gil_scoped_release release;
        pyramid_up(from.view, to.view, gain, add, on);
      },
      py::arg("source"), py::arg("destination"), py::arg("gain") = 1.0f, py::arg("add") = false, py::arg("threads") = 0,
      py::arg("stream") = 0, "Coarse level interpolated to the finer grid.");
  m.def(
      "pyramid_smooth",
      [](const py::object& source, const py::object& destination, int threads, uintptr_t stream) {
        const Array from(source), to(destination);
        const Execution on = execution(threads, stream, from);
        const py::gil_scoped_release release;
        pyramid_smooth(from.view, to.view, on);
      },
      py::arg("source"), py::arg("destination"), py::arg("threads") = 0, py::arg("stream") = 0,
      "5-tap binomial in both directions.");
  m.def(
      "pyramid_energy",
      [](const py::object& fine, const py::object& coarse, const py::object& energy, int threads, uintptr_t stream) {
        const Array from(fine), below(coarse), to(energy);
        const Execution on = execution(threads, stream, from);
        const py::gil_scoped_release release;
        pyramid_energy(from.view, below.view, to.view, on);
      },
      py::arg("fine"), py::arg("coarse"), py::arg("energy"), py::arg("threads") = 0, py::arg("stream") = 0,
      "Mean squared detail of a level, pooled to the coarser grid.");
  m.def(
      "pyramid_rate",
      [](const py::object& rating, const py::object& coarse, const py::object& valid, float slope, float floor,
         const py::object& peak, const py::object& before, int threads, uintptr_t stream) {
        const Array rate(rating), below(coarse), top(peak), old(before);
        const auto seen = optional_array(valid);
        const Execution on = execution(threads, stream, rate);
        const py::gil_scoped_release release;
        pyramid_rate(rate.view, below.view, seen ? &seen->view : nullptr, slope, floor, top.view, old.view, on);
      },
      py::arg("rating"), py::arg("coarse"), py::arg("valid"), py::arg("slope"), py::arg("floor"), py::arg("peak"),
      py::arg("before"), py::arg("threads") = 0, py::arg("stream") = 0,
      "Add the noise floor, apply the mask, update the running maximum.");
  m.def(
      "pyramid_fold",
      [](const py::object& fine, const py::object& coarse, const py::object& rating, const py::object& before,
         const py::object& peak, int power, const py::object& numerator, const py::object& denominator, int threads,
         uintptr_t stream) {
        const Array from(fine), below(coarse), rate(rating), old(before), top(peak), sum(numerator),
            weight(denominator);
        const Execution on = execution(threads, stream, from);
        const py::gil_scoped_release release;
        pyramid_fold(from.view, below.view, rate.view, old.view, top.view, power, sum.view, weight.view, on);
      },
      py::arg("fine"), py::arg("coarse"), py::arg("rating"), py::arg("before"), py::arg("peak"), py::arg("power"),
      py::arg("numerator"), py::arg("denominator"), py::arg("threads") = 0, py::arg("stream") = 0,
      "Fold one frame's detail into a level.");
  m.def(
      "pyramid_collapse",
      [](const py::object& numerator, const py::object& denominator, const py::object& coarse,
         const py::object& destination, int threads, uintptr_t stream) {
        const Array sum(numerator), weight(denominator), below(coarse), to(destination);
        const Execution on = execution(threads, stream, sum);
        const py::gil_scoped_release release;
        pyramid_collapse(sum.view, weight.view, below.view, to.view, on);
      },
      py::arg("numerator"), py::arg("denominator"), py::arg("coarse"), py::arg("destination"), py::arg("threads") = 0,
      py::arg("stream") = 0, "Weighted mean of a level's detail on top of the coarser result.");
  m.def(
      "pyramid_valid",
      [](const py::object& source, const py::object& destination, int threads, uintptr_t stream) {
        const Array from(source), to(destination);
        const Execution on = execution(threads, stream, from);
        const py::gil_scoped_release release;
        pyramid_valid(from.view, to.view, on);
      },
      py::arg("source"), py::arg("destination"), py::arg("threads") = 0, py::arg("stream") = 0,
      "Validity on the coarser grid: all 5 x 5 pixels below.");
}

}  // namespace pyfocus
