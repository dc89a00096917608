// What went wrong in the plugin, told to the host in one line. Nothing is thrown at TensorRT: its calls are noexcept.
#pragma once

#include <NvInferRuntime.h>

#include <exception>
#include <new>
#include <string>

#include "check.h"

namespace pyfocus::tensorrt {

// To the logger that the host gave with setLoggerFinder, to standard error where it gave none.
void report(const char* text) noexcept;

inline int32_t code_of(ErrorKind kind) {
  using nvinfer1::ErrorCode;
  return static_cast<int32_t>(kind == ErrorKind::Argument   ? ErrorCode::kINVALID_ARGUMENT
                              : kind == ErrorKind::Resource ? ErrorCode::kFAILED_ALLOCATION
                                                            : ErrorCode::kFAILED_EXECUTION);
}

// Does the work; 0, or the error's code after a report.
template <class Work>
int32_t attempt(const Work& work) noexcept {
  using nvinfer1::ErrorCode;
  try {
    work();
    return 0;
  } catch (const Error& error) {
    report(error.what());
    return code_of(error.kind());
  } catch (const std::bad_alloc&) {
    report("out of host memory");
    return static_cast<int32_t>(ErrorCode::kFAILED_ALLOCATION);
  } catch (const std::exception& error) {
    report(error.what());
  } catch (...) {
    report("an error without a text");
  }
  return static_cast<int32_t>(ErrorCode::kINTERNAL_ERROR);
}

}  // namespace pyfocus::tensorrt
