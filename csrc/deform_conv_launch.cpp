// deform_conv's checks, its plan of the workspace, and its launches.
#include <cstring>

#include "deform_conv.h"
#include "deform_conv_cuda.h"
#include "deform_conv_rows.h"
#include "parallel.h"

namespace pyfocus {
namespace {

constexpr int64_t kLargest = int64_t{1} << 31;  // elements of an array
constexpr int64_t kLongest = int64_t{1} << 20;  // stride, pad, dilation
constexpr int64_t kWidest = 1 << 10;            // kernel, a side
constexpr int64_t kColumnBytes = 512 << 10;     // of a tile's columns: half of a second-level cache
constexpr int64_t kSlotBytes = 64 << 20;        // of all slots, as long as there are kFewestSlots
constexpr int64_t kFewestSlots = 8, kMostSlots = 32;
constexpr int64_t kAlign = 64;

using Long = long long;

// --- checks ----------------------------------------------------------------

void check_steps(const char* function, const DeformConvSteps& s) {
  const auto pair = [&](const char* name, const int64_t* v, int64_t least) {
    PYFOCUS_CHECK(v[0] >= least && v[1] >= least && v[0] <= kLongest && v[1] <= kLongest,
                  "%s: %s must be from %lld to %lld, got (%lld, %lld)", function, name, Long{least}, Long{kLongest},
                  Long{v[0]}, Long{v[1]});
  };
  pair("stride", s.stride, 1), pair("pad", s.pad, 0), pair("dilation", s.dilation, 1);
  PYFOCUS_CHECK(s.groups >= 1 && s.offset_groups >= 1,
                "%s: groups and offset_groups must be 1 or more, got %lld and %lld", function, Long{s.groups},
                Long{s.offset_groups});
}

void check_array(const char* function, const char* name, const Tensor& t, Dtype dtype, int ndim) {
  check_tensor(function, name, t, dtype, ndim);
  check_contiguous(function, name, t);
  PYFOCUS_CHECK(t.count() < kLargest, "%s: %s must have fewer than 2^31 elements, got %lld", function, name,
                Long{t.count()});
}

// One of the arrays whose shape follows from input, weight and steps.
void check_sized(const char* function, const char* name, const Tensor& t, const Place& place, Dtype dtype, int ndim,
                 const int64_t* shape, bool written) {
  if (written) check_output(function, name, t, dtype, ndim);
  check_array(function, name, t, dtype, ndim);
  check_place(function, name, &t, place);
  for (int axis = 0; axis < ndim; ++axis) check_shape(function, name, t, axis, shape[axis]);
}

Dtype real_of(Dtype data) { return data == Dtype::F64 ? Dtype::F64 : Dtype::F32; }

// What input, weight and steps say, with all of it checked.
DeformConvParams describe(const char* function, const Tensor& input, const Tensor& weight, const DeformConvSteps& s) {
  PYFOCUS_CHECK(
      input.dtype == Dtype::F32 || input.dtype == Dtype::F64 || input.dtype == Dtype::F16 || input.dtype == Dtype::BF16,
      "%s: input must be float32, float64, float16 or bfloat16, got %s", function, dtype_name(input.dtype));
  check_array(function, "input", input, input.dtype, 4);
  check_array(function, "weight", weight, input.dtype, 4);
  check_place(function, "weight", &weight, input.place());
  check_steps(function, s);
  DeformConvParams p;
  p.dtype = input.dtype, p.steps = s;
  p.batch = input.shape[0], p.channels = input.shape[1], p.height = input.shape[2], p.width = input.shape[3];
  p.out_channels = weight.shape[0];
  p.kernel[0] = weight.shape[2], p.kernel[1] = weight.shape[3];
  PYFOCUS_CHECK(p.channels >= 1 && p.height >= 1 && p.width >= 1,
                "%s: input must have a channel, a row and a column, got %lld x %lld x %lld", function, Long{p.channels},
                Long{p.height}, Long{p.width});
  PYFOCUS_CHECK(p.plane() < kLargest, "%s: input must have fewer than 2^31 pixels with its border, got %lld", function,
                Long{p.plane()});
  PYFOCUS_CHECK(p.kernel[0] >= 1 && p.kernel[1] >= 1 && p.kernel[0] <= kWidest && p.kernel[1] <= kWidest,
                "%s: weight must have from 1 to %lld taps a side, got %lld x %lld", function, Long{kWidest},
                Long{p.kernel[0]}, Long{p.kernel[1]});
  PYFOCUS_CHECK(p.rows() < kLargest, "%s: weight must have fewer than 2^31 taps over all input channels, got %lld",
                function, Long{p.rows()});
  PYFOCUS_CHECK(p.channels % s.groups == 0 && p.channels % s.offset_groups == 0,
                "%s: groups and offset_groups must divide the %lld input channels, got %lld and %lld", function,
                Long{p.channels}, Long{s.groups}, Long{s.offset_groups});
  PYFOCUS_CHECK(p.out_channels % s.groups == 0, "%s: groups must divide the %lld output channels, got %lld", function,
                Long{p.out_channels}, Long{s.groups});
  check_shape(function, "weight", weight, 1, p.group_channels());
  p.out_height = deform_conv_size(p.height, p.kernel[0], s.stride[0], s.pad[0], s.dilation[0]);
  p.out_width = deform_conv_size(p.width, p.kernel[1], s.stride[1], s.pad[1], s.dilation[1]);
  p.input = input.data, p.weight = weight.data;
  return p;
}

// --- the workspace -----------------------------------------------------------

struct Plan {
  int64_t bordered, gathered, turned, weight_sum, slots;  // where they begin
  int64_t bytes;                                          // of all, with room to align
};

Plan plan(DeformConvParams* p, bool backward) {
  const int64_t real = p->dtype == Dtype::F64 ? 8 : 4, panel = 128 / real, outputs = p->group_outputs();
  const int64_t panels = (outputs + panel - 1) / panel * p->steps.groups;
  p->tile = kDeformTile;
  while (p->tile > 32 && (p->rows() * p->tile * real > kColumnBytes || p->pixels() < kFewestSlots * p->tile))
    p->tile /= 2;
  p->tiles = (p->pixels() + p->tile - 1) / p->tile;
  const int64_t slot =
      backward ? (2 * p->rows() + p->out_channels + panels * panel) * p->tile : p->rows() * p->tile + outputs * panel;
  p->slot_bytes = (slot * real + kAlign - 1) / kAlign * kAlign;
  p->slot_count = kSlotBytes / p->slot_bytes;
  p->slot_count = p->slot_count < kFewestSlots ? kFewestSlots : p->slot_count > kMostSlots ? kMostSlots : p->slot_count;
  if (p->slot_count > p->tiles) p->slot_count = p->tiles;
  Plan out{};
  int64_t at = 0;
  const auto take = [&](int64_t bytes) {
    const int64_t begin = at;
    at += (bytes + kAlign - 1) / kAlign * kAlign;
    return begin;
  };
  out.bordered = take(p->channels * p->plane() * real);
  out.turned = take(p->out_channels * p->group_rows() * real);
  if (backward) out.gathered = take(p->channels * p->plane() * real);
  if (backward) out.weight_sum = take(panels * panel * p->group_rows() * real);
  out.slots = take(p->slot_count * p->slot_bytes);
  out.bytes = at + kAlign;
  return out;
}

int64_t bytes_on(const Place& place, DeformConvParams* p, bool backward) {
  if (place.device == Device::Cuda)
    PYFOCUS_ON_CUDA(backward ? "deform_conv_backward" : "deform_conv", deform_conv_cuda_bytes(*p, backward));
  return plan(p, backward).bytes;
}

void check_workspace(const char* function, const Tensor& workspace, const Place& place, int64_t bytes) {
  check_output(function, "workspace", workspace, Dtype::U8, 1);
  check_place(function, "workspace", &workspace, place);
  PYFOCUS_CHECK(workspace.count() >= bytes, "%s: workspace must have at least %lld bytes, got %lld", function,
                Long{bytes}, Long{workspace.count()});
}

void lay_out(DeformConvParams* p, const Tensor& workspace, bool backward) {
  const Plan parts = plan(p, backward);
  char* base = workspace.as<char>();
  base += (kAlign - static_cast<int64_t>(reinterpret_cast<uintptr_t>(base) % kAlign)) % kAlign;
  p->bordered = base + parts.bordered, p->turned = base + parts.turned, p->slots = base + parts.slots;
  if (backward) p->gathered = base + parts.gathered, p->weight_sum = base + parts.weight_sum;
}

// --- launches ----------------------------------------------------------------

using Kernel = void (*)(const DeformConvParams&, int64_t, int64_t);

void run(Kernel kernel, const DeformConvParams& p, int64_t count, int threads) {
  parallel_for(count, 1, threads, [&](int64_t begin, int64_t end) { kernel(p, begin, end); });
}

void turn_weights(const DeformConvParams& p, bool transposed, int threads) {
  parallel_for(p.out_channels, 1, threads,
               [&](int64_t begin, int64_t end) { PYFOCUS_BEST(deform_turn_weights)(p, transposed, begin, end); });
}

void clear(void* to, int64_t count, int64_t bytes, int threads) {
  parallel_for(count, 1, threads, [&](int64_t begin, int64_t end) {
    std::memset(static_cast<char*>(to) + begin * bytes, 0, static_cast<size_t>((end - begin) * bytes));
  });
}

// A round: as many tiles as there are slots, then the sums over them. Both kinds of sums share the threads.
void run_round(const DeformConvParams& p, int threads) {
  const int64_t blocks = (p.offset_channels() + kDeformScatter - 1) / kDeformScatter,
                scatters = p.grad_input ? p.steps.offset_groups * blocks : 0,
                rows = (p.group_rows() + kDeformRows - 1) / kDeformRows,
                adds = p.grad_weight ? p.steps.groups * rows : 0;
  run(PYFOCUS_BEST(deform_backward_slots), p, p.last - p.first, threads);
  parallel_for(scatters + adds, 1, threads, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task)
      if (task < scatters)
        PYFOCUS_BEST(deform_scatter_planes)(p, task, task + 1);
      else
        PYFOCUS_BEST(deform_add_weights)(p, task - scatters, task - scatters + 1);
  });
}

}  // namespace

int64_t deform_conv_workspace(const Tensor& input, const Tensor& weight, const DeformConvSteps& steps, bool backward) {
  DeformConvParams p = describe("deform_conv_workspace", input, weight, steps);
  return bytes_on(input.place(), &p, backward);
}

void deform_conv(const Tensor& input, const Tensor& weight, const Tensor& offset, const Tensor* mask,
                 const Tensor* bias, const DeformConvSteps& steps, const Tensor& output, const Tensor& workspace,
                 const Execution& on) {
  constexpr const char* kName = "deform_conv";
  DeformConvParams p = describe(kName, input, weight, steps);
  const int64_t planes = steps.offset_groups * p.taps(), area[] = {p.out_height, p.out_width};
  const int64_t offsets[] = {p.batch, 2 * planes, area[0], area[1]}, masks[] = {p.batch, planes, area[0], area[1]},
                outputs[] = {p.batch, p.out_channels, area[0], area[1]};
  const Place place = input.place();
  check_sized(kName, "offset", offset, place, real_of(p.dtype), 4, offsets, false);
  if (mask) check_sized(kName, "mask", *mask, place, real_of(p.dtype), 4, masks, false);
  if (bias) check_sized(kName, "bias", *bias, place, p.dtype, 1, &p.out_channels, false);
  check_sized(kName, "output", output, place, p.dtype, 4, outputs, true);
  check_workspace(kName, workspace, place, bytes_on(place, &p, false));
  p.offset = offset.data, p.mask = mask ? mask->data : nullptr, p.bias = bias ? bias->data : nullptr;
  p.output = output.data;
  if (output.count() == 0) return;
  if (place.device == Device::Cuda) PYFOCUS_ON_CUDA(kName, deform_conv_cuda(p, workspace.data, place.index, on.stream));
  lay_out(&p, workspace, false);
  turn_weights(p, true, on.threads);
  for (p.image = 0; p.image < p.batch; ++p.image) {
    run(PYFOCUS_BEST(deform_border_planes), p, p.channels, on.threads);
    run(PYFOCUS_BEST(deform_forward_slots), p, p.slot_count, on.threads);
  }
}

void deform_conv_backward(const Tensor& grad_output, const Tensor& input, const Tensor& weight, const Tensor& offset,
                          const Tensor* mask, const DeformConvSteps& steps, const DeformConvGradients& gradients,
                          const Tensor& workspace, const Execution& on) {
  constexpr const char* kName = "deform_conv_backward";
  DeformConvParams p = describe(kName, input, weight, steps);
  const int64_t planes = steps.offset_groups * p.taps(), area[] = {p.out_height, p.out_width};
  const int64_t offsets[] = {p.batch, 2 * planes, area[0], area[1]}, masks[] = {p.batch, planes, area[0], area[1]},
                outputs[] = {p.batch, p.out_channels, area[0], area[1]};
  const Dtype real = real_of(p.dtype);
  const Place place = input.place();
  check_sized(kName, "grad_output", grad_output, place, p.dtype, 4, outputs, false);
  check_sized(kName, "offset", offset, place, real, 4, offsets, false);
  if (mask) check_sized(kName, "mask", *mask, place, real, 4, masks, false);
  const auto wanted = [&](const char* name, const Tensor* t, Dtype dtype, int ndim, const int64_t* shape) {
    if (t) check_sized(kName, name, *t, place, dtype, ndim, shape, true);
    return t ? t->data : nullptr;
  };
  p.grad_input = wanted("grad_input", gradients.input, p.dtype, 4, input.shape);
  p.grad_offset = wanted("grad_offset", gradients.offset, real, 4, offsets);
  p.grad_mask = wanted("grad_mask", gradients.mask, real, 4, masks);
  p.grad_weight = wanted("grad_weight", gradients.weight, p.dtype, 4, weight.shape);
  p.grad_bias = wanted("grad_bias", gradients.bias, p.dtype, 1, &p.out_channels);
  check_workspace(kName, workspace, place, bytes_on(place, &p, true));
  p.offset = offset.data, p.mask = mask ? mask->data : nullptr, p.upstream = grad_output.data;
  if (place.device == Device::Cuda)
    PYFOCUS_ON_CUDA(kName, deform_conv_backward_cuda(p, workspace.data, place.index, on.stream));
  lay_out(&p, workspace, true);

  const int64_t size = real == Dtype::F64 ? 8 : 4, panel = 128 / size,
                panels = (p.group_outputs() + panel - 1) / panel * steps.groups;
  if (p.grad_bias) run(PYFOCUS_BEST(deform_sum_bias), p, p.out_channels, on.threads);
  if (p.grad_weight) clear(p.weight_sum, panels, p.group_rows() * 128, on.threads);
  if (p.grad_input || p.wants_places()) turn_weights(p, false, on.threads);
  const bool tiled = p.grad_input || p.grad_weight || p.wants_places();
  for (p.image = 0; tiled && p.image < p.batch; ++p.image) {
    run(PYFOCUS_BEST(deform_border_planes), p, p.channels, on.threads);
    if (p.grad_input) clear(p.gathered, p.channels, p.plane() * size, on.threads);
    for (p.first = 0; p.first < p.tiles; p.first += p.slot_count) {
      p.last = p.first + p.slot_count < p.tiles ? p.first + p.slot_count : p.tiles;
      run_round(p, on.threads);
    }
    if (p.grad_input) run(PYFOCUS_BEST(deform_store_planes), p, p.channels, on.threads);
  }
  if (p.grad_weight) run(PYFOCUS_BEST(deform_store_weights), p, p.out_channels, on.threads);
}

}  // namespace pyfocus
