// demosaic on the CPU: tiles with a halo of four pixels that stay in the second-level cache.
// Bytes per pixel: 2 read (1.3 x with the halo), 12 written.
#include "demosaic.h"

#include "isa.h"
#include "parallel.h"

namespace pyfocus {

PYFOCUS_KERNEL(void, demosaic_rows, const DemosaicParams& p, int64_t row_begin, int64_t row_end)

constexpr int64_t kDemosaicRows = 32;

namespace PYFOCUS_ISA {
namespace {

constexpr int64_t kHalo = 4, kColumns = 256;
constexpr int64_t kRows = kDemosaicRows + 2 * kHalo, kStride = kColumns + 2 * kHalo;

struct Tile {
  float root[kRows][kStride];    // s
  float across[kRows][kStride];  // activity along the row
  float along[kRows][kStride];   // activity along the column
  float green[kRows][kStride];
  float colour[kRows][kStride];  // red or blue minus green where the row has that colour, else 0
};

inline float magnitude(float v) { return v < 0 ? -v : v; }

inline int64_t mirror(int64_t v, int64_t n) {
  while (v < 0 || v >= n) v = v < 0 ? -v : 2 * (n - 1) - v;
  return v;
}

void load(const DemosaicParams& p, int64_t y0, int64_t x0, int64_t rows, int64_t columns, Tile* t) {
  for (int64_t j = 0; j < rows; ++j) {
    const int64_t y = mirror(y0 + j, p.height);
    const uint16_t* from = p.source + y * p.row_stride;
    const float *scale = p.scale + 2 * (y & 1), *offset = p.offset + 2 * (y & 1);
    for (int64_t i = 0; i < columns; ++i) {
      const int64_t x = mirror(x0 + i, p.width);
      const float v = static_cast<float>(from[x * p.column_stride]) * scale[x & 1] + offset[x & 1];
      t->root[j][i] = v;
    }
    for (int64_t i = 0; i < columns; ++i) {
      const float v = t->root[j][i], r = __builtin_sqrtf(magnitude(v));
      t->root[j][i] = v < 0 ? -r : r;
    }
  }
}

void measure(int64_t rows, int64_t columns, Tile* t) {
  for (int64_t j = 2; j < rows - 2; ++j) {
    const float *s = t->root[j], *u = t->root[j - 1], *d = t->root[j + 1], *uu = t->root[j - 2], *dd = t->root[j + 2];
    for (int64_t i = 2; i < columns - 2; ++i) {
      t->across[j][i] = magnitude(s[i + 1] - s[i - 1]) + magnitude(2 * s[i] - s[i - 2] - s[i + 2]);
      t->along[j][i] = magnitude(d[i] - u[i]) + magnitude(2 * s[i] - uu[i] - dd[i]);
    }
  }
}

inline float box(const float (*a)[kStride], int64_t j, int64_t i) {
  return ((a[j - 1][i - 1] + a[j - 1][i] + a[j - 1][i + 1]) + (a[j][i - 1] + a[j][i] + a[j][i + 1]) +
          (a[j + 1][i - 1] + a[j + 1][i] + a[j + 1][i + 1])) *
         (1.0f / 9);
}

// `site` is 1 at columns where this row has red or blue, else 0.
void fill_green(int64_t j, int64_t columns, const float* site, Tile* t) {
  const float *s = t->root[j], *u = t->root[j - 1], *d = t->root[j + 1], *uu = t->root[j - 2], *dd = t->root[j + 2];
  for (int64_t i = 3; i < columns - 3; ++i) {
    const float h = 0.5f * (s[i - 1] + s[i + 1]) + 0.25f * (2 * s[i] - s[i - 2] - s[i + 2]);
    const float v = 0.5f * (u[i] + d[i]) + 0.25f * (2 * s[i] - uu[i] - dd[i]);
    const float a = box(t->across, j, i), b = box(t->along, j, i);
    const float wh = b * b + 1e-8f, wv = a * a + 1e-8f;  // 1/a^2 and 1/b^2, times both
    const float blend = (h * wh + v * wv) / (wh + wv);
    const float green = site[i] > 0 ? blend : s[i];
    t->green[j][i] = green;
    t->colour[j][i] = s[i] - green;  // 0 at green sites
  }
}

void store(const DemosaicParams& p, int64_t y, int64_t x0, int64_t count, int64_t j, const Tile& t) {
  const float *own = t.colour[j] + kHalo, *up = t.colour[j - 1] + kHalo, *down = t.colour[j + 1] + kHalo,
              *green = t.green[j] + kHalo;
  const bool red_row = (y & 1) == p.red_y;
  const int64_t plane = p.height * p.width;
  float* out = p.destination + y * p.width + x0;
  float *same = out + (red_row ? 0 : 2 * plane), *other = out + (red_row ? 2 * plane : 0), *middle = out + plane;
  for (int64_t i = 0; i < count; ++i) {
    middle[i] = green[i];
    same[i] = green[i] + (0.5f * (own[i - 1] + own[i + 1]) + own[i]);
    other[i] = green[i] + (0.25f * ((up[i - 1] + up[i + 1]) + (down[i - 1] + down[i + 1])) + 0.5f * (up[i] + down[i]));
  }
}

}  // namespace

void demosaic_rows(const DemosaicParams& p, int64_t row_begin, int64_t row_end) {
  Tile t;
  float site[2][kStride];
  for (int64_t x0 = 0; x0 < p.width; x0 += kColumns) {
    const int64_t count = p.width - x0 < kColumns ? p.width - x0 : kColumns;
    const int64_t rows = row_end - row_begin + 2 * kHalo, columns = count + 2 * kHalo;
    for (int64_t parity = 0; parity < 2; ++parity)
      for (int64_t i = 0; i < columns; ++i) {
        // x0 and kHalo are even, so column i has the parity of i; red rows have red at red_x, blue rows at the other
        const int64_t first = parity == p.red_y ? p.red_x : 1 - p.red_x;
        site[parity][i] = (i & 1) == first ? 1.0f : 0.0f;
      }
    load(p, row_begin - kHalo, x0 - kHalo, rows, columns, &t);
    measure(rows, columns, &t);
    for (int64_t j = 3; j < rows - 3; ++j) fill_green(j, columns, site[(row_begin + j) & 1], &t);
    for (int64_t y = row_begin; y < row_end; ++y) store(p, y, x0, count, y - row_begin + kHalo, t);
  }
}

}  // namespace PYFOCUS_ISA

#if defined(PYFOCUS_LAUNCHER)
void demosaic(const Tensor& source, int red_y, int red_x, const float* scale, const float* offset,
              const Tensor& destination, const Execution& on) {
  check_tensor("demosaic", "source", source, Dtype::U16, 2);
  PYFOCUS_CHECK(source.shape[0] >= 6 && source.shape[1] >= 6 && source.shape[0] % 2 == 0 && source.shape[1] % 2 == 0,
                "demosaic: source must have even sides of 6 or more, got %lld x %lld",
                static_cast<long long>(source.shape[0]), static_cast<long long>(source.shape[1]));
  PYFOCUS_CHECK((red_y | 1) == 1 && (red_x | 1) == 1, "demosaic: red must lie at 0 or 1, got (%d, %d)", red_y, red_x);
  check_place("demosaic", "destination", &destination, source.place());
  check_output("demosaic", "destination", destination, Dtype::F32, 3);
  check_shape("demosaic", "destination", destination, 0, 3);
  check_shape("demosaic", "destination", destination, 1, source.shape[0]);
  check_shape("demosaic", "destination", destination, 2, source.shape[1]);
  DemosaicParams p;
  p.source = source.as<const uint16_t>();
  p.row_stride = source.stride[0], p.column_stride = source.stride[1];
  p.height = source.shape[0], p.width = source.shape[1];
  p.red_y = red_y, p.red_x = red_x;
  for (int i = 0; i < 4; ++i) p.scale[i] = scale[i], p.offset[i] = offset[i];
  p.destination = destination.as<float>();
  if (source.device == Device::Cuda) PYFOCUS_ON_CUDA("demosaic", demosaic_cuda(p, source.device_index, on.stream));
  parallel_for(p.height, kDemosaicRows, on.threads,
               [&](int64_t begin, int64_t end) { PYFOCUS_BEST(demosaic_rows)(p, begin, end); });
}
#endif

}  // namespace pyfocus
