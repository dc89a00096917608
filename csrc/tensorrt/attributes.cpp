// Attributes of a DeformConv2d node: read, checked and written.
#include "attributes.h"

#include <cstring>
#include <iterator>

namespace pyfocus::tensorrt {
namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginFieldType;
using Long = long long;

constexpr int64_t kLongest = int64_t{1} << 20;

struct Attribute {
  const char* name;
  int32_t most;  // values
  int64_t least;
};

constexpr Attribute kAttributes[] = {
    {"stride", 2, 1}, {"padding", 2, 0}, {"dilation", 2, 1}, {"groups", 1, 1}, {"offset_groups", 1, 1}};

// Where an attribute's values are kept.
int64_t* place_of(DeformConvSteps* steps, const char* name) {
  return std::strcmp(name, "stride") == 0     ? steps->stride
         : std::strcmp(name, "padding") == 0  ? steps->pad
         : std::strcmp(name, "dilation") == 0 ? steps->dilation
         : std::strcmp(name, "groups") == 0   ? &steps->groups
                                              : &steps->offset_groups;
}

const Attribute& attribute_of(const char* name) {
  for (const Attribute& a : kAttributes)
    if (name && std::strcmp(name, a.name) == 0) return a;
  fail(ErrorKind::Argument,
       "DeformConv2d has no attribute '%.64s'; it takes stride, padding, dilation, groups and offset_groups",
       name ? name : "(null)");
}

// What every node may carry, and the parser has used up.
bool names_the_plugin(const char* name) {
  return name && (std::strcmp(name, "plugin_version") == 0 || std::strcmp(name, "plugin_namespace") == 0);
}

int64_t value_at(const PluginField& field, int i) {
  const size_t size = field.type == PluginFieldType::kINT64 ? 8 : 4;  // not always aligned in an engine
  int64_t wide = 0;
  int32_t narrow = 0;
  std::memcpy(size == 8 ? static_cast<void*>(&wide) : &narrow,
              static_cast<const char*>(field.data) + static_cast<size_t>(i) * size, size);
  return size == 8 ? wide : narrow;
}

void read(const PluginField& field, DeformConvSteps* steps) {
  const Attribute& a = attribute_of(field.name);
  PYFOCUS_CHECK(field.type == PluginFieldType::kINT32 || field.type == PluginFieldType::kINT64,
                "DeformConv2d: %s must be an integer, got a field of type %d", a.name, static_cast<int>(field.type));
  PYFOCUS_CHECK(field.data && field.length >= 1 && field.length <= a.most, "DeformConv2d: %s must be %s, got %d values",
                a.name, a.most == 2 ? "one or two integers" : "one integer", field.data ? field.length : 0);
  int64_t* to = place_of(steps, a.name);
  for (int i = 0; i < a.most; ++i) {
    to[i] = value_at(field, i < field.length ? i : 0);
    PYFOCUS_CHECK(to[i] >= a.least && to[i] <= kLongest, "DeformConv2d: %s must be from %lld to %lld, got %lld", a.name,
                  Long{a.least}, Long{kLongest}, Long{to[i]});
  }
}

}  // namespace

DeformConvSteps steps_of(const PluginFieldCollection* fields) {
  DeformConvSteps steps;
  for (int i = 0; fields && i < fields->nbFields; ++i)
    if (!names_the_plugin(fields->fields[i].name)) read(fields->fields[i], &steps);
  return steps;
}

const PluginFieldCollection* attribute_names() {
  static const PluginField names[] = {{kAttributes[0].name, nullptr, PluginFieldType::kINT32, 1},
                                      {kAttributes[1].name, nullptr, PluginFieldType::kINT32, 1},
                                      {kAttributes[2].name, nullptr, PluginFieldType::kINT32, 1},
                                      {kAttributes[3].name, nullptr, PluginFieldType::kINT32, 1},
                                      {kAttributes[4].name, nullptr, PluginFieldType::kINT32, 1}};
  static const PluginFieldCollection all{static_cast<int32_t>(std::size(names)), names};
  return &all;
}

Attributes::Attributes(const DeformConvSteps& steps) : collection_{kCount, fields_} {
  static_assert(kCount == std::size(kAttributes));
  DeformConvSteps from = steps;
  for (int k = 0; k < kCount; ++k) {
    const Attribute& a = kAttributes[k];
    if (k) text_ += ' ';
    text_ += a.name;
    for (int i = 0; i < a.most; ++i) {
      values_[k][i] = static_cast<int32_t>(place_of(&from, a.name)[i]);
      text_ += ' ';
      text_ += std::to_string(values_[k][i]);
    }
    fields_[k] = {a.name, values_[k], PluginFieldType::kINT32, a.most};
  }
}

}  // namespace pyfocus::tensorrt
