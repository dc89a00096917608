// deform_conv (csrc/deform_conv.h) as a layer of TensorRT: an IPluginV3 over the op's own launcher, nothing else.
//
// Inputs, in this order, all in C order (kLINEAR):
//   input (N, C, H, W) T, offset (N, 2 offset_groups kh kw, oh, ow) float32, mask (N, offset_groups kh kw, oh, ow)
//   float32, weight (O, C / groups, kh, kw) T, bias (O) T, with T float32 or float16.
// Output: (N, O, oh, ow) T. All sizes may be dynamic. Coordinates and sums are in float32 whatever T is.
//
// A plugin is its attributes (attributes.h) and keeps nothing between calls, so that contexts may share it.
#pragma once

#include "attributes.h"

namespace pyfocus::tensorrt {

inline constexpr const char* kPluginName = "DeformConv2d";
inline constexpr const char* kPluginVersion = "1";
inline constexpr const char* kPluginNamespace = "pyfocus";

class DeformConvPlugin final : public nvinfer1::IPluginV3,
                               public nvinfer1::IPluginV3OneCore,
                               public nvinfer1::IPluginV3OneBuild,
                               public nvinfer1::IPluginV3OneRuntime {
 public:
  explicit DeformConvPlugin(const DeformConvSteps& steps) : steps_(steps), attributes_(steps) {}

  nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override;
  nvinfer1::IPluginV3* clone() noexcept override;  // null when memory ends

  const char* getPluginName() const noexcept override { return kPluginName; }
  const char* getPluginVersion() const noexcept override { return kPluginVersion; }
  const char* getPluginNamespace() const noexcept override { return kPluginNamespace; }

  // While an engine is built. 0 or an ErrorCode, after a report.
  int32_t getNbOutputs() const noexcept override { return 1; }
  int32_t getOutputDataTypes(nvinfer1::DataType* outputs, int32_t output_count, const nvinfer1::DataType* inputs,
                             int32_t input_count) const noexcept override;
  int32_t getOutputShapes(const nvinfer1::DimsExprs* inputs, int32_t input_count, const nvinfer1::DimsExprs* values,
                          int32_t value_count, nvinfer1::DimsExprs* outputs, int32_t output_count,
                          nvinfer1::IExprBuilder& builder) noexcept override;
  bool supportsFormatCombination(int32_t at, const nvinfer1::DynamicPluginTensorDesc* all, int32_t input_count,
                                 int32_t output_count) noexcept override;
  int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t input_count,
                          const nvinfer1::DynamicPluginTensorDesc* outputs, int32_t output_count) noexcept override;
  // Enough for the largest shapes and for all below them; 0, after a report, where the launcher refuses the largest.
  size_t getWorkspaceSize(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t input_count,
                          const nvinfer1::DynamicPluginTensorDesc* outputs,
                          int32_t output_count) const noexcept override;
  const char* getTimingCacheID() noexcept override { return attributes_.text().c_str(); }
  const char* getMetadataString() noexcept override { return attributes_.text().c_str(); }

  // While it runs. enqueue only enqueues, on the stream given, on the thread's current device.
  int32_t onShapeChange(const nvinfer1::PluginTensorDesc* inputs, int32_t input_count,
                        const nvinfer1::PluginTensorDesc* outputs, int32_t output_count) noexcept override;
  int32_t enqueue(const nvinfer1::PluginTensorDesc* input_descs, const nvinfer1::PluginTensorDesc* output_descs,
                  const void* const* inputs, void* const* outputs, void* workspace,
                  cudaStream_t stream) noexcept override;
  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override { return clone(); }
  const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override { return attributes_.fields(); }

 private:
  const DeformConvSteps steps_;
  const Attributes attributes_;
};

}  // namespace pyfocus::tensorrt
