// measure and energy on CUDA: the next Gaussian level, and the energy of what it lacks, in one reading of the level.
//
//   G_{l+1} = down(G_l),   e = down( mean_c (G_l - up(G_{l+1}))^2 )
//
// A block owns 32 x 32 pixels of the coarse grid, and goes through the planes one after the other (turns). Per plane it
// loads 75 x 75 fine values, makes 36 x 36 coarse ones of them (its own and a rim of two, which its neighbours make
// again), writes its own, and squares the detail of 68 x 68 fine pixels; a thread keeps the sums over the planes of up
// to five 2 x 2 cells in registers. After the last plane the squares go to shared memory and are pooled.
// energy is the same with the 36 x 36 coarse values loaded instead of made.
// Bytes per fine pixel of C planes: 4 C read, C + 1 written (energy: 5 C read, 1 written); the rims, 1.37 times the
// tile, come from the second-level cache. Shared: 39 KB. Deterministic, and the CPU's sums in the CPU's order: the
// results differ where the compiler contracts a product and a sum, by 1 ulp of the sums.
#include "pyramid_tile.cuh"

namespace pyfocus {
namespace {

template <bool kMeasure>
struct EnergyKernel {
  using Params = PyramidParams;
  static constexpr int kThreads = kTileThreads, kPhases = 7, kBlocksPerSm = kMeasure ? 4 : 3;
  static constexpr int kOut = kTileOut;
  static constexpr int kFine = 2 * kOut + 11, kPitch = kFine + 1;  // fine tile: from row 2 y0 - 6 on
  static constexpr int kLow = kOut + 4;                            // coarse tile: from row y0 - 2 on, the edge repeated
  static constexpr int kCells = kOut + 2;                          // cells of 2 x 2 squares: from row y0 - 1 on
  static constexpr int kSquares = 2 * kCells, kPooled = 2 * kOut + 3;
  static constexpr int kCellRows = kThreads / kCells;  // a thread keeps to one column of cells, and takes
  static constexpr int kCellsPerThread = (kCells + kCellRows - 1) / kCellRows;  // every kCellRows-th
  static_assert(kSquares * kSquares <= kFine * kPitch && kOut * kSquares <= kLow * kPitch);

  struct Shared {
    float fine[kFine * kPitch];  // later the squares
    float sums[kLow * kPitch];   // later the squares' sums
    float low[kLow * kLow];
  };
  struct Local {
    float square[kCellsPerThread][4];
  };

  PYFOCUS_HD static int turns(const Params& p, const At&) { return p.planes; }

  PYFOCUS_HD static void load_low(const float* coarse, int height, int width, const At& at, float* low) {
    for (int i = at.thread; i < kLow * kLow; i += kThreads) {
      const int y = clamp_to(at.y * kOut - 2 + i / kLow, height - 1);
      const int x = clamp_to(at.x * kOut - 2 + i % kLow, width - 1);
      low[i] = coarse[static_cast<int64_t>(y) * width + x];
    }
  }

  PYFOCUS_HD static void make_low(const float* sums, int height, int width, const At& at, float* low, float* coarse) {
    const int y0 = at.y * kOut - 2, x0 = at.x * kOut - 2;
    for (int i = at.thread; i < kLow * kLow; i += kThreads) {
      const int r = i / kLow, c = i % kLow, y = clamp_to(y0 + r, height - 1), x = clamp_to(x0 + c, width - 1);
      low[i] = sum_row(sums + (y - y0) * kPitch + 2 * (x - x0)) * kBinomial;
      const bool own = r >= 2 && r < kOut + 2 && c >= 2 && c < kOut + 2 && y == y0 + r && x == x0 + c;
      if (own) coarse[static_cast<int64_t>(y) * width + x] = low[i];
    }
  }

  // Adds the squared detail of the four pixels of cell (r, c) to `square`; the first plane begins the sums.
  PYFOCUS_HD static void add_squares(const Shared& s, int r, int c, bool first, float* square) {
    const float* low = s.low + r * kLow + c;
    const float* fine = s.fine + (2 * r + 4) * kPitch + 2 * c + 4;
    float on[3], between[3];
    for (int k = 0; k < 3; ++k) {
      on[k] = up_on(low[k], low[kLow + k], low[2 * kLow + k]);
      between[k] = up_between(low[kLow + k], low[2 * kLow + k]);
    }
    const float detail[4] = {fine[0] - up_on(on[0], on[1], on[2]), fine[1] - up_between(on[1], on[2]),
                             fine[kPitch] - up_on(between[0], between[1], between[2]),
                             fine[kPitch + 1] - up_between(between[1], between[2])};
    for (int k = 0; k < 4; ++k) square[k] = (first ? 0.0f : square[k]) + detail[k] * detail[k];
  }

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared& s, Local& l) {
    const int height = static_cast<int>(p.height), width = static_cast<int>(p.width);
    const int coarse_height = static_cast<int>(p.coarse_height), coarse_width = static_cast<int>(p.coarse_width);
    const int64_t below = at.turn * p.coarse_height * p.coarse_width;
    if constexpr (kPhase == 0) {
      load_tile<kFine, kFine, kPitch>(p.fine + at.turn * p.height * p.width, height, width, 2 * kOut * at.y - 6,
                                      2 * kOut * at.x - 6, at.thread, s.fine);
      if constexpr (!kMeasure) load_low(p.coarse + below, coarse_height, coarse_width, at, s.low);
    } else if constexpr (kPhase == 1) {
      if constexpr (kMeasure) sum_columns<kLow, kFine, kPitch, 2, 3>(s.fine, at.thread, s.sums);
    } else if constexpr (kPhase == 2) {
      if constexpr (kMeasure) make_low(s.sums, coarse_height, coarse_width, at, s.low, p.coarse_out + below);
    } else if constexpr (kPhase == 3) {
      const int row = at.thread / kCells, column = at.thread % kCells;
      for (int k = 0; k < kCellsPerThread; ++k)
        if (row < kCellRows && row + k * kCellRows < kCells)
          add_squares(s, row + k * kCellRows, column, at.turn == 0, l.square[k]);
    } else if (at.turn + 1 == p.planes) {
      pool<kPhase>(p, at, s, l);
    }
  }

  // Whether nothing that the block pools lies beyond the border.
  PYFOCUS_HD static bool inner(int top, int left, int height, int width) {
    return top >= 0 && left >= 0 && top + kPooled <= height && left + kPooled <= width;
  }

  template <int kPhase>
  PYFOCUS_HD static void pool(const Params& p, const At& at, Shared& s, Local& l) {
    const int height = static_cast<int>(p.height), width = static_cast<int>(p.width);
    const int top = 2 * kOut * at.y - 2, left = 2 * kOut * at.x - 2;  // of the squares, on the fine grid
    if constexpr (kPhase == 4) {
      const int row = at.thread / kCells, column = at.thread % kCells;
      for (int k = 0; k < kCellsPerThread; ++k) {
        float* to = s.fine + 2 * (row + k * kCellRows) * kSquares + 2 * column;
        if (row < kCellRows && row + k * kCellRows < kCells)
          to[0] = l.square[k][0], to[1] = l.square[k][1], to[kSquares] = l.square[k][2],
          to[kSquares + 1] = l.square[k][3];
      }
    } else if constexpr (kPhase == 5) {
      if (inner(top, left, height, width)) return sum_columns<kOut, kPooled, kSquares, 2, 2>(s.fine, at.thread, s.sums);
      for (int i = at.thread; i < kOut * kPooled; i += kThreads) {
        const int r = i / kPooled, c = i % kPooled, y = 2 * (at.y * kOut + r);
        if (y >= height || left + c < 0 || left + c >= width) continue;
        float v[5];
        for (int j = 0; j < 5; ++j) v[j] = s.fine[(mirror_in(y + j - 2, height) - top) * kSquares + c];
        s.sums[r * kSquares + c] = sum_row(v);
      }
    } else {
      const float mean = 1.0f / static_cast<float>(p.planes) * kBinomial;
      for (int i = at.thread; i < kOut * kOut; i += kThreads) {
        const int r = i / kOut, c = i % kOut, y = at.y * kOut + r, x = at.x * kOut + c;
        if (2 * y >= height || 2 * x >= width) continue;
        const float* sums = s.sums + r * kSquares;
        float v[5];
        if (inner(top, left, height, width))
          for (int j = 0; j < 5; ++j) v[j] = sums[2 * c + j];
        else
          for (int j = 0; j < 5; ++j) v[j] = sums[mirror_in(2 * x + j - 2, width) - left];
        p.out[y * p.coarse_width + x] = sum_row(v) * mean;
      }
    }
  }
};

Grid grid_of(const PyramidParams& p) { return {blocks(p.coarse_width, kTileOut), blocks(p.coarse_height, kTileOut)}; }

}  // namespace

void pyramid_energy_cuda(const PyramidParams& p, int device, void* stream) {
  launch<EnergyKernel<false>>("pyramid_energy", grid_of(p), p, device, stream);
}

void pyramid_measure_cuda(const PyramidParams& p, int device, void* stream) {
  launch<EnergyKernel<true>>("pyramid_measure", grid_of(p), p, device, stream);
}

}  // namespace pyfocus
