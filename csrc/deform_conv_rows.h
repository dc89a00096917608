// The kernels of deform_conv and their parameter block. deform_conv.cpp holds the loops, deform_conv_tile.h what
// forward and backward share, deform_conv_launch.cpp the checks, the plan of the workspace and the launches.
#pragma once

#include "deform_conv.h"
#include "isa.h"

namespace pyfocus {

// A tile is up to kDeformTile output pixels of one image, one after the other; a slot is the workspace of one tile at a
// time. Tiles, slots and accumulators are laid out in panels of 128 bytes: [panel][row][element], so that a product
// streams through them; elements past the last pixel or channel are 0.
constexpr int64_t kDeformTile = 128;
template <class Real>
constexpr int64_t kDeformPanel = 128 / static_cast<int64_t>(sizeof(Real));

struct DeformConvParams {
  Dtype dtype = Dtype::F32;  // of the data; Real is double for float64, float otherwise
  int64_t batch = 0, channels = 0, height = 0, width = 0, out_channels = 0, out_height = 0, out_width = 0;
  int64_t kernel[2] = {};
  DeformConvSteps steps;

  const void* input = nullptr;     // data
  const void* weight = nullptr;    // data
  const void* bias = nullptr;      // data or null
  const void* upstream = nullptr;  // data: the gradient by the output
  const void* offset = nullptr;    // Real
  const void* mask = nullptr;      // Real or null
  void* output = nullptr;          // data
  void* grad_input = nullptr;      // data; these and all below may be null
  void* grad_offset = nullptr;     // Real
  void* grad_mask = nullptr;       // Real
  void* grad_weight = nullptr;     // data
  void* grad_bias = nullptr;       // data

  void* bordered = nullptr;    // Real (C, H + 3, W + 2): the image under zeros
  void* gathered = nullptr;    // Real, the same shape: the gradient by the image
  void* turned = nullptr;      // Real: weights as the product reads them
  void* weight_sum = nullptr;  // Real, panels of a group's output channels: [group][panel][c, t][element]
  char* slots = nullptr;       // `slot_count` slots of `slot_bytes`
  int64_t slot_count = 0, slot_bytes = 0;
  int64_t tile = 0, tiles = 0;             // pixels of a tile, tiles of an image
  int64_t image = 0, first = 0, last = 0;  // backward: tiles [first, last) lie in slots 0, 1, ...

  int64_t taps() const { return kernel[0] * kernel[1]; }
  int64_t rows() const { return channels * taps(); }  // of the columns
  int64_t pixels() const { return out_height * out_width; }
  int64_t plane() const { return (height + 3) * (width + 2); }
  int64_t group_channels() const { return channels / steps.groups; }
  int64_t group_outputs() const { return out_channels / steps.groups; }
  int64_t group_rows() const { return group_channels() * taps(); }
  int64_t offset_channels() const { return channels / steps.offset_groups; }
  bool wants_places() const { return grad_offset || grad_mask; }
};

constexpr int64_t kDeformScatter = 4;  // input channels per task of deform_scatter_planes
constexpr int64_t kDeformRows = 64;    // rows of the weight per task of deform_add_weights

// Once per call: output channels of the weight, forward turned to [group][c, t][o], backward as they are.
PYFOCUS_KERNEL(void, deform_turn_weights, const DeformConvParams& p, bool transposed, int64_t begin, int64_t end)
// Per image: input channels; forward, slots, each with every slot_count-th tile.
PYFOCUS_KERNEL(void, deform_border_planes, const DeformConvParams& p, int64_t begin, int64_t end)
PYFOCUS_KERNEL(void, deform_forward_slots, const DeformConvParams& p, int64_t begin, int64_t end)
// Backward, per round of tiles: slots; then blocks of input channels and of the weight's rows, each adding what all
// slots hold; after the last round of an image its input channels.
PYFOCUS_KERNEL(void, deform_backward_slots, const DeformConvParams& p, int64_t begin, int64_t end)
PYFOCUS_KERNEL(void, deform_scatter_planes, const DeformConvParams& p, int64_t begin, int64_t end)
PYFOCUS_KERNEL(void, deform_add_weights, const DeformConvParams& p, int64_t begin, int64_t end)
PYFOCUS_KERNEL(void, deform_store_planes, const DeformConvParams& p, int64_t begin, int64_t end)
// Backward, once per call: output channels.
PYFOCUS_KERNEL(void, deform_store_weights, const DeformConvParams& p, int64_t begin, int64_t end)
PYFOCUS_KERNEL(void, deform_sum_bias, const DeformConvParams& p, int64_t begin, int64_t end)

}  // namespace pyfocus
