// The pipeline: frames as they arrive are placed, equalised, warped once and fused, in the host's memory.
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

// For one thread at a time. What a frame or a call is refused for is an Argument error, and changes nothing; a frame
// that there is no memory for is a Resource error, after which it may be pushed again.
class Stack {
 public:
  // `memory` must outlive the stack and what it gives.
  Stack(const StackOptions& options, Memory& memory, const Execution& on);

  // Fold a frame in; the result's `registered` is false when it could not be registered and was left out. The first
  // frame is the reference. `known`: the map from reference to frame pixels, or null to find it. `place` in focus
  // order.
  Step push(const Frame& frame, const Matrix* known, double place);

  // What finish will keep of the reference, to be cut by the caller: all of it, or what every frame saw.
  Rect crop() const;

  // The picture so far, halved so many times (0 to 16) in each direction.
  Buffer preview(int halvings);

  // The whole reference. No further frame is taken.
  Fused finish();

 private:
  void begin(const Frame& frame);
  void check(const Frame& frame) const;

  StackOptions options_;
  Memory& memory_;
  Execution on_;
  std::unique_ptr<Fuser> fuser_;
  std::unique_ptr<Registrar> registrar_;
  std::unique_ptr<Equaliser> equaliser_;
  std::unique_ptr<Warper> warper_;
  Frame first_;  // its facts, shape and dtype; not its pixels
  Size size_;
  bool finished_ = false;
  std::vector<Matrix> used_;
};

constexpr int64_t kSmallestPx = 16;  // side of a frame, and of a result

}  // namespace pyfocus
