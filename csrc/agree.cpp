// agree on the CPU, row by row. Bytes per pixel: 12 for a residual, 1 + 4 / factor^2 for a mask.
#include "agree.h"

#include "isa.h"
#include "parallel.h"

#if defined(PYFOCUS_LAUNCHER)
#include <cmath>
#endif

namespace pyfocus {

PYFOCUS_KERNEL(void, residual_rows, const AgreeParams& p, int64_t row_begin, int64_t row_end)
PYFOCUS_KERNEL(void, mask_rows, const AgreeParams& p, int64_t row_begin, int64_t row_end)

namespace PYFOCUS_ISA {

void residual_rows(const AgreeParams& p, int64_t row_begin, int64_t row_end) {
  for (int64_t i = row_begin * p.width; i < row_end * p.width; ++i)
    p.residual[i] = __builtin_fabsf(p.warped[i] * p.gain + p.offset - p.fixed[i]);
}

void mask_rows(const AgreeParams& p, int64_t row_begin, int64_t row_end) {
  for (int64_t y = row_begin; y < row_end; ++y) {
    const float* from = p.difference + y / p.factor * p.coarse_width;
    uint8_t* out = p.mask + y * p.width;
    if (p.factor == 1)
      for (int64_t x = 0; x < p.width; ++x) out[x] = from[x] <= p.threshold;
    else
      for (int64_t x = 0; x < p.width; ++x) out[x] = from[x >> 1] <= p.threshold;
  }
}

}  // namespace PYFOCUS_ISA

#if defined(PYFOCUS_LAUNCHER)
void agree_residual(const Tensor& warped, const Tensor& fixed, float gain, float offset, const Tensor& destination,
                    const Execution& on) {
  const char* name = "agree_residual";
  check_tensor(name, "warped", warped, Dtype::F32, 2);
  check_contiguous(name, "warped", warped);
  check_tensor(name, "fixed", fixed, Dtype::F32, 2);
  check_contiguous(name, "fixed", fixed);
  check_place(name, "fixed", &fixed, warped.place());
  check_output(name, "destination", destination, Dtype::F32, 2);
  check_place(name, "destination", &destination, warped.place());
  for (int axis = 0; axis < 2; ++axis) {
    check_shape(name, "fixed", fixed, axis, warped.shape[axis]);
    check_shape(name, "destination", destination, axis, warped.shape[axis]);
  }
  AgreeParams p;
  p.warped = warped.as<const float>(), p.fixed = fixed.as<const float>(), p.residual = destination.as<float>();
  p.gain = gain, p.offset = offset;
  p.height = warped.shape[0], p.width = warped.shape[1];
  if (warped.device == Device::Cuda)
    PYFOCUS_ON_CUDA("agree_residual", agree_residual_cuda(p, warped.device_index, on.stream));
  parallel_for(p.height, 64, on.threads,
               [&](int64_t begin, int64_t end) { PYFOCUS_BEST(residual_rows)(p, begin, end); });
}

void agree_mask(const Tensor& difference, double threshold, const Tensor& destination, const Execution& on) {
  const char* name = "agree_mask";
  check_tensor(name, "difference", difference, Dtype::F32, 2);
  check_contiguous(name, "difference", difference);
  check_output(name, "destination", destination, Dtype::U8, 2);
  check_place(name, "destination", &destination, difference.place());
  AgreeParams p;
  p.coarse_height = difference.shape[0], p.coarse_width = difference.shape[1];
  p.height = destination.shape[0], p.width = destination.shape[1];
  p.factor = p.coarse_height == p.height && p.coarse_width == p.width ? 1 : 2;
  const int64_t half_height = (p.height + 1) / 2, half_width = (p.width + 1) / 2;
  PYFOCUS_CHECK(p.factor == 1 || (p.coarse_height == half_height && p.coarse_width == half_width),
                "%s: difference must be of destination's size or half of it, %lld x %lld, got %lld x %lld", name,
                static_cast<long long>(half_height), static_cast<long long>(half_width),
                static_cast<long long>(p.coarse_height), static_cast<long long>(p.coarse_width));
  p.difference = difference.as<const float>(), p.mask = destination.as<uint8_t>();
  p.threshold = static_cast<float>(threshold);  // no float lies between the two
  if (static_cast<double>(p.threshold) > threshold) p.threshold = std::nextafter(p.threshold, -INFINITY);
  if (difference.device == Device::Cuda)
    PYFOCUS_ON_CUDA("agree_mask", agree_mask_cuda(p, difference.device_index, on.stream));
  parallel_for(p.height, 64, on.threads, [&](int64_t begin, int64_t end) { PYFOCUS_BEST(mask_rows)(p, begin, end); });
}
#endif

}  // namespace pyfocus
