// Bindings of ecc.
#include "ecc.h"

#include "array.h"
#include "bindings.h"

namespace pyfocus {

void bind_ecc(py::module_& m) {
  m.attr("ECC_CHUNK_ROWS") = kEccChunkRows;
  m.def("ecc_sum_count", &ecc_sum_count, py::arg("parameters"), "Length of the sums of ecc.");
  m.def(
      "ecc",
      [](const py::object& fixed, const py::object& moving, const py::object& matrix, int parameters,
         const py::object& workspace, const py::object& sums, const py::object& mask, int64_t row_step, int threads,
         uintptr_t stream) {
        const Array still(fixed), moved(moving), map(matrix), scratch(workspace), out(sums);
        const auto seen = optional_array(mask);
        const Execution on = execution(threads, stream, still);
        const py::gil_scoped_release release;
        ecc(still.view, moved.view, seen ? &seen->view : nullptr, map.view, parameters, scratch.view, out.view,
            row_step, on);
      },
      py::arg("fixed"), py::arg("moving"), py::arg("matrix"), py::arg("parameters"), py::arg("workspace"),
      py::arg("sums"), py::arg("mask") = py::none(), py::arg("row_step") = 1, py::arg("threads") = 0,
      py::arg("stream") = 0, "Sums of one registration step: normal equations and correlation in one pass.");
}

}  // namespace pyfocus
