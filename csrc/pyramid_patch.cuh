// A thread's part of a level: 4 x 2 pixels of the finer of two grids, and what up makes of the coarser one there.
// A block of 32 x 8 threads owns 128 x 16 pixels. The coarse values (3 rows x 4 columns for 8 pixels) are read through
// the first-level cache, where the block's neighbours find them again; rows of four go as 16 bytes where `wide` allows.
#pragma once

#include "launch.cuh"
#include "pyramid_rows.h"
#include "pyramid_taps.h"

namespace pyfocus {

constexpr int kPatchColumns = 4, kPatchRows = 2, kPatchThreads = 256;
constexpr int kPatchBlockColumns = 32 * kPatchColumns, kPatchBlockRows = 8 * kPatchRows;

struct PatchParams {
  PyramidParams p;
  bool wide = false;  // every row of the finer grid starts at a multiple of 16 bytes
};

struct alignas(16) Four {
  float v[4];
};

struct Patch {
  int x, y, width, height;  // its first pixel, and the grid it lies on
  PYFOCUS_HD bool inside() const { return x < width && y < height; }
  PYFOCUS_HD int rows() const { return y + 1 < height ? 2 : 1; }
  PYFOCUS_HD int64_t at(int row) const { return static_cast<int64_t>(y + row) * width + x; }
};

PYFOCUS_HD inline Patch patch_of(const At& at, int64_t height, int64_t width) {
  return {at.x * kPatchBlockColumns + at.thread % 32 * kPatchColumns,
          at.y * kPatchBlockRows + at.thread / 32 * kPatchRows, static_cast<int>(width), static_cast<int>(height)};
}

inline Grid patch_grid(int64_t height, int64_t width, int planes) {
  return {blocks(width, kPatchBlockColumns), blocks(height, kPatchBlockRows), planes};
}

inline bool is_wide(int64_t width, const void* const* arrays, int count) {
  bool wide = width % 4 == 0;
  for (int i = 0; i < count; ++i) wide = wide && reinterpret_cast<uintptr_t>(arrays[i]) % 16 == 0;
  return wide;
}

// Four values of a row from the patch's first column on; what lies beyond the row is 0, and is not written.
template <bool kWide>
PYFOCUS_HD inline Four load_four(const float* from, const Patch& patch) {
  Four out;
  if constexpr (kWide)
    out = *reinterpret_cast<const Four*>(from);
  else
    for (int k = 0; k < 4; ++k) out.v[k] = patch.x + k < patch.width ? from[k] : 0.0f;
  return out;
}

template <bool kWide>
PYFOCUS_HD inline void store_four(float* to, const Patch& patch, const Four& values) {
  if constexpr (kWide) {
    *reinterpret_cast<Four*>(to) = values;
  } else {
    for (int k = 0; k < 4; ++k)
      if (patch.x + k < patch.width) to[k] = values.v[k];
  }
}

// Where the coarse values of a patch lie in a plane: the row under it, how far the rows above and below that are, and
// four columns; the edge repeated.
struct Cell {
  int64_t row;
  int above, below;
  int column[4];
};

PYFOCUS_HD inline Cell cell_of(const Patch& patch, int64_t coarse_height, int64_t coarse_width) {
  const int width = static_cast<int>(coarse_width), y = patch.y / 2;
  Cell cell;
  cell.row = y * coarse_width;
  cell.above = y > 0 ? -width : 0, cell.below = y + 1 < coarse_height ? width : 0;
  for (int k = 0; k < 4; ++k) cell.column[k] = clamp_to(patch.x / 2 - 1 + k, width - 1);
  return cell;
}

// up(plane) on the patch, down the columns first as the CPU's rows do.
PYFOCUS_HD inline void expand(const float* plane, const Cell& cell, Four* out) {
  float on[4], between[4];
  for (int k = 0; k < 4; ++k) {
    const float* at = plane + cell.row + cell.column[k];
    const float a = at[cell.above], b = at[0], c = at[cell.below];
    on[k] = up_on(a, b, c), between[k] = up_between(b, c);
  }
  for (int k = 0; k < 2; ++k) {
    out[0].v[2 * k] = up_on(on[k], on[k + 1], on[k + 2]);
    out[0].v[2 * k + 1] = up_between(on[k + 1], on[k + 2]);
    out[1].v[2 * k] = up_on(between[k], between[k + 1], between[k + 2]);
    out[1].v[2 * k + 1] = up_between(between[k + 1], between[k + 2]);
  }
}

}  // namespace pyfocus
