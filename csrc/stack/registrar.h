// Registration of frames as they come: each to the last good one, chained. Keeps a few small pyramids, no frames.
#pragma once

#include <memory>
#include <vector>

#include "stack/align.h"

namespace pyfocus {

// One frame's registration: `transform` from the first frame's pixels to its own, and how it went.
struct Step {
  Matrix transform;
  bool registered = false, found = false;  // found: a map of some chain's start, perhaps not the first frame's
  double correlation = 0;
  int64_t iterations = 0;
  bool converged = false;
};

class Registrar {
 public:
  Registrar(Motion motion, Memory& memory) : motion_(motion), memory_(memory) {}

  // Register the next frame; `registered` where it joins the first frame's chain. A frame that fits nowhere begins a
  // chain of its own, to which later ones may be registered. Sizes that differ are an Argument error.
  Step push(Luma luma, const Execution& on);

 private:
  // The end of a chain: its last frame's luminance, its map from the chain's start, the motion that led there.
  struct Tail {
    Luma luma;
    Matrix transform, motion;
    int64_t members = 0;
    bool is_first = false;
  };

  Tail* join(Luma& luma, Step* step, const Execution& on);
  void forget();

  Motion motion_;
  Memory& memory_;
  std::vector<std::unique_ptr<Tail>> chains_;
};

}  // namespace pyfocus
