#include "stack/wavelet_fuser.h"

#include <cmath>

#include "pyramid.h"
#include "wavelet.h"

namespace pyfocus {
namespace {

// Of the rating's energies, per coefficient; one of the next coarser level is 4 times as large for the same contrast.
constexpr float kFiner = 8, kCoarser = 0.025f;

}  // namespace

PyramidFuser::Level WaveletFuser::make_level(int64_t planes, int64_t height, int64_t width, int power) {
  Level level = grid_level(2 * planes, height, width, power);
  level.sums = Buffer::zeros(memory_, Dtype::F32, {3, 2 * planes, level.low_height, level.low_width});
  level.weight = Buffer::zeros(memory_, Dtype::F32, {level.low_height, level.low_width});
  return level;
}

void WaveletFuser::measure(const Tensor& planes, const Tensor* valid) {
  Tensor fine = planes, seen;
  if (valid) seen = *valid;
  for (Level& level : levels_) {
    wavelet_measure(fine, level.coarse, level.rating, on_);
    pyramid_smooth(level.rating, level.energy, on_);
    fine = level.coarse;
    if (!valid) continue;
    if (!level.seen) level.seen = Buffer(memory_, Dtype::U8, {level.low_height, level.low_width});
    wavelet_valid(seen, level.seen, on_);
    seen = level.seen;
  }
}

void WaveletFuser::pool() {
  for (size_t i = 1; i < levels_.size(); ++i)
    wavelet_pool(i == 1 ? levels_[0].energy : levels_[i - 1].rating, levels_[i].rating, kFiner,
                 &levels_[i].energy.view(), on_);
  for (size_t i = levels_.size(); i-- > 2;)
    wavelet_spread(levels_[i].energy, levels_[i - 1].energy, kCoarser, &levels_[i - 1].energy.view(), on_);
}

// The filters are orthonormal: white noise has the same variance in the bands of all levels.
void WaveletFuser::fold(const Tensor& planes, bool masked, const NoiseLine& noise) {
  Tensor fine = planes, pooled = levels_[0].energy;
  for (size_t i = 0; i < levels_.size(); ++i) {
    Level& level = levels_[i];
    const bool has_coarser = i + 1 < levels_.size();
    if (has_coarser) wavelet_spread(levels_[i + 1].energy, pooled, kCoarser, &pooled, on_);
    level.before.swap(level.peak);
    const double slope = kNoiseFloor * noise.slope * std::pow(0.5, static_cast<double>(i + 1));
    pyramid_rate(pooled, light(level), masked ? &level.seen.view() : nullptr, static_cast<float>(slope),
                 static_cast<float>(kNoiseFloor * (noise.floor + kSmallestNoise)), level.before, level.rating,
                 level.peak, nullptr, 0, on_);
    wavelet_fold(fine, level.rating, level.before, level.peak, level.power, level.sums, level.weight, on_);
    fine = level.coarse;
    if (has_coarser) pooled = levels_[i + 1].rating;
  }
}

// A level's samples lie half a pixel aside of those of the level above it.
void WaveletFuser::enlarge(const Tensor& source, const Tensor& destination) const {
  wavelet_spread(source, destination, 1.0f, nullptr, on_);
}

// Level by level, coarsest first, each where the last frame's level was; the last one has no such place. Above the
// finest a level is complex, and its real part is 2^stop times the light.
Buffer WaveletFuser::collapse(size_t stop, bool in_place) {
  pyramid_mean(base_, base_weight_, levels_.back().coarse, on_);
  if (in_place)
    for (Level& level : levels_)
      for (Buffer* scratch : {&level.before, &level.energy, &level.rating, &level.peak}) *scratch = {};
  Buffer picture;
  for (size_t i = levels_.size(); i-- > stop;) {
    Level& level = levels_[i];
    if (i == stop) picture = Buffer(memory_, Dtype::F32, {stop > 0 ? 2 * planes_ : planes_, level.height, level.width});
    wavelet_merge(level.coarse, level.sums, level.weight, i > stop ? levels_[i - 1].coarse : picture, on_);
    if (!in_place) continue;
    level.sums = {};
    level.coarse = {};
  }
  if (stop == 0) return picture;
  Buffer light(memory_, Dtype::F32, {planes_, picture.shape(1), picture.shape(2)});
  const float share = std::ldexp(1.0f, -static_cast<int>(stop));
  for (int64_t i = 0; i < light.view().count(); ++i) light.as<float>()[i] = picture.as<float>()[i] * share;
  return light;
}

}  // namespace pyfocus
