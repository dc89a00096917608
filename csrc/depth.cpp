// depth on the CPU: places in blocks, frames one after another over each.
#include "depth.h"

#include "codes.h"
#include "isa.h"
#include "upsample.h"

#if defined(PYFOCUS_LAUNCHER)
#include <vector>
#endif

namespace pyfocus {

PYFOCUS_KERNEL(void, depth_cut_places, const DepthParams& p)
PYFOCUS_KERNEL(void, depth_peak_places, const DepthParams& p)
PYFOCUS_KERNEL(void, depth_weight_places, const DepthParams& p)
PYFOCUS_KERNEL(void, depth_blend_tile, const BlendParams& p)

namespace PYFOCUS_ISA {

constexpr int64_t kPlaces = 128;  // of a block: scratch stays in the first cache

// exp(x) for x <= 0, to 2 ulp; 0 below -87. Cody and Waite's reduction and a polynomial of degree 6.
inline float exp_down(float x) {
  constexpr float kWhole = 12582912.0f;  // 1.5 * 2^23
  const float clipped = x < -87.0f ? -87.0f : x;
  const float n = (clipped * 1.44269504f + kWhole) - kWhole;
  const float r = (clipped - n * 0.693359375f) + n * 2.12194440e-4f;
  float e = 1.38888889e-3f;
  e = e * r + 8.33333333e-3f;
  e = e * r + 4.16666667e-2f;
  e = e * r + 1.66666667e-1f;
  e = e * r + 0.5f;
  e = e * r + 1.0f;
  e = e * r + 1.0f;
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float scale;
  __builtin_memcpy(&scale, &bits, 4);
  return x < -87.0f ? 0.0f : e * scale;
}

inline float larger(float a, float b) { return a > b ? a : b; }
inline float lesser(float a, float b) { return a < b ? a : b; }

inline void cut_block(const DepthParams& p, int64_t begin, int64_t n) {
  float least[kPlaces], peak[kPlaces], valley[kPlaces], found[kPlaces];
  const auto row = [&](int64_t k) { return p.vote + (p.near == Near::Last ? p.frames - 1 - k : k) * p.places + begin; };
  const float* first = row(0);
  for (int64_t i = 0; i < n; ++i) least[i] = peak[i] = valley[i] = first[i], found[i] = 0;
  for (int64_t k = 1; k < p.frames; ++k) {
    const float* vote = row(k);
    for (int64_t i = 0; i < n; ++i) least[i] = larger(least[i], vote[i]);
  }
  for (int64_t i = 0; i < n; ++i) least[i] = larger(least[i] - p.cut.below, p.cut.clear);
  for (int64_t k = 1; k < p.frames; ++k) {
    float* vote = row(k);
    for (int64_t i = 0; i < n; ++i) {
      const float v = vote[i];
      const bool behind =
          found[i] != 0 || ((v > valley[i]) & (valley[i] <= peak[i] - p.cut.valley) & (peak[i] >= least[i]));
      const bool rises = !behind & (v > peak[i]);
      found[i] = behind ? 1.0f : 0.0f;
      vote[i] = behind ? lesser(v, valley[i]) : v;
      peak[i] = rises ? v : peak[i];
      valley[i] = rises ? v : behind ? valley[i] : lesser(valley[i], v);
    }
  }
}

void depth_cut_places(const DepthParams& p) {
  for (int64_t i = 0; i < p.places; i += kPlaces) cut_block(p, i, p.places - i < kPlaces ? p.places - i : kPlaces);
}

inline void peak_block(const DepthParams& p, int64_t begin, int64_t n) {
  float top[kPlaces], best[kPlaces], views[kPlaces], sum[kPlaces], share[kPlaces], mean[kPlaces], square[kPlaces];
  float before[kPlaces], after[kPlaces], middle[kPlaces];
  if (p.near != Near::None) cut_block(p, begin, n);
  const float* vote = p.vote + begin;
  const float* seen = p.seen + begin;
  for (int64_t i = 0; i < n; ++i) {
    top[i] = vote[i], best[i] = views[i] = sum[i] = share[i] = mean[i] = square[i] = 0;
    before[i] = after[i] = middle[i] = 0;
  }
  for (int64_t k = 1; k < p.frames; ++k)
    for (int64_t i = 0; i < n; ++i) {
      const float v = vote[k * p.places + i];
      best[i] = v > top[i] ? static_cast<float>(k) : best[i];
      top[i] = larger(top[i], v);
    }
  for (int64_t k = 0; k < p.frames; ++k) {
    const float place = static_cast<float>(k), last = static_cast<float>(p.frames - 2);
    for (int64_t i = 0; i < n; ++i) {
      const float v = vote[k * p.places + i], look = seen[k * p.places + i];
      const float w = exp_down(v - top[i]) * look, w4 = (w * w) * (w * w);
      const float inside = best[i] < 1 ? 1.0f : best[i] > last ? last : best[i];
      views[i] += look, sum[i] += w, share[i] += w4, mean[i] += w4 * place;
      square[i] += w4 * ((place - best[i]) * (place - best[i]));
      before[i] = place == inside - 1 ? v : before[i];
      middle[i] = place == inside ? v : middle[i];
      after[i] = place == inside + 1 ? v : after[i];
    }
  }
  for (int64_t i = 0; i < n; ++i) {
    const float many = larger(views[i], 1), total = larger(share[i], 1e-30f);
    const float alike = (larger(sum[i], 1) - 1) / larger(many - 1, 1), sureness = many > 1 ? 1 - alike : 0.0f;
    const float centroid = mean[i] / total, off = centroid - best[i];
    const float bend = lesser(before[i] - 2 * middle[i] + after[i], -1e-6f);
    const float vertex = larger(lesser(0.5f * (before[i] - after[i]) / bend, 0.5f), -0.5f);
    const bool parabola = p.frames > 2 && best[i] >= 1 && best[i] <= static_cast<float>(p.frames - 2);
    const float peak = best[i] + (parabola ? vertex : 0.0f);
    const float trust = larger(lesser(sureness / p.sure, 1), 0);
    p.depth[begin + i] = centroid + trust * (peak - centroid);
    p.spread[begin + i] = larger(square[i] / total - off * off * (share[i] > 1e-30f ? 1.0f : 0.0f), 0);
    p.confidence[begin + i] = sureness;
  }
}

void depth_peak_places(const DepthParams& p) {
  for (int64_t i = 0; i < p.places; i += kPlaces) peak_block(p, i, p.places - i < kPlaces ? p.places - i : kPlaces);
}

inline void weight_block(const DepthParams& p, int64_t begin, int64_t n) {
  float top[kPlaces], bend[kPlaces], any[kPlaces];
  if (p.near != Near::None) cut_block(p, begin, n);
  const float* depth = p.depth + begin;
  for (int64_t i = 0; i < n; ++i) {
    bend[i] = -0.5f / (p.narrow * p.narrow + 4 * p.spread[begin + i]);
    top[i] = -3e38f, any[i] = 0;
  }
  for (int64_t k = 0; k < p.frames; ++k) {
    float* vote = p.vote + k * p.places + begin;
    const float* seen = p.seen + k * p.places + begin;
    const float place = static_cast<float>(k);
    for (int64_t i = 0; i < n; ++i) {
      const float away = place - depth[i], score = away * away * bend[i] + 4 * vote[i];
      vote[i] = seen[i] != 0 ? score : -3e38f;
      any[i] = larger(any[i], seen[i]);
      top[i] = larger(top[i], vote[i]);
    }
  }
  for (int64_t k = 0; k < p.frames; ++k) {
    float* vote = p.vote + k * p.places + begin;
    const float* seen = p.seen + k * p.places + begin;
    for (int64_t i = 0; i < n; ++i) {
      const float w = seen[i] != 0 ? exp_down(vote[i] - top[i]) : 0.0f;
      vote[i] = any[i] != 0 ? w : p.nothing;
    }
  }
}

void depth_weight_places(const DepthParams& p) {
  for (int64_t i = 0; i < p.places; i += kPlaces) weight_block(p, i, p.places - i < kPlaces ? p.places - i : kPlaces);
}

// Row y of up(weights) at the columns of the tile. `column` holds a row of the coarse grid.
inline void raise_row(const BlendParams& p, const float* weights, int64_t y, float* column, float* out) {
  const int64_t i = y >> 1, high = p.coarse_height - 1, w = p.coarse_width;
  const float *a = weights + clamp_to(i - 1, high) * w, *b = weights + clamp_to(i, high) * w,
              *c = weights + clamp_to(i + 1, high) * w;
  if (y & 1)
    for (int64_t x = 0; x < w; ++x) column[x + 1] = up_between(b[x], c[x]);
  else
    for (int64_t x = 0; x < w; ++x) column[x + 1] = up_on(a[x], b[x], c[x]);
  column[0] = column[1], column[w + 1] = column[w];  // the edge again
  const int64_t first = p.left & 1;
  const float* at = column + 1 + (p.left >> 1);
  for (int64_t x = first; x < p.width; x += 2) {
    const int64_t j = (x + first) >> 1;
    out[x] = up_on(at[j - 1], at[j], at[j + 1]);
  }
  for (int64_t x = 1 - first; x < p.width; x += 2) {
    const int64_t j = (x - 1 + first) >> 1;
    out[x] = up_between(at[j], at[j + 1]);
  }
}

void depth_blend_tile(const BlendParams& p) {
  float column[kMostBlend / 2 + 16], weight[kMostBlend + 2], share[kMostBlend], total[4][kMostBlend];
  const int64_t area = p.coarse_height * p.coarse_width;
  for (int64_t y = 0; y < p.height; ++y) {
    for (int64_t x = 0; x < p.width; ++x) share[x] = total[0][x] = total[1][x] = total[2][x] = total[3][x] = 0;
    for (int64_t k = 0; k < p.frames; ++k) {
      if (!p.codes[k]) continue;
      raise_row(p, p.weights + k * area, y + p.top, column, weight);
      for (int64_t x = 0; x < p.width; ++x) share[x] += weight[x];
      for (int64_t c = 0; c < p.planes; ++c) {
        const uint16_t* code = p.codes[k] + c * p.plane_stride + y * p.row_stride;
        for (int64_t x = 0; x < p.width; ++x) total[c][x] += p.table[code[x]] * weight[x];
      }
    }
    for (int64_t c = 0; c < p.planes; ++c) {
      float* out = p.out + c * p.out_plane_stride + y * p.out_row_stride;
      for (int64_t x = 0; x < p.width; ++x) out[x] = total[c][x] / share[x];
    }
  }
}

}  // namespace PYFOCUS_ISA

#if defined(PYFOCUS_LAUNCHER)
namespace {

DepthParams votes_of(const char* name, const Tensor& vote, Near near, const CutRule& rule) {
  check_output(name, "vote", vote, Dtype::F32, 3);
  check_on_cpu(name, "vote", vote);
  PYFOCUS_CHECK(vote.shape[0] > 0, "%s: vote must be of one frame or more, got none", name);
  DepthParams p;
  p.vote = vote.as<float>(), p.frames = vote.shape[0], p.places = vote.shape[1] * vote.shape[2];
  p.near = near, p.cut = rule;
  return p;
}

void check_map(const char* function, const char* name, const Tensor& map, const Tensor& vote) {
  check_tensor(function, name, map, Dtype::F32, 2);
  check_on_cpu(function, name, map);
  check_contiguous(function, name, map);
  for (int axis = 0; axis < 2; ++axis) check_shape(function, name, map, axis, vote.shape[axis + 1]);
}

void check_seen(const char* function, const Tensor& seen, const Tensor& vote) {
  check_tensor(function, "seen", seen, Dtype::F32, 3);
  check_on_cpu(function, "seen", seen);
  check_contiguous(function, "seen", seen);
  for (int axis = 0; axis < 3; ++axis) check_shape(function, "seen", seen, axis, vote.shape[axis]);
}

float largest(const float* values, int64_t count) {
  float most = 0;
  for (int64_t i = 0; i < count; ++i) most = values[i] > most ? values[i] : most;
  return most;
}

}  // namespace

void depth_cut(const Tensor& vote, Near near, const CutRule& rule) {
  const DepthParams p = votes_of("depth_cut", vote, near, rule);
  if (near != Near::None) PYFOCUS_BEST(depth_cut_places)(p);
}

void depth_peaks(const Tensor& vote, const Tensor& seen, Near near, const CutRule& rule, float sure,
                 const Tensor& depth, const Tensor& spread, const Tensor& confidence) {
  const char* name = "depth_peaks";
  DepthParams p = votes_of(name, vote, near, rule);
  check_seen(name, seen, vote);
  const auto written = [&](const char* what, const Tensor& map) {
    check_map(name, what, map, vote);
    PYFOCUS_CHECK(!map.read_only, "%s: %s is written to, got a read-only array", name, what);
    return map.as<float>();
  };
  p.seen = seen.as<const float>(), p.sure = sure;
  p.depth = written("depth", depth), p.spread = written("spread", spread);
  p.confidence = written("confidence", confidence);
  PYFOCUS_BEST(depth_peak_places)(p);
}

void depth_weights(const Tensor& vote, const Tensor& seen, Near near, const CutRule& rule, const Tensor& depth,
                   const Tensor& spread, float narrow, float nothing) {
  const char* name = "depth_weights";
  DepthParams p = votes_of(name, vote, near, rule);
  check_seen(name, seen, vote);
  check_map(name, "depth", depth, vote);
  check_map(name, "spread", spread, vote);
  p.seen = seen.as<const float>(), p.depth = depth.as<float>(), p.spread = spread.as<float>();
  p.narrow = narrow, p.nothing = nothing;
  PYFOCUS_BEST(depth_weight_places)(p);
}

void depth_blend(const Tensor* codes, int64_t count, const Tensor& table, const Tensor& weights, int64_t top,
                 int64_t left, float least, const Tensor& destination) {
  const char* name = "depth_blend";
  check_codes(name, codes, count);
  check_table(name, table);
  check_tensor(name, "weights", weights, Dtype::F32, 3);
  check_on_cpu(name, "weights", weights);
  check_contiguous(name, "weights", weights);
  check_shape(name, "weights", weights, 0, count);
  check_tensor(name, "destination", destination, Dtype::F32, 3);
  check_on_cpu(name, "destination", destination);
  PYFOCUS_CHECK(!destination.read_only, "%s: destination is written to, got a read-only array", name);
  PYFOCUS_CHECK(destination.stride[2] == 1 || destination.shape[2] <= 1,
                "%s: destination must have contiguous rows, got strides", name);
  for (int axis = 0; axis < 3; ++axis) check_shape(name, "destination", destination, axis, codes[0].shape[axis]);
  BlendParams p;
  p.planes = codes[0].shape[0], p.height = codes[0].shape[1], p.width = codes[0].shape[2];
  p.coarse_height = weights.shape[1], p.coarse_width = weights.shape[2], p.top = top, p.left = left;
  PYFOCUS_CHECK(p.planes >= 1 && p.planes <= 4, "%s: codes must have 1 to 4 planes, got %lld", name,
                static_cast<long long>(p.planes));
  PYFOCUS_CHECK(p.width <= kMostBlend && p.coarse_width <= kMostBlend / 2 + 8,
                "%s: tiles must have %lld columns or fewer, got %lld", name, static_cast<long long>(kMostBlend),
                static_cast<long long>(p.width));
  PYFOCUS_CHECK(top >= 0 && left >= 0 && top + p.height <= 2 * p.coarse_height && left + p.width <= 2 * p.coarse_width,
                "%s: weights must lie under the whole tile, got %lld x %lld for %lld x %lld pixels from %lld, %lld",
                name, static_cast<long long>(p.coarse_height), static_cast<long long>(p.coarse_width),
                static_cast<long long>(p.height), static_cast<long long>(p.width), static_cast<long long>(top),
                static_cast<long long>(left));
  if (p.height == 0 || p.width == 0) return;
  p.weights = weights.as<const float>(), p.frames = count, p.table = table.as<const float>();
  p.plane_stride = codes[0].stride[0], p.row_stride = codes[0].stride[1];
  p.out = destination.as<float>(), p.out_plane_stride = destination.stride[0], p.out_row_stride = destination.stride[1];
  std::vector<const uint16_t*> used(static_cast<size_t>(count), nullptr);
  bool any = false;
  for (int64_t k = 0; k < count; ++k) {
    for (int axis = 0; axis < 2; ++axis)
      PYFOCUS_CHECK(codes[k].stride[axis] == codes[0].stride[axis], "%s: codes must all have the same strides", name);
    const int64_t area = p.coarse_height * p.coarse_width;
    const float most = largest(p.weights + k * area, area);
    if (most > least || !any) used[static_cast<size_t>(k)] = codes[k].as<const uint16_t>();
    any = any || most > 0;
  }
  p.codes = used.data();
  PYFOCUS_BEST(depth_blend_tile)(p);
}
#endif

}  // namespace pyfocus
