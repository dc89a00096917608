#include "stack/equaliser.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "luminance.h"
#include "warp.h"

namespace pyfocus {
namespace {

constexpr int64_t kThumbPx = 256;
constexpr float kDark = 0.002f, kBright = 0.9f;  // linear light that is neither noise nor clipped
constexpr int64_t kSpill = 5;   // small pixels: as far from clipped light, what was cut off reaches when it is blurred
constexpr int64_t kBlock = 16;  // small pixels, a side: wide enough that defocus moves little light across its border
constexpr int64_t kFewest = 100;             // small pixels that both frames must have in common
constexpr double kStrange = 6;               // deviations from which a block counts nothing,
constexpr int kRounds = 10;                  // and how often that is judged anew
constexpr double kSteady = 5e-4, kMost = 2;  // blocks are not asked to agree better; more is another scene

using Values = std::vector<double>;

// The largest of 8, 6, 4, 3, 2, 1 that divides the block, leaving it 2 pixels or more.
int64_t stride_of(int64_t factor) {
  for (const int64_t s : {8, 6, 4, 3, 2})
    if (factor % s == 0 && factor / s >= 2) return s;
  return 1;
}

// Every skip-th pixel of the first (rows, columns), from the middle of its block.
PlaneSource thinned(PlaneSource source, int64_t skip, int64_t rows, int64_t columns) {
  const int64_t size = dtype_size(source.dtype), first = skip / 2;
  for (int p = 0; p < source.planes; ++p)
    source.plane[p] =
        static_cast<const char*>(source.plane[p]) + size * first * (source.row_stride + source.column_stride);
  source.row_stride *= skip;
  source.column_stride *= skip;
  source.height = (rows - first + skip - 1) / skip;
  source.width = (columns - first + skip - 1) / skip;
  return source;
}

// Whether any of (h, w) within kSpill of a place is set: a square's sides one after the other.
void spread(std::vector<uint8_t>& seen, int64_t h, int64_t w) {
  std::vector<uint8_t> across(seen.size());
  for (int64_t y = 0; y < h; ++y)
    for (int64_t x = 0; x < w; ++x)
      for (int64_t i = std::max<int64_t>(0, x - kSpill); i <= std::min(w - 1, x + kSpill); ++i)
        across[static_cast<size_t>(y * w + x)] |= seen[static_cast<size_t>(y * w + i)];
  std::fill(seen.begin(), seen.end(), uint8_t{0});
  for (int64_t y = 0; y < h; ++y)
    for (int64_t i = std::max<int64_t>(0, y - kSpill); i <= std::min(h - 1, y + kSpill); ++i)
      for (int64_t x = 0; x < w; ++x) seen[static_cast<size_t>(y * w + x)] |= across[static_cast<size_t>(i * w + x)];
}

// Where both frames see the same and no plane of either has lost light nearby.
std::vector<uint8_t> usable(const Tensor& reference, const Tensor& moved, const Tensor& valid) {
  const int64_t h = valid.shape[0], w = valid.shape[1], area = h * w;
  std::vector<uint8_t> lost(static_cast<size_t>(area), 0);
  for (const Tensor* frame : {&reference, &moved})
    for (int64_t i = 0; i < frame->count(); ++i)
      if (frame->as<const float>()[i] > kBright) lost[static_cast<size_t>(i % area)] = 1;
  if (std::find(lost.begin(), lost.end(), uint8_t{1}) != lost.end()) spread(lost, h, w);
  for (int64_t i = 0; i < area; ++i)
    lost[static_cast<size_t>(i)] = !lost[static_cast<size_t>(i)] && valid.as<const uint8_t>()[i];
  return lost;
}

// The value that half of the weight lies below.
double median_of(const Values& values, const Values& weights) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
  Values sums(values.size());
  double sum = 0;
  for (size_t i = 0; i < order.size(); ++i) sums[i] = sum += weights[order[i]];
  const auto at = std::lower_bound(sums.begin(), sums.end(), sum / 2) - sums.begin();
  return values[order[static_cast<size_t>(at)]];
}

struct Blocks {
  Values ours, theirs;
};

// Sums of the light over blocks that are seen and lit enough.
Blocks blocks_of(const float* reference, const float* moved, const std::vector<uint8_t>& use, int64_t h, int64_t w) {
  const int64_t side = std::max<int64_t>(1, std::min(kBlock, std::min(h, w) / 8));
  Blocks blocks;
  for (int64_t top = 0; top < h; top += side)
    for (int64_t left = 0; left < w; left += side) {
      double area = 0, ours = 0, theirs = 0;
      for (int64_t y = top; y < std::min(h, top + side); ++y)
        for (int64_t x = left; x < std::min(w, left + side); ++x) {
          if (!use[static_cast<size_t>(y * w + x)]) continue;
          area += 1;
          ours += static_cast<double>(reference[y * w + x]);
          theirs += static_cast<double>(moved[y * w + x]);
        }
      if (area > static_cast<double>(side * side) / 4 && ours > static_cast<double>(kDark) * area &&
          theirs > static_cast<double>(kDark) * area) {
        blocks.ours.push_back(ours);
        blocks.theirs.push_back(theirs);
      }
    }
  return blocks;
}

// Light of the reference over the frame's, in what most blocks agree on (Tukey's biweight of their logarithms).
double ratio_of(const Blocks& blocks) {
  const size_t count = blocks.ours.size();
  if (count == 0) return 1;
  Values logs(count), weights(count), off(count);
  for (size_t i = 0; i < count; ++i) {
    logs[i] = std::log(blocks.ours[i] / blocks.theirs[i]);
    weights[i] = std::min(blocks.ours[i], blocks.theirs[i]);
  }
  double middle = median_of(logs, weights);
  for (int round = 0; round < kRounds; ++round) {
    for (size_t i = 0; i < count; ++i) off[i] = std::abs(logs[i] - middle);
    const double deviation = kStrange * std::max(1.48 * median_of(off, weights), kSteady);
    double ours = 0, theirs = 0;
    for (size_t i = 0; i < count; ++i) {
      const double z = off[i] / deviation, share = std::clamp(1 - z * z, 0.0, 1.0);
      ours += share * share * blocks.ours[i];
      theirs += share * share * blocks.theirs[i];
    }
    middle = std::log(ours / theirs);
  }
  const double ratio = std::exp(middle);
  return ratio > 1 / kMost && ratio < kMost ? ratio : 1;
}

}  // namespace

Thumb thumb_of(const Frame& frame, const Facts& levels, Memory& memory, const Execution& on) {
  const Size size = frame.plane_size();
  const int64_t factor =
      std::min<int64_t>(64, std::max<int64_t>(1, (std::max(size.height, size.width) + kThumbPx - 1) / kThumbPx));
  const int64_t h = size.height / factor, w = size.width / factor;
  Thumb thumb{Buffer(memory, Dtype::F32, {frame.planes(), h, w}), factor * frame.step()};
  Buffer decoded;
  PlaneSource source = source_of(frame, levels, nullptr, &memory, &decoded);
  const int64_t skip = frame.is_mosaic() ? 1 : stride_of(factor);
  if (skip > 1) source = thinned(source, skip, h * factor, w * factor);
  for (int p = 0; p < frame.planes(); ++p) {
    float weight[kMaxPlanes] = {};
    weight[p] = 1;
    luminance(source, weight, factor / skip, 1, false, plane_of(thumb.planes, p), on);
  }
  return thumb;
}

void gain_between(const Tensor& reference, const Tensor& moved, const Tensor& valid, double* gains) {
  const std::vector<uint8_t> use = usable(reference, moved, valid);
  const int64_t h = valid.shape[0], w = valid.shape[1];
  const bool enough = std::accumulate(use.begin(), use.end(), int64_t{0}) >= kFewest;
  for (int64_t p = 0; p < reference.shape[0]; ++p)
    gains[p] = enough ? ratio_of(blocks_of(plane_of(reference, p).as<const float>(),
                                           plane_of(moved, p).as<const float>(), use, h, w))
                      : 1.0;
}

void Equaliser::gain(const Frame& frame, const Facts& levels, const Matrix& map, double* gains, const Execution& on) {
  const Thumb thumb = thumb_of(frame, levels, memory_, on);
  const Tensor& planes = thumb.planes;
  const int64_t count = planes.shape[0], h = planes.shape[1], w = planes.shape[2];
  Buffer moved(memory_, Dtype::F32, {count, h, w}), valid(memory_, Dtype::U8, {h, w});
  double maps[kMaxPlanes * 9];
  const Matrix small = at_pitch(map, static_cast<double>(thumb.pitch));
  for (int64_t p = 0; p < count; ++p) std::copy(small.m.begin(), small.m.end(), maps + 9 * p);
  const Tensor& seen = valid;
  warp(plane_source("equalise", planes, nullptr, 0, nullptr, nullptr, nullptr),
       view_of(maps, Dtype::F64, {count, 3, 3}), moved, &seen, Interpolation::Bilinear, false, false, false, on);
  for (int p = 0; p < kMaxPlanes; ++p) gains[p] = 1;
  if (!reference_ || reference_.view().count() != moved.view().count()) {
    reference_ = std::move(moved);
    return;
  }
  gain_between(reference_, moved, valid, gains);
}

}  // namespace pyfocus
