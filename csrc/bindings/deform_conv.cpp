// Bindings of deform_conv.
#include "deform_conv.h"

#include <array>

#include "array.h"
#include "bindings.h"

namespace pyfocus {
namespace {

using Pair = std::array<int64_t, 2>;

DeformConvSteps steps_of(const Pair& stride, const Pair& pad, const Pair& dilation, int64_t groups,
                         int64_t offset_groups) {
  return {{stride[0], stride[1]}, {pad[0], pad[1]}, {dilation[0], dilation[1]}, groups, offset_groups};
}

const Tensor* view_of(const std::optional<Array>& array) { return array ? &array->view : nullptr; }

}  // namespace

void bind_deform_conv(py::module_& m) {
  const Pair one{1, 1}, none{0, 0};
  m.def(
      "deform_conv_workspace",
      [](const py::object& input, const py::object& weight, const Pair& stride, const Pair& pad, const Pair& dilation,
         int64_t groups, int64_t offset_groups, bool backward) {
        const Array image(input), kernel(weight);
        return deform_conv_workspace(image.view, kernel.view, steps_of(stride, pad, dilation, groups, offset_groups),
                                     backward);
      },
      py::arg("input"), py::arg("weight"), py::arg("stride") = one, py::arg("pad") = none, py::arg("dilation") = one,
      py::arg("groups") = 1, py::arg("offset_groups") = 1, py::arg("backward") = false,
      "Bytes of workspace that deform_conv, or with `backward` deform_conv_backward, needs.");
  m.def(
      "deform_conv",
      [](const py::object& input, const py::object& weight, const py::object& offset, const py::object& mask,
         const py::object& bias, const py::object& output, const py::object& workspace, const Pair& stride,
         const Pair& pad, const Pair& dilation, int64_t groups, int64_t offset_groups, int threads, uintptr_t stream) {
        const Array image(input), kernel(weight), shift(offset), to(output), scratch(workspace);
        const auto scale = optional_array(mask), plus = optional_array(bias);
        const DeformConvSteps steps = steps_of(stride, pad, dilation, groups, offset_groups);
        const Execution on = execution("deform_conv", threads, stream, image);
        const py::gil_scoped_release release;
        deform_conv(image.view, kernel.view, shift.view, view_of(scale), view_of(plus), steps, to.view, scratch.view,
                    on);
      },
      py::arg("input"), py::arg("weight"), py::arg("offset"), py::arg("mask"), py::arg("bias"), py::arg("output"),
      py::arg("workspace"), py::arg("stride") = one, py::arg("pad") = none, py::arg("dilation") = one,
      py::arg("groups") = 1, py::arg("offset_groups") = 1, py::arg("threads") = 0, py::arg("stream") = 0,
      "Modulated deformable convolution, offsets as in torchvision.");
  m.def(
      "deform_conv_backward",
      [](const py::object& grad_output, const py::object& input, const py::object& weight, const py::object& offset,
         const py::object& mask, const py::object& grad_input, const py::object& grad_offset,
         const py::object& grad_mask, const py::object& grad_weight, const py::object& grad_bias,
         const py::object& workspace, const Pair& stride, const Pair& pad, const Pair& dilation, int64_t groups,
         int64_t offset_groups, int threads, uintptr_t stream) {
        const Array upstream(grad_output), image(input), kernel(weight), shift(offset), scratch(workspace);
        const auto scale = optional_array(mask), by_input = optional_array(grad_input),
                   by_offset = optional_array(grad_offset), by_mask = optional_array(grad_mask),
                   by_weight = optional_array(grad_weight), by_bias = optional_array(grad_bias);
        const DeformConvSteps steps = steps_of(stride, pad, dilation, groups, offset_groups);
        const DeformConvGradients gradients{view_of(by_input), view_of(by_offset), view_of(by_mask), view_of(by_weight),
                                            view_of(by_bias)};
        const Execution on = execution("deform_conv_backward", threads, stream, upstream);
        const py::gil_scoped_release release;
        deform_conv_backward(upstream.view, image.view, kernel.view, shift.view, view_of(scale), steps, gradients,
                             scratch.view, on);
      },
      py::arg("grad_output"), py::arg("input"), py::arg("weight"), py::arg("offset"), py::arg("mask"),
      py::arg("grad_input"), py::arg("grad_offset"), py::arg("grad_mask"), py::arg("grad_weight"), py::arg("grad_bias"),
      py::arg("workspace"), py::arg("stride") = one, py::arg("pad") = none, py::arg("dilation") = one,
      py::arg("groups") = 1, py::arg("offset_groups") = 1, py::arg("threads") = 0, py::arg("stream") = 0,
      "Gradients of deform_conv, each written where an array is given.");
}

}  // namespace pyfocus
