// guided on the CPU: down in blocks of columns, whose rows are vectors; across row by row.
#include "guided.h"

#include "isa.h"
#include "parallel.h"

namespace pyfocus {

PYFOCUS_KERNEL(void, guided_columns, const GuidedParams& p, int64_t begin, int64_t end)
PYFOCUS_KERNEL(void, guided_rows, const GuidedParams& p, int64_t begin, int64_t end)

namespace PYFOCUS_ISA {

constexpr int64_t kColumns = 64;

// Columns [x0, x0 + n) from the first row to the last and back.
inline void sweep_columns(const GuidedParams& p, int64_t x0, int64_t n) {
  float scale[kColumns];
  const int64_t area = p.height * p.width;
  for (int64_t x = 0; x < n; ++x) scale[x] = 1.0f / (1.0f + p.links[x0 + x] * p.share);
  for (int64_t c = 0; c < p.planes; ++c)
    for (int64_t x = 0; x < n; ++x) p.values[c * area + x0 + x] *= scale[x];
  for (int64_t y = 1; y < p.height; ++y) {
    const float* above = p.links + (y - 1) * p.width + x0;
    const float* below = above + p.width;
    const float last = y + 1 < p.height ? p.share : 0.0f;
    float* factor = p.factor + (y - 1) * p.width + x0;
    if (last == 0.0f) below = above;
    for (int64_t x = 0; x < n; ++x) {
      const float link = above[x] * p.share;
      factor[x] = link * scale[x];
      scale[x] = 1.0f / ((1.0f + below[x] * last + link) - link * factor[x]);
    }
    for (int64_t c = 0; c < p.planes; ++c) {
      float* row = p.values + c * area + y * p.width + x0;
      for (int64_t x = 0; x < n; ++x) row[x] = (row[x] + above[x] * p.share * row[x - p.width]) * scale[x];
    }
  }
  for (int64_t y = p.height - 2; y >= 0; --y)
    for (int64_t c = 0; c < p.planes; ++c) {
      float* row = p.values + c * area + y * p.width + x0;
      const float* factor = p.factor + y * p.width + x0;
      for (int64_t x = 0; x < n; ++x) row[x] += factor[x] * row[x + p.width];
    }
}

void guided_columns(const GuidedParams& p, int64_t begin, int64_t end) {
  for (int64_t x = begin; x < end; x += kColumns) sweep_columns(p, x, end - x < kColumns ? end - x : kColumns);
}

template <int kPlanes>
void sweep_row(const GuidedParams& p, int64_t y) {
  const float* links = p.links + y * (p.width - 1);
  float* factor = p.factor + y * (p.width - 1);
  float* row[kPlanes];
  float before[kPlanes];
  for (int c = 0; c < kPlanes; ++c) row[c] = p.values + (c * p.height + y) * p.width;
  float scale = 1.0f / (1.0f + links[0] * p.share);
  for (int c = 0; c < kPlanes; ++c) before[c] = row[c][0] *= scale;
  for (int64_t x = 1; x < p.width; ++x) {
    const float link = links[x - 1] * p.share, next = x + 1 < p.width ? links[x] * p.share : 0.0f;
    const float share = factor[x - 1] = link * scale;
    scale = 1.0f / ((1.0f + next + link) - link * share);
    for (int c = 0; c < kPlanes; ++c) before[c] = row[c][x] = (row[c][x] + link * before[c]) * scale;
  }
  for (int64_t x = p.width - 2; x >= 0; --x)
    for (int c = 0; c < kPlanes; ++c) before[c] = row[c][x] += factor[x] * before[c];
}

void guided_rows(const GuidedParams& p, int64_t begin, int64_t end) {
  for (int64_t y = begin; y < end; ++y) {
    if (p.planes == 1) sweep_row<1>(p, y);
    if (p.planes == 2) sweep_row<2>(p, y);
    if (p.planes == 3) sweep_row<3>(p, y);
    if (p.planes == 4) sweep_row<4>(p, y);
  }
}

}  // namespace PYFOCUS_ISA

#if defined(PYFOCUS_LAUNCHER)
namespace {

GuidedParams checked(const char* name, const Tensor& values, const Tensor& links, float share, const Tensor& workspace,
                     int axis) {
  check_output(name, "values", values, Dtype::F32, 3);
  check_on_cpu(name, "values", values);
  check_tensor(name, "links", links, Dtype::F32, 2);
  check_on_cpu(name, "links", links);
  check_contiguous(name, "links", links);
  check_output(name, "workspace", workspace, Dtype::F32, 2);
  check_on_cpu(name, "workspace", workspace);
  PYFOCUS_CHECK(values.shape[0] <= 4, "%s: values must have 4 planes or fewer, got %lld", name,
                static_cast<long long>(values.shape[0]));
  for (int i = 0; i < 2; ++i) {
    const int64_t size = values.shape[i + 1], wanted = i == axis ? (size > 0 ? size - 1 : 0) : size;
    check_shape(name, "links", links, i, wanted);
    check_shape(name, "workspace", workspace, i, wanted);
  }
  PYFOCUS_CHECK(share >= 0, "%s: share must be 0 or more, got %g", name, static_cast<double>(share));
  return {values.as<float>(), links.as<const float>(), share,          workspace.as<float>(),
          values.shape[0],    values.shape[1],         values.shape[2]};
}

}  // namespace

void guided_down(const Tensor& values, const Tensor& links, float share, const Tensor& workspace, int threads) {
  const GuidedParams p = checked("guided_down", values, links, share, workspace, 0);
  if (p.height < 2) return;
  parallel_for(p.width, 64, threads, [&](int64_t begin, int64_t end) { PYFOCUS_BEST(guided_columns)(p, begin, end); });
}

void guided_across(const Tensor& values, const Tensor& links, float share, const Tensor& workspace, int threads) {
  const GuidedParams p = checked("guided_across", values, links, share, workspace, 1);
  if (p.width < 2) return;
  parallel_for(p.height, 16, threads, [&](int64_t begin, int64_t end) { PYFOCUS_BEST(guided_rows)(p, begin, end); });
}
#endif

}  // namespace pyfocus
