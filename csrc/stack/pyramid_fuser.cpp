#include "stack/pyramid_fuser.h"

#include <algorithm>
#include <cmath>

#include "pyramid.h"

namespace pyfocus {
namespace {

// Variance of a level's detail for white noise of variance 1 in the frame, levels 0, 1, 2, ...
constexpr double kWhiteNoise[] = {0.8, 0.055, 0.0104, 0.0025, 0.0006, 0.00016, 4e-5, 1e-5};
constexpr float kCoarser = 0.1f;               // share of the next coarser level's energy in a rating
constexpr float kUnsure = 0.1f, kSure = 0.5f;  // 1 - mean / largest rating: where the depth is a guess, and where not

Tensor as_planes(const Tensor& t) { return t.ndim == 3 ? t : reshaped(t, {1, t.shape[0], t.shape[1]}); }

bool is_all(const Tensor& mask) {
  const uint8_t* v = mask.as<const uint8_t>();
  return std::find(v, v + mask.count(), uint8_t{0}) == v + mask.count();
}

}  // namespace

void PyramidFuser::push(const Tensor& planes, const Tensor* valid, double place) {
  const bool first = levels_.empty();
  try {  // whatever needs memory comes before what changes an accumulator
    if (first) begin(planes);
    if (valid && is_all(*valid)) valid = nullptr;
    measure(planes, valid);
  } catch (...) {
    if (first) levels_.clear();
    throw;
  }
  const NoiseLine noise = noise_floor(valid != nullptr);
  pool();
  fold(planes, valid != nullptr, noise);
  const Level& last = levels_.back();
  pyramid_base(last.coarse, last.rating, base_, base_weight_, on_);
  if (!want_depth_) return;
  const Level& level = levels_[depth_level_];
  pyramid_depth(level.rating, level.peak, level.before, static_cast<float>(place), index_, index_weight_, total_, seen_,
                on_);
}

void PyramidFuser::begin(const Tensor& planes) {
  planes_ = planes.shape[0];
  int64_t height = planes.shape[1], width = planes.shape[2];
  const auto side = static_cast<double>(std::max<int64_t>(std::min(height, width), 16));
  const int count = wanted_ > 0 ? wanted_ : std::max(1, static_cast<int>(std::log2(side / 8)));
  for (int i = 0; i < count; ++i) {
    levels_.push_back(make_level(planes_, height, width, i == 0 ? 4 : 8));
    height = (height + 1) / 2;
    width = (width + 1) / 2;
  }
  base_ = Buffer::zeros(memory_, Dtype::F32, {parts() * planes_, height, width});
  base_weight_ = Buffer::zeros(memory_, Dtype::F32, {height, width});
  noise_.reset();
  depth_level_ = std::min<size_t>(1, levels_.size() - 1);
  if (!want_depth_) return;
  const Level& level = levels_[depth_level_];
  for (Buffer* map : {&index_, &index_weight_, &total_})
    *map = Buffer::zeros(memory_, Dtype::F32, {level.low_height, level.low_width});
  seen_ = Buffer::zeros(memory_, Dtype::I32, {level.low_height, level.low_width});
}

PyramidFuser::Level PyramidFuser::grid_level(int64_t values, int64_t height, int64_t width, int power) {
  Level level;
  level.height = height, level.width = width, level.power = power;
  level.low_height = (height + 1) / 2, level.low_width = (width + 1) / 2;
  level.peak = Buffer::zeros(memory_, Dtype::F32, {level.low_height, level.low_width});
  for (Buffer* scratch : {&level.before, &level.energy, &level.rating})
    *scratch = Buffer(memory_, Dtype::F32, {level.low_height, level.low_width});
  level.coarse = Buffer(memory_, Dtype::F32, {values, level.low_height, level.low_width});
  return level;
}

PyramidFuser::Level PyramidFuser::make_level(int64_t planes, int64_t height, int64_t width, int power) {
  Level level = grid_level(planes, height, width, power);
  level.sums = Buffer::zeros(memory_, Dtype::F32, {planes, height, width});
  level.weight = Buffer::zeros(memory_, Dtype::F32, {height, width});
  return level;
}

void PyramidFuser::measure(const Tensor& planes, const Tensor* valid) {
  Tensor fine = planes, seen;
  if (valid) seen = *valid;
  for (Level& level : levels_) {
    pyramid_measure(fine, level.coarse, level.rating, on_);
    pyramid_smooth(level.rating, level.energy, on_);
    fine = level.coarse;
    if (!valid) continue;
    if (!level.seen) level.seen = Buffer(memory_, Dtype::U8, {level.low_height, level.low_width});
    pyramid_valid(seen, level.seen, on_);
    seen = level.seen;
  }
}

// Energies with those of finer levels (into `rating`) and of coarser ones (into `energy`). Level 0 has no finer level,
// and its energy with that of coarser ones is nobody's: fold adds it to the rating.
void PyramidFuser::pool() {
  for (size_t i = 1; i < levels_.size(); ++i) {
    const Tensor energy = as_planes(levels_[i].energy);
    pyramid_down(as_planes(i == 1 ? levels_[0].energy : levels_[i - 1].rating), as_planes(levels_[i].rating), &energy,
                 on_);
  }
  for (size_t i = levels_.size(); i-- > 2;) {
    const Tensor finer = as_planes(levels_[i - 1].energy);
    pyramid_up(as_planes(levels_[i].energy), finer, kCoarser, &finer, on_);
  }
}

void PyramidFuser::fold(const Tensor& planes, bool masked, const NoiseLine& noise) {
  Tensor fine = planes, pooled = levels_[0].energy;
  for (size_t i = 0; i < levels_.size(); ++i) {
    Level& level = levels_[i];
    const double white = i < std::size(kWhiteNoise) ? kWhiteNoise[i] : std::pow(4.0, -static_cast<double>(i));
    const double share = kNoiseFloor * white / kWhiteNoise[0];
    const Tensor* coarser = i + 1 < levels_.size() ? &levels_[i + 1].energy.view() : nullptr;
    level.before.swap(level.peak);
    pyramid_rate(pooled, level.coarse, masked ? &level.seen.view() : nullptr, static_cast<float>(share * noise.slope),
                 static_cast<float>(share * noise.floor + kNoiseFloor * kSmallestNoise), level.before, level.rating,
                 level.peak, coarser, kCoarser, on_);
    pyramid_fold(fine, level.coarse, level.rating, level.before, level.peak, level.power, level.sums, level.weight,
                 on_);
    fine = level.coarse;
    if (coarser) pooled = levels_[i + 1].rating;
  }
}

// The calmest frame's noise so far: texture only adds to what is taken for noise.
NoiseLine PyramidFuser::noise_floor(bool masked) {
  const Level& level = levels_[0];
  const Tensor bright = light(level);
  const NoiseLine found = noise_of(level.energy, bright, light_share(), masked ? &level.seen.view() : nullptr,
                                   noise_step(level.low_height, level.low_width));
  if (found.slope == 0 && found.floor == 0) return noise_.value_or(NoiseLine{});  // black or clipped: tells nothing
  const double middle = std::max(0.0, middle_of(bright, light_share(), 8));
  if (!noise_ || found.slope * middle + found.floor < noise_->slope * middle + noise_->floor) noise_ = found;
  return *noise_;
}

Buffer PyramidFuser::preview(int halvings) {
  PYFOCUS_CHECK(!levels_.empty(), "preview: no frames were pushed");
  const int stop = std::min(halvings, static_cast<int>(levels_.size()) - 1);
  return halved(collapse(static_cast<size_t>(stop), false), halvings - stop, memory_, on_);
}

Fused PyramidFuser::finish() {
  PYFOCUS_CHECK(!levels_.empty(), "finish: no frames were pushed");
  Fused fused;
  if (want_depth_) find_depth(&fused.depth, &fused.confidence);
  fused.image = collapse(0, true);
  levels_.clear();
  for (Buffer* map : {&base_, &base_weight_, &index_, &index_weight_, &total_, &seen_}) *map = {};
  return fused;
}

void PyramidFuser::find_depth(Buffer* depth, Buffer* confidence) {
  const Level& level = levels_[depth_level_];
  const int64_t count = level.low_height * level.low_width;
  Buffer place(memory_, Dtype::F32, {level.low_height, level.low_width});
  Buffer sure(memory_, Dtype::F32, {level.low_height, level.low_width});
  for (int64_t i = 0; i < count; ++i) {
    const float peak = level.peak.as<float>()[i];
    place.as<float>()[i] = index_.as<float>()[i] / std::max(index_weight_.as<float>()[i], 1e-30f);
    const double mean = static_cast<double>(total_.as<float>()[i]) / std::max(seen_.as<int32_t>()[i], 1);
    const double margin = peak > 0 ? 1 - mean / std::max(static_cast<double>(peak), 1e-30) : 0;
    const double t =
        std::clamp((margin - static_cast<double>(kUnsure)) / static_cast<double>(kSure - kUnsure), 0.0, 1.0);
    sure.as<float>()[i] = static_cast<float>(t * t * (3 - 2 * t));
  }
  for (size_t i = depth_level_ + 1; i-- > 0;)
    for (Buffer* map : {&place, &sure}) {
      Buffer larger(memory_, Dtype::F32, {levels_[i].height, levels_[i].width});
      enlarge(*map, larger);
      map->swap(larger);
    }
  for (int64_t i = 0; i < sure.view().count(); ++i) sure.as<float>()[i] = std::clamp(sure.as<float>()[i], 0.0f, 1.0f);
  *depth = std::move(place);
  *confidence = std::move(sure);
}

void PyramidFuser::enlarge(const Tensor& source, const Tensor& destination) const {
  pyramid_up(as_planes(source), as_planes(destination), 1.0f, nullptr, on_);
}

// Level by level, coarsest first, each where the last frame's Gaussian level was; the last one goes where its own
// numerator is, or to an array of its own.
Buffer PyramidFuser::collapse(size_t stop, bool in_place) {
  Buffer picture;
  if (!in_place) picture = Buffer(memory_, Dtype::F32, {planes_, levels_[stop].height, levels_[stop].width});
  pyramid_mean(base_, base_weight_, levels_.back().coarse, on_);
  for (size_t i = levels_.size(); i-- > stop;) {
    const Level& level = levels_[i];
    const Tensor& to = i > stop ? levels_[i - 1].coarse.view() : in_place ? level.sums.view() : picture.view();
    pyramid_collapse(level.sums, level.weight, level.coarse, to, on_);
  }
  return in_place ? std::move(levels_[0].sums) : std::move(picture);
}

}  // namespace pyfocus
