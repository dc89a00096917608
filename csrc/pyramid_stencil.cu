// down, smooth and valid on CUDA: 5 x 5 stencils. Bytes per source pixel and plane:
//
//   down    4 read, 1 written (and 1 read with an addend). 32 x 32 destination pixels per block, from a tile of 67 x 67
//           in shared memory, 28 KB.
//   smooth  4 read, 4 written. 32 rows x 64 columns per block, from a tile of 36 x 68, 19 KB.
//   valid   1 read, 1/4 written. A thread owns 2 rows of one destination column, and reads 7 x 5 bytes through the
//           first-level cache.
//
// Deterministic, and the CPU's sums in the CPU's order.
#include "pyramid_tile.cuh"

namespace pyfocus {
namespace {

struct DownKernel {
  using Params = PyramidParams;
  static constexpr int kThreads = kTileThreads, kPhases = 3, kBlocksPerSm = 4;
  static constexpr int kOut = kTileOut, kFine = 2 * kOut + 3, kPitch = kFine + 1, kRows = kOut + 1;
  struct Shared {
    float fine[(2 * kRows + 3) * kPitch];  // rows for 33 sums: three strips of eleven
    float sums[kRows * kPitch];
  };
  using Local = Nothing;

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared& s, Local&) {
    if constexpr (kPhase == 0) {
      load_tile<2 * kRows + 3, kFine, kPitch>(p.fine + at.z * p.height * p.width, static_cast<int>(p.height),
                                              static_cast<int>(p.width), 2 * kOut * at.y - 2, 2 * kOut * at.x - 2,
                                              at.thread, s.fine);
    } else if constexpr (kPhase == 1) {
      sum_columns<kRows, kFine, kPitch, 2, 3>(s.fine, at.thread, s.sums);
    } else {
      for (int i = at.thread; i < kOut * kOut; i += kThreads) {
        const int r = i / kOut, c = i % kOut;
        const int64_t y = int64_t{at.y} * kOut + r, x = int64_t{at.x} * kOut + c;
        if (y >= p.coarse_height || x >= p.coarse_width) continue;
        const int64_t to = (at.z * p.coarse_height + y) * p.coarse_width + x;
        const float value = sum_row(s.sums + r * kPitch + 2 * c) * kBinomial;
        p.out[to] = p.addend ? p.addend[to] + value : value;
      }
    }
  }
};

struct SmoothKernel {
  using Params = PyramidParams;
  static constexpr int kThreads = kTileThreads, kPhases = 3, kBlocksPerSm = 4;
  static constexpr int kRows = 33, kOutRows = 32, kColumns = 64, kPitch = kColumns + 4;
  struct Shared {
    float fine[(kRows + 4) * kPitch];
    float sums[kRows * kPitch];
  };
  using Local = Nothing;

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared& s, Local&) {
    if constexpr (kPhase == 0) {
      load_tile<kRows + 4, kPitch, kPitch>(p.fine + at.z * p.height * p.width, static_cast<int>(p.height),
                                           static_cast<int>(p.width), kOutRows * at.y - 2, kColumns * at.x - 2,
                                           at.thread, s.fine);
    } else if constexpr (kPhase == 1) {
      sum_columns<kRows, kPitch, kPitch, 1, 3>(s.fine, at.thread, s.sums);
    } else {
      for (int i = at.thread; i < kOutRows * kColumns; i += kThreads) {
        const int r = i / kColumns, c = i % kColumns;
        const int64_t y = int64_t{at.y} * kOutRows + r, x = int64_t{at.x} * kColumns + c;
        if (y < p.height && x < p.width)
          p.out[(at.z * p.height + y) * p.width + x] = sum_row(s.sums + r * kPitch + c) * kBinomial;
      }
    }
  }
};

struct ValidKernel {
  using Params = PyramidParams;
  using Shared = Nothing;
  using Local = Nothing;
  static constexpr int kThreads = 256, kPhases = 1, kBlocksPerSm = 3, kRows = 2;  // 32 x 8 threads, 32 x 16 pixels

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared&, Local&) {
    const int height = static_cast<int>(p.height), width = static_cast<int>(p.width);
    const int64_t x = int64_t{at.x} * 32 + at.thread % 32, y0 = int64_t{at.y} * 8 * kRows + at.thread / 32 * kRows;
    if (x >= p.coarse_width || y0 >= p.coarse_height) return;
    int column[5];
    for (int k = 0; k < 5; ++k) column[k] = clamp_to(static_cast<int>(2 * x) + k - 2, width - 1);
    unsigned row[2 * kRows + 3];
    for (int j = 0; j < 2 * kRows + 3; ++j) {
      const uint8_t* from =
          p.valid + static_cast<int64_t>(clamp_to(static_cast<int>(2 * y0) + j - 2, height - 1)) * width;
      row[j] = from[column[0]] & from[column[1]] & from[column[2]] & from[column[3]] & from[column[4]];
    }
    for (int r = 0; r < kRows; ++r)
      if (y0 + r < p.coarse_height)
        p.valid_out[(y0 + r) * p.coarse_width + x] =
            (row[2 * r] & row[2 * r + 1] & row[2 * r + 2] & row[2 * r + 3] & row[2 * r + 4]) != 0;
  }
};

}  // namespace

void pyramid_down_cuda(const PyramidParams& p, int device, void* stream) {
  launch<DownKernel>("pyramid_down", {blocks(p.coarse_width, kTileOut), blocks(p.coarse_height, kTileOut), p.planes}, p,
                     device, stream);
}

void pyramid_smooth_cuda(const PyramidParams& p, int device, void* stream) {
  launch<SmoothKernel>("pyramid_smooth",
                       {blocks(p.width, SmoothKernel::kColumns), blocks(p.height, SmoothKernel::kOutRows), p.planes}, p,
                       device, stream);
}

void pyramid_valid_cuda(const PyramidParams& p, int device, void* stream) {
  launch<ValidKernel>("pyramid_valid", {blocks(p.coarse_width, 32), blocks(p.coarse_height, 8 * ValidKernel::kRows)}, p,
                      device, stream);
}

}  // namespace pyfocus
