// What the CUDA kernels of deform_conv share: their parameters, how images lie in the workspace, where taps lie.
//
// Images are repacked first: 16 bytes of neighbouring channels lie together, under the same zero border as on the CPU
// ([image][pack][cell][channel]), so that a thread reads a corner of 4 channels (8 of half types) with one load, a warp
// of neighbouring pixels whole lines, and no tap needs a test. A pack keeps to a segment: channels that share their
// group and their offset group. What a segment lacks of whole packs is zeros.
#pragma once

#include "atomic.cuh"
#include "deform_conv_product.cuh"
#include "deform_conv_rows.h"
#include "launch.cuh"

namespace pyfocus {

struct DeformDevice {
  Dtype dtype;
  const void *input, *weight, *bias, *upstream, *offset, *mask;  // bias, mask: or null
  void *output, *grad_input, *grad_offset, *grad_mask, *grad_weight, *grad_bias;
  int batch, channels, height, width, outputs, out_height, out_width, kernel_width, taps;
  int stride[2], pad[2], dilation[2], groups, offset_groups;
  int segment;        // channels that share their group and offset group
  int cells;          // of a bordered plane
  int images;         // that the workspace holds
  int image;          // the first of them now
  int round;          // how many of them are in use now
  int slices;         // into which the weight's gradient divides a round's pixels
  int bits;           // of a product in fixed point
  void* packed;       // T [image][pack][cell][channel]
  void* turned;       // T: the weight in the order in which the kernel at hand reads it
  void* sums;         // Real [slice][group][block of outputs][chunk][row][output]: the weight's gradient
  int64_t* fixed;     // [image][channel][cell]: the gradient by the image in fixed point; with float64 data unused
  double* columns;    // float64 data: [image][channel][tap][pixel]: the gradient of the columns
  uint32_t* largest;  // bits of the largest |upstream|, |weight|, |mask|; then whether something is not finite

  PYFOCUS_HD int pixels() const { return out_height * out_width; }
  PYFOCUS_HD int group_channels() const { return channels / groups; }
  PYFOCUS_HD int group_outputs() const { return outputs / groups; }
  PYFOCUS_HD int group_segments() const { return channels / groups / segment; }
  PYFOCUS_HD int offset_channels() const { return channels / offset_groups; }
};

PYFOCUS_HD static inline int parts(int count, int size) { return (count + size - 1) / size; }

// Sizes that follow from the type of the data.
template <class T>
struct DeformShape {
  using Real = RealOf<T>;
  static constexpr bool kDouble = sizeof(T) == 8;
  static constexpr int kPack = Pack<T>::kCount;
  static constexpr int kThreads = 128;
  static constexpr int kTileWidth = 16, kTileHeight = kDouble ? 4 : 8, kTile = kTileWidth * kTileHeight;  // of pixels
  static constexpr int kOutputs = kDouble ? 32 : 64;           // of a block, of one group
  static constexpr int kUnits = 8;                             // forward: of a turn; a unit is one tap of one pack
  static constexpr int kDepth = kUnits * kPack;                // forward: rows of columns of a turn
  static constexpr int kTaps = 4, kChannels = 8;               // data gradient: of a turn
  static constexpr int kRows = kTaps * kChannels, kSome = 32;  // the same: columns, and outputs of a turn
  static constexpr int kChunk = kDouble ? 32 : 64;             // weight gradient: rows of columns of a block
  static constexpr int kStripHeight = 4, kStrip = kTileWidth * kStripHeight;  // weight gradient: pixels of a turn

  PYFOCUS_HD static int packs(const DeformDevice& p) { return parts(p.segment, kPack); }                 // of a segment
  PYFOCUS_HD static int units(const DeformDevice& p) { return p.group_segments() * p.taps * packs(p); }  // of a group
  PYFOCUS_HD static int output_blocks(const DeformDevice& p) { return parts(p.group_outputs(), kOutputs); }
};

// --- fixed point: a product u mask weight is at most 2^(e_u + e_mask), which becomes 2^bits -------

PYFOCUS_HD static inline float power_of_two(int e) {  // -126 to 127
  return __builtin_bit_cast(float, static_cast<uint32_t>(e + 127) << 23);
}

PYFOCUS_HD static inline int exponent_above(uint32_t bits) { return static_cast<int>(bits >> 23) - 126; }

// |u| < 2^e
PYFOCUS_HD static inline int bound_of_u(const DeformDevice& p) {
  int e = 1;  // 2^e > outputs of a group
  while (e < 31 && p.group_outputs() >> e) ++e;
  e += exponent_above(p.largest[0]) + exponent_above(p.largest[1]);
  return e < -140 ? -140 : e > 128 ? 128 : e;
}

// |mask| < 2^e
PYFOCUS_HD static inline int bound_of_mask(const DeformDevice& p) {
  const int e = p.mask ? exponent_above(p.largest[2]) : 1;
  return e > 126 ? 126 : e;
}

// Launches the kernel for the type of the data.
template <template <class> class Kernel>
void launch_for(const char* name, const Grid& grid, const DeformDevice& p, int device, void* stream) {
  switch (p.dtype) {
    case Dtype::F64:
      return launch<Kernel<double>>(name, grid, p, device, stream);
    case Dtype::F16:
      return launch<Kernel<F16>>(name, grid, p, device, stream);
    case Dtype::BF16:
      return launch<Kernel<BF16>>(name, grid, p, device, stream);
    default:
      return launch<Kernel<float>>(name, grid, p, device, stream);
  }
}

// The steps, each on its own in a .cu. `data` and `round` work on the images that the workspace holds.
void deform_pack_cuda(const DeformDevice& p, int device, void* stream);
void deform_turn_forward_cuda(const DeformDevice& p, int device, void* stream);
void deform_turn_backward_cuda(const DeformDevice& p, int device, void* stream);
void deform_forward_round_cuda(const DeformDevice& p, int device, void* stream);
void deform_find_largest_cuda(const DeformDevice& p, int device, void* stream);
void deform_data_round_cuda(const DeformDevice& p, int device, void* stream);
void deform_unfix_round_cuda(const DeformDevice& p, int device, void* stream);
void deform_weight_round_cuda(const DeformDevice& p, int device, void* stream);
void deform_weight_end_cuda(const DeformDevice& p, int device, void* stream);
void deform_bias_cuda(const DeformDevice& p, int device, void* stream);

}  // namespace pyfocus
