// The pipeline: frames as they arrive are placed, equalised, warped once and fused. What the C library and the Python
// package run on the host.
#pragma once

#include <memory>
#include <vector>

#include "stack/equaliser.h"
#include "stack/fuser.h"
#include "stack/registrar.h"
#include "stack/warper.h"

namespace pyfocus {

enum class FuserKind : uint8_t { Average, Laplacian, Wavelet };

struct StackOptions {
  FuserKind fuser = FuserKind::Laplacian;
  Domain domain = Domain::Rgb;
  Motion motion = Motion::Similarity;
  Interpolation interpolation = Interpolation::Lanczos3;
  bool align = true, equalise = true, crop = true, depth = true;
};

class Stack {
 public:
  // `fuser`: one of the caller's instead of what the options name. `memory` must outlive the stack.
  Stack(const StackOptions& options, Memory& memory, const Execution& on, std::unique_ptr<Fuser> fuser = nullptr);

  // Fold a frame in; the result's `registered` is false when it could not be registered and was left out. The first
  // frame is the reference. `known`: the map from reference to frame pixels, or null to find it. `place` in focus
  // order.
  Step push(const Frame& frame, const Matrix* known, double place);

  int64_t frames() const { return static_cast<int64_t>(used_.size()); }  // folded
  Size size() const { return size_; }                                    // that the reference is worked on with
  const Facts& facts() const { return facts_; }
  int planes() const { return planes_; }  // of the result
  int64_t step() const { return step_; }  // reference pixels per pixel of the result

  // What finish will keep of the reference: all of it, or what every frame saw.
  Rect crop() const;

  Buffer preview(int halvings) { return fuser_->preview(halvings); }

  // The whole reference; `crop` is the caller's to apply. No further frame is taken.
  Fused finish();

 private:
  void begin(const Frame& frame);
  void check(const Frame& frame) const;

  StackOptions options_;
  Memory& memory_;
  Execution on_;
  std::unique_ptr<Fuser> fuser_;
  Registrar registrar_;
  Equaliser equaliser_;
  std::unique_ptr<Warper> warper_;
  bool begun_ = false;
  Size given_, size_;
  Facts facts_;
  int planes_ = 0;
  int64_t step_ = 1;
  Tensor like_;  // shape and dtype of the first frame
  std::vector<Matrix> used_;
};

constexpr int64_t kSmallestPx = 16;  // side of a result

}  // namespace pyfocus
