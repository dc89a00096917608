// ecc on the CPU. A row is handled in blocks: positions, samples and gradients go to small arrays, then every pair of
// columns is summed in 16 float lanes per block and in double above it. Bytes per pixel: 4 of each image read.
#include "ecc.h"

#include "isa.h"
#include "parallel.h"

namespace pyfocus {

PYFOCUS_KERNEL(void, ecc_rows, const EccParams& p, int parameters, int64_t row_begin, int64_t row_end)

namespace PYFOCUS_ISA {
namespace {

constexpr int64_t kBlock = 256, kLanes = 16;

// v is the same along a row, so the columns of J are few vectors times 1 or v: those vectors are multiplied with each
// other, and the powers of v come in once per row.
constexpr int kBase[8] = {0, 1, 1, 2, 3, 3, 4, 5};
constexpr bool kTimesV[8] = {false, true, false, false, true, false, false, true};

struct Block {
  float base[6][kBlock];  // g_x u, g_x, g_y u, g_y, and for a homography h u, h with h = -(g . W)
  float moved[kBlock], fixed[kBlock], use[kBlock];
};

inline double dot(const float* a, const float* b) {
  float lane[kLanes] = {};
  for (int64_t x = 0; x < kBlock; x += kLanes)
    for (int64_t k = 0; k < kLanes; ++k) lane[k] += a[x + k] * b[x + k];
  double sum = 0;
  for (int64_t k = 0; k < kLanes; ++k) sum += static_cast<double>(lane[k]);
  return sum;
}

// Where the pixels of a block lie in the moving image: top left sample, fractions, and whether they lie inside.
struct Places {
  int32_t at[kBlock];
  float fx[kBlock], fy[kBlock], x[kBlock], y[kBlock], w[kBlock];
};

template <int kParameters>
void place(const EccParams& p, int64_t y, int64_t x0, int64_t count, Places* at, float* use) {
  const double* m = p.matrix;
  const double dy = static_cast<double>(y), right = static_cast<double>(p.moving_width - 1),
               bottom = static_cast<double>(p.moving_height - 1);
  const double bx = m[1] * dy + m[2], by = m[4] * dy + m[5], bw = m[7] * dy + m[8];
  const int32_t first = static_cast<int32_t>(x0), n = static_cast<int32_t>(count),
                stride = static_cast<int32_t>(p.moving_width), last_x = stride - 2,
                last_y = static_cast<int32_t>(p.moving_height) - 2;
  double sx[kBlock], sy[kBlock];
  for (int32_t x = 0; x < n; ++x) {
    const double dx = static_cast<double>(first + x), w = kParameters == 8 ? 1 / (m[6] * dx + bw) : 1.0;
    sx[x] = (m[0] * dx + bx) * w, sy[x] = (m[3] * dx + by) * w;
    at->w[x] = static_cast<float>(w);
  }
  for (int32_t x = 0; x < n; ++x) {  // how far inside the image the place lies
    const double a = sx[x] < right - sx[x] ? sx[x] : right - sx[x], b = sy[x] < bottom - sy[x] ? sy[x] : bottom - sy[x];
    const double margin = a < b ? a : b;
    use[x] = margin >= 0 ? 1.0f : 0.0f;
  }
  for (int32_t x = 0; x < n; ++x) {
    const double cx = sx[x] > 0 ? (sx[x] < right ? sx[x] : right) : 0.0,
                 cy = sy[x] > 0 ? (sy[x] < bottom ? sy[x] : bottom) : 0.0;
    int32_t ix = static_cast<int32_t>(cx), iy = static_cast<int32_t>(cy);
    ix = ix > last_x ? last_x : ix, iy = iy > last_y ? last_y : iy;
    at->at[x] = iy * stride + ix;
    at->fx[x] = static_cast<float>(cx - ix), at->fy[x] = static_cast<float>(cy - iy);
    at->x[x] = static_cast<float>(cx), at->y[x] = static_cast<float>(cy);
  }
}

// Samples the moving image under `count` pixels of row y from x0 on; the rest of the block is set to nothing.
template <int kParameters>
void fill(const EccParams& p, int64_t y, int64_t x0, int64_t count, Block* b) {
  Places s;
  place<kParameters>(p, y, x0, count, &s, b->use);
  const int32_t first = static_cast<int32_t>(x0), n = static_cast<int32_t>(count);
  if (p.mask)
    for (int32_t x = 0; x < n; ++x) b->use[x] = p.mask[y * p.width + x0 + x] ? b->use[x] : 0.0f;
  float corner[4][kBlock];
  for (int32_t x = 0; x < n; ++x) {
    const float *top = p.moving + s.at[x], *low = top + p.moving_width;
    corner[0][x] = top[0], corner[1][x] = top[1], corner[2][x] = low[0], corner[3][x] = low[1];
  }
  const float* fixed = p.fixed + y * p.width + x0;
  const float centre_x = 0.5f * static_cast<float>(p.width - 1), scale = static_cast<float>(p.scale),
              inverse = 1.0f / scale, moving_x = 0.5f * static_cast<float>(p.moving_width - 1),
              moving_y = 0.5f * static_cast<float>(p.moving_height - 1);
  for (int32_t x = 0; x < n; ++x) {
    const float a = corner[0][x], c = corner[1][x], d = corner[2][x], e = corner[3][x], use = b->use[x];
    const float dx0 = c - a, dx1 = e - d, left = a + s.fy[x] * (d - a), step = dx0 + s.fy[x] * (dx1 - dx0);
    const float gx = step * scale * use, gy = ((d - a) + s.fx[x] * ((e - c) - (d - a))) * scale * use;
    const float u = (static_cast<float>(first + x) - centre_x) * inverse;
    b->moved[x] = (left + s.fx[x] * step) * use;
    b->fixed[x] = use > 0 ? fixed[x] : 0.0f;  // a masked pixel may hold anything
    const float hx = kParameters == 8 ? gx * s.w[x] : gx, hy = kParameters == 8 ? gy * s.w[x] : gy;
    b->base[0][x] = hx * u, b->base[1][x] = hx, b->base[2][x] = hy * u, b->base[3][x] = hy;
    if constexpr (kParameters == 8) {
      const float along = -(hx * (s.x[x] - moving_x) + hy * (s.y[x] - moving_y)) * inverse;
      b->base[4][x] = along * u, b->base[5][x] = along;
    }
  }
  for (int32_t x = n; x < kBlock; ++x) {
    for (int k = 0; k < kParameters - 2; ++k) b->base[k][x] = 0;
    b->moved[x] = b->fixed[x] = b->use[x] = 0;
  }
}

template <int kParameters>
struct RowSums {
  static constexpr int kVectors = kParameters - 2;
  double product[kVectors][kVectors] = {};  // upper triangle
  double moved[kVectors] = {}, fixed[kVectors] = {}, use[kVectors] = {};

  void add(const Block& b) {
    for (int k = 0; k < kVectors; ++k) {
      for (int l = k; l < kVectors; ++l) product[k][l] += dot(b.base[k], b.base[l]);
      moved[k] += dot(b.base[k], b.moved);
      fixed[k] += dot(b.base[k], b.fixed);
      use[k] += dot(b.base[k], b.use);
    }
  }
};

template <int kParameters>
void sum_rows(const EccParams& p, int64_t row_begin, int64_t row_end) {
  constexpr int kCount = ecc_sum_count(kParameters);
  double sums[kCount] = {};
  Block b;
  for (int64_t y = (row_begin + p.row_step - 1) / p.row_step * p.row_step; y < row_end; y += p.row_step) {
    RowSums<kParameters> row;
    double* plain = sums + kCount - 6;
    for (int64_t x = 0; x < p.width; x += kBlock) {
      fill<kParameters>(p, y, x, p.width - x < kBlock ? p.width - x : kBlock, &b);
      row.add(b);
      plain[0] += dot(b.moved, b.use);
      plain[1] += dot(b.fixed, b.use);
      plain[2] += dot(b.moved, b.moved);
      plain[3] += dot(b.fixed, b.fixed);
      plain[4] += dot(b.moved, b.fixed);
      plain[5] += dot(b.use, b.use);
    }
    const double v = (static_cast<double>(y) - 0.5 * static_cast<double>(p.height - 1)) / p.scale;
    int at = 0;
    for (int k = 0; k < kParameters; ++k)
      for (int l = k; l < kParameters; ++l)
        sums[at++] += row.product[kBase[k]][kBase[l]] * (kTimesV[k] ? v : 1.0) * (kTimesV[l] ? v : 1.0);
    for (int k = 0; k < kParameters; ++k) sums[at++] += row.moved[kBase[k]] * (kTimesV[k] ? v : 1.0);
    for (int k = 0; k < kParameters; ++k) sums[at++] += row.fixed[kBase[k]] * (kTimesV[k] ? v : 1.0);
    for (int k = 0; k < kParameters; ++k) sums[at++] += row.use[kBase[k]] * (kTimesV[k] ? v : 1.0);
  }
  double* out = p.chunk + row_begin / kEccChunkRows * kCount;
  for (int k = 0; k < kCount; ++k) out[k] = sums[k];
}

}  // namespace

void ecc_rows(const EccParams& p, int parameters, int64_t row_begin, int64_t row_end) {
  if (parameters == 8)
    sum_rows<8>(p, row_begin, row_end);
  else
    sum_rows<6>(p, row_begin, row_end);
}

}  // namespace PYFOCUS_ISA

#if defined(PYFOCUS_LAUNCHER)
void ecc(const Tensor& fixed, const Tensor& moving, const Tensor* mask, const Tensor& matrix, int parameters,
         const Tensor& workspace, const Tensor& sums, int64_t row_step, const Execution& on) {
  check_on_cpu("ecc", "fixed", fixed);
  check_tensor("ecc", "fixed", fixed, Dtype::F32, 2);
  check_contiguous("ecc", "fixed", fixed);
  check_on_cpu("ecc", "moving", moving);
  check_tensor("ecc", "moving", moving, Dtype::F32, 2);
  check_contiguous("ecc", "moving", moving);
  check_on_cpu("ecc", "matrix", matrix);
  check_tensor("ecc", "matrix", matrix, Dtype::F64, 2);
  check_contiguous("ecc", "matrix", matrix);
  check_shape("ecc", "matrix", matrix, 0, 3);
  check_shape("ecc", "matrix", matrix, 1, 3);
  PYFOCUS_CHECK(parameters == 6 || parameters == 8, "ecc: parameters must be 6 (affine) or 8 (homography), got %d",
                parameters);
  for (const Tensor* t : {&fixed, &moving})
    PYFOCUS_CHECK(t->shape[0] >= 2 && t->shape[1] >= 2 && t->count() < (int64_t{1} << 31),
                  "ecc: images must be 2 x 2 pixels or more and fewer than 2^31, got %lld x %lld",
                  static_cast<long long>(t->shape[0]), static_cast<long long>(t->shape[1]));
  const int count = ecc_sum_count(parameters);
  const int64_t chunks = (fixed.shape[0] + kEccChunkRows - 1) / kEccChunkRows;
  check_on_cpu("ecc", "workspace", workspace);
  check_output("ecc", "workspace", workspace, Dtype::F64, 2);
  check_shape("ecc", "workspace", workspace, 0, chunks);
  check_shape("ecc", "workspace", workspace, 1, count);
  check_on_cpu("ecc", "sums", sums);
  check_output("ecc", "sums", sums, Dtype::F64, 1);
  check_shape("ecc", "sums", sums, 0, count);
  EccParams p;
  p.fixed = fixed.as<const float>(), p.moving = moving.as<const float>();
  p.height = fixed.shape[0], p.width = fixed.shape[1];
  p.moving_height = moving.shape[0], p.moving_width = moving.shape[1];
  for (int i = 0; i < 9; ++i) {
    p.matrix[i] = matrix.as<const double>()[i];
    PYFOCUS_CHECK(p.matrix[i] - p.matrix[i] == 0, "ecc: matrix must be finite, got %g", p.matrix[i]);
  }
  PYFOCUS_CHECK(parameters == 8 || (p.matrix[6] == 0 && p.matrix[7] == 0 && p.matrix[8] == 1),
                "ecc: an affine matrix must end with the row 0 0 1, got %g %g %g", p.matrix[6], p.matrix[7],
                p.matrix[8]);
  PYFOCUS_CHECK(row_step >= 1 && row_step <= kEccChunkRows, "ecc: row_step must be 1 to %d, got %lld", kEccChunkRows,
                static_cast<long long>(row_step));
  p.row_step = row_step;
  p.scale = 0.5 * static_cast<double>(p.height > p.width ? p.height : p.width);
  p.chunk = workspace.as<double>();
  if (mask) {
    check_on_cpu("ecc", "mask", *mask);
  check_tensor("ecc", "mask", *mask, Dtype::U8, 2);
    check_contiguous("ecc", "mask", *mask);
    check_shape("ecc", "mask", *mask, 0, p.height);
    check_shape("ecc", "mask", *mask, 1, p.width);
    p.mask = mask->as<const uint8_t>();
  }
  parallel_for(p.height, kEccChunkRows, on.threads,
               [&](int64_t begin, int64_t end) { PYFOCUS_BEST(ecc_rows)(p, parameters, begin, end); });
  double* out = sums.as<double>();
  for (int k = 0; k < count; ++k) out[k] = 0;
  for (int64_t chunk = 0; chunk < chunks; ++chunk)
    for (int k = 0; k < count; ++k) out[k] += p.chunk[chunk * count + k];
}
#endif

}  // namespace pyfocus
