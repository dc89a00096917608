// ecc on CUDA: the sums of a step in one pass over the images, a second kernel that adds up the blocks and solves.
//
// A block (64 x 4 threads) owns 64 columns and ecc_tile_rows() rows of the fixed image; a thread goes down one column,
// every fourth row. There u = (x - centre) / scale is the same for all its pixels, so a thread sums products of g_x,
// g_y and h = -(g . W) times powers of v alone: 27 sums in registers instead of 45 (42 instead of 66 for a
// homography). The powers of u come in when the block adds up its columns: float lanes inside, double above.
// Bytes per pixel that counts: 4 of each image, 1 of the mask; 8 sums per chunk (1024 pixels or more). Then one block
// per pair adds the chunks in a fixed order, and in ecc_maximise solves, one thread per column of the system.
// No atomics: deterministic. Kernels of a pair that is done return at once.
#include "ecc.h"
#include "ecc_pixel.h"
#include "ecc_step.h"
#include "launch.cuh"

namespace pyfocus {
namespace {

PYFOCUS_HD inline bool is_done(const EccParams& p, int pair) {
  return p.state && p.state[int64_t{pair} * kEccStateSize + kEccDone] != 0;
}

struct EccGridParams {
  EccParams ecc;
  int tile_rows, columns;                                    // rows that count, per block; blocks per row of blocks
  int width, height, moving_width, right, bottom, row_step;  // as int: an image has fewer than 2^31 pixels
  float scale, inverse, centre_x, centre_y, moving_x, moving_y;
};

EccGridParams grid_params(const EccParams& p, int64_t tile_rows, int64_t columns) {
  EccGridParams g = {};
  g.ecc = p;
  g.tile_rows = static_cast<int>(tile_rows), g.columns = static_cast<int>(columns);
  g.width = static_cast<int>(p.width), g.height = static_cast<int>(p.height);
  g.moving_width = static_cast<int>(p.moving_width), g.right = g.moving_width - 1;
  g.bottom = static_cast<int>(p.moving_height) - 1, g.row_step = static_cast<int>(p.row_step);
  g.scale = static_cast<float>(p.scale), g.inverse = 1.0f / g.scale;
  g.centre_x = 0.5f * static_cast<float>(p.width - 1), g.centre_y = 0.5f * static_cast<float>(p.height - 1);
  g.moving_x = 0.5f * static_cast<float>(p.moving_width - 1),
  g.moving_y = 0.5f * static_cast<float>(p.moving_height - 1);
  return g;
}

// Which of a thread's sums makes up sum `s`, and with which power of u.
struct EccMoment {
  int lane, power;
};

template <int kParameters>
struct EccLayout {
  static constexpr int kVectors = kParameters == 8 ? 3 : 2;        // g_x, g_y, h
  static constexpr int kProducts = kVectors * (kVectors + 1) / 2;  // each with v^0, v^1, v^2
  static constexpr int kLinear = 3 * kProducts;                    // with i, t and 1, each with v^0 and v^1
  static constexpr int kPlain = kLinear + 6 * kVectors;
  static constexpr int kLanes = kPlain + 6;

  PYFOCUS_HD static int product(int i, int j) { return 3 * (i * (2 * kVectors - 1 - i) / 2 + j); }

  // Parameter k is vector k / 3 times u, v or 1 as k % 3 is 0, 1 or 2.
  PYFOCUS_HD static EccMoment moment(int s) {
    constexpr int kTriangle = kParameters * (kParameters + 1) / 2;
    if (s < kTriangle) {
      int k = 0;
      while (s >= kParameters - k) s -= kParameters - k, ++k;
      const int l = k + s;
      return {product(k / 3, l / 3) + (k % 3 == 1) + (l % 3 == 1), (k % 3 == 0) + (l % 3 == 0)};
    }
    s -= kTriangle;
    if (s >= 3 * kParameters) return {kPlain + s - 3 * kParameters, 0};
    const int k = s % kParameters;
    return {kLinear + s / kParameters * 2 * kVectors + k / 3 * 2 + (k % 3 == 1), k % 3 == 0};
  }
};

template <int kParameters>
struct EccSumsKernel {
  using Params = EccGridParams;
  using Layout = EccLayout<kParameters>;
  static constexpr bool kPerspective = kParameters == 8;
  static constexpr int kColumns = kEccTileColumns, kLines = kEccTileLines, kThreads = kColumns * kLines, kPhases = 4;
  static constexpr int kLanes = Layout::kLanes, kVectors = Layout::kVectors;
  static constexpr int kGroups = kPerspective ? 4 : 8;  // of columns; a thread adds up one lane of one group
  static constexpr int kTogether = 2;                   // pixels whose loads are under way at a time
  static constexpr int kBlocksPerSm = kPerspective ? 2 : 3;
  static_assert(kLanes * kGroups <= kThreads && kColumns % kGroups == 0);

  struct Shared {
    EccAnchor anchor;
    float lane[kLanes][kThreads + 1];  // one further, so that neighbouring lanes lie in different banks
    float moment[kGroups][3 * kLanes];
  };
  using Local = Nothing;

  struct Pixel {
    EccPlace at;
    float corner[4], fixed, v;
    bool use;
  };

  PYFOCUS_HD static int turns(const Params& p, const At& at) { return is_done(p.ecc, at.z) ? 0 : 1; }

  PYFOCUS_HD static void load(const Params& p, const At& at, const EccAnchor& anchor, int row, Pixel* pixel) {
    const EccParams& e = p.ecc;
    const int column = at.thread % kColumns, x = at.x * kColumns + column, y = (at.y * p.tile_rows + row) * p.row_step;
    pixel->use = row < p.tile_rows && x < p.width && y < p.height;
    if (!pixel->use) return;
    const int here = y * p.width + x;
    pixel->at = ecc_place<kPerspective>(anchor, column, row * p.row_step, p.right, p.bottom);
    pixel->use = pixel->at.inside && (!e.mask || e.mask[at.z * e.mask_stride + here] != 0);
    if (!pixel->use) return;
    const float* top = e.moving + at.z * e.moving_stride + (pixel->at.y * p.moving_width + pixel->at.x);
    const float* low = top + p.moving_width;
    pixel->corner[0] = top[0], pixel->corner[1] = top[1], pixel->corner[2] = low[0], pixel->corner[3] = low[1];
    pixel->fixed = e.fixed[at.z * e.fixed_stride + here];
    pixel->v = (static_cast<float>(y) - p.centre_y) * p.inverse;
  }

  PYFOCUS_HD static void add(const Params& p, const Pixel& pixel, float* sum) {
    if (!pixel.use) return;
    const EccSample s = ecc_sample(pixel.corner[0], pixel.corner[1], pixel.corner[2], pixel.corner[3], pixel.at);
    const float size = kPerspective ? p.scale * pixel.at.w : p.scale, v = pixel.v;
    float vector[kVectors];
    vector[0] = s.gx * size, vector[1] = s.gy * size;
    if constexpr (kPerspective)
      vector[2] = ecc_along(vector[0], vector[1], pixel.at, p.moving_x, p.moving_y) * p.inverse;
    float* out = sum;
    for (int i = 0; i < kVectors; ++i)
      for (int j = i; j < kVectors; ++j, out += 3) {
        const float product = vector[i] * vector[j], with_v = product * v;
        out[0] += product, out[1] += with_v, out[2] += with_v * v;
      }
    const float right[3] = {s.value, pixel.fixed, 1.0f};
    for (int side = 0; side < 3; ++side)
      for (int i = 0; i < kVectors; ++i, out += 2) {
        const float product = vector[i] * right[side];
        out[0] += product, out[1] += product * v;
      }
    out[0] += s.value, out[1] += pixel.fixed, out[2] += s.value * s.value, out[3] += pixel.fixed * pixel.fixed;
    out[4] += s.value * pixel.fixed, out[5] += 1.0f;
  }

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared& shared, Local&) {
    const EccParams& e = p.ecc;
    if constexpr (kPhase == 0) {
      if (at.thread == 0)
        shared.anchor =
            ecc_anchor<kPerspective>(e.matrix + at.z * e.matrix_stride, static_cast<double>(at.x) * kColumns,
                                     static_cast<double>(at.y) * (p.tile_rows * p.row_step));
    } else if constexpr (kPhase == 1) {
      float sum[kLanes] = {};
      for (int row = at.thread / kColumns; row < p.tile_rows; row += kTogether * kLines) {
        Pixel pixel[kTogether];
        for (int i = 0; i < kTogether; ++i) load(p, at, shared.anchor, row + i * kLines, &pixel[i]);
        for (int i = 0; i < kTogether; ++i) add(p, pixel[i], sum);
      }
      for (int lane = 0; lane < kLanes; ++lane) shared.lane[lane][at.thread] = sum[lane];
    } else if constexpr (kPhase == 2) {
      if (at.thread >= kLanes * kGroups) return;
      constexpr int kWide = kColumns / kGroups;
      const int lane = at.thread % kLanes, group = at.thread / kLanes;
      float sum = 0, with_u = 0, with_square = 0;
      for (int column = group * kWide; column < (group + 1) * kWide; ++column) {
        const float* of = &shared.lane[lane][column];
        float whole = of[0];
        for (int line = 1; line < kLines; ++line) whole += of[line * kColumns];
        const float u = (static_cast<float>(at.x * kColumns + column) - p.centre_x) * p.inverse;
        sum += whole, with_u += whole * u, with_square += whole * u * u;
      }
      float* out = &shared.moment[group][3 * lane];
      out[0] = sum, out[1] = with_u, out[2] = with_square;
    } else {
      constexpr int kCount = ecc_sum_count(kParameters);
      if (at.thread >= kCount) return;
      const EccMoment from = Layout::moment(at.thread);
      double sum = 0;
      for (int group = 0; group < kGroups; ++group)
        sum += static_cast<double>(shared.moment[group][3 * from.lane + from.power]);
      const int64_t chunk = at.z * e.chunks + int64_t{at.y} * p.columns + at.x;
      e.chunk[chunk * kCount + at.thread] = sum;
    }
  }
};

struct EccStepParams {
  EccParams ecc;
  EccFrame frame;
  int64_t iteration;
};

struct EccStartKernel {  // a thread per pair
  using Params = EccStepParams;
  using Shared = Nothing;
  using Local = Nothing;
  static constexpr int kThreads = 32, kPhases = 1;

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared&, Local&) {
    const int64_t pair = int64_t{at.x} * kThreads + at.thread;
    if (pair < p.ecc.pairs) ecc_start(p.frame, p.ecc.state + pair * kEccStateSize);
  }
};

// Adds up a pair's chunks; with a state, solves too. Turns: lanes of chunks, the lanes, the system, one turn per
// unknown to eliminate it, and the step.
template <int kParameters>
struct EccAddKernel {
  using Params = EccStepParams;
  using Local = Nothing;
  static constexpr int kThreads = 512, kPhases = 1, kCount = ecc_sum_count(kParameters), kLanes = kThreads / kCount;
  static constexpr int kSystem = 2, kEliminate = 3;  // turns

  struct Shared {
    double lane[kLanes][kCount];
    double sums[kCount];
    EccSystem system;
  };

  PYFOCUS_HD static int turns(const Params& p, const At& at) {
    if (is_done(p.ecc, at.x)) return 0;
    return p.ecc.state ? kEliminate + ecc_unknowns(p.ecc.motion) + 1 : kSystem;
  }

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared& shared, Local&) {
    const EccParams& e = p.ecc;
    const int thread = at.thread, unknowns = ecc_unknowns(e.motion), last = kEliminate + unknowns;
    if (at.turn == 0) {
      if (thread >= kLanes * kCount) return;
      const double* chunk = e.chunk + at.x * e.chunks * kCount + thread;
      const int chunks = static_cast<int>(e.chunks);
      double sum = 0;
      for (int i = thread / kCount; i < chunks; i += kLanes, chunk += kLanes * kCount) sum += *chunk;
      shared.lane[thread / kCount][thread % kCount] = sum;
    } else if (at.turn == 1) {
      if (thread >= kCount) return;
      double sum = 0;
      for (int i = 0; i < kLanes; ++i) sum += shared.lane[i][thread];
      shared.sums[thread] = sum;
      if (e.sums) e.sums[at.x * int64_t{kCount} + thread] = sum;
    } else if (at.turn == kSystem) {
      if (thread < unknowns) ecc_row(shared.sums, kParameters, e.motion, &shared.system, thread);
      if (thread == 32) ecc_judge(shared.sums, kParameters, &shared.system);  // another warp, at the same time
    } else if (at.turn < last) {
      const int k = at.turn - kEliminate;
      if (thread > k && thread < unknowns + 2) ecc_eliminate(&shared.system, unknowns, k, thread);
    } else if (thread == 0) {
      double* state = e.state + int64_t{at.x} * kEccStateSize;
      ecc_advance(p.frame, shared.sums, kParameters, e.motion, p.iteration, &shared.system, state);
    }
  }
};

template <int kParameters>
void sum_and_add(const char* name, const EccParams& p, int64_t iteration, int device, void* stream) {
  const int64_t tile_rows = ecc_tile_rows(p.height, p.width, p.row_step);
  const Grid grid = {blocks(p.width, kEccTileColumns), blocks(p.height, tile_rows * p.row_step), p.pairs};
  launch<EccSumsKernel<kParameters>>(name, grid, grid_params(p, tile_rows, grid.x), device, stream);
  launch<EccAddKernel<kParameters>>(name, {p.pairs}, {p, ecc_frame(p), iteration}, device, stream);
}

}  // namespace

void ecc_cuda(const EccParams& p, int device, void* stream) {
  if (p.parameters == 8)
    sum_and_add<8>("ecc", p, 0, device, stream);
  else
    sum_and_add<6>("ecc", p, 0, device, stream);
}

void ecc_maximise_cuda(const EccParams& p, int device, void* stream) {
  const char* name = "ecc_maximise";
  if (p.begin == 0)
    launch<EccStartKernel>(name, {blocks(p.pairs, EccStartKernel::kThreads)}, {p, ecc_frame(p), 0}, device, stream);
  for (int64_t i = p.begin; i < p.begin + p.most; ++i)
    if (p.parameters == 8)
      sum_and_add<8>(name, p, i, device, stream);
    else
      sum_and_add<6>(name, p, i, device, stream);
}

}  // namespace pyfocus
