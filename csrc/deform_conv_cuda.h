// deform_conv on CUDA as its launcher calls it, all checked: bytes of workspace, and the steps enqueued on a stream.
#pragma once

#include "deform_conv_rows.h"

namespace pyfocus {

int64_t deform_conv_cuda_bytes(const DeformConvParams& p, bool backward);
void deform_conv_cuda(const DeformConvParams& p, void* workspace, int device, void* stream);
void deform_conv_backward_cuda(const DeformConvParams& p, void* workspace, int device, void* stream);

}  // namespace pyfocus
