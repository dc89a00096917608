// Two pictures brought together: a coarse start that survives large shifts and breathing, then pyramid ECC.
//
// Starts are nothing, the motion of the frame before, and the peak of phase correlation, alone or over several scales;
// the best of them after a few steps at about 160 px is followed up to the finest level (ecc.h), in the end by those
// pixels alone that agree. The same rules as pyfocus/align.py and pyfocus/ecc.py, which say why.
#pragma once

#include <vector>

#include "device.h"
#include "stack/frame.h"

namespace pyfocus {

enum class Motion : int { Translation = 0, Similarity = 1, Affine = 2, Homography = 3 };

// A frame as registration sees it: smoothed square-root luminance at falling sizes, finest first.
struct Luma {
  std::vector<Buffer> levels;
  int64_t factor = 1;  // frame pixels per pixel of the finest level
  Size size;           // of the frame
};

// How a frame lies to another: `matrix` from the fixed frame's pixels to the moving one's.
struct Pair {
  Matrix matrix;
  double correlation = 0;
  int64_t iterations = 0;
  bool converged = false, good = false;
};

Luma luminance_of(const Frame& frame, Memory& memory, const Execution& on);

// `predicted`: a guess of the map, or null. Never fails for what the pictures show: then `good` is false.
Pair align_pair(const Luma& fixed, const Luma& moving, Motion motion, const Matrix* predicted, Memory& memory,
                const Execution& on);

}  // namespace pyfocus
