// deform_conv: modulated deformable convolution (DCNv2), forward and backward, in torchvision's layout.
//
// Zhu et al., "Deformable ConvNets v2", CVPR 2019. Tap t = (i, j) of the kernel at output pixel (y, x) samples its
// input plane off the grid; k(c) = c / (C / offset_groups) is the channel's offset group, g(o) = o / (O / groups) the
// output's:
//
//   column[c, t, y, x] = mask[k(c), t, y, x] * sample(input[c], py, px)
//   py = y stride_y - pad_y + i dilation_y + offset[k(c), t, 0, y, x],   px likewise from offset[k(c), t, 1, y, x]
//   output[o, y, x]    = bias[o] + sum over c of group g(o) and t of weight[o, c, t] column[c, t, y, x]
//
// sample is bilinear with zero outside (sample.h): nothing at y <= -1, y >= H, x <= -1, x >= W or NaN. With
// u = sum over o of weight[o, c, t] grad_output[o, y, x], the gradient of a column:
//
//   grad_weight[o, c, t] = sum over n, y, x of grad_output column        grad_bias[o] = sum over n, y, x of grad_output
//   grad_input[c]       += u mask d sample / d corner                    grad_mask    = sum over c of u sample
//   grad_offset          = sum over c of u mask (d sample / d py, d sample / d px), the derivatives from the right
//
// Shapes: input (N, C, H, W), weight (O, C / groups, kh, kw), bias (O), output (N, O, oh, ow),
// offset (N, offset_groups kh kw 2, oh, ow) as pairs (y, x), mask (N, offset_groups kh kw, oh, ow);
// oh = floor((H + 2 pad_y - dilation_y (kh - 1) - 1) / stride_y) + 1, or 0 where that is negative; ow likewise.
// Types: data (input, weight, bias, output and their gradients) all float32, float64, float16 or bfloat16; offset, mask
// and their gradients float32, or float64 with float64 data. Arithmetic is in float32 (float64 with float64 data); half
// types are converted when read and when written. All C order, each fewer than 2^31 elements.
// Work: 2 O (C / groups) kh kw flops per output pixel forward, the same again for each of u and grad_weight, and for
// every column 4 reads of the input and 7 flops (backward 15, and 4 additions to grad_input). Bytes: the input once
// per image to a bordered copy; columns stay in tiles that fit the second-level cache.
// Deterministic: tiles and the order of every sum depend on the shapes alone, so the bits are the same for any number
// of threads and any instruction set. Images are worked on one after the other, the threads share the tiles of one.
// CUDA (deform_conv*.cu) is deterministic, too: what has no order, the gradient by the image, is summed in fixed point,
// fine enough for float32; where one of its products is not finite, all of it is NaN. Half types round columns to the
// type before the product.
#pragma once

#include <cstdint>

#include "device.h"
#include "tensor.h"

namespace pyfocus {

struct DeformConvSteps {  // pairs are (y, x)
  int64_t stride[2] = {1, 1}, pad[2] = {0, 0}, dilation[2] = {1, 1};
  int64_t groups = 1, offset_groups = 1;
};

struct DeformConvGradients {  // written, not added to; null: not wanted
  const Tensor* input = nullptr;
  const Tensor* offset = nullptr;
  const Tensor* mask = nullptr;
  const Tensor* weight = nullptr;
  const Tensor* bias = nullptr;
};

// Rows or columns of the output.
constexpr int64_t deform_conv_size(int64_t size, int64_t kernel, int64_t stride, int64_t pad, int64_t dilation) {
  const int64_t room = size + 2 * pad - dilation * (kernel - 1) - 1;
  return room < 0 ? 0 : room / stride + 1;
}

// Bytes of workspace for arrays of these shapes where these lie, whatever the number of threads; of input and weight
// only place, shape and type are looked at. `backward` is enough for every subset of gradients.
int64_t deform_conv_workspace(const Tensor& input, const Tensor& weight, const DeformConvSteps& steps, bool backward);

// mask and bias may be null: all ones, and zero. workspace: uint8, at least deform_conv_workspace bytes.
void deform_conv(const Tensor& input, const Tensor& weight, const Tensor& offset, const Tensor* mask,
                 const Tensor* bias, const DeformConvSteps& steps, const Tensor& output, const Tensor& workspace,
                 const Execution& on);

// Gradients of a scalar from its gradient by the output.
void deform_conv_backward(const Tensor& grad_output, const Tensor& input, const Tensor& weight, const Tensor& offset,
                          const Tensor* mask, const DeformConvSteps& steps, const DeformConvGradients& gradients,
                          const Tensor& workspace, const Execution& on);

}  // namespace pyfocus
