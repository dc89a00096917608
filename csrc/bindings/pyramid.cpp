// Bindings of the pyramid's steps.
#include "pyramid.h"

#include "array.h"
#include "bindings.h"

namespace pyfocus {

namespace {

// What is left of a frame below the last level, and which frame was sharpest.
void bind_sums(py::module_& m) {
  m.def(
      "pyramid_base",
      [](const py::object& coarse, const py::object& rating, const py::object& base, const py::object& weight,
         int threads, uintptr_t stream) {
        const Array from(coarse), rate(rating), sum(base), total(weight);
        const Execution on = execution("pyramid_base", threads, stream, from);
        const py::gil_scoped_release release;
        pyramid_base(from.view, rate.view, sum.view, total.view, on);
      },
      py::arg("coarse"), py::arg("rating"), py::arg("base"), py::arg("weight"), py::arg("threads") = 0,
      py::arg("stream") = 0, "Add the last level's light, weighted by its rating.");
  m.def(
      "pyramid_depth",
      [](const py::object& rating, const py::object& peak, const py::object& before, float place,
         const py::object& index, const py::object& index_weight, const py::object& total, const py::object& seen,
         int threads, uintptr_t stream) {
        const Array rate(rating), top(peak), old(before), sum(index), weight(index_weight), all(total), count(seen);
        const Execution on = execution("pyramid_depth", threads, stream, rate);
        const py::gil_scoped_release release;
        pyramid_depth(rate.view, top.view, old.view, place, sum.view, weight.view, all.view, count.view, on);
      },
      py::arg("rating"), py::arg("peak"), py::arg("before"), py::arg("place"), py::arg("index"),
      py::arg("index_weight"), py::arg("total"), py::arg("seen"), py::arg("threads") = 0, py::arg("stream") = 0,
      "Fold one frame's place into the depth index.");
  m.def(
      "pyramid_mean",
      [](const py::object& sum, const py::object& weight, const py::object& destination, int threads,
         uintptr_t stream) {
        const Array from(sum), total(weight), to(destination);
        const Execution on = execution("pyramid_mean", threads, stream, from);
        const py::gil_scoped_release release;
        pyramid_mean(from.view, total.view, to.view, on);
      },
      py::arg("sum"), py::arg("weight"), py::arg("destination"), py::arg("threads") = 0, py::arg("stream") = 0,
      "Weighted sums divided by their weights.");
}

}  // namespace

void bind_pyramid(py::module_& m) {
  m.def(
      "pyramid_down",
      [](const py::object& source, const py::object& destination, const py::object& add, int threads,
         uintptr_t stream) {
        const Array from(source), to(destination);
        const auto plus = optional_array(add);
        const Execution on = execution("pyramid_down", threads, stream, from);
        const py::gil_scoped_release release;
        pyramid_down(from.view, to.view, plus ? &plus->view : nullptr, on);
      },
      py::arg("source"), py::arg("destination"), py::arg("add") = py::none(), py::arg("threads") = 0,
      py::arg("stream") = 0, "Next coarser Gaussian level.");
  m.def(
      "pyramid_up",
      [](const py::object& source, const py::object& destination, float gain, const py::object& add, int threads,
         uintptr_t stream) {
        const Array from(source), to(destination);
        const auto plus = optional_array(add);
        const Execution on = execution("pyramid_up", threads, stream, from);
        const py::gil_scoped_release release;
        pyramid_up(from.view, to.view, gain, plus ? &plus->view : nullptr, on);
      },
      py::arg("source"), py::arg("destination"), py::arg("gain") = 1.0f, py::arg("add") = py::none(),
      py::arg("threads") = 0, py::arg("stream") = 0, "Coarse level interpolated to the finer grid.");
  m.def(
      "pyramid_smooth",
      [](const py::object& source, const py::object& destination, int threads, uintptr_t stream) {
        const Array from(source), to(destination);
        const Execution on = execution("pyramid_smooth", threads, stream, from);
        const py::gil_scoped_release release;
        pyramid_smooth(from.view, to.view, on);
      },
      py::arg("source"), py::arg("destination"), py::arg("threads") = 0, py::arg("stream") = 0,
      "5-tap binomial in both directions.");
  m.def(
      "pyramid_energy",
      [](const py::object& fine, const py::object& coarse, const py::object& energy, int threads, uintptr_t stream) {
        const Array from(fine), below(coarse), to(energy);
        const Execution on = execution("pyramid_energy", threads, stream, from);
        const py::gil_scoped_release release;
        pyramid_energy(from.view, below.view, to.view, on);
      },
      py::arg("fine"), py::arg("coarse"), py::arg("energy"), py::arg("threads") = 0, py::arg("stream") = 0,
      "Mean squared detail of a level, pooled to the coarser grid.");
  m.def(
      "pyramid_measure",
      [](const py::object& fine, const py::object& coarse, const py::object& energy, int threads, uintptr_t stream) {
        const Array from(fine), below(coarse), to(energy);
        const Execution on = execution("pyramid_measure", threads, stream, from);
        const py::gil_scoped_release release;
        pyramid_measure(from.view, below.view, to.view, on);
      },
      py::arg("fine"), py::arg("coarse"), py::arg("energy"), py::arg("threads") = 0, py::arg("stream") = 0,
      "Next coarser Gaussian level, and the energy of what it lacks.");
  m.def(
      "pyramid_rate",
      [](const py::object& energy, const py::object& coarse, const py::object& valid, float slope, float floor,
         const py::object& before, const py::object& rating, const py::object& peak, const py::object& coarser,
         float gain, int threads, uintptr_t stream) {
        const Array from(energy), below(coarse), old(before), rate(rating), top(peak);
        const auto seen = optional_array(valid), lower = optional_array(coarser);
        const Execution on = execution("pyramid_rate", threads, stream, from);
        const py::gil_scoped_release release;
        pyramid_rate(from.view, below.view, seen ? &seen->view : nullptr, slope, floor, old.view, rate.view, top.view,
                     lower ? &lower->view : nullptr, gain, on);
      },
      py::arg("energy"), py::arg("coarse"), py::arg("valid"), py::arg("slope"), py::arg("floor"), py::arg("before"),
      py::arg("rating"), py::arg("peak"), py::arg("coarser") = py::none(), py::arg("gain") = 0.0f,
      py::arg("threads") = 0, py::arg("stream") = 0, "Energy and noise floor, the mask, and the running maximum.");
  m.def(
      "pyramid_fold",
      [](const py::object& fine, const py::object& coarse, const py::object& rating, const py::object& before,
         const py::object& peak, int power, const py::object& numerator, const py::object& denominator, int threads,
         uintptr_t stream) {
        const Array from(fine), below(coarse), rate(rating), old(before), top(peak), sum(numerator),
            weight(denominator);
        const Execution on = execution("pyramid_fold", threads, stream, from);
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
        const Execution on = execution("pyramid_collapse", threads, stream, sum);
        const py::gil_scoped_release release;
        pyramid_collapse(sum.view, weight.view, below.view, to.view, on);
      },
      py::arg("numerator"), py::arg("denominator"), py::arg("coarse"), py::arg("destination"), py::arg("threads") = 0,
      py::arg("stream") = 0, "Weighted mean of a level's detail on top of the coarser result.");
  m.def(
      "pyramid_valid",
      [](const py::object& source, const py::object& destination, int threads, uintptr_t stream) {
        const Array from(source), to(destination);
        const Execution on = execution("pyramid_valid", threads, stream, from);
        const py::gil_scoped_release release;
        pyramid_valid(from.view, to.view, on);
      },
      py::arg("source"), py::arg("destination"), py::arg("threads") = 0, py::arg("stream") = 0,
      "Validity on the coarser grid: all 5 x 5 pixels below.");
  bind_sums(m);
}

}  // namespace pyfocus
