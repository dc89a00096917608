// thin on the CPU: a gather, row by row. Bytes per value: one or more cache lines read, 1 or 4 written.
#include "thin.h"

#include "parallel.h"

namespace pyfocus {
namespace {

template <class T>
void take_rows(const ThinParams& p, int64_t row_begin, int64_t row_end) {
  for (int64_t row = row_begin; row < row_end; ++row) {
    const T* from = static_cast<const T*>(p.source) + row / p.height * p.plane_stride + row % p.height * p.row_stride;
    T* to = static_cast<T*>(p.destination) + row * p.width;
    for (int64_t x = 0; x < p.width; ++x) to[x] = from[x * p.column_stride];
  }
}

}  // namespace

void thin(const Tensor& source, int64_t step_y, int64_t step_x, const Tensor& destination, const Execution& on) {
  PYFOCUS_CHECK(source.dtype == Dtype::U8 || source.dtype == Dtype::F32,
                "thin: source must be uint8 or float32, got %s", dtype_name(source.dtype));
  PYFOCUS_CHECK(source.ndim == 2 || source.ndim == 3, "thin: source must be (H, W) or (C, H, W), got %d dimensions",
                source.ndim);
  PYFOCUS_CHECK(step_y >= 1 && step_x >= 1, "thin: steps must be 1 or more, got %lld and %lld",
                static_cast<long long>(step_y), static_cast<long long>(step_x));
  check_place("thin", "destination", &destination, source.place());
  check_output("thin", "destination", destination, source.dtype, source.ndim);
  const int rows = source.ndim - 2, columns = source.ndim - 1;
  const auto steps = [](int64_t size, int64_t step) { return size / step + (size % step != 0); };
  if (source.ndim == 3) check_shape("thin", "destination", destination, 0, source.shape[0]);
  check_shape("thin", "destination", destination, rows, steps(source.shape[rows], step_y));
  check_shape("thin", "destination", destination, columns, steps(source.shape[columns], step_x));
  ThinParams p;
  p.source = source.data, p.destination = destination.data;
  p.planes = source.ndim == 3 ? source.shape[0] : 1;
  p.height = destination.shape[rows], p.width = destination.shape[columns];
  p.plane_stride = source.ndim == 3 ? source.stride[0] : 0;
  p.row_stride = p.height > 1 ? step_y * source.stride[rows] : 0;  // a step past the array may be any number
  p.column_stride = p.width > 1 ? step_x * source.stride[columns] : 0;
  p.dtype = source.dtype;
  if (destination.count() == 0) return;
  if (source.device == Device::Cuda) PYFOCUS_ON_CUDA("thin", thin_cuda(p, source.device_index, on.stream));
  parallel_for(p.planes * p.height, 64, on.threads, [&](int64_t begin, int64_t end) {
    if (p.dtype == Dtype::U8)
      take_rows<uint8_t>(p, begin, end);
    else
      take_rows<float>(p, begin, end);
  });
}

}  // namespace pyfocus
