// The Python module `_C`: arrays in through DLPack, the GIL released, errors typed. csrc/bindings/ alone knows Python.
// No arithmetic and no algorithm here: each function makes views, fills the op's parameters and calls its launcher.
#include "array.h"
#include "bindings.h"
#include "isa.h"
#include "parallel.h"

namespace pyfocus {
namespace {

void translate(std::exception_ptr error) {
  try {
    if (error) std::rethrow_exception(error);
  } catch (const Error& e) {
    const py::object errors = py::module_::import("pyfocus.errors");
    const char* name = e.kind() == ErrorKind::Argument    ? "ArgumentError"
                       : e.kind() == ErrorKind::Cancelled ? "Cancelled"
                       : e.kind() == ErrorKind::Device    ? "DeviceError"
                                                          : "ResourceError";
    py::set_error(errors.attr(name), e.what());
  } catch (const std::bad_alloc&) {
    py::set_error(py::module_::import("pyfocus.errors").attr("ResourceError"), "out of memory");
  }
}

}  // namespace

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

}  // namespace pyfocus

PYBIND11_MODULE(_C, m, py::mod_gil_not_used()) {
  using namespace pyfocus;
  m.doc() = "Native kernels of pyfocus. Arrays cross through DLPack; outputs and workspaces come from the caller.";
  py::register_local_exception_translator(&translate);
  bind_device(m);
  bind_machine(m);
  bind_planes(m);
  bind_pyramid(m);
  bind_ecc(m);
  bind_deform_conv(m);
  bind_tile(m);
  bind_wavelet(m);
  bind_depth(m);
  bind_stack(m);
}
