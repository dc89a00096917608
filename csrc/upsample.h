// A grid read on one twice as fine, as Burt & Adelson's pyramid expands: weights (1 6 1)/8 on a sample, (4 4)/8 between
// two. Internal linkage on purpose: every instruction set keeps its own copy.
#pragma once

#include "sample.h"  // PYFOCUS_HD

namespace pyfocus {

// What up sees beyond the border: the edge again.
template <class Int>
PYFOCUS_HD static inline Int clamp_to(Int v, Int high) {
  return v < 0 ? 0 : v > high ? high : v;
}

// up on a sample of the coarse grid, and between two of them; down the columns first, then along the row.
PYFOCUS_HD static inline float up_on(float a, float b, float c) { return 0.125f * (a + 6.0f * b + c); }
PYFOCUS_HD static inline float up_between(float b, float c) { return 0.5f * (b + c); }

}  // namespace pyfocus
