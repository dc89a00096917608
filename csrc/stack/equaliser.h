// Exposure and colour drift between frames, measured on small pictures in linear light; pyfocus/equalise.py says why.
#pragma once

#include "device.h"
#include "stack/frame.h"

namespace pyfocus {

// A frame's planes, averaged over blocks: (C, h, w) float32 of linear light, `pitch` frame pixels apart.
struct Thumb {
  Buffer planes;
  int64_t pitch = 1;
};

Thumb thumb_of(const Frame& frame, const Facts& levels, Memory& memory, const Execution& on);

// Factors that bring the light `moved` (C, h, w) to that of the reference, where both are `valid` (h, w) uint8; 1 where
// the two have too little in common to tell.
void gain_between(const Tensor& reference, const Tensor& moved, const Tensor& valid, double* gains);

// Gains per plane that bring each frame to the brightness of the first one given.
class Equaliser {
 public:
  explicit Equaliser(Memory& memory) : memory_(memory) {}

  // Factors (4) for the frame's linear values; `map`: reference to frame pixels.
  void gain(const Frame& frame, const Facts& levels, const Matrix& map, double* gains, const Execution& on);

 private:
  Memory& memory_;
  Buffer reference_;
};

}  // namespace pyfocus
