// Asks the plugin what TensorRT asks of it, without TensorRT: by name, "ask_tensorrt_plugin CASE". The host plays the
// device here, so that the layer runs, too. Exit code 0, or 1 after what was wrong on standard error. Without a name it
// lists the cases.
#include <NvInferRuntime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "deform_conv.h"

extern "C" nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count);
extern "C" void setLoggerFinder(nvinfer1::ILoggerFinder* finder);

namespace {

using namespace nvinfer1;

#define EXPECT(condition)                                                                                \
  do {                                                                                                   \
    if (!(condition)) {                                                                                  \
      std::fprintf(stderr, "%s:%d: %s does not hold; last report: %s\n", __FILE__, __LINE__, #condition, \
                   heard.lines.empty() ? "none" : heard.lines.back().c_str());                           \
      std::exit(1);                                                                                      \
    }                                                                                                    \
  } while (0)

// --- what TensorRT would be ---------------------------------------------------

struct Heard : ILogger, ILoggerFinder {
  std::vector<std::string> lines;
  void log(Severity severity, const char* text) noexcept override {
    lines.push_back((severity == Severity::kERROR ? "" : "not an error: ") + std::string(text));
  }
  ILogger* findLogger() override { return this; }
  bool last_says(const char* text) const { return !lines.empty() && lines.back().find(text) != std::string::npos; }
};
Heard heard;

struct Size : IDimensionExpr {
  struct Known : apiv::VDimensionExpr {
    int64_t value = 0;
    bool isConstant() const override { return true; }
    int64_t getConstantValue() const override { return value; }
    bool isSizeTensor() const override { return false; }
  } known;
  explicit Size(int64_t value) {
    known.value = value;
    mImpl = &known;
  }
};

struct Expressions : IExprBuilder, apiv::VExprBuilder {
  std::deque<Size> made;  // stay where they are
  Expressions() { mImpl = this; }
  const IDimensionExpr* constant(int64_t value) override { return &made.emplace_back(value); }
  const IDimensionExpr* operation(DimensionOperation op, const IDimensionExpr& a, const IDimensionExpr& b) override {
    const int64_t x = a.getConstantValue(), y = b.getConstantValue();
    switch (op) {
      case DimensionOperation::kSUM:
        return constant(x + y);
      case DimensionOperation::kSUB:
        return constant(x - y);
      case DimensionOperation::kPROD:
        return constant(x * y);
      case DimensionOperation::kMAX:
        return constant(std::max(x, y));
      case DimensionOperation::kFLOOR_DIV:
        EXPECT(x >= 0 && y > 0);  // of others it is not said how they are rounded
        return constant(x / y);
      default:
        return nullptr;
    }
  }
  const IDimensionExpr* declareSizeTensor(int32_t, const IDimensionExpr&, const IDimensionExpr&) override {
    return nullptr;
  }
};

IPluginCreatorV3One* the_creator() {
  int32_t count = 0;
  IPluginCreatorInterface* const* all = getCreators(count);
  EXPECT(count == 1);
  EXPECT(std::strcmp(all[0]->getInterfaceInfo().kind, "PLUGIN CREATOR_V3ONE") == 0);
  return static_cast<IPluginCreatorV3One*>(all[0]);
}

struct Attribute {
  const char* name;
  std::vector<int32_t> values;
};

struct Layer {
  std::unique_ptr<IPluginV3> plugin;
  IPluginV3OneBuild* build = nullptr;
  IPluginV3OneRuntime* runtime = nullptr;
  explicit Layer(IPluginV3* made) : plugin(made) {
    if (!made) return;
    build = static_cast<IPluginV3OneBuild*>(made->getCapabilityInterface(PluginCapabilityType::kBUILD));
    runtime = static_cast<IPluginV3OneRuntime*>(made->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
  }
};

IPluginV3* create(const std::vector<PluginField>& fields, TensorRTPhase phase = TensorRTPhase::kBUILD) {
  const PluginFieldCollection all{static_cast<int32_t>(fields.size()), fields.data()};
  return the_creator()->createPlugin("a layer", &all, phase);
}

Layer layer_of(const std::vector<Attribute>& attributes) {
  std::vector<PluginField> fields;
  for (const Attribute& a : attributes)
    fields.emplace_back(a.name, a.values.data(), PluginFieldType::kINT32, static_cast<int32_t>(a.values.size()));
  Layer layer(create(fields));
  EXPECT(layer.plugin);
  return layer;
}

Dims dims_of(const std::vector<int64_t>& sizes) {
  Dims dims{};
  dims.nbDims = static_cast<int32_t>(sizes.size());
  std::copy(sizes.begin(), sizes.end(), dims.d);
  return dims;
}

using Shapes = std::vector<std::vector<int64_t>>;  // input, offset, mask, weight, bias, output

std::vector<PluginTensorDesc> descs_of(const Shapes& shapes, DataType type) {
  std::vector<PluginTensorDesc> all;
  for (size_t i = 0; i < shapes.size(); ++i)
    all.push_back({dims_of(shapes[i]), i == 1 || i == 2 ? DataType::kFLOAT : type, TensorFormat::kLINEAR, 1.0F});
  return all;
}

std::vector<DynamicPluginTensorDesc> bounds_of(const Shapes& said, const Shapes& largest, DataType type) {
  std::vector<DynamicPluginTensorDesc> all;
  const auto descs = descs_of(said, type);
  for (size_t i = 0; i < said.size(); ++i)
    all.push_back({descs[i], dims_of(largest[i]), dims_of(largest[i]), dims_of(largest[i])});
  return all;
}

// --- cases -------------------------------------------------------------------------

void names() {
  IPluginCreatorV3One* const creator = the_creator();
  const Layer layer = layer_of({});
  auto* const core = static_cast<IPluginV3OneCore*>(layer.plugin->getCapabilityInterface(PluginCapabilityType::kCORE));
  for (const char* name : {creator->getPluginName(), core->getPluginName()})
    EXPECT(std::strcmp(name, "DeformConv2d") == 0);
  for (const char* version : {creator->getPluginVersion(), core->getPluginVersion()})
    EXPECT(std::strcmp(version, "1") == 0);
  for (const char* space : {creator->getPluginNamespace(), core->getPluginNamespace()})
    EXPECT(std::strcmp(space, "pyfocus") == 0);
  const PluginFieldCollection* fields = creator->getFieldNames();
  const char* wanted[] = {"stride", "padding", "dilation", "groups", "offset_groups"};
  EXPECT(fields->nbFields == 5);
  for (int i = 0; i < 5; ++i) EXPECT(std::strcmp(fields->fields[i].name, wanted[i]) == 0);
  EXPECT(layer.build->getNbOutputs() == 1);
  EXPECT(std::strcmp(core->getInterfaceInfo().kind, "PLUGIN_V3ONE_CORE") == 0);
  EXPECT(std::strcmp(layer.build->getInterfaceInfo().kind, "PLUGIN_V3ONE_BUILD") == 0);
  EXPECT(std::strcmp(layer.runtime->getInterfaceInfo().kind, "PLUGIN_V3ONE_RUNTIME") == 0);
  EXPECT(!layer.plugin->getCapabilityInterface(static_cast<PluginCapabilityType>(9)));
}

// Attributes go in as the parser gives them, and come out of an engine as they were.
void travel() {
  Layer first =
      layer_of({{"stride", {2}}, {"padding", {1, 0}}, {"dilation", {3}}, {"groups", {2}}, {"offset_groups", {4}}});
  const std::string said = first.build->getMetadataString();
  EXPECT(said == "stride 2 2 padding 1 0 dilation 3 3 groups 2 offset_groups 4");
  EXPECT(said == first.build->getTimingCacheID());
  const PluginFieldCollection* fields = first.runtime->getFieldsToSerialize();
  std::vector<std::vector<char>> bytes;  // at odd places, as in an engine
  std::vector<PluginField> again;
  for (int i = 0; i < fields->nbFields; ++i) {
    const PluginField& f = fields->fields[i];
    EXPECT(f.type == PluginFieldType::kINT32);
    const char* from = static_cast<const char*>(f.data);
    bytes.emplace_back(1, '\0').insert(bytes.back().end(), from, from + 4 * f.length);
    again.emplace_back(f.name, bytes.back().data() + 1, f.type, f.length);
  }
  const Layer second(create(again, TensorRTPhase::kRUNTIME)), copy(first.plugin->clone()),
      attached(first.runtime->attachToContext(nullptr));
  first.plugin.reset();  // copies live on
  for (const Layer* layer : {&second, &copy, &attached}) EXPECT(said == layer->build->getMetadataString());
  const int64_t wide = 5;
  const Layer third(create({{"padding", &wide, PluginFieldType::kINT64, 1}}));
  EXPECT(third.build->getMetadataString() ==
         std::string("stride 1 1 padding 5 5 dilation 1 1 groups 1 offset_groups 1"));
  const Layer none(the_creator()->createPlugin("", nullptr, TensorRTPhase::kBUILD));
  EXPECT(none.plugin);
  EXPECT(Layer(create({{"plugin_version", "1", PluginFieldType::kCHAR, 1}})).plugin);
}

void bad_attributes() {
  const int32_t zero = 0, minus = -1, three[] = {1, 1, 1}, huge = (1 << 20) + 1;
  const float real = 1;
  const auto refused = [](const PluginField& field, const char* text) {
    EXPECT(!create({field}));
    EXPECT(heard.last_says(text));
    EXPECT(heard.last_says("pyfocus plugin: DeformConv2d"));
  };
  refused({"stride", &zero, PluginFieldType::kINT32, 1}, "stride must be from 1 to 1048576, got 0");
  refused({"padding", &minus, PluginFieldType::kINT32, 1}, "padding must be from 0 to 1048576, got -1");
  refused({"dilation", &huge, PluginFieldType::kINT32, 1}, "dilation must be from 1 to 1048576, got 1048577");
  refused({"groups", three, PluginFieldType::kINT32, 2}, "groups must be one integer, got 2 values");
  refused({"stride", three, PluginFieldType::kINT32, 3}, "stride must be one or two integers, got 3 values");
  refused({"stride", three, PluginFieldType::kINT32, 0}, "got 0 values");
  refused({"stride", nullptr, PluginFieldType::kINT32, 1}, "got 0 values");
  refused({"offset_groups", &real, PluginFieldType::kFLOAT32, 1},
          "offset_groups must be an integer, got a field of type 1");
  refused({"strides", three, PluginFieldType::kINT32, 2}, "no attribute 'strides'; it takes stride, padding");
  refused({nullptr, three, PluginFieldType::kINT32, 2}, "no attribute '(null)'");
}

void types() {
  const Layer layer = layer_of({});
  const auto given = [&](std::vector<DataType> inputs) {
    DataType out = DataType::kBOOL;
    const int32_t code = layer.build->getOutputDataTypes(&out, 1, inputs.data(), static_cast<int32_t>(inputs.size()));
    return code == 0 ? static_cast<int>(out) : -code;
  };
  constexpr DataType f = DataType::kFLOAT, h = DataType::kHALF;
  EXPECT(given({f, f, f, f, f}) == static_cast<int>(f));
  EXPECT(given({h, f, f, h, h}) == static_cast<int>(h));
  EXPECT(given({h, h, f, h, h}) < 0 && heard.last_says("offset must be float32"));
  EXPECT(given({h, f, h, h, h}) < 0 && heard.last_says("mask must be float32"));
  EXPECT(given({f, f, f, h, f}) < 0 && heard.last_says("weight must have the type of input"));
  EXPECT(given({DataType::kINT8, f, f, f, f}) < 0 && heard.last_says("input must be float32 or float16"));
  EXPECT(given({f, f, f, f}) < 0 && heard.last_says("takes five inputs"));

  // Every combination of types and of one format that is not linear, asked in TensorRT's order.
  const Shapes shapes{{1, 2, 4, 4}, {1, 18, 4, 4}, {1, 9, 4, 4}, {2, 2, 3, 3}, {2}, {1, 2, 4, 4}};
  const DataType kinds[] = {f, h, DataType::kINT8, DataType::kBF16};
  int taken = 0;
  for (int number = 0; number < 4096; ++number) {
    auto all = bounds_of(shapes, shapes, f);
    for (int i = 0; i < 6; ++i) all[static_cast<size_t>(i)].desc.type = kinds[number >> 2 * i & 3];
    bool every = true;
    for (int i = 0; i < 6 && every; ++i) every = layer.build->supportsFormatCombination(i, all.data(), 5, 1);
    const auto type = [&](size_t i) { return all[i].desc.type; };
    const bool wanted = (type(0) == f || type(0) == h) && type(1) == f && type(2) == f && type(3) == type(0) &&
                        type(4) == type(0) && type(5) == type(0);
    EXPECT(every == wanted);
    taken += every;
  }
  EXPECT(taken == 2);
  for (size_t i = 0; i < 6; ++i) {
    auto all = bounds_of(shapes, shapes, f);
    all[i].desc.format = TensorFormat::kHWC;
    EXPECT(!layer.build->supportsFormatCombination(static_cast<int32_t>(i), all.data(), 5, 1));
  }
}

// Outputs along an axis, counted: places where the kernel's last tap is inside the padded picture.
int64_t count_places(int64_t size, int64_t kernel, int64_t stride, int64_t pad, int64_t dilation) {
  int64_t count = 0;
  while (count * stride + (kernel - 1) * dilation < size + 2 * pad) ++count;
  return count;
}

void shapes() {
  const auto output = [](const Layer& layer, const Shapes& given) {
    Expressions builder;
    std::vector<DimsExprs> inputs(given.size());
    for (size_t i = 0; i < given.size(); ++i) {
      inputs[i].nbDims = static_cast<int32_t>(given[i].size());
      for (size_t k = 0; k < given[i].size(); ++k) inputs[i].d[k] = builder.constant(given[i][k]);
    }
    DimsExprs out{};
    std::vector<int64_t> sizes;
    if (layer.build->getOutputShapes(inputs.data(), static_cast<int32_t>(given.size()), nullptr, 0, &out, 1, builder) ==
        0)
      for (int i = 0; i < out.nbDims; ++i) sizes.push_back(out.d[i]->getConstantValue());
    return sizes;
  };
  for (int stride : {1, 2, 3})
    for (int pad : {0, 1, 4})
      for (int dilation : {1, 2})
        for (int64_t kernel : {1, 2, 3, 5})
          for (int64_t size : {1, 2, 5, 8, 31}) {
            const Layer layer = layer_of({{"stride", {stride, 1}}, {"padding", {pad, 0}}, {"dilation", {dilation, 1}}});
            const int64_t rows = count_places(size, kernel, stride, pad, dilation),
                          columns = count_places(9, 3, 1, 0, 1);
            const auto got = output(layer, {{3, 4, size, 9}, {3, 1, 1, 1}, {3, 1, 1, 1}, {6, 4, kernel, 3}, {6}});
            EXPECT((got == std::vector<int64_t>{3, 6, rows, columns}));
          }
  const Layer layer = layer_of({});
  EXPECT(output(layer, {{3, 4, 9}, {3, 1, 1, 1}, {3, 1, 1, 1}, {6, 4, 3, 3}, {6}}).empty());
  EXPECT(heard.last_says("input must have 4 dimensions, got 3"));
  EXPECT(output(layer, {{3, 4, 9, 9}, {3, 1, 1, 1}, {3, 1, 1, 1}, {6, 4, 3, 3}, {6, 1}}).empty());
  EXPECT(heard.last_says("bias must have 1 dimensions, got 2"));
  EXPECT(output(layer, {{3, 4, 9, 9}, {3, 1, 1, 1}, {6, 4, 3, 3}}).empty());
}

void configure() {
  const Layer layer = layer_of({{"padding", {1}}, {"groups", {2}}, {"offset_groups", {2}}});
  const Shapes largest{{2, 4, 20, 30}, {2, 36, 20, 30}, {2, 18, 20, 30}, {6, 2, 3, 3}, {6}, {2, 6, 20, 30}};
  const Shapes open{{-1, 4, -1, -1}, {-1, 36, -1, -1}, {-1, 18, -1, -1}, {6, 2, 3, 3}, {6}, {-1, 6, -1, -1}};
  const auto code = [&](const Shapes& said, const Shapes& most) {
    const auto all = bounds_of(said, most, DataType::kHALF);
    const int32_t built = layer.build->configurePlugin(all.data(), 5, all.data() + 5, 1);
    if (built == 0) EXPECT(layer.build->getWorkspaceSize(all.data(), 5, all.data() + 5, 1) > 0);
    return built;
  };
  const auto with = [](Shapes all, size_t i, std::vector<int64_t> shape) {
    all[i] = std::move(shape);
    return all;
  };
  EXPECT(code(open, largest) == 0 && code(largest, largest) == 0);
  EXPECT(code(with(open, 1, {-1, 35, -1, -1}), largest) != 0 &&
         heard.last_says("offset must have size 36 on axis 1, got 35"));
  EXPECT(code(with(open, 2, {-1, 36, -1, -1}), largest) != 0 &&
         heard.last_says("mask must have size 18 on axis 1, got 36"));
  EXPECT(code(with(open, 4, {5}), largest) != 0 && heard.last_says("bias must have size 6 on axis 0, got 5"));
  EXPECT(code(with(largest, 1, {2, 36, 18, 30}), largest) != 0 &&
         heard.last_says("offset must have size 20 on axis 2, got 18"));
  EXPECT(code(open, with(largest, 3, {6, 4, 3, 3})) != 0 &&
         heard.last_says("weight must have size 2 on axis 1, got 4"));
  EXPECT(code(open, with(largest, 0, {2, 5, 20, 30})) != 0 && heard.last_says("groups"));
  EXPECT(code(open, with(largest, 0, {2, 4, 20, -1})) != 0 &&
         heard.last_says("input must have a known size on axis 3"));

  const auto runs = [&](const Shapes& now) {
    const auto all = descs_of(now, DataType::kHALF);
    return layer.runtime->onShapeChange(all.data(), 5, all.data() + 5, 1);
  };
  EXPECT(runs(largest) == 0);
  EXPECT(runs(with(largest, 2, {2, 18, 20, 29})) != 0 && heard.last_says("mask must have size 30 on axis 3, got 29"));
  const auto all = bounds_of(open, with(largest, 0, {2, 5, 20, 30}), DataType::kHALF);
  EXPECT(layer.build->getWorkspaceSize(all.data(), 5, all.data() + 5, 1) == 0 && heard.last_says("groups"));
}

// The workspace of the largest shapes is enough for all smaller ones; not a matter of course.
void workspace() {
  const Layer layer = layer_of({{"padding", {1}}});
  const auto shapes_of = [](int64_t n, int64_t h, int64_t w) {
    return Shapes{{n, 4, h, w}, {n, 18, h, w}, {n, 9, h, w}, {4, 4, 3, 3}, {4}, {n, 4, h, w}};
  };
  const auto needed = [](int64_t n, int64_t h, int64_t w) {
    pyfocus::Tensor input, weight;
    const int64_t image[] = {n, 4, h, w}, kernel[] = {4, 4, 3, 3};
    for (pyfocus::Tensor* t : {&input, &weight}) {
      t->ndim = 4, t->device = pyfocus::Device::Cuda;
      std::copy_n(t == &input ? image : kernel, 4, t->shape);
      for (int i = 3, step = 1; i >= 0; --i) t->stride[i] = step, step *= static_cast<int>(t->shape[i]);
    }
    return static_cast<size_t>(pyfocus::deform_conv_workspace(input, weight, {{1, 1}, {1, 1}}, false));
  };
  bool matters = false;
  for (int64_t n : {1, 3, 9})
    for (int64_t h : {5, 14, 26})
      for (int64_t w : {6, 19, 25}) {
        const auto all = bounds_of(shapes_of(n, h, w), shapes_of(n, h, w), DataType::kFLOAT);
        const size_t given = layer.build->getWorkspaceSize(all.data(), 5, all.data() + 5, 1);
        for (int64_t a = 1; a <= n; ++a)
          for (int64_t b = 1; b <= h; ++b)
            for (int64_t c = 1; c <= w; ++c) {
              EXPECT(needed(a, b, c) <= given);
              matters |= needed(a, b, c) > needed(n, h, w);
            }
      }
  EXPECT(matters);
}

// --- the layer itself, beside the formula in double ---------------------------------------

uint16_t half_of(double value) {  // to the nearest; normal numbers
  if (value == 0) return 0;
  int exponent = 0;
  const double part = std::frexp(std::fabs(value), &exponent);  // [0.5, 1)
  const int bits = static_cast<int>(std::nearbyint(part * 2048)) - 1024 + (exponent + 14) * 1024;
  return static_cast<uint16_t>(bits | (value < 0 ? 0x8000 : 0));
}

double from_half(uint16_t bits) {
  const int exponent = bits >> 10 & 31, part = bits & 1023;
  const double size = exponent ? std::ldexp(1024 + part, exponent - 25) : std::ldexp(part, -24);
  return bits & 0x8000 ? -size : size;
}

struct Numbers {  // values as they are in the type, and their bytes
  std::vector<double> values;
  std::vector<char> bytes;
};

Numbers random_numbers(const std::vector<int64_t>& shape, bool half, double size, std::mt19937& random) {
  Numbers out;
  int64_t count = 1;
  for (int64_t n : shape) count *= n;
  std::uniform_real_distribution<double> any(-size, size);
  for (int64_t i = 0; i < count; ++i) {
    const double value = any(random);
    const uint16_t narrow = half_of(value);
    const float single = static_cast<float>(value);
    const char* from = half ? reinterpret_cast<const char*>(&narrow) : reinterpret_cast<const char*>(&single);
    out.bytes.insert(out.bytes.end(), from, from + (half ? 2 : 4));
    out.values.push_back(half ? from_half(narrow) : static_cast<double>(single));
  }
  return out;
}

double hat(double at, int64_t pixel) { return std::max(0.0, 1 - std::fabs(at - static_cast<double>(pixel))); }

struct Run {
  Shapes shapes{{3, 6, 9, 11}, {3, 36, 5, 11}, {3, 18, 5, 11}, {4, 3, 3, 3}, {4}, {3, 4, 5, 11}};
  std::vector<Numbers> arrays;
  Layer layer = layer_of(
      {{"stride", {2, 1}}, {"padding", {1, 2}}, {"dilation", {1, 2}}, {"groups", {2}}, {"offset_groups", {2}}});
  bool half;
  std::vector<PluginTensorDesc> descs;
  std::vector<char> workspace, result;

  explicit Run(bool is_half) : half(is_half), descs(descs_of(shapes, is_half ? DataType::kHALF : DataType::kFLOAT)) {
    std::mt19937 random(5);
    const double sizes[] = {1, 4, 1, 0.5, 0.5};
    for (size_t i = 0; i < 5; ++i)
      arrays.push_back(random_numbers(shapes[i], half && i != 1 && i != 2, sizes[i], random));
    const auto all = bounds_of(shapes, shapes, descs[0].type);
    workspace.resize(layer.build->getWorkspaceSize(all.data(), 5, all.data() + 5, 1), '\x7f');
    result.resize(3 * 4 * 5 * 11 * (half ? 2 : 4), '\xff');  // no more: past it AddressSanitizer looks
  }

  int32_t enqueue(void* scratch) {
    std::vector<const void*> inputs;
    for (const Numbers& n : arrays) inputs.push_back(n.bytes.data());
    void* outputs[] = {result.data()};
    return layer.runtime->enqueue(descs.data(), descs.data() + 5, inputs.data(), outputs, scratch, nullptr);
  }

  double wanted(int64_t n, int64_t o, int64_t y, int64_t x) const {
    const auto at = [](const Numbers& a, const std::vector<int64_t>& s, int64_t i, int64_t j, int64_t k, int64_t l) {
      return a.values[static_cast<size_t>(((i * s[1] + j) * s[2] + k) * s[3] + l)];
    };
    double sum = arrays[4].values[static_cast<size_t>(o)];
    for (int64_t c = o / 2 * 3; c < o / 2 * 3 + 3; ++c)
      for (int64_t t = 0; t < 9; ++t) {
        const int64_t plane = c / 3 * 9 + t;
        const double py = static_cast<double>(2 * y - 1 + t / 3) + at(arrays[1], shapes[1], n, 2 * plane, y, x);
        const double px = static_cast<double>(x - 2 + t % 3 * 2) + at(arrays[1], shapes[1], n, 2 * plane + 1, y, x);
        double sample = 0;
        for (int64_t row = 0; row < 9; ++row)
          for (int64_t column = 0; column < 11; ++column)
            sample += hat(py, row) * hat(px, column) * at(arrays[0], shapes[0], n, c, row, column);
        sum += at(arrays[3], shapes[3], o, c % 3, t / 3, t % 3) * at(arrays[2], shapes[2], n, plane, y, x) * sample;
      }
    return sum;
  }
};

void run(bool half) {
  Run run(half);
  EXPECT(run.enqueue(run.workspace.data()) == 0);
  double worst = 0, largest = 0;
  size_t i = 0;
  for (int64_t n = 0; n < 3; ++n)
    for (int64_t o = 0; o < 4; ++o)
      for (int64_t y = 0; y < 5; ++y)
        for (int64_t x = 0; x < 11; ++x, ++i) {
          uint16_t narrow = 0;
          float single = 0;
          std::memcpy(half ? static_cast<void*>(&narrow) : &single, run.result.data() + i * (half ? 2 : 4),
                      half ? 2 : 4);
          const double want = run.wanted(n, o, y, x), got = half ? from_half(narrow) : static_cast<double>(single);
          worst = std::max(worst, std::isfinite(got) ? std::fabs(got - want) : INFINITY);
          largest = std::max(largest, std::fabs(want));
        }
  std::printf("largest difference %.2g of %.2g\n", worst, largest);
  EXPECT(largest > 0.5);
  EXPECT(worst < (half ? 2e-3 : 2e-6));
}

void refuse() {
  Run run(false);
  EXPECT(run.enqueue(nullptr) != 0 && heard.last_says("workspace must have"));
  const auto with = [&](size_t i, const std::vector<int64_t>& shape, DataType type) {
    const PluginTensorDesc before = run.descs[i];
    run.descs[i].dims = dims_of(shape), run.descs[i].type = type;
    const int32_t code = run.enqueue(run.workspace.data());
    run.descs[i] = before;
    return code;
  };
  constexpr DataType f = DataType::kFLOAT;
  EXPECT(with(1, {3, 36, 5, 10}, f) != 0 && heard.last_says("offset must have size 11 on axis 3, got 10"));
  EXPECT(with(1, {3, 36, 5, 11}, DataType::kHALF) != 0 && heard.last_says("offset must be float32, got float16"));
  EXPECT(with(0, {3, 6, 9, 11}, DataType::kINT8) != 0 &&
         heard.last_says("input must be float32 or float16, got type 2"));
  EXPECT(with(0, {3, 6, 9, 11, 1}, f) != 0 && heard.last_says("dimensions, got 5"));
  EXPECT(with(5, {3, 4, 5, 12}, f) != 0 && heard.last_says("output must have size 11 on axis 3, got 12"));
  EXPECT(with(5, {0, 4, 5, 11}, f) == 0);  // nothing to do
  for (const char byte : run.result) EXPECT(byte == '\xff');
  EXPECT(run.enqueue(run.workspace.data()) == 0);  // and is none the worse for it
}

const std::map<std::string, std::function<void()>> cases = {{"names", names},
                                                            {"travel", travel},
                                                            {"bad_attributes", bad_attributes},
                                                            {"types", types},
                                                            {"shapes", shapes},
                                                            {"configure", configure},
                                                            {"workspace", workspace},
                                                            {"refuse", refuse},
                                                            {"run_float32", [] { run(false); }},
                                                            {"run_float16", [] { run(true); }}};

}  // namespace

int main(int count, char** words) {
  if (count < 2) {
    for (const auto& [name, body] : cases) std::printf("%s\n", name.c_str());
    return 0;
  }
  setLoggerFinder(&heard);
  const auto found = cases.find(words[1]);
  if (found == cases.end()) return 2;
  found->second();
  setLoggerFinder(nullptr);
  return 0;
}
