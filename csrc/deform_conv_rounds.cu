// deform_conv on CUDA: the plan of the workspace and the order of the steps. Images go in rounds, as many at a time as
// 256 MB hold (at least one): repacked, and backward with their gradient in fixed point, 8 bytes per element. The
// second-level cache of the larger cards holds a good part of what one round's blocks look at.
#include "deform_conv.cuh"
#include "deform_conv_cuda.h"

namespace pyfocus {
namespace {

#if defined(PYFOCUS_EMULATE)
constexpr int64_t kRoundBytes = 12 << 10;  // so that small tests have several rounds
#else
constexpr int64_t kRoundBytes = 256 << 20;
#endif
constexpr int64_t kWeightBlocks = 1056;  // of the weight's gradient: 8 per multiprocessor of a large card
constexpr int64_t kAlign = 256;

struct Plan {
  int64_t packed, turned, sums, fixed, largest;  // where they begin
  int64_t bytes;                                 // of all, with room to align
};

int64_t greatest_divisor(int64_t a, int64_t b) { return b == 0 ? a : greatest_divisor(b, a % b); }

int bits_of(int64_t count) {  // 2^bits >= count
  int bits = 0;
  while (int64_t{1} << bits < count) ++bits;
  return bits;
}

template <class T>
Plan plan_for(DeformDevice* p, bool backward) {
  using Shape = DeformShape<T>;
  const int64_t size = sizeof(T), real = sizeof(typename Shape::Real), segments = p->channels / p->segment,
                outputs = blocks(p->group_outputs(), Shape::kOutputs) * p->groups,
                packs = blocks(p->segment, Shape::kPack), units = segments / p->groups * p->taps * packs;
  const int64_t packed = segments * packs * p->cells * 16,
                gradient = !backward        ? 0
                           : Shape::kDouble ? int64_t{p->channels} * p->taps * p->out_height * p->out_width * 8
                                            : int64_t{p->channels} * p->cells * 8;
  int64_t images = kRoundBytes / (packed + gradient);
  images = images < 1 ? 1 : images > 65535 ? 65535 : images;
  p->images = static_cast<int>(images < p->batch ? images : p->batch);
  const int64_t strips = blocks(p->out_width, Shape::kTileWidth) * blocks(p->out_height, Shape::kStripHeight),
                chunks = blocks(units * Shape::kPack, Shape::kChunk);
  const int64_t wanted = outputs == 0 ? 1 : blocks(kWeightBlocks, chunks * outputs);
  p->slices = static_cast<int>(wanted < strips * p->images ? wanted : strips * p->images);
  const int64_t turned = backward ? segments * blocks(p->segment, Shape::kChannels) * blocks(p->taps, Shape::kTaps) *
                                        blocks(p->group_outputs(), Shape::kSome) * Shape::kSome * Shape::kRows
                                  : outputs * blocks(units, Shape::kUnits) * Shape::kDepth * Shape::kOutputs;
  Plan out{};
  int64_t at = 0;
  const auto take = [&](int64_t bytes) {
    const int64_t begin = at;
    at += (bytes + kAlign - 1) / kAlign * kAlign;
    return begin;
  };
  out.packed = take(packed * p->images);
  out.turned = take(turned * size);
  if (backward) out.sums = take(p->slices * outputs * chunks * Shape::kChunk * Shape::kOutputs * real);
  if (backward) out.fixed = take(gradient * p->images);
  if (backward) out.largest = take(4 * sizeof *p->largest);
  out.bytes = at + kAlign;
  return out;
}

DeformDevice describe(const DeformConvParams& from) {
  DeformDevice p{};
  p.dtype = from.dtype;
  p.input = from.input, p.weight = from.weight, p.bias = from.bias, p.upstream = from.upstream;
  p.offset = from.offset, p.mask = from.mask, p.output = from.output;
  p.grad_input = from.grad_input, p.grad_offset = from.grad_offset, p.grad_mask = from.grad_mask;
  p.grad_weight = from.grad_weight, p.grad_bias = from.grad_bias;
  p.batch = static_cast<int>(from.batch), p.channels = static_cast<int>(from.channels);
  p.height = static_cast<int>(from.height), p.width = static_cast<int>(from.width);
  p.outputs = static_cast<int>(from.out_channels);
  p.out_height = static_cast<int>(from.out_height), p.out_width = static_cast<int>(from.out_width);
  p.kernel_width = static_cast<int>(from.kernel[1]), p.taps = static_cast<int>(from.taps());
  for (int i = 0; i < 2; ++i) {
    p.stride[i] = static_cast<int>(from.steps.stride[i]), p.pad[i] = static_cast<int>(from.steps.pad[i]);
    p.dilation[i] = static_cast<int>(from.steps.dilation[i]);
  }
  p.groups = static_cast<int>(from.steps.groups), p.offset_groups = static_cast<int>(from.steps.offset_groups);
  p.segment = static_cast<int>(greatest_divisor(from.group_channels(), from.offset_channels()));
  p.cells = static_cast<int>(from.plane());
  const int room = 62 - bits_of(from.taps() * from.pixels());
  p.bits = room < 38 ? room : 38;
  return p;
}

Plan plan(DeformDevice* p, bool backward) {
  return p->dtype == Dtype::F64   ? plan_for<double>(p, backward)
         : p->dtype == Dtype::F32 ? plan_for<float>(p, backward)
                                  : plan_for<F16>(p, backward);
}

DeformDevice lay_out(const DeformConvParams& from, bool backward, void* workspace) {
  DeformDevice p = describe(from);
  const Plan parts_of = plan(&p, backward);
  char* base = static_cast<char*>(workspace);
  base += (kAlign - static_cast<int64_t>(reinterpret_cast<uintptr_t>(base) % kAlign)) % kAlign;
  p.packed = base + parts_of.packed, p.turned = base + parts_of.turned;
  if (!backward) return p;
  p.sums = base + parts_of.sums, p.largest = reinterpret_cast<uint32_t*>(base + parts_of.largest);
  if (p.grad_input && p.dtype == Dtype::F64) p.columns = reinterpret_cast<double*>(base + parts_of.fixed);
  if (p.grad_input && p.dtype != Dtype::F64) p.fixed = reinterpret_cast<int64_t*>(base + parts_of.fixed);
  return p;
}

// Without outputs every gradient is 0, and those by the weight and the bias have no elements.
void clear(const DeformDevice& p, int device, void* stream) {
  const int64_t size = dtype_size(p.dtype), real = size == 8 ? 8 : 4,
                masks = int64_t{p.batch} * p.offset_groups * p.taps * p.out_height * p.out_width;
  if (p.grad_input)
    device_fill(device, p.grad_input, 0, int64_t{p.batch} * p.channels * p.height * p.width * size, stream);
  if (p.grad_offset) device_fill(device, p.grad_offset, 0, 2 * masks * real, stream);
  if (p.grad_mask) device_fill(device, p.grad_mask, 0, masks * real, stream);
}

}  // namespace

int64_t deform_conv_cuda_bytes(const DeformConvParams& from, bool backward) {
  DeformDevice p = describe(from);
  return plan(&p, backward).bytes;
}

void deform_conv_cuda(const DeformConvParams& from, void* workspace, int device, void* stream) {
  DeformDevice p = lay_out(from, false, workspace);
  deform_turn_forward_cuda(p, device, stream);
  for (p.image = 0; p.image < p.batch; p.image += p.images) {
    p.round = p.batch - p.image < p.images ? p.batch - p.image : p.images;
    deform_pack_cuda(p, device, stream);
    deform_forward_round_cuda(p, device, stream);
  }
}

void deform_conv_backward_cuda(const DeformConvParams& from, void* workspace, int device, void* stream) {
  DeformDevice p = lay_out(from, true, workspace);
  if (p.outputs == 0) return clear(p, device, stream);
  const bool data = p.grad_input || p.grad_offset || p.grad_mask;
  if (p.grad_bias) deform_bias_cuda(p, device, stream);
  if (data) deform_turn_backward_cuda(p, device, stream);
  if (p.fixed) deform_find_largest_cuda(p, device, stream);
  for (p.image = 0; (data || p.grad_weight) && p.image < p.batch; p.image += p.images) {
    p.round = p.batch - p.image < p.images ? p.batch - p.image : p.images;
    deform_pack_cuda(p, device, stream);
    if (data) deform_data_round_cuda(p, device, stream);
    if (p.grad_input) deform_unfix_round_cuda(p, device, stream);
    if (p.grad_weight) deform_weight_round_cuda(p, device, stream);
  }
  if (p.grad_weight) deform_weight_end_cuda(p, device, stream);
}

}  // namespace pyfocus
