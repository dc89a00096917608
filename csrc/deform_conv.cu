// deform_conv on CUDA, forward: columns are sampled into shared memory and multiplied there, never written to memory.
//
// A block of 128 threads owns a tile of 16 x 8 pixels and 64 outputs of one group (float64: 16 x 4 and 32). In turns
// over the group's columns, 8 units (a unit is one tap of one pack) at a time: each thread samples its pixel, units in
// the order (segment, tap, pack), so that a position is found once for all packs of an offset group; then the product.
// Bytes per pixel at C = O = 64, 3 x 3, 8 offset groups: offsets and masks 864, image 256 read, 256 + 256 for the
// repacked one, output 256 (half types: 864, 128, 256, 128): 1.9 KB in float, 1.4 KB in half, against 4.6 KB (2.3 KB)
// more, each way, of columns in memory. Per pixel 36864 multiply-adds; 576 samples of 4 loads of 4 (2) bytes, 16 bytes
// at a time, of which the first-level cache has most: a tile with its 3 x 3 border is 20 x 12 cells for 9 x 128 spots.
// Shared memory, float: 16 floats per 64 multiply-adds, 6 passes per 16 cycles of arithmetic.
// Expected on an H100 at 30 x 256 x 256: float 72.5 G multiply-adds, 2.4 ms at 60 TFLOP/s, with sampling (0.7 ms of
// loads) 3.5 to 4 ms; half 0.2 ms on tensor cores, so sampling counts: 0.6 ms of instructions, 0.9 ms of memory, 1.5 ms
// in all. Half types: columns are rounded to the type before the product. Deterministic.
#include "deform_conv_sample.cuh"

namespace pyfocus {
namespace {

// --- the image with 16 bytes of channels side by side; a thread per cell and pack --------------

template <class T>
struct DeformPackKernel {
  using Params = DeformDevice;
  using Shared = Nothing;
  using Local = Nothing;
  static constexpr int kThreads = 256, kPhases = 1;

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared&, Local&) {
    constexpr int kCount = Pack<T>::kCount;
    const int64_t cell = int64_t{at.x} * kThreads + at.thread;
    if (cell >= p.cells) return;
    const int packs = DeformShape<T>::packs(p), segment = at.y / packs, pack = at.y % packs;
    const int y = static_cast<int>(cell / (p.width + 2)) - 2, x = static_cast<int>(cell % (p.width + 2)) - 1;
    const bool inside = y >= 0 && y < p.height && x >= 0 && x < p.width;
    const int64_t area = int64_t{p.height} * p.width;
    const T* from = static_cast<const T*>(p.input) +
                    (int64_t{p.image + at.z} * p.channels + segment * p.segment + pack * kCount) * area +
                    int64_t{y} * p.width + x;
    Pack<T> out;
    for (int i = 0; i < kCount; ++i) out.v[i] = inside && pack * kCount + i < p.segment ? from[i * area] : T{};
    reinterpret_cast<Pack<T>*>(static_cast<T*>(p.packed) + (int64_t{at.z} * (p.channels / p.segment) * packs + at.y) *
                                                               p.cells * kCount)[cell] = out;
  }
};

// --- the weight as forward reads it: [group][block of outputs][row, padded to turns][output] ----

template <class T>
struct DeformTurnKernel {
  using Params = DeformDevice;
  using Shared = Nothing;
  using Local = Nothing;
  using Shape = DeformShape<T>;
  static constexpr int kThreads = 256, kPhases = 1;

  PYFOCUS_HD static int rows(const Params& p) { return parts(Shape::units(p), Shape::kUnits) * Shape::kDepth; }

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared&, Local&) {
    const int64_t i = int64_t{at.x} * kThreads + at.thread;
    if (i >= int64_t{rows(p)} * Shape::kOutputs) return;
    const int row = static_cast<int>(i / Shape::kOutputs), group = at.y,
              output = at.z * Shape::kOutputs + static_cast<int>(i % Shape::kOutputs);
    const int unit = row / Shape::kPack, packs = Shape::packs(p), tap = unit / packs % p.taps,
              segment = unit / packs / p.taps, inside = unit % packs * Shape::kPack + row % Shape::kPack;
    T value{};
    if (output < p.group_outputs() && segment < p.group_segments() && inside < p.segment) {
      const int64_t o = int64_t{group} * p.group_outputs() + output, c = segment * p.segment + inside;
      value = static_cast<const T*>(p.weight)[(o * p.group_channels() + c) * p.taps + tap];
    }
    static_cast<T*>(p.turned)[(int64_t{group} * Shape::output_blocks(p) + at.z) * rows(p) * Shape::kOutputs + i] =
        value;
  }
};

// --- sampling and product -----------------------------------------------------------------------

template <class T>
struct DeformForwardKernel {
  using Params = DeformDevice;
  using Shape = DeformShape<T>;
  using Real = typename Shape::Real;
  using Multiply = Product<T, Shape::kTile, Shape::kOutputs, Shape::kDepth, true>;
  static constexpr int kThreads = Shape::kThreads, kPhases = 4, kBlocksPerSm = kIsHalf<T> ? 4 : 3;
  static constexpr int kShare = kThreads / Shape::kTile;  // threads that share a pixel's units
  struct Shared {
    union {
      struct {
        alignas(16) T a[Multiply::kSizeA];
        alignas(16) T b[Multiply::kSizeB];
      } in;
      alignas(16) Real out[Shape::kOutputs * (Shape::kTile + 4)];  // [output][pixel]
    };
  };
  struct Local {
    typename Multiply::Sums sums;
  };

  PYFOCUS_HD static int turns(const Params& p, const At&) { return parts(Shape::units(p), Shape::kUnits); }

  PYFOCUS_HD static void sample(const Params& p, const At& at, Shared& s) {
    const int pixel = at.thread % Shape::kTile, across = parts(p.out_width, Shape::kTileWidth),
              y = at.x / across * Shape::kTileHeight + pixel / Shape::kTileWidth,
              x = at.x % across * Shape::kTileWidth + pixel % Shape::kTileWidth;
    sample_units<T>(p, at.z, at.y / Shape::output_blocks(p), y, x, at.turn * Shape::kUnits, Shape::kUnits,
                    at.thread / Shape::kTile, kShare, Multiply::kRowA, s.in.a + Multiply::at_a(pixel, 0));
  }

  PYFOCUS_HD static void load_weights(const Params& p, const At& at, Shared& s) {
    constexpr int kCount = Pack<T>::kCount, kRow = Shape::kOutputs / kCount;
    const Pack<T>* from =
        static_cast<const Pack<T>*>(p.turned) + (int64_t{at.y} * turns(p, at) + at.turn) * Shape::kDepth * kRow;
    for (int i = at.thread; i < Shape::kDepth * kRow; i += kThreads)
      *reinterpret_cast<Pack<T>*>(s.in.b + Multiply::at_b(i % kRow * kCount, i / kRow)) = from[i];
  }

  PYFOCUS_HD static void write(const Params& p, const At& at, const Shared& s) {
    const int pixel = at.thread % Shape::kTile, across = parts(p.out_width, Shape::kTileWidth),
              y = at.x / across * Shape::kTileHeight + pixel / Shape::kTileWidth,
              x = at.x % across * Shape::kTileWidth + pixel % Shape::kTileWidth;
    if (y >= p.out_height || x >= p.out_width) return;
    const int blocks = Shape::output_blocks(p), group = at.y / blocks, first = at.y % blocks * Shape::kOutputs,
              count = p.group_outputs() - first < Shape::kOutputs ? p.group_outputs() - first : Shape::kOutputs;
    const int64_t o = int64_t{group} * p.group_outputs() + first;
    T* to =
        static_cast<T*>(p.output) + ((int64_t{p.image + at.z} * p.outputs + o) * p.out_height + y) * p.out_width + x;
    for (int i = at.thread / Shape::kTile; i < count; i += kShare) {
      const Real bias = p.bias ? widened(static_cast<const T*>(p.bias)[o + i]) : Real(0);
      to[int64_t{i} * p.pixels()] = Narrow<T>::of(s.out[i * (Shape::kTile + 4) + pixel] + bias);
    }
  }

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared& s, Local& l) {
    const bool last = at.turn + 1 == turns(p, at);
    if constexpr (kPhase == 0) {
      if (at.turn == 0) l.sums.clear();
      load_weights(p, at, s);
      sample(p, at, s);
    } else if constexpr (kPhase == 1) {
      l.sums.add(s.in.a, s.in.b, at.thread);
    } else if constexpr (kPhase == 2) {
      if (last) l.sums.store(s.out, Shape::kTile + 4, at.thread);
    } else {
      if (last) write(p, at, s);
    }
  }
};

}  // namespace

void deform_pack_cuda(const DeformDevice& p, int device, void* stream) {
  const int pack = static_cast<int>(16 / dtype_size(p.dtype));
  launch_for<DeformPackKernel>("deform_conv",
                               {blocks(p.cells, 256), p.channels / p.segment * parts(p.segment, pack), p.round}, p,
                               device, stream);
}

void deform_turn_forward_cuda(const DeformDevice& p, int device, void* stream) {
  const int outputs = p.dtype == Dtype::F64 ? 32 : 64, pack = static_cast<int>(16 / dtype_size(p.dtype)),
            units = p.group_segments() * p.taps * parts(p.segment, pack);
  launch_for<DeformTurnKernel>(
      "deform_conv", {blocks(blocks(units, 8) * 8 * pack * outputs, 256), p.groups, blocks(p.group_outputs(), outputs)},
      p, device, stream);
}

void deform_forward_round_cuda(const DeformDevice& p, int device, void* stream) {
  const int outputs = p.dtype == Dtype::F64 ? 32 : 64, height = p.dtype == Dtype::F64 ? 4 : 8;
  launch_for<DeformForwardKernel>(
      "deform_conv",
      {blocks(p.out_width, 16) * blocks(p.out_height, height), p.groups * blocks(p.group_outputs(), outputs), p.round},
      p, device, stream);
}

}  // namespace pyfocus
