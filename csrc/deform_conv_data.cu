// deform_conv on CUDA, backward: the gradients by the image, the offsets and the mask.
//
// A block of 128 threads owns 16 x 8 pixels (float64: 16 x 4). For 8 channels and 4 taps at a time it multiplies the
// gradient by the output with the weight, 32 outputs a turn, which gives the gradient u of 32 columns; then each thread
// takes its pixel: 4 corners by 16 bytes, sums over channels of u times corner, which are the gradients of offset and
// mask, and u times mask times the corner's weight for the image.
//
// What goes to the image is added in fixed point, where order does not matter: deterministic without an order. A bound
// of every product follows from the largest |grad_output|, |weight| and |mask| (found first); it becomes 2^38, so a
// step is 2^-38 of the bound, about 2^-30 of a typical product. A block first adds into a window of its own around
// where its pixels look, in two integers in shared memory (the upper and the lower 19 bits), and then adds the window
// to the sums in memory, 64 bits each; what falls outside the window goes there at once. If a product is not finite,
// all of grad_input is NaN. float64 data needs more bits: u goes to memory, and one thread per image, channel and
// parity of row and column, of which every sample touches one cell, adds in order. That is slow, meant for checks of
// gradients.
//
// At C = O = 64, 3 x 3, per pixel: 36864 multiply-adds, 576 columns with 4 loads, 8 integer additions to shared memory
// and 40 instructions of fixed point; 384 cells times 64 channels of 8 bytes per 128 pixels, at most, to memory.
// Expected on an H100 at 30 x 256 x 256 in float: 3.5 ms for the product, 2.5 ms of additions, 2 ms of instructions.
#include "deform_conv_sample.cuh"

namespace pyfocus {
namespace {

constexpr int kLowBits = 19;
constexpr int kWindowHeight = 16, kWindowWidth = 24, kWindow = kWindowHeight * kWindowWidth;  // cells

// The nearest integer of |v| < 2^22, without the slow conversion.
PYFOCUS_HD inline int32_t nearest(float v) {
  constexpr float kShift = 12582912.0f;  // 1.5 2^23
  return static_cast<int32_t>(__builtin_bit_cast(uint32_t, v + kShift) - __builtin_bit_cast(uint32_t, kShift));
}

// Turns of the data gradient: over groups, segments, chunks of channels, batches of taps and blocks of outputs.
template <class T>
struct DeformTurn {
  using Shape = DeformShape<T>;
  int output_block, batch, chunk, segment;  // segment: of the image
  bool last_output, last_batch;

  PYFOCUS_HD static int count(const DeformDevice& p) {
    return p.channels / p.segment * parts(p.segment, Shape::kChannels) * parts(p.taps, Shape::kTaps) *
           parts(p.group_outputs(), Shape::kSome);
  }
  PYFOCUS_HD DeformTurn(const DeformDevice& p, int turn) {
    const int outputs = parts(p.group_outputs(), Shape::kSome), batches = parts(p.taps, Shape::kTaps),
              chunks = parts(p.segment, Shape::kChannels);
    output_block = turn % outputs, turn /= outputs;
    batch = turn % batches, turn /= batches;
    chunk = turn % chunks, segment = turn / chunks;
    last_output = output_block + 1 == outputs, last_batch = batch + 1 == batches;
  }
  PYFOCUS_HD int group(const DeformDevice& p) const { return segment / p.group_segments(); }
};

// The weight as the data gradient reads it: [turn][output][tap][channel].
template <class T>
struct DeformTurnBackKernel {
  using Params = DeformDevice;
  using Shared = Nothing;
  using Local = Nothing;
  using Shape = DeformShape<T>;
  static constexpr int kThreads = 256, kPhases = 1, kSize = Shape::kSome * Shape::kRows;

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared&, Local&) {
    const DeformTurn<T> turn(p, at.x);
    for (int i = at.thread; i < kSize; i += kThreads) {
      const int output = turn.output_block * Shape::kSome + i / Shape::kRows,
                tap = turn.batch * Shape::kTaps + i % Shape::kRows / Shape::kChannels,
                inside = turn.chunk * Shape::kChannels + i % Shape::kChannels;
      T value{};
      if (output < p.group_outputs() && tap < p.taps && inside < p.segment) {
        const int64_t o = int64_t{turn.group(p)} * p.group_outputs() + output,
                      c = turn.segment % p.group_segments() * p.segment + inside;
        value = static_cast<const T*>(p.weight)[(o * p.group_channels() + c) * p.taps + tap];
      }
      static_cast<T*>(p.turned)[int64_t{at.x} * kSize + i] = value;
    }
  }
};

template <class T>
struct DeformDataKernel {
  using Params = DeformDevice;
  using Shape = DeformShape<T>;
  using Real = typename Shape::Real;
  using Multiply = Product<T, Shape::kTile, Shape::kRows, Shape::kSome, true>;
  static constexpr int kThreads = Shape::kThreads, kPhases = 5, kBlocksPerSm = 3, kStride = Shape::kTile + 4;
  static constexpr int kCells = Shape::kDouble ? 1 : Shape::kChannels * kWindow;
  struct Shared {
    alignas(16) T a[Multiply::kSizeA];  // [output][pixel]
    alignas(16) T b[Multiply::kSizeB];  // [output][tap][channel]
    alignas(16) Real u[Shape::kRows * kStride];
    int32_t high[kCells], low[kCells];  // [channel][cell of the window]
    int y, x;                           // where the window begins
  };
  struct Local {
    typename Multiply::Sums sums;
    float scale[3];  // of the fixed point: of u in two factors, of the mask
  };
  struct Pixel {
    int y, x;
    bool seen;
    PYFOCUS_HD Pixel(const Params& p, const At& at, int i) {
      const int across = parts(p.out_width, Shape::kTileWidth);
      y = at.x / across * Shape::kTileHeight + i / Shape::kTileWidth;
      x = at.x % across * Shape::kTileWidth + i % Shape::kTileWidth;
      seen = y < p.out_height && x < p.out_width;
    }
  };

  PYFOCUS_HD static int turns(const Params& p, const At&) { return DeformTurn<T>::count(p); }

  PYFOCUS_HD static void load(const Params& p, const At& at, const DeformTurn<T>& turn, Shared& s) {
    constexpr int kCount = Pack<T>::kCount, kRow = Shape::kRows / kCount;
    const Pack<T>* from = static_cast<const Pack<T>*>(p.turned) + int64_t{at.turn} * Shape::kSome * kRow;
    for (int i = at.thread; i < Shape::kSome * kRow; i += kThreads)
      *reinterpret_cast<Pack<T>*>(s.b + Multiply::at_b(i % kRow * kCount, i / kRow)) = from[i];
    const int first = turn.output_block * Shape::kSome;
    const int pixel = at.thread % Shape::kTile;
    const Pixel here(p, at, pixel);
    const T* upstream = static_cast<const T*>(p.upstream) +
                        (int64_t{p.image + at.z} * p.outputs + turn.group(p) * p.group_outputs() + first) * p.pixels() +
                        int64_t{here.y} * p.out_width + here.x;
    for (int o = at.thread / Shape::kTile; o < Shape::kSome; o += kThreads / Shape::kTile)
      s.a[Multiply::at_a(pixel, o)] =
          here.seen && first + o < p.group_outputs() ? upstream[int64_t{o} * p.pixels()] : T{};
  }

  // The window's middle is where the tile's middle looks with its middle tap, or would without an offset.
  PYFOCUS_HD static void place_window(const Params& p, const At& at, const DeformTurn<T>& turn, Shared& s) {
    Pixel middle(p, at, Shape::kTile / 2 + Shape::kTileWidth / 2);
    middle.y = middle.y < p.out_height ? middle.y : p.out_height - 1;
    middle.x = middle.x < p.out_width ? middle.x : p.out_width - 1;
    const Spot<Real> spot = find_spot<Real>(p, p.image + at.z, turn.segment * p.segment / p.offset_channels(),
                                            p.taps / 2, middle.y, middle.x, false);
    s.y = (spot.cell ? spot.y : middle.y * p.stride[0] - p.pad[0]) - kWindowHeight / 2;
    s.x = (spot.cell ? spot.x : middle.x * p.stride[1] - p.pad[1]) - kWindowWidth / 2;
  }

  // One column's share of the image; w: weights of the corners times the mask, scaled to at most 1.
  PYFOCUS_HD static void add(const Params& p, const At& at, const Spot<Real>& spot, const Real* w, Real u, int inside,
                             int channel, int window, const float* scale, Shared& s) {
    const int step[4] = {0, 1, p.width + 2, p.width + 3}, near[4] = {0, 1, kWindowWidth, kWindowWidth + 1};
    const float v = u * scale[0] * scale[1];
    if (!(v <= 0x1p39f && v >= -0x1p39f)) {
      atomic_max(p.largest + 3, 1u);
      return;
    }
    int64_t* to = p.fixed + (int64_t{at.z} * p.channels + channel) * p.cells + spot.cell;
    for (int i = 0; i < 4; ++i) {
      const float product = v * w[i];
      const int32_t high = nearest(product * power_of_two(-kLowBits));
      const int32_t low = nearest(product - static_cast<float>(high) * power_of_two(kLowBits));
      if (window >= 0) {
        atomic_add(s.high + inside * kWindow + window + near[i], high);
        atomic_add(s.low + inside * kWindow + window + near[i], low);
      } else if (high | low) {
        atomic_add(to + step[i], int64_t{high} * (1 << kLowBits) + low);
      }
    }
  }

  PYFOCUS_HD static void take_tap(const Params& p, const At& at, const DeformTurn<T>& turn, int j, const Pixel& here,
                                  const float* scale, Shared& s) {
    constexpr int kPack = Shape::kPack;
    const int tap = turn.batch * Shape::kTaps + j, packs = Shape::packs(p),
              offset_group = turn.segment * p.segment / p.offset_channels();
    const Spot<Real> spot = find_spot<Real>(p, p.image + at.z, offset_group, tap, here.y, here.x, true);
    Real w[4], sums[4] = {};
    bool adds = false;
    if constexpr (!Shape::kDouble) {
      adds = p.fixed && spot.cell;
      spot.weights(w);
      for (int q = 0; adds && q < 4; ++q) w[q] *= scale[2];
      if (adds && !(spot.scale * scale[2] <= 1 && spot.scale * scale[2] >= -1)) {  // NaN, infinity
        atomic_max(p.largest + 3, 1u);
        adds = false;
      }
    }
    const int row = spot.y - s.y, column = spot.x - s.x,
              window = row >= 0 && row + 1 < kWindowHeight && column >= 0 && column + 1 < kWindowWidth
                           ? row * kWindowWidth + column
                           : -1;
    for (int k = 0; k < Shape::kChannels / kPack; ++k) {
      const int pack = turn.chunk * (Shape::kChannels / kPack) + k;
      if (pack >= packs) break;
      const Corners<T> corners(p, packed_plane<T>(p, at.z, turn.segment, pack), spot.cell);
      for (int i = 0; i < kPack; ++i) {
        const int inside = k * kPack + i, channel = turn.segment * p.segment + turn.chunk * Shape::kChannels + inside;
        if (turn.chunk * Shape::kChannels + inside >= p.segment) break;
        const Real u = s.u[(j * Shape::kChannels + inside) * kStride + at.thread];
        for (int q = 0; q < 4; ++q) sums[q] += u * widened(corners.of[q].v[i]);
        if constexpr (Shape::kDouble) {
          if (p.columns)
            p.columns[((int64_t{at.z} * p.channels + channel) * p.taps + tap) * p.pixels() +
                      int64_t{here.y} * p.out_width + here.x] = u;
        } else if (adds) {
          add(p, at, spot, w, u, inside, channel, window, scale, s);
        }
      }
    }
    const bool first = turn.chunk == 0 && turn.segment * p.segment % p.offset_channels() == 0;
    write(p, int64_t{p.image + at.z} * p.offset_groups + offset_group, tap, here, spot, sums, first);
  }

  // Samples are linear in the corners, so what several turns have of an offset group adds up.
  PYFOCUS_HD static void write(const Params& p, int64_t plane, int tap, const Pixel& here, const Spot<Real>& spot,
                               const Real* sums, bool first) {
    const int64_t area = p.pixels(), at = (plane * p.taps + tap) * area + int64_t{here.y} * p.out_width + here.x,
                  pair = at + (plane * p.taps + tap) * area;
    if (p.grad_mask) {
      Real w[4];
      deform_weights(spot.fy, spot.fx, w);
      Real* to = static_cast<Real*>(p.grad_mask) + at;
      *to = (first ? Real(0) : *to) + deform_sample(w, sums);
    }
    if (p.grad_offset) {
      Real* to = static_cast<Real*>(p.grad_offset) + pair;
      to[0] = (first ? Real(0) : to[0]) + spot.scale * deform_by_y(spot.fx, sums);
      to[area] = (first ? Real(0) : to[area]) + spot.scale * deform_by_x(spot.fy, sums);
    }
  }

  PYFOCUS_HD static void flush(const Params& p, const At& at, const DeformTurn<T>& turn, Shared& s) {
    const int channel = turn.segment * p.segment + turn.chunk * Shape::kChannels;
    for (int i = at.thread; i < kCells; i += kThreads) {
      const int64_t total = int64_t{s.high[i]} * (1 << kLowBits) + s.low[i];
      s.high[i] = s.low[i] = 0;
      const int y = s.y + i % kWindow / kWindowWidth, x = s.x + i % kWindowWidth;
      if (total != 0)
        atomic_add(
            p.fixed + (int64_t{at.z} * p.channels + channel + i / kWindow) * p.cells + int64_t{y} * (p.width + 2) + x,
            total);
    }
  }

  PYFOCUS_HD static void begin(const Params& p, const At& at, Shared& s, Local& l) {
    l.scale[0] = l.scale[1] = l.scale[2] = 0;
    if (Shape::kDouble || !p.fixed) return;
    const int e = p.bits - bound_of_u(p);
    l.scale[0] = power_of_two(e / 2), l.scale[1] = power_of_two(e - e / 2);
    l.scale[2] = power_of_two(-bound_of_mask(p));
    for (int i = at.thread; i < kCells; i += kThreads) s.high[i] = s.low[i] = 0;
  }

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared& s, Local& l) {
    const DeformTurn<T> turn(p, at.turn);
    if constexpr (kPhase == 0) {
      if (at.turn == 0) begin(p, at, s, l);
      if (turn.output_block == 0) l.sums.clear();
      if (at.thread == 0 && turn.batch == 0 && turn.output_block == 0) place_window(p, at, turn, s);
      load(p, at, turn, s);
    } else if constexpr (kPhase == 1) {
      l.sums.add(s.a, s.b, at.thread);
    } else if constexpr (kPhase == 2) {
      if (turn.last_output) l.sums.store(s.u, kStride, at.thread);
    } else if constexpr (kPhase == 3) {
      const Pixel here(p, at, at.thread);
      if (!turn.last_output || at.thread >= Shape::kTile || !here.seen) return;
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
      for (int j = 0; j < Shape::kTaps; ++j)
        if (turn.batch * Shape::kTaps + j < p.taps) take_tap(p, at, turn, j, here, l.scale, s);
    } else {
      // Twice 19 bits hold the sums of 16 taps of 128 pixels.
      const bool full = turn.last_batch || turn.batch % 4 == 3;
      if (!Shape::kDouble && p.fixed && turn.last_output && full) flush(p, at, turn, s);
    }
  }
};

}  // namespace

void deform_turn_backward_cuda(const DeformDevice& p, int device, void* stream) {
  const int64_t turns = p.dtype == Dtype::F64 ? DeformTurn<double>::count(p) : DeformTurn<float>::count(p);
  launch_for<DeformTurnBackKernel>("deform_conv_backward", {turns}, p, device, stream);
}

void deform_data_round_cuda(const DeformDevice& p, int device, void* stream) {
  const int height = p.dtype == Dtype::F64 ? 4 : 8;
  if (p.fixed) device_fill(device, p.fixed, 0, int64_t{p.round} * p.channels * p.cells * 8, stream);
  launch_for<DeformDataKernel>("deform_conv_backward",
                               {blocks(p.out_width, 16) * blocks(p.out_height, height), 1, p.round}, p, device, stream);
}

}  // namespace pyfocus
