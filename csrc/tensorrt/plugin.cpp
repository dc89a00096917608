// The layer: shapes, types and workspace while an engine is built, the launcher while it runs.
#include "plugin.h"

#include <algorithm>
#include <initializer_list>

#include "report.h"

namespace pyfocus::tensorrt {
namespace {

using namespace nvinfer1;
using Long = long long;

enum Input { kInput, kOffset, kMask, kWeight, kBias, kInputs };
constexpr const char* kNames[kInputs] = {"input", "offset", "mask", "weight", "bias"};
constexpr int kRanks[kInputs] = {4, 4, 4, 4, 1};

void check_counts(int32_t inputs, int32_t outputs) {
  PYFOCUS_CHECK(
      inputs == kInputs && outputs == 1,
      "DeformConv2d takes five inputs (input, offset, mask, weight, bias) and gives one output, got %d and %d", inputs,
      outputs);
}

void check_rank(int i, int32_t rank) {
  PYFOCUS_CHECK(rank == kRanks[i], "DeformConv2d: %s must have %d dimensions, got %d", kNames[i], kRanks[i], rank);
}

Dtype dtype_of(const char* name, DataType type) {
  PYFOCUS_CHECK(type == DataType::kFLOAT || type == DataType::kHALF,
                "DeformConv2d: %s must be float32 or float16, got type %d", name, static_cast<int>(type));
  return type == DataType::kFLOAT ? Dtype::F32 : Dtype::F16;
}

// An array in C order on a CUDA device.
Tensor view_of(const char* name, const Dims& dims, DataType type, const void* data, int device) {
  PYFOCUS_CHECK(dims.nbDims >= 0 && dims.nbDims <= Tensor::kMaxDims,
                "DeformConv2d: %s must have 1 to %d dimensions, got %d", name, Tensor::kMaxDims, dims.nbDims);
  Tensor t;
  t.data = const_cast<void*>(data), t.dtype = dtype_of(name, type), t.ndim = dims.nbDims;
  t.device = Device::Cuda, t.device_index = device;
  int64_t step = 1;
  for (int i = t.ndim - 1; i >= 0; --i) {
    PYFOCUS_CHECK(dims.d[i] >= 0, "DeformConv2d: %s must have a known size on axis %d, got %lld", name, i,
                  Long{dims.d[i]});
    t.shape[i] = dims.d[i], t.stride[i] = step;
    step *= t.shape[i];
  }
  return t;
}

// Sizes that follow from others; below 0: not known yet, on either side.
void expect(int i, const Dims& got, std::initializer_list<int64_t> wanted) {
  int axis = 0;
  for (const int64_t size : wanted) {
    PYFOCUS_CHECK(size < 0 || got.d[axis] < 0 || got.d[axis] == size,
                  "DeformConv2d: %s must have size %lld on axis %d, got %lld", kNames[i], Long{size}, axis,
                  Long{got.d[axis]});
    ++axis;
  }
}

// What is known of the shapes of the inputs, as far as the launcher's query does not look at it.
void check_sizes(const Dims* const* dims, const DeformConvSteps& steps) {
  for (int i = 0; i < kInputs; ++i) check_rank(i, dims[i]->nbDims);
  const int64_t *image = dims[kInput]->d, *weight = dims[kWeight]->d;
  const bool known = weight[2] >= 0 && weight[3] >= 0;
  const int64_t planes = known ? steps.offset_groups * weight[2] * weight[3] : -1;
  int64_t area[2];
  for (int i = 0; i < 2; ++i)
    area[i] = known && image[2 + i] >= 0
                  ? deform_conv_size(image[2 + i], weight[2 + i], steps.stride[i], steps.pad[i], steps.dilation[i])
                  : -1;
  expect(kOffset, *dims[kOffset], {image[0], known ? 2 * planes : -1, area[0], area[1]});
  expect(kMask, *dims[kMask], {image[0], planes, area[0], area[1]});
  expect(kBias, *dims[kBias], {weight[0]});
}

// max(0, size + 2 pad - dilation (kernel - 1) - 1 + stride) / stride: deform_conv_size without a division below 0.
const IDimensionExpr* size_of(const IDimensionExpr& size, const IDimensionExpr& kernel, int64_t stride, int64_t pad,
                              int64_t dilation, IExprBuilder& builder) {
  const auto known = [](const IDimensionExpr* e) -> const IDimensionExpr& {
    PYFOCUS_CHECK(e, "DeformConv2d: TensorRT could not build the expression of an output's size");
    return *e;
  };
  const auto number = [&](int64_t value) -> const IDimensionExpr& { return known(builder.constant(value)); };
  const auto both = [&](DimensionOperation op, const IDimensionExpr& a,
                        const IDimensionExpr& b) -> const IDimensionExpr& {
    return known(builder.operation(op, a, b));
  };
  const IDimensionExpr& taken = both(DimensionOperation::kPROD, kernel, number(dilation));
  const IDimensionExpr& given = both(DimensionOperation::kSUM, size, number(2 * pad + dilation + stride - 1));
  const IDimensionExpr& room = both(DimensionOperation::kMAX, both(DimensionOperation::kSUB, given, taken), number(0));
  return &both(DimensionOperation::kFLOOR_DIV, room, number(stride));
}

int current_device() {
  int device = 0;
#if !defined(PYFOCUS_EMULATE)
  const cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) fail(ErrorKind::Device, "DeformConv2d: no current device: %s", cudaGetErrorString(error));
#endif
  return device;
}

}  // namespace

IPluginCapability* DeformConvPlugin::getCapabilityInterface(PluginCapabilityType type) noexcept {
  switch (type) {
    case PluginCapabilityType::kCORE:
      return static_cast<IPluginV3OneCore*>(this);
    case PluginCapabilityType::kBUILD:
      return static_cast<IPluginV3OneBuild*>(this);
    case PluginCapabilityType::kRUNTIME:
      return static_cast<IPluginV3OneRuntime*>(this);
  }
  return nullptr;
}

IPluginV3* DeformConvPlugin::clone() noexcept {
  IPluginV3* copy = nullptr;
  attempt([&] { copy = new DeformConvPlugin(steps_); });
  return copy;
}

// --- while an engine is built ------------------------------------------------

int32_t DeformConvPlugin::getOutputDataTypes(DataType* outputs, int32_t output_count, const DataType* inputs,
                                             int32_t input_count) const noexcept {
  return attempt([&] {
    check_counts(input_count, output_count);
    dtype_of(kNames[kInput], inputs[kInput]);
    for (const int i : {kOffset, kMask})
      PYFOCUS_CHECK(inputs[i] == DataType::kFLOAT, "DeformConv2d: %s must be float32, got type %d", kNames[i],
                    static_cast<int>(inputs[i]));
    for (const int i : {kWeight, kBias})
      PYFOCUS_CHECK(inputs[i] == inputs[kInput], "DeformConv2d: %s must have the type of input, %d, got %d", kNames[i],
                    static_cast<int>(inputs[kInput]), static_cast<int>(inputs[i]));
    outputs[0] = inputs[kInput];
  });
}

int32_t DeformConvPlugin::getOutputShapes(const DimsExprs* inputs, int32_t input_count, const DimsExprs*, int32_t,
                                          DimsExprs* outputs, int32_t output_count, IExprBuilder& builder) noexcept {
  return attempt([&] {
    check_counts(input_count, output_count);
    for (int i = 0; i < kInputs; ++i) check_rank(i, inputs[i].nbDims);
    const DimsExprs &image = inputs[kInput], &weight = inputs[kWeight];
    outputs[0].nbDims = 4;
    outputs[0].d[0] = image.d[0], outputs[0].d[1] = weight.d[0];
    for (int i = 0; i < 2; ++i)
      outputs[0].d[2 + i] =
          size_of(*image.d[2 + i], *weight.d[2 + i], steps_.stride[i], steps_.pad[i], steps_.dilation[i], builder);
  });
}

bool DeformConvPlugin::supportsFormatCombination(int32_t at, const DynamicPluginTensorDesc* all, int32_t input_count,
                                                 int32_t output_count) noexcept {
  if (input_count != kInputs || output_count != 1 || at < 0 || at > kInputs) return false;
  const PluginTensorDesc& asked = all[at].desc;
  if (asked.format != TensorFormat::kLINEAR) return false;
  if (at == kInput) return asked.type == DataType::kFLOAT || asked.type == DataType::kHALF;
  if (at == kOffset || at == kMask) return asked.type == DataType::kFLOAT;
  return asked.type == all[kInput].desc.type;
}

int32_t DeformConvPlugin::configurePlugin(const DynamicPluginTensorDesc* inputs, int32_t input_count,
                                          const DynamicPluginTensorDesc*, int32_t output_count) noexcept {
  return attempt([&] {
    check_counts(input_count, output_count);
    const Dims* dims[kInputs];
    for (int i = 0; i < kInputs; ++i) dims[i] = &inputs[i].desc.dims;
    check_sizes(dims, steps_);
    const DataType type = inputs[kInput].desc.type;
    deform_conv_workspace(view_of("input", inputs[kInput].max, type, nullptr, 0),
                          view_of("weight", inputs[kWeight].max, type, nullptr, 0), steps_, false);
  });
}

size_t DeformConvPlugin::getWorkspaceSize(const DynamicPluginTensorDesc* inputs, int32_t input_count,
                                          const DynamicPluginTensorDesc*, int32_t output_count) const noexcept {
  int64_t bytes = 0;
  attempt([&] {
    check_counts(input_count, output_count);
    const DataType type = inputs[kInput].desc.type;
    const Tensor weight = view_of("weight", inputs[kWeight].max, type, nullptr, 0);
    Tensor input = view_of("input", inputs[kInput].max, type, nullptr, 0);
    const int64_t batch = input.shape[0], all = deform_conv_workspace(input, weight, steps_, false);
    input.shape[0] = 1;
    const int64_t one = deform_conv_workspace(input, weight, steps_, false);
    // The launcher takes as many images at a time as its share of memory holds. Of smaller ones it takes more, and may
    // so need more than for the largest, by less than one image.
    bytes = std::max(all, std::min(all + one, batch * one));
  });
  return static_cast<size_t>(bytes);
}

// --- while it runs -----------------------------------------------------------

int32_t DeformConvPlugin::onShapeChange(const PluginTensorDesc* inputs, int32_t input_count, const PluginTensorDesc*,
                                        int32_t output_count) noexcept {
  return attempt([&] {
    check_counts(input_count, output_count);
    const Dims* dims[kInputs];
    for (int i = 0; i < kInputs; ++i) dims[i] = &inputs[i].dims;
    check_sizes(dims, steps_);
  });
}

int32_t DeformConvPlugin::enqueue(const PluginTensorDesc* input_descs, const PluginTensorDesc* output_descs,
                                  const void* const* inputs, void* const* outputs, void* workspace,
                                  cudaStream_t stream) noexcept {
  return attempt([&] {
    const int device = current_device();
    const auto given = [&](int i) {
      Tensor t = view_of(kNames[i], input_descs[i].dims, input_descs[i].type, inputs[i], device);
      t.read_only = true;
      return t;
    };
    const Tensor output = view_of("output", output_descs[0].dims, output_descs[0].type, outputs[0], device);
    if (output.count() == 0) return;
    const Tensor input = given(kInput), offset = given(kOffset), mask = given(kMask), weight = given(kWeight),
                 bias = given(kBias);
    Tensor scratch;
    scratch.data = workspace, scratch.dtype = Dtype::U8, scratch.ndim = 1, scratch.stride[0] = 1;
    scratch.device = Device::Cuda, scratch.device_index = device;
    scratch.shape[0] = deform_conv_workspace(input, weight, steps_, false);
    PYFOCUS_CHECK(workspace || scratch.shape[0] == 0, "DeformConv2d: workspace must have %lld bytes, got none",
                  Long{scratch.shape[0]});
    deform_conv(input, weight, offset, &mask, &bias, steps_, output, scratch, {0, stream});
  });
}

}  // namespace pyfocus::tensorrt
