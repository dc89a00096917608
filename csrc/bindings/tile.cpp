// Bindings of tile.
#include "tile.h"

#include "array.h"
#include "bindings.h"

namespace pyfocus {

void bind_tile(py::module_& m) {
  m.def(
      "tile_gather",
      [](const py::object& source, const py::object& origins, const py::object& destination, int threads,
         uintptr_t stream) {
        const Array from(source), at(origins), to(destination);
        const Execution on = execution("tile_gather", threads, stream, from);
        const py::gil_scoped_release release;
        tile_gather(from.view, at.view, to.view, on);
      },
      py::arg("source"), py::arg("origins"), py::arg("destination"), py::arg("threads") = 0, py::arg("stream") = 0,
      "Tiles (T, P, h, w) whose first pixels lie at origins (T, 2), pairs (y, x), of planes (C, H, W), P = C, or (N, "
      "C, "
      "H, W), P = N C. Outside, the planes are mirrored.");
  m.def(
      "tile_scatter",
      [](const py::object& tiles, const py::object& origins, const py::object& window, const py::object& destination,
         const py::object& weight, int threads, uintptr_t stream) {
        const Array from(tiles), at(origins), by(window), to(destination), sum(weight);
        const Execution on = execution("tile_scatter", threads, stream, from);
        const py::gil_scoped_release release;
        tile_scatter(from.view, at.view, by.view, to.view, sum.view, on);
      },
      py::arg("tiles"), py::arg("origins"), py::arg("window"), py::arg("destination"), py::arg("weight"),
      py::arg("threads") = 0, py::arg("stream") = 0,
      "Add window times tile to the planes, and the window to the weight, in order of the tiles.");
  m.def(
      "tile_divide",
      [](const py::object& destination, const py::object& weight, int threads, uintptr_t stream) {
        const Array to(destination), sum(weight);
        const Execution on = execution("tile_divide", threads, stream, to);
        const py::gil_scoped_release release;
        tile_divide(to.view, sum.view, on);
      },
      py::arg("destination"), py::arg("weight"), py::arg("threads") = 0, py::arg("stream") = 0,
      "Planes over weight in place, 0 where no tile lay.");
}

}  // namespace pyfocus
