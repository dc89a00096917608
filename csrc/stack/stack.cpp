#include "stack/stack.h"

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

}  // namespace

Stack::Stack(const StackOptions& options, Memory& memory, const Execution& on, std::unique_ptr<Fuser> fuser)
    : options_(options),
      memory_(memory),
      on_(on),
      fuser_(fuser ? std::move(fuser) : make_fuser(options, memory, on)),
      registrar_(options.motion, memory),
      equaliser_(memory) {}

Step Stack::push(const Frame& frame, const Matrix* known, double place) {
  if (!begun_)
    begin(frame);
  else
    check(frame);
  Step step{{}, true, true, 1.0, 0, true};
  if (known)
    step.transform = *known;
  else if (options_.align)
    step = registrar_.push(luminance_of(frame, memory_, on_), on_);
  if (!step.registered) return step;
  double gains[kMaxPlanes] = {1, 1, 1, 1};
  if (options_.equalise) equaliser_.gain(frame, facts_, step.transform, gains, on_);
  const Warped warped = warper_->warp(frame, step.transform, size_, gains, on_);
  fuser_->push(warped.planes, &warped.valid, place);
  used_.push_back(step.transform);
  return step;
}

void Stack::begin(const Frame& frame) {
  given_ = frame.size();
  facts_ = frame.facts;
  like_ = frame.data;
  step_ = frame.is_mosaic() && options_.domain == Domain::Raw ? 2 : 1;
  planes_ = frame.is_mosaic() && options_.domain == Domain::Rgb ? 3 : frame.planes();
  size_ = frame.is_mosaic() ? Size{given_.height / 2 * 2, given_.width / 2 * 2} : given_;
  warper_ = std::make_unique<Warper>(options_.domain, options_.interpolation, facts_, memory_);
  begun_ = true;
}

void Stack::check(const Frame& frame) const {
  const Size size = frame.size();
  PYFOCUS_CHECK(size == given_ && frame.is_mosaic() == (facts_.cfa != Cfa::None) && frame.data.dtype == like_.dtype &&
                    (frame.is_mosaic() || frame.data.shape[0] == like_.shape[0]),
                "push: a frame is %lld x %lld px, the first one %lld x %lld px; all frames must be alike",
                static_cast<long long>(size.width), static_cast<long long>(size.height),
                static_cast<long long>(given_.width), static_cast<long long>(given_.height));
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

Fused Stack::finish() {
  PYFOCUS_CHECK(!used_.empty(), "finish: no frame was pushed, or none could be used");
  warper_->forget();
  return fuser_->finish();
}

}  // namespace pyfocus
