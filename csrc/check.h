// Errors as values of one type: what kind, and a text that names function, argument, expected and got.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <stdexcept>
#include <string>

namespace pyfocus {

enum class ErrorKind { Argument, Resource, Cancelled, Device };

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& text) : std::runtime_error(text), kind_(kind) {}
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

[[noreturn]] __attribute__((format(printf, 2, 3))) inline void fail(ErrorKind kind, const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  throw Error(kind, text);
}

}  // namespace pyfocus

// The condition states what must hold; the text says what was expected and what was got.
#define PYFOCUS_CHECK(condition, ...)                                               \
  do {                                                                              \
    if (!(condition)) ::pyfocus::fail(::pyfocus::ErrorKind::Argument, __VA_ARGS__); \
  } while (0)
