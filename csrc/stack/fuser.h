// The seam: registered frames in, one picture out. Every fuser of the pipeline is one of these.
#pragma once

#include "device.h"
#include "stack/memory.h"

namespace pyfocus {

// image (C, h, w) float32 linear light; depth and confidence (h, w) float32, or empty where a fuser has none.
struct Fused {
  Buffer image, depth, confidence;
};

class Fuser {
 public:
  virtual ~Fuser() = default;

  // planes (C, h, w) float32 in C order, C of 1 to 4; valid (h, w) uint8 or null. All frames are of one shape. `place`
  // in focus order. A frame for which there is no memory (a Resource error) leaves everything as it was.
  virtual void push(const Tensor& planes, const Tensor* valid, double place) = 0;

  // What finish would give now, (C, h, w) float32, halved `halvings` times in each direction, sizes rounded up.
  virtual Buffer preview(int halvings) = 0;

  // The result; the accumulators are given away.
  virtual Fused finish() = 0;
};

// Planes (C, h, w) halved so many times.
Buffer halved(Buffer planes, int halvings, Memory& memory, const Execution& on);

}  // namespace pyfocus
