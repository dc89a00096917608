// Bindings of ecc and agree.
#include "ecc.h"

#include "agree.h"
#include "array.h"
#include "bindings.h"

namespace pyfocus {
namespace {

void bind_agree(py::module_& m) {
  m.def(
      "agree_residual",
      [](const py::object& warped, const py::object& fixed, float gain, float offset, const py::object& destination,
         int threads, uintptr_t stream) {
        const Array moved(warped), still(fixed), out(destination);
        const Execution on = execution("agree_residual", threads, stream, moved);
        const py::gil_scoped_release release;
        agree_residual(moved.view, still.view, gain, offset, out.view, on);
      },
      py::arg("warped"), py::arg("fixed"), py::arg("gain"), py::arg("offset"), py::arg("destination"),
      py::arg("threads") = 0, py::arg("stream") = 0, "|gain * warped + offset - fixed|.");
  m.def(
      "agree_mask",
      [](const py::object& difference, double threshold, const py::object& destination, int threads, uintptr_t stream) {
        const Array from(difference), out(destination);
        const Execution on = execution("agree_mask", threads, stream, from);
        const py::gil_scoped_release release;
        agree_mask(from.view, threshold, out.view, on);
      },
      py::arg("difference"), py::arg("threshold"), py::arg("destination"), py::arg("threads") = 0,
      py::arg("stream") = 0, "Where a difference, of this or of half the size, is at most the threshold.");
}

}  // namespace

void bind_ecc(py::module_& m) {
  m.attr("ECC_CHUNK_ROWS") = kEccChunkRows;
  m.attr("ECC_STATE_SIZE") = static_cast<int>(kEccStateSize);
  m.def("ecc_sum_count", &ecc_sum_count, py::arg("parameters"), "Length of the sums of ecc.");
  m.def("ecc_chunk_count", &ecc_chunk_count, py::arg("height"), py::arg("width"), py::arg("row_step") = 1,
        py::arg("device") = false, "Rows of ecc's workspace per pair, for a fixed image of this size.");
  m.def(
      "ecc",
      [](const py::object& fixed, const py::object& moving, const py::object& matrix, int parameters,
         const py::object& workspace, const py::object& sums, const py::object& mask, int64_t row_step, int threads,
         uintptr_t stream) {
        const Array still(fixed), moved(moving), map(matrix), scratch(workspace), out(sums);
        const auto seen = optional_array(mask);
        const Execution on = execution("ecc", threads, stream, still);
        const py::gil_scoped_release release;
        ecc(still.view, moved.view, seen ? &seen->view : nullptr, map.view, parameters, scratch.view, out.view,
            row_step, on);
      },
      py::arg("fixed"), py::arg("moving"), py::arg("matrix"), py::arg("parameters"), py::arg("workspace"),
      py::arg("sums"), py::arg("mask") = py::none(), py::arg("row_step") = 1, py::arg("threads") = 0,
      py::arg("stream") = 0, "Sums of one registration step: normal equations and correlation in one pass.");
  m.def(
      "ecc_maximise",
      [](const py::object& fixed, const py::object& moving, const py::object& state, int motion, int64_t most,
         const py::object& workspace, const py::object& mask, int64_t begin, int64_t row_step, int threads,
         uintptr_t stream) {
        const Array still(fixed), moved(moving), record(state), scratch(workspace);
        const auto seen = optional_array(mask);
        const Execution on = execution("ecc_maximise", threads, stream, still);
        const py::gil_scoped_release release;
        ecc_maximise(still.view, moved.view, seen ? &seen->view : nullptr, motion, most, begin, row_step, scratch.view,
                     record.view, on);
      },
      py::arg("fixed"), py::arg("moving"), py::arg("state"), py::arg("motion"), py::arg("most"), py::arg("workspace"),
      py::arg("mask") = py::none(), py::arg("begin") = 0, py::arg("row_step") = 1, py::arg("threads") = 0,
      py::arg("stream") = 0, "The registration loop: steps begin to begin + most - 1 from and into the state.");
  bind_agree(m);
}

}  // namespace pyfocus
