#include "stack/stack.h"

#include <cmath>

#include "stack/average_fuser.h"
#include "stack/wavelet_fuser.h"

namespace pyfocus {
namespace {

std::unique_ptr<Fuser> make_fuser(const StackOptions& options, Memory& memory, const Execution& on) {
  switch (options.fuser) {
    case FuserKind::Average:
      return std::make_unique<AverageFuser>(memory, on);
    case FuserKind::Wavelet:
      return std::make_unique<WaveletFuser>(memory, on, options.depth);
    default:
      return std::make_unique<PyramidFuser>(memory, on, options.depth);
  }
}

void check_pixels(const Frame& frame) {
  const Tensor& data = frame.data;
  check_on_cpu("push", "a frame", data);
  if (frame.is_mosaic()) {
    check_tensor("push", "a mosaic", data, Dtype::U16, 2);
  } else {
    PYFOCUS_CHECK(data.ndim == 3 && (data.shape[0] == 1 || data.shape[0] == 3),
                  "push: an image must have 1 or 3 channels");
    PYFOCUS_CHECK(data.dtype == Dtype::U8 || data.dtype == Dtype::U16 || data.dtype == Dtype::F32,
                  "push: an image must be uint8, uint16 or float32, got %s", dtype_name(data.dtype));
  }
  const Size size = frame.size();
  PYFOCUS_CHECK(size.height >= kSmallestPx && size.width >= kSmallestPx,
                "push: a frame must be at least %lld px a side, got %lld x %lld", static_cast<long long>(kSmallestPx),
                static_cast<long long>(size.width), static_cast<long long>(size.height));
}

}  // namespace

Stack::Stack(const StackOptions& options, Memory& memory, const Execution& on)
    : options_(options), memory_(memory), on_(on) {}

Step Stack::push(const Frame& frame, const Matrix* known, double place) {
  PYFOCUS_CHECK(!finished_, "push: the result was already taken; begin another stack");
  PYFOCUS_CHECK(!known || known->is_finite(), "push: transform must be finite");
  PYFOCUS_CHECK(std::isfinite(place), "push: place must be finite");
  check_pixels(frame);
  if (used_.empty())  // the first one, perhaps again
    begin(frame);
  else
    check(frame);
  Step step{{}, true, true, 1.0, 0, true};
  if (known)
    step.transform = *known;
  else if (options_.align)
    step = registrar_->push(luminance_of(frame, memory_, on_), on_);
  if (!step.registered) return step;
  double gains[kMaxPlanes] = {1, 1, 1, 1};
  if (options_.equalise) equaliser_->gain(frame, first_.facts, step.transform, gains, on_);
  const Warped warped = warper_->warp(frame, step.transform, size_, gains, on_);
  fuser_->push(warped.planes, &warped.valid, place);
  used_.push_back(step.transform);
  return step;
}

void Stack::begin(const Frame& frame) {
  const Size given = frame.size();
  first_ = frame;
  first_.data.data = nullptr;
  size_ = frame.is_mosaic() ? Size{given.height / 2 * 2, given.width / 2 * 2} : given;
  fuser_ = make_fuser(options_, memory_, on_);
  registrar_ = std::make_unique<Registrar>(options_.motion, memory_);
  equaliser_ = std::make_unique<Equaliser>(memory_);
  warper_ = std::make_unique<Warper>(options_.domain, options_.interpolation, first_.facts, memory_);
}

void Stack::check(const Frame& frame) const {
  const Size size = frame.size(), first = first_.size();
  PYFOCUS_CHECK(
      size == first && frame.facts.cfa == first_.facts.cfa && frame.data.dtype == first_.data.dtype &&
          frame.planes() == first_.planes(),
      "push: a frame is %lld x %lld px of %d channels, the first one %lld x %lld px of %d; all frames must be "
      "alike",
      static_cast<long long>(size.width), static_cast<long long>(size.height), frame.planes(),
      static_cast<long long>(first.width), static_cast<long long>(first.height), first_.planes());
}

Rect Stack::crop() const {
  const Rect whole{0, 0, size_.height, size_.width};
  if (!options_.crop || used_.size() < 2) return whole;
  const Rect seen = common_valid_rect(used_, size_);
  const Rect even{seen.top + seen.top % 2, seen.left + seen.left % 2, seen.bottom - seen.bottom % 2,
                  seen.right - seen.right % 2};  // so that a Bayer pattern keeps its phase
  PYFOCUS_CHECK(even.bottom - even.top >= kSmallestPx && even.right - even.left >= kSmallestPx,
                "finish: the frames share no part of the scene to crop to; do not crop, or leave out the frames that "
                "moved most");
  return even;
}

Buffer Stack::preview(int halvings) {
  PYFOCUS_CHECK(!used_.empty() && !finished_, "preview: no frame was pushed, or the result was already taken");
  PYFOCUS_CHECK(halvings >= 0 && halvings <= 16, "preview: halvings must be 0 to 16, got %d", halvings);
  return fuser_->preview(halvings);
}

Fused Stack::finish() {
  PYFOCUS_CHECK(!used_.empty() && !finished_, "finish: no frame was pushed, or the result was already taken");
  finished_ = true;  // also where there is no memory for it: the accumulators are then half given away
  warper_->forget();
  Fused fused = fuser_->finish();
  fuser_.reset();
  registrar_.reset();
  equaliser_.reset();
  return fused;
}

}  // namespace pyfocus
