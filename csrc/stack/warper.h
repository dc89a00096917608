// Frames to planes in the reference geometry: one resampling each, in square-root encoding (pyfocus/warp.py).
#pragma once

#include "device.h"
#include "sample.h"
#include "stack/frame.h"

namespace pyfocus {

enum class Domain : uint8_t { Rgb, Raw };  // what a mosaic becomes: three planes of full size, or four of half

// What a frame becomes; both are overwritten by the next one.
struct Warped {
  Tensor planes, valid;
};

class Warper {
 public:
  Warper(Domain domain, Interpolation interpolation, const Facts& levels, Memory& memory)
      : domain_(domain), interpolation_(interpolation), levels_(levels), memory_(memory) {}

  // `map`: reference to frame pixels; `size` of the reference frame; `gains`: a factor per plane of the frame.
  Warped warp(const Frame& frame, const Matrix& map, Size size, const double* gains, const Execution& on);

  // Gives the memory away.
  void forget();

 private:
  Warped warp_mosaic(const Frame& frame, const Matrix& map, Size size, const double* gains, const Execution& on);
  void room(int64_t planes, Size size);

  Domain domain_;
  Interpolation interpolation_;
  Facts levels_;
  Memory& memory_;
  Buffer planes_, valid_, roots_;
};

}  // namespace pyfocus
