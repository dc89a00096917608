// luminance on the CPU. One destination row at a time: the block's source rows are summed, converted, in order.
// Bytes: the source is read once; 4 / factor^2 written per source pixel.
#include "luminance.h"

#include "isa.h"
#include "parallel.h"

namespace pyfocus {

PYFOCUS_KERNEL(void, luminance_rows, const LuminanceParams& p, int64_t row_begin, int64_t row_end)

namespace PYFOCUS_ISA {
namespace {

constexpr int64_t kBlock = 512;  // source pixels of a row summed at a time

template <class T>
void add_row(const PlaneSource& s, int plane, int64_t y, int64_t x0, int64_t count, float weight, float* sum) {
  const T* from = static_cast<const T*>(s.plane[plane]) + y * s.row_stride + x0 * s.column_stride;
  const int64_t stride = s.column_stride;
  const float scale = s.scale[plane] * weight, offset = s.offset[plane] * weight;
  if (sizeof(T) <= 2 && s.table)
    for (int64_t x = 0; x < count; ++x) sum[x] += s.table[static_cast<uint32_t>(from[x * stride])] * scale + offset;
  else if (stride == 1)
    for (int64_t x = 0; x < count; ++x) sum[x] += static_cast<float>(from[x]) * scale + offset;
  else
    for (int64_t x = 0; x < count; ++x) sum[x] += static_cast<float>(from[x * stride]) * scale + offset;
}

// Three interleaved channels through a table, all with a weight: the common case of a picture, in one pass.
template <class T>
void add_pixels(const PlaneSource& s, const float* weight, int64_t y, int64_t x0, int64_t count, float* sum) {
  const T* from = static_cast<const T*>(s.plane[0]) + y * s.row_stride + 3 * x0;
  const float a = s.scale[0] * weight[0], b = s.scale[1] * weight[1], c = s.scale[2] * weight[2];
  const float offset = s.offset[0] * weight[0] + s.offset[1] * weight[1] + s.offset[2] * weight[2];
  for (int64_t x = 0; x < count; ++x)
    sum[x] += (s.table[from[3 * x]] * a + s.table[from[3 * x + 1]] * b) + (s.table[from[3 * x + 2]] * c + offset);
}

inline bool is_picture(const LuminanceParams& p) {
  const PlaneSource& s = p.source;
  const int64_t size = s.dtype == Dtype::U8 ? 1 : 2;
  const char* first = static_cast<const char*>(s.plane[0]);
  return s.table && s.planes == 3 && s.column_stride == 3 && p.weight[0] != 0 && p.weight[1] != 0 && p.weight[2] != 0 &&
         s.plane[1] == first + size && s.plane[2] == first + 2 * size;
}

}  // namespace

void luminance_rows(const LuminanceParams& p, int64_t row_begin, int64_t row_end) {
  const int64_t f = p.factor, step = kBlock / f;  // destination pixels per block
  const float mean = 1.0f / static_cast<float>(f * ((f + p.row_step - 1) / p.row_step));
  const bool picture = is_picture(p);
  for (int64_t y = row_begin; y < row_end; ++y) {
    for (int64_t x = 0; x < p.width; x += step) {
      const int64_t count = p.width - x < step ? p.width - x : step;
      float sum[kBlock] = {};
      for (int64_t j = 0; j < f && picture; j += p.row_step) {
        if (p.source.dtype == Dtype::U8)
          add_pixels<uint8_t>(p.source, p.weight, y * f + j, x * f, count * f, sum);
        else
          add_pixels<uint16_t>(p.source, p.weight, y * f + j, x * f, count * f, sum);
      }
      for (int64_t j = 0; j < f && !picture; j += p.row_step)
        for (int plane = 0; plane < p.source.planes; ++plane) {
          if (p.weight[plane] == 0) continue;
          if (p.source.dtype == Dtype::U8)
            add_row<uint8_t>(p.source, plane, y * f + j, x * f, count * f, p.weight[plane], sum);
          else if (p.source.dtype == Dtype::U16)
            add_row<uint16_t>(p.source, plane, y * f + j, x * f, count * f, p.weight[plane], sum);
          else
            add_row<float>(p.source, plane, y * f + j, x * f, count * f, p.weight[plane], sum);
        }
      float* out = p.destination + y * p.width + x;
      for (int64_t i = 0; i < count; ++i) {
        float total = 0;
        for (int64_t k = 0; k < f; ++k) total += sum[i * f + k];
        total *= mean;
        out[i] = total;
      }
      if (p.square_root)
        for (int64_t i = 0; i < count; ++i) out[i] = __builtin_sqrtf(out[i] > 0 ? out[i] : 0.0f);
    }
  }
}

}  // namespace PYFOCUS_ISA

#if defined(PYFOCUS_LAUNCHER)
void luminance(const PlaneSource& source, const float* weight, int64_t factor, int64_t row_step, bool square_root,
               const Tensor& destination, const Execution& on) {
  PYFOCUS_CHECK(factor >= 1 && factor <= 64, "luminance: factor must be 1 to 64, got %lld",
                static_cast<long long>(factor));
  PYFOCUS_CHECK(row_step >= 1 && row_step <= factor, "luminance: row_step must be 1 to the factor, %lld, got %lld",
                static_cast<long long>(factor), static_cast<long long>(row_step));
  check_output("luminance", "destination", destination, Dtype::F32, 2);
  check_place("luminance", "destination", &destination, source.place);
  check_shape("luminance", "destination", destination, 0, source.height / factor);
  check_shape("luminance", "destination", destination, 1, source.width / factor);
  LuminanceParams p;
  p.source = source;
  for (int i = 0; i < source.planes; ++i) p.weight[i] = weight[i];
  p.factor = factor, p.row_step = row_step;
  p.square_root = square_root;
  p.destination = destination.as<float>();
  p.height = destination.shape[0], p.width = destination.shape[1];
  if (source.place.device == Device::Cuda)
    PYFOCUS_ON_CUDA("luminance", luminance_cuda(p, source.place.index, on.stream));
  parallel_for(p.height, 16, on.threads,
               [&](int64_t begin, int64_t end) { PYFOCUS_BEST(luminance_rows)(p, begin, end); });
}
#endif

}  // namespace pyfocus
