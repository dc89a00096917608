// unpack on the CPU: one row of one plane at a time. Bytes per value: 4 read, 1 or 2 written.
#include "unpack.h"

#include "isa.h"
#include "parallel.h"
#include "unpack_curve.h"

namespace pyfocus {

PYFOCUS_KERNEL(void, unpack_rows, const UnpackParams& p, int64_t row_begin, int64_t row_end)

namespace PYFOCUS_ISA {
namespace {

template <class T>
void store_row(const float* from, int64_t count, const float* curve, float scale, float offset, T* to, int64_t stride) {
  constexpr float kLargest = sizeof(T) == 1 ? 255.0f : 65535.0f;
  constexpr int32_t kBlock = 512;
  int32_t code[kBlock];
  for (int64_t first = 0; first < count; first += kBlock) {
    const int32_t n = static_cast<int32_t>(count - first < kBlock ? count - first : kBlock);
    for (int32_t x = 0; x < n; ++x) {
      const float v = (curve ? encode_srgb(from[first + x], curve) : from[first + x]) * scale + offset + 0.5f;
      code[x] = static_cast<int32_t>(v > 0 ? (v < kLargest ? v : kLargest) : 0.0f);
    }
    for (int32_t x = 0; x < n; ++x) to[(first + x) * stride] = static_cast<T>(code[x]);
  }
}

}  // namespace

void unpack_rows(const UnpackParams& p, int64_t row_begin, int64_t row_end) {
  for (int64_t y = row_begin; y < row_end; ++y)
    for (int plane = 0; plane < p.planes; ++plane) {
      const float* from = p.source + plane * p.source_plane + y * p.source_row;
      if (p.dtype == Dtype::U8)
        store_row(from, p.width, p.curve, p.scale[plane], p.offset[plane],
                  static_cast<uint8_t*>(p.destination[plane]) + y * p.row_stride, p.column_stride);
      else
        store_row(from, p.width, p.curve, p.scale[plane], p.offset[plane],
                  static_cast<uint16_t*>(p.destination[plane]) + y * p.row_stride, p.column_stride);
    }
}

}  // namespace PYFOCUS_ISA

#if defined(PYFOCUS_LAUNCHER)
static constexpr SrgbCurve kCurve = make_srgb_curve();

void unpack(const Tensor& source, const Tensor& destination, const int (*mosaic)[2], bool srgb, const float* scale,
            const float* offset, const Execution& on) {
  check_tensor("unpack", "source", source, Dtype::F32, 3);
  PYFOCUS_CHECK(source.stride[2] == 1 || source.shape[2] <= 1,
                "unpack: source must be contiguous along its rows, got a column stride of %lld",
                static_cast<long long>(source.stride[2]));
  PYFOCUS_CHECK(source.shape[0] >= 1 && source.shape[0] <= kMaxPlanes,
                "unpack: source must have 1 to 4 planes, got %lld", static_cast<long long>(source.shape[0]));
  PYFOCUS_CHECK(destination.dtype == Dtype::U8 || destination.dtype == Dtype::U16,
                "unpack: destination must be uint8 or uint16, got %s", dtype_name(destination.dtype));
  PYFOCUS_CHECK(!destination.read_only, "unpack: destination is written to, got a read-only array");
  check_place("unpack", "destination", &destination, source.place());
  PYFOCUS_CHECK(destination.ndim == (mosaic ? 2 : 3), "unpack: destination must have %d dimensions, got %d",
                mosaic ? 2 : 3, destination.ndim);
  UnpackParams p;
  p.source = source.as<const float>();
  p.planes = static_cast<int>(source.shape[0]);
  p.height = source.shape[1], p.width = source.shape[2];
  p.source_plane = source.stride[0], p.source_row = source.stride[1];
  p.dtype = destination.dtype;
  p.curve = srgb ? kCurve.value : nullptr;
  const int64_t size = p.dtype == Dtype::U8 ? 1 : 2;
  const int rows = mosaic ? 0 : 1, step = mosaic ? 2 : 1;
  if (!mosaic) check_shape("unpack", "destination", destination, 0, p.planes);
  check_shape("unpack", "destination", destination, rows, p.height * step);
  check_shape("unpack", "destination", destination, rows + 1, p.width * step);
  p.row_stride = step * destination.stride[rows], p.column_stride = step * destination.stride[rows + 1];
  for (int i = 0; i < p.planes; ++i) {
    const int64_t first = mosaic ? mosaic[i][0] * destination.stride[0] + mosaic[i][1] * destination.stride[1]
                                 : i * destination.stride[0];
    p.destination[i] = static_cast<char*>(destination.data) + size * first;
    p.scale[i] = scale[i], p.offset[i] = offset[i];
  }
  if (source.device == Device::Cuda) PYFOCUS_ON_CUDA("unpack", unpack_cuda(p, source.device_index, on.stream));
  parallel_for(p.height, 16, on.threads, [&](int64_t begin, int64_t end) { PYFOCUS_BEST(unpack_rows)(p, begin, end); });
}
#endif

}  // namespace pyfocus
