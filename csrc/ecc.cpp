// ecc on the CPU. A row is handled in blocks: positions, samples and gradients go to small arrays, then every pair of
// columns is summed in 16 float lanes per block and in double above it. Bytes per pixel: 4 of each image read.
#include "ecc.h"

#include "ecc_pixel.h"
#include "ecc_rows.h"

namespace pyfocus {
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

// One pair's images.
struct Images {
  const float *fixed, *moving;
  const uint8_t* mask;
  const double* matrix;
};

inline double dot(const float* a, const float* b) {
  float lane[kLanes] = {};
  for (int64_t x = 0; x < kBlock; x += kLanes)
    for (int64_t k = 0; k < kLanes; ++k) lane[k] += a[x + k] * b[x + k];
  double sum = 0;
  for (int64_t k = 0; k < kLanes; ++k) sum += static_cast<double>(lane[k]);
  return sum;
}

// Where the pixels of a block lie in the moving image: as arrays, so that the loops become vectors.
struct Places {
  int32_t x[kBlock], y[kBlock];
  float fx[kBlock], fy[kBlock], w[kBlock];
};

template <bool kPerspective>
void place(const EccParams& p, const Images& image, int64_t y, int64_t x0, int32_t n, Places* at, float* use) {
  const EccAnchor anchor = ecc_anchor<kPerspective>(image.matrix, static_cast<double>(x0), static_cast<double>(y));
  const int32_t right = static_cast<int32_t>(p.moving_width) - 1, bottom = static_cast<int32_t>(p.moving_height) - 1;
  for (int32_t x = 0; x < n; ++x) {
    const EccPlace one = ecc_place<kPerspective>(anchor, x, 0, right, bottom);
    at->x[x] = one.x, at->y[x] = one.y, at->fx[x] = one.fx, at->fy[x] = one.fy, at->w[x] = one.w;
    use[x] = one.inside ? 1.0f : 0.0f;
  }
}

// Samples the moving image under `count` pixels of row y from x0 on; the rest of the block is set to nothing, and so is
// what lies outside or is masked, whatever it holds.
template <int kParameters>
void fill(const EccParams& p, const Images& image, int64_t y, int64_t x0, int64_t count, Block* b) {
  constexpr bool kPerspective = kParameters == 8;
  Places s;
  const int32_t first = static_cast<int32_t>(x0), n = static_cast<int32_t>(count),
                stride = static_cast<int32_t>(p.moving_width);
  place<kPerspective>(p, image, y, x0, n, &s, b->use);
  if (image.mask)
    for (int32_t x = 0; x < n; ++x) b->use[x] = image.mask[y * p.width + x0 + x] ? b->use[x] : 0.0f;
  float corner[4][kBlock];
  for (int32_t x = 0; x < n; ++x) {
    const float *top = image.moving + (s.y[x] * stride + s.x[x]), *low = top + p.moving_width;
    corner[0][x] = top[0], corner[1][x] = top[1], corner[2][x] = low[0], corner[3][x] = low[1];
  }
  const float* fixed = image.fixed + y * p.width + x0;
  const float centre_x = 0.5f * static_cast<float>(p.width - 1), scale = static_cast<float>(p.scale),
              inverse = 1.0f / scale, moving_x = 0.5f * static_cast<float>(p.moving_width - 1),
              moving_y = 0.5f * static_cast<float>(p.moving_height - 1);
  for (int32_t x = 0; x < n; ++x) {
    const EccPlace at = {s.x[x], s.y[x], s.fx[x], s.fy[x], s.w[x], true};
    const EccSample sample = ecc_sample(corner[0][x], corner[1][x], corner[2][x], corner[3][x], at);
    const bool use = b->use[x] > 0;
    const float size = kPerspective ? scale * s.w[x] : scale;
    const float gx = use ? sample.gx * size : 0.0f, gy = use ? sample.gy * size : 0.0f;
    const float u = (static_cast<float>(first + x) - centre_x) * inverse;
    b->moved[x] = use ? sample.value : 0.0f, b->fixed[x] = use ? fixed[x] : 0.0f;
    b->base[0][x] = gx * u, b->base[1][x] = gx, b->base[2][x] = gy * u, b->base[3][x] = gy;
    if constexpr (kPerspective) {
      const float along = ecc_along(gx, gy, at, moving_x, moving_y) * inverse;
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
void sum_rows(const EccParams& p, int64_t pair, int64_t row_begin, int64_t row_end) {
  constexpr int kCount = ecc_sum_count(kParameters);
  const Images image = {p.fixed + pair * p.fixed_stride, p.moving + pair * p.moving_stride,
                        p.mask ? p.mask + pair * p.mask_stride : nullptr, p.matrix + pair * p.matrix_stride};
  double sums[kCount] = {};
  Block b;
  for (int64_t y = (row_begin + p.row_step - 1) / p.row_step * p.row_step; y < row_end; y += p.row_step) {
    RowSums<kParameters> row;
    double* plain = sums + kCount - 6;
    for (int64_t x = 0; x < p.width; x += kBlock) {
      fill<kParameters>(p, image, y, x, p.width - x < kBlock ? p.width - x : kBlock, &b);
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
  double* out = p.chunk + (pair * p.chunks + row_begin / kEccChunkRows) * kCount;
  for (int k = 0; k < kCount; ++k) out[k] = sums[k];
}

}  // namespace

void ecc_rows(const EccParams& p, int64_t pair, int64_t row_begin, int64_t row_end) {
  if (p.parameters == 8)
    sum_rows<8>(p, pair, row_begin, row_end);
  else
    sum_rows<6>(p, pair, row_begin, row_end);
}

}  // namespace PYFOCUS_ISA
}  // namespace pyfocus
