// guided: one sweep of the fast global smoother (Min et al., IEEE TIP 23, 2014), along columns or along rows.
//
// Every line's (I + A) u = f is solved in place, A the graph Laplacian of the links l between neighbours of the line:
//
//   s_0 = 1 / (1 + l_0),  c_i = l_i s_i,  s_i = 1 / (1 + l_{i-1} + l_i - l_{i-1} c_{i-1}),
//   u_i <- (u_i + l_{i-1} u_{i-1}) s_i,  then from the end  u_i <- u_i + c_i u_{i+1}                (Thomas' algorithm)
//
// On the CPU. Bytes per pixel of one map: 24 read and written, 12 of links and factors for all of them.
#pragma once

#include <cstdint>

#include "check.h"
#include "tensor.h"

namespace pyfocus {

struct GuidedParams {
  float* values = nullptr;  // (planes, height, width)
  const float* links = nullptr;
  float share = 1;          // links count times this
  float* factor = nullptr;  // of the links' shape
  int64_t planes = 0, height = 0, width = 0;
};

// values (C, h, w) float32, C <= 4; links and workspace (h - 1, w) for `down`, (h, w - 1) for `across`. Deterministic.
void guided_down(const Tensor& values, const Tensor& links, float share, const Tensor& workspace, int threads);
void guided_across(const Tensor& values, const Tensor& links, float share, const Tensor& workspace, int threads);

}  // namespace pyfocus
