// What the plugin library gives away: its one creator, and a place for the host's logger. Loaded by the registry's
// loadLibrary (load_library in Python) or trtexec --dynamicPlugins; links neither TensorRT nor the driver.
#include <atomic>
#include <cstdio>

#include "plugin.h"
#include "report.h"

namespace pyfocus::tensorrt {
namespace {

std::atomic<nvinfer1::ILoggerFinder*> finder{nullptr};

class DeformConvCreator final : public nvinfer1::IPluginCreatorV3One {
 public:
  const char* getPluginName() const noexcept override { return kPluginName; }
  const char* getPluginVersion() const noexcept override { return kPluginVersion; }
  const char* getPluginNamespace() const noexcept override { return kPluginNamespace; }
  const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return attribute_names(); }

  // Null, after a report, for attributes that are none of ours.
  nvinfer1::IPluginV3* createPlugin(const char*, const nvinfer1::PluginFieldCollection* fields,
                                    nvinfer1::TensorRTPhase) noexcept override {
    nvinfer1::IPluginV3* plugin = nullptr;
    attempt([&] { plugin = new DeformConvPlugin(steps_of(fields)); });
    return plugin;
  }
};

DeformConvCreator creator;

}  // namespace

void report(const char* text) noexcept {
  char line[640];
  std::snprintf(line, sizeof line, "pyfocus plugin: %s", text);
  try {
    nvinfer1::ILoggerFinder* const found = finder.load();
    if (nvinfer1::ILogger* const logger = found ? found->findLogger() : nullptr)
      return logger->log(nvinfer1::ILogger::Severity::kERROR, line);
  } catch (...) {  // the host's; what is left is standard error
  }
  std::fprintf(stderr, "%s\n", line);
}

}  // namespace pyfocus::tensorrt

#define PYFOCUS_EXPORT extern "C" __attribute__((visibility("default")))

PYFOCUS_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
  static nvinfer1::IPluginCreatorInterface* const creators[] = {&pyfocus::tensorrt::creator};
  count = 1;
  return creators;
}

PYFOCUS_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) { pyfocus::tensorrt::finder = finder; }
