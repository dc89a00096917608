// Every op's bindings; module.cpp calls them all.
#pragma once

#include <pybind11/pybind11.h>

namespace pyfocus {

void bind_device(pybind11::module_& m);
void bind_machine(pybind11::module_& m);
void bind_planes(pybind11::module_& m);
void bind_pyramid(pybind11::module_& m);
void bind_ecc(pybind11::module_& m);
void bind_deform_conv(pybind11::module_& m);
void bind_tile(pybind11::module_& m);
void bind_wavelet(pybind11::module_& m);
void bind_depth(pybind11::module_& m);
void bind_stack(pybind11::module_& m);

}  // namespace pyfocus
