// deform_conv on CUDA, backward: the gradients by the weight and the bias.
//
// A block of 128 threads owns 64 outputs of one group, 64 rows of its columns (float64: 32 and 32) and every
// slices-th strip of 16 x 4 pixels; in turns of one strip it samples the columns as forward does and multiplies them
// with the gradient by the output, 64 pixels deep. What each slice has goes to the workspace, and a thread per weight
// adds the slices in order: deterministic.
// Bytes per pixel and block of outputs: of columns as forward, and the gradient by the output once per 64 rows, which
// the second-level cache has. At C = O = 64, 3 x 3: 36864 multiply-adds per pixel; 12 loads of 16 bytes per 128 of
// them. Expected on an H100 at 30 x 256 x 256 in float: 3.5 ms for the product, 1 ms for the samples; half: 1.5 ms.
#include "deform_conv_sample.cuh"

namespace pyfocus {
namespace {

template <class T>
struct DeformWeightKernel {
  using Params = DeformDevice;
  using Shape = DeformShape<T>;
  using Real = typename Shape::Real;
  using Multiply = Product<T, Shape::kOutputs, Shape::kChunk, Shape::kStrip, false>;
  static constexpr int kThreads = Shape::kThreads, kPhases = 2, kBlocksPerSm = 4, kUnits = Shape::kChunk / Shape::kPack;
  struct Shared {
    alignas(16) T a[Multiply::kSizeA];  // [output][pixel]
    alignas(16) T b[Multiply::kSizeB];  // [row][pixel]
  };
  struct Local {
    typename Multiply::Sums sums;
  };

  PYFOCUS_HD static int strips(const Params& p) {
    return parts(p.out_width, Shape::kTileWidth) * parts(p.out_height, Shape::kStripHeight);
  }
  PYFOCUS_HD static int turns(const Params& p, const At& at) {
    const int total = strips(p) * p.round;
    return at.z < total ? parts(total - at.z, p.slices) : 0;
  }
  PYFOCUS_HD static int chunks(const Params& p) { return parts(Shape::units(p), kUnits); }

  PYFOCUS_HD static void load(const Params& p, const At& at, Shared& s) {
    const int strip = at.z + at.turn * p.slices, image = strip / strips(p), here = strip % strips(p),
              across = parts(p.out_width, Shape::kTileWidth), pixel = at.thread % Shape::kStrip,
              y = here / across * Shape::kStripHeight + pixel / Shape::kTileWidth,
              x = here % across * Shape::kTileWidth + pixel % Shape::kTileWidth;
    const int blocks_of = Shape::output_blocks(p), group = at.y / blocks_of, first = at.y % blocks_of * Shape::kOutputs;
    constexpr int kStep = kThreads / Shape::kStrip;
    const bool seen = y < p.out_height && x < p.out_width;
    const T* upstream = static_cast<const T*>(p.upstream) +
                        (int64_t{p.image + image} * p.outputs + group * p.group_outputs() + first) * p.pixels() +
                        int64_t{y} * p.out_width + x;
    for (int o = at.thread / Shape::kStrip; o < Shape::kOutputs; o += kStep)
      s.a[Multiply::at_a(o, pixel)] = seen && first + o < p.group_outputs() ? upstream[int64_t{o} * p.pixels()] : T{};
    sample_units<T>(p, image, group, y, x, at.x * kUnits, kUnits, at.thread / Shape::kStrip, kStep, Multiply::kRowB,
                    s.b + Multiply::at_b(0, pixel));
  }

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared& s, Local& l) {
    Real* sums =
        static_cast<Real*>(p.sums) + ((int64_t{at.z} * p.groups * Shape::output_blocks(p) + at.y) * chunks(p) + at.x) *
                                         Shape::kChunk * Shape::kOutputs;
    if constexpr (kPhase == 0) {
      if (at.turn == 0 && p.image == 0) l.sums.clear();
      if (at.turn == 0 && p.image != 0) l.sums.load(sums, Shape::kOutputs, at.thread);
      load(p, at, s);
    } else {
      l.sums.add(s.a, s.b, at.thread);
      if (at.turn + 1 == turns(p, at)) l.sums.store(sums, Shape::kOutputs, at.thread);
    }
  }
};

template <class T>
struct DeformWeightEndKernel {  // a thread per weight
  using Params = DeformDevice;
  using Shared = Nothing;
  using Local = Nothing;
  using Shape = DeformShape<T>;
  using Real = typename Shape::Real;
  static constexpr int kThreads = 256, kPhases = 1;

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared&, Local&) {
    const int64_t i = int64_t{at.x} * kThreads + at.thread;
    if (i >= int64_t{p.outputs} * p.group_channels() * p.taps) return;
    const int tap = static_cast<int>(i % p.taps), c = static_cast<int>(i / p.taps % p.group_channels()),
              o = static_cast<int>(i / p.taps / p.group_channels()), group = o / p.group_outputs(),
              output = o % p.group_outputs(), inside = c % p.segment;
    const int unit = (c / p.segment * p.taps + tap) * Shape::packs(p) + inside / Shape::kPack,
              row = unit * Shape::kPack + inside % Shape::kPack, chunks = DeformWeightKernel<T>::chunks(p),
              blocks_of = Shape::output_blocks(p), block = group * blocks_of + output / Shape::kOutputs;
    const Real* from =
        static_cast<const Real*>(p.sums) +
        ((int64_t{block} * chunks + row / Shape::kChunk) * Shape::kChunk + row % Shape::kChunk) * Shape::kOutputs +
        output % Shape::kOutputs;
    const int64_t step = int64_t{p.groups} * blocks_of * chunks * Shape::kChunk * Shape::kOutputs;
    Real sum = 0;
    for (int slice = 0; slice < p.slices; ++slice) sum += from[slice * step];
    static_cast<T*>(p.grad_weight)[i] = Narrow<T>::of(sum);
  }
};

// A block per output: 256 sums over every 256th pixel, then those in order, 16 by 16.
template <class T>
struct DeformBiasKernel {
  using Params = DeformDevice;
  using Real = RealOf<T>;
  using Local = Nothing;
  static constexpr int kThreads = 256, kPhases = 3;
  struct Shared {
    Real sum[kThreads];
  };

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared& s, Local&) {
    if constexpr (kPhase == 0) {
      Real sum = 0;
      for (int n = 0; n < p.batch; ++n) {
        const T* from = static_cast<const T*>(p.upstream) + (int64_t{n} * p.outputs + at.x) * p.pixels();
        Real part = 0;
        for (int i = at.thread; i < p.pixels(); i += kThreads) part += widened(from[i]);
        sum += part;
      }
      s.sum[at.thread] = sum;
    } else if (at.thread < (kPhase == 1 ? 16 : 1)) {
      constexpr int kStep = kPhase == 1 ? 16 : 1, kEnd = kPhase == 1 ? kThreads : 16;
      Real sum = 0;
      for (int i = at.thread; i < kEnd; i += kStep) sum += s.sum[i];
      s.sum[at.thread] = sum;
      if (kPhase == 2) static_cast<T*>(p.grad_bias)[at.x] = Narrow<T>::of(sum);
    }
  }
};

}  // namespace

void deform_weight_round_cuda(const DeformDevice& p, int device, void* stream) {
  const int size = static_cast<int>(dtype_size(p.dtype)), outputs = size == 8 ? 32 : 64, units = outputs * size / 16,
            here = p.group_segments() * p.taps * parts(p.segment, 16 / size);
  launch_for<DeformWeightKernel>("deform_conv_backward",
                                 {blocks(here, units), p.groups * blocks(p.group_outputs(), outputs), p.slices}, p,
                                 device, stream);
}

void deform_weight_end_cuda(const DeformDevice& p, int device, void* stream) {
  launch_for<DeformWeightEndKernel>("deform_conv_backward",
                                    {blocks(int64_t{p.outputs} * p.group_channels() * p.taps, 256)}, p, device, stream);
}

void deform_bias_cuda(const DeformDevice& p, int device, void* stream) {
  launch_for<DeformBiasKernel>("deform_conv_backward", {p.outputs}, p, device, stream);
}

}  // namespace pyfocus
