// The attributes of a DeformConv2d node, and how they travel in an engine.
//
// name            values   least   without it
// stride          1 or 2   1       1
// padding         1 or 2   0       0
// dilation        1 or 2   1       1
// groups          1        1       1
// offset_groups   1        1       1
//
// Two values are (y, x), one is both. int32 or int64, at most 2^20. In an engine all are there, as int32, pairs as
// pairs.
#pragma once

#include <NvInferRuntime.h>

#include <string>

#include "deform_conv.h"

namespace pyfocus::tensorrt {

// Raises Argument errors: an attribute of another name, type, length or range. Null stands for none.
DeformConvSteps steps_of(const nvinfer1::PluginFieldCollection* fields);

// The names as the parser looks for them, without values. Lives as long as the library.
const nvinfer1::PluginFieldCollection* attribute_names();

// All attributes with their values, which lie in here.
class Attributes {
 public:
  explicit Attributes(const DeformConvSteps& steps);
  Attributes(const Attributes&) = delete;
  Attributes& operator=(const Attributes&) = delete;

  const nvinfer1::PluginFieldCollection* fields() const { return &collection_; }
  const std::string& text() const { return text_; }  // "stride 1 1 padding 1 1 ...": equal for equal attributes

 private:
  static constexpr int kCount = 5;
  int32_t values_[kCount][2];
  nvinfer1::PluginField fields_[kCount];
  nvinfer1::PluginFieldCollection collection_;
  std::string text_;
};

}  // namespace pyfocus::tensorrt
