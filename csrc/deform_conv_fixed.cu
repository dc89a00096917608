// deform_conv on CUDA, backward: before and after the sums in fixed point, and what takes their place for float64.
// Bytes: the gradient by the output, the weight and the mask once more for their largest values; per element of the
// image 8 of sums read and its gradient written. Deterministic: maxima and integer sums have no order.
#include "deform_conv_sample.cuh"

namespace pyfocus {
namespace {

// Bits of the largest value of |upstream|, |weight| and |mask|; as integers they are in order, NaN above all.
template <class T>
struct DeformLargestKernel {
  using Params = DeformDevice;
  static constexpr int kThreads = 256, kPhases = 3, kBlocks = 512;
  struct Shared {
    uint32_t largest[kThreads];
  };
  using Local = Nothing;

  template <class V>
  PYFOCUS_HD static uint32_t largest_of(const void* from, int64_t count, const At& at, int64_t step) {
    uint32_t out = 0;
    for (int64_t i = int64_t{at.x} * kThreads + at.thread; i < count; i += step) {
      const uint32_t bits =
          __builtin_bit_cast(uint32_t, static_cast<float>(widened(static_cast<const V*>(from)[i]))) & 0x7fffffffu;
      out = bits > out ? bits : out;
    }
    return out;
  }

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared& s, Local&) {
    if constexpr (kPhase == 0) {
      const int64_t step = int64_t{kBlocks} * kThreads, planes = int64_t{p.offset_groups} * p.taps;
      s.largest[at.thread] = at.y == 0 ? largest_of<T>(p.upstream, int64_t{p.batch} * p.outputs * p.pixels(), at, step)
                             : at.y == 1
                                 ? largest_of<T>(p.weight, int64_t{p.outputs} * p.group_channels() * p.taps, at, step)
                             : p.mask ? largest_of<RealOf<T>>(p.mask, p.batch * planes * p.pixels(), at, step)
                                      : 0;
    } else if (at.thread < (kPhase == 1 ? 16 : 1)) {
      constexpr int kStep = kPhase == 1 ? 16 : 1, kEnd = kPhase == 1 ? kThreads : 16;
      uint32_t out = 0;
      for (int i = at.thread; i < kEnd; i += kStep) out = s.largest[i] > out ? s.largest[i] : out;
      s.largest[at.thread] = out;
      if (kPhase == 2) atomic_max(p.largest + at.y, out);
    }
  }
};

template <class T>
struct DeformUnfixKernel {  // a thread per pixel of the image
  using Params = DeformDevice;
  using Shared = Nothing;
  using Local = Nothing;
  static constexpr int kThreads = 256, kPhases = 1;

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared&, Local&) {
    if constexpr (!DeformShape<T>::kDouble) {
      const int64_t i = int64_t{at.x} * kThreads + at.thread, area = int64_t{p.height} * p.width;
      if (i >= area) return;
      const int64_t y = i / p.width, x = i % p.width, plane = int64_t{at.z} * p.channels + at.y;
      const int e = bound_of_u(p) - p.bits;
      const float sum = static_cast<float>(p.fixed[plane * p.cells + (y + 2) * (p.width + 2) + x + 1]),
                  value = sum * power_of_two(e / 2) * power_of_two(bound_of_mask(p)) * power_of_two(e - e / 2);
      static_cast<T*>(p.grad_input)[(int64_t{p.image} * p.channels + plane) * area + i] =
          Narrow<T>::of(p.largest[3] ? NAN : value);
    }
  }
};

// float64: a thread per image, channel and parity of the cells that it alone adds to.
struct DeformOrderedKernel {
  using Params = DeformDevice;
  using Shared = Nothing;
  using Local = Nothing;
  static constexpr int kThreads = 64, kPhases = 1;

  template <int kPhase>
  PYFOCUS_HD static void phase(const Params& p, const At& at, Shared&, Local&) {
    const int64_t index = int64_t{at.x} * kThreads + at.thread, plane = index / 4;
    if (plane >= int64_t{p.round} * p.channels) return;
    const int image = static_cast<int>(plane / p.channels), channel = static_cast<int>(plane % p.channels);
    double* to =
        static_cast<double*>(p.grad_input) + (int64_t{p.image} * p.channels + plane) * p.height * int64_t{p.width};
    const double* u = p.columns + plane * p.taps * p.pixels();
    for (int tap = 0; tap < p.taps; ++tap)
      for (int y = 0; y < p.out_height; ++y)
        for (int x = 0; x < p.out_width; ++x, ++u) {
          const Spot<double> spot =
              find_spot<double>(p, p.image + image, channel / p.offset_channels(), tap, y, x, false);
          const int down = (spot.y ^ static_cast<int>(index / 2)) & 1, right = (spot.x ^ static_cast<int>(index)) & 1,
                    row = spot.y - 2 + down, column = spot.x - 1 + right;
          if (spot.cell == 0 || row < 0 || row >= p.height || column < 0 || column >= p.width) continue;
          const double weight = (down ? spot.fy : 1 - spot.fy) * (right ? spot.fx : 1 - spot.fx) * spot.scale;
          to[row * int64_t{p.width} + column] += weight * *u;
        }
  }
};

}  // namespace

void deform_find_largest_cuda(const DeformDevice& p, int device, void* stream) {
  device_fill(device, p.largest, 0, 4 * sizeof *p.largest, stream);
  launch_for<DeformLargestKernel>("deform_conv_backward", {DeformLargestKernel<float>::kBlocks, 3}, p, device, stream);
}

void deform_unfix_round_cuda(const DeformDevice& p, int device, void* stream) {
  constexpr const char* kName = "deform_conv_backward";
  const int64_t area = int64_t{p.height} * p.width;
  if (p.fixed) return launch_for<DeformUnfixKernel>(kName, {blocks(area, 256), p.channels, p.round}, p, device, stream);
  device_fill(device, static_cast<double*>(p.grad_input) + p.image * p.channels * area, 0,
              p.round * p.channels * area * 8, stream);
  launch<DeformOrderedKernel>(kName, {blocks(int64_t{p.round} * p.channels * 4, DeformOrderedKernel::kThreads)}, p,
                              device, stream);
}

}  // namespace pyfocus
