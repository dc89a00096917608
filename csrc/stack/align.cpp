#include "stack/align.h"

#include <algorithm>
#include <cmath>

#include "luminance.h"
#include "pyramid.h"
#include "stack/fit.h"
#include "stack/phase.h"
#include "warp.h"

namespace pyfocus {
namespace {

constexpr double kFinestPx = 1.6e6;  // pixels of the finest level
constexpr int64_t kCoarsestPx = 40;  // shorter side of the coarsest level
constexpr int64_t kStartPx = 160;    // shorter side of the level at which starts are compared
constexpr double kScales[] = {0.91, 0.93, 0.95, 0.97, 0.985, 1.015, 1.03, 1.05, 1.07, 1.09};
constexpr size_t kFollowed = 3;                         // starts that are refined beyond the coarsest level
constexpr double kSure = 0.97;                          // a guess that correlates like this needs no phase correlation
constexpr double kCertain = 0.85;                       // a start that correlates like this needs no wider search
constexpr double kLowest = 0.40;                        // below this the pictures do not show the same,
constexpr double kLowestDetail = 0.25;                  // nor below this without their large shapes
constexpr int kDetailPasses = 8;                        // smoothings, 1 px each, whose result is "large shapes"
constexpr double kMostScale = 0.15, kMostShift = 0.30;  // between neighbours: of scale, and as a share of the width
constexpr float kLuma[3] = {0.25f, 0.65f, 0.10f};       // R, G, B

int64_t shorter(const Tensor& t) { return std::min(t.shape[0], t.shape[1]); }

// The level at which starts are compared.
size_t start_level(const std::vector<Buffer>& levels, size_t depth) {
  size_t start = depth - 1;
  while (start > 0 && shorter(levels[start]) < kStartPx) --start;
  return start;
}

bool is_flat(const Tensor& t) {
  const float* v = t.as<const float>();
  const auto [low, high] = std::minmax_element(v, v + t.count());
  return !(*high - *low > 1e-4f);
}

// `b` as seen through `map`, of the size (h, w), bilinear; with where it was seen.
void look(const Tensor& b, const Matrix& map, const Tensor& out, const Tensor* seen, const Execution& on) {
  Matrix copy = map;
  const Tensor planes = reshaped(b, {1, b.shape[0], b.shape[1]});
  warp(plane_source("register", planes, nullptr, 0, nullptr, nullptr, nullptr),
       view_of(copy.data(), Dtype::F64, {1, 3, 3}), reshaped(out, {1, out.shape[0], out.shape[1]}), seen,
       Interpolation::Bilinear, false, false, false, on);
}

// What is left of a level without its large shapes.
Buffer detail_of(const Tensor& level, Memory& memory, const Execution& on) {
  Buffer low(memory, Dtype::F32, {level.shape[0], level.shape[1]}),
      other(memory, Dtype::F32, {level.shape[0], level.shape[1]});
  for (int pass = 0; pass < kDetailPasses; ++pass) {
    pyramid_smooth(pass == 0 ? level : low.view(), other, on);
    low.swap(other);
  }
  float* v = low.as<float>();
  for (int64_t i = 0; i < level.count(); ++i) v[i] = level.as<const float>()[i] - v[i];
  return low;
}

// Correlation of both without their large shapes: a bright sky fits any other bright sky.
double detail_correlation(const Tensor& a, const Tensor& b, const Matrix& matrix, Memory& memory, const Execution& on) {
  const Buffer ours = detail_of(a, memory, on), theirs = detail_of(b, memory, on);
  Buffer moved(memory, Dtype::F32, {a.shape[0], a.shape[1]}), seen(memory, Dtype::U8, {a.shape[0], a.shape[1]});
  const Tensor& mask = seen;
  look(theirs, matrix, moved, &mask, on);
  double both = 0, first = 0, second = 0, count = 0;
  for (int64_t i = 0; i < a.count(); ++i) {
    if (!seen.as<uint8_t>()[i]) continue;
    const auto x = static_cast<double>(ours.as<float>()[i]), y = static_cast<double>(moved.as<float>()[i]);
    both += x * y;
    first += x * x;
    second += y * y;
    ++count;
  }
  const double norm = std::sqrt(first * second);
  return norm > 1e-9 * count ? both / norm : 0;
}

// Scale about the centre of a picture.
Matrix zoom(const Tensor& picture, double scale) {
  const double cx = static_cast<double>(picture.shape[1] - 1) / 2, cy = static_cast<double>(picture.shape[0] - 1) / 2;
  return scaled(scale, cx - scale * cx, cy - scale * cy);
}

bool is_plausible(const Matrix& matrix, Size size) {
  if (!matrix.is_finite()) return false;
  const double scale = std::sqrt(std::abs(matrix(0, 0) * matrix(1, 1) - matrix(0, 1) * matrix(1, 0)));
  const Point middle{static_cast<double>(size.width - 1) / 2, static_cast<double>(size.height - 1) / 2};
  const Point moved = apply(matrix, middle);
  const double shift = std::max(std::abs(moved.x - middle.x), std::abs(moved.y - middle.y));
  return std::abs(scale - 1) < kMostScale &&
         shift < kMostShift * static_cast<double>(std::max(size.height, size.width));
}

// What a search has at hand.
struct Search {
  const Luma &fixed, &moving;
  size_t start, depth;
  Motion first;
  Memory& memory;
  const Execution& on;

  const Tensor& a(size_t level) const { return fixed.levels[level]; }
  const Tensor& b(size_t level) const { return moving.levels[level]; }
};

// Refine every guess (at level `start`) on a coarser level, the few best of them on `start`; the best wins.
Fit best_start(const Search& s, const std::vector<Matrix>& guesses) {
  const size_t coarse = std::min(s.start + 1, s.depth - 1);
  const int up = static_cast<int>(coarse - s.start);
  std::vector<Fit> tried;
  for (const Matrix& guess : guesses) {
    std::optional<Fit> fit =
        maximise(s.a(coarse), s.b(coarse), at_level(guess, up), s.first, nullptr, 25, s.memory, s.on);
    if (!fit) continue;
    fit->matrix = at_level(fit->matrix, -up);
    tried.push_back(*fit);
  }
  std::stable_sort(tried.begin(), tried.end(),
                   [](const Fit& x, const Fit& y) { return x.correlation > y.correlation; });
  if (tried.size() > kFollowed) tried.resize(kFollowed);
  Fit best{{}, -1.0, 0, false};
  for (const Fit& rough : tried) {
    std::optional<Fit> fit = maximise(s.a(s.start), s.b(s.start), rough.matrix, s.first, nullptr, 25, s.memory, s.on);
    if (!fit || fit->correlation <= best.correlation) continue;
    best = *fit;
    best.iterations += rough.iterations;
  }
  return best;
}

// The start: from the guesses, and where they do not do, from wider and wider searches.
Fit find_start(const Search& s, const std::vector<Matrix>& guesses) {
  const Tensor &a = s.a(s.start), &b = s.b(s.start);
  Fit found = best_start(s, guesses);
  const auto try_also = [&](const std::vector<Matrix>& more) {
    const Fit other = best_start(s, more);
    if (other.correlation > found.correlation) found = other;
  };
  if (found.correlation < kSure) try_also({phase_shift(a, b, s.memory)});
  if (found.correlation < kCertain && s.first != Motion::Translation) {
    std::vector<Matrix> wider;
    Buffer resized(s.memory, Dtype::F32, {b.shape[0], b.shape[1]});
    for (const double scale : kScales) {
      look(b, zoom(b, scale), resized, nullptr, s.on);
      wider.push_back(zoom(a, scale) * phase_shift(a, resized, s.memory));
    }
    try_also(wider);
  }
  return found;
}

// The fit of level `start` followed to the finest; by the first motion, on the two finest by the second.
Pair refine(const Search& s, const Fit& found, Motion second) {
  Fit at = {found.matrix, found.correlation, found.iterations, false};
  size_t level = s.start;
  bool reached = true;
  for (;; --level) {
    const Motion model = level <= 1 ? second : s.first;
    Fit step{at.matrix, at.correlation, 0, false};
    if (level > 0 || s.start == 0) {
      const std::optional<Fit> fit = maximise(s.a(level), s.b(level), at.matrix, model, nullptr, 40, s.memory, s.on);
      if (!fit) {
        reached = false;
        break;
      }
      step = *fit;
    }
    if (level <= 1 && step.correlation >= kLowest)
      step = trimmed(s.fixed, s.moving, level, step, model, s.memory, s.on);
    at = {step.matrix, step.correlation, at.iterations + step.iterations, step.converged};
    if (level == 0) break;
    at.matrix = at_level(at.matrix, -1);
  }
  const Matrix matrix = reached ? at_pitch(at.matrix, 1 / static_cast<double>(s.fixed.factor)) : Matrix{};
  const bool good = reached && at.correlation >= kLowest && is_plausible(matrix, s.fixed.size);
  return {matrix, at.correlation, at.iterations, at.converged, good};
}

}  // namespace

Luma luminance_of(const Frame& frame, Memory& memory, const Execution& on) {
  const Size size = frame.plane_size();
  auto factor = static_cast<int64_t>(
      std::ceil(std::sqrt(static_cast<double>(size.height) * static_cast<double>(size.width) / kFinestPx)));
  factor = std::max<int64_t>(1, factor);
  factor = std::min({factor, std::max<int64_t>(1, std::min(size.height, size.width) / 16), int64_t{64}});
  float weight[4] = {1, 0, 0, 0};
  if (frame.planes() == 3) std::copy(kLuma, kLuma + 3, weight);
  if (frame.planes() == 4) {
    weight[0] = kLuma[0], weight[3] = kLuma[2];
    weight[1] = weight[2] = static_cast<float>(0.65 / 2);
  }
  Buffer decoded, first(memory, Dtype::F32, {size.height / factor, size.width / factor});
  luminance(source_of(frame, frame.facts, nullptr, &memory, &decoded), weight, factor, factor >= 3 ? 2 : 1, true, first,
            on);
  Luma luma;
  luma.factor = factor * frame.step();
  luma.size = frame.size();
  Buffer level(memory, Dtype::F32, {first.shape(0), first.shape(1)});
  pyramid_smooth(first, level, on);  // twice: bilinear samples then keep their contrast everywhere,
  pyramid_smooth(level, first, on);  // and a slightly sharper neighbour looks more alike
  luma.levels.push_back(std::move(first));
  while (shorter(luma.levels.back()) >= 2 * kCoarsestPx) {
    const Tensor& finer = luma.levels.back();
    Buffer smaller(memory, Dtype::F32, {(finer.shape[0] + 1) / 2, (finer.shape[1] + 1) / 2});
    pyramid_down(reshaped(finer, {1, finer.shape[0], finer.shape[1]}),
                 reshaped(smaller, {1, smaller.shape(0), smaller.shape(1)}), nullptr, on);
    luma.levels.push_back(std::move(smaller));
  }
  return luma;
}

Pair align_pair(const Luma& fixed, const Luma& moving, Motion motion, const Matrix* predicted, Memory& memory,
                const Execution& on) {
  const size_t depth = std::min(fixed.levels.size(), moving.levels.size());
  const size_t start = start_level(fixed.levels, depth);
  const Motion first = motion == Motion::Translation ? motion : Motion::Similarity;
  const Search search{fixed, moving, start, depth, first, memory, on};
  const Tensor &a = search.a(start), &b = search.b(start);
  if (std::min(shorter(a), shorter(b)) < 2 || is_flat(a) || is_flat(b)) return {};
  std::vector<Matrix> guesses(1);
  if (predicted)
    guesses.push_back(without_perspective(
        at_pitch(*predicted, static_cast<double>(fixed.factor) * std::ldexp(1.0, static_cast<int>(start)))));
  const Fit found = find_start(search, guesses);
  if (!(detail_correlation(a, b, found.matrix, memory, on) >= kLowestDetail))
    return {{}, std::max(found.correlation, 0.0), found.iterations, false, false};
  return refine(search, found, motion);
}

}  // namespace pyfocus
