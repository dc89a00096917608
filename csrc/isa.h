// One source, three instruction sets. A kernel file is compiled once each for x86-64-v2, -v3 and -v4 with
// PYFOCUS_ISA set to the name of its namespace; the baseline object also holds the launcher and picks the best
// kernel that this processor runs. The loops are plain C++ and -ffp-contract=off, so all three give the same bits.
// No std:: container or algorithm may be used in the kernel section: the linker could keep the AVX copy of an inline.
#pragma once

#ifndef PYFOCUS_ISA
#define PYFOCUS_ISA base
#endif

namespace pyfocus {

enum class Isa { V2 = 2, V3 = 3, V4 = 4 };

// Best instruction set of this processor, or a lower one set by set_isa (tests compare them bit by bit).
Isa isa();
void set_isa(Isa isa);
Isa best_isa();

}  // namespace pyfocus

// Declares `name` in the three namespaces. PYFOCUS_BEST(name) is then the one to call.
#if defined(PYFOCUS_ALL_ISA)
#define PYFOCUS_KERNEL(result, name, ...) \
  namespace v2 {                          \
  result name(__VA_ARGS__);               \
  }                                       \
  namespace v3 {                          \
  result name(__VA_ARGS__);               \
  }                                       \
  namespace v4 {                          \
  result name(__VA_ARGS__);               \
  }
#define PYFOCUS_BEST(name) (::pyfocus::isa() == Isa::V4 ? v4::name : ::pyfocus::isa() == Isa::V3 ? v3::name : v2::name)
#else
#define PYFOCUS_KERNEL(result, name, ...) \
  namespace PYFOCUS_ISA {                 \
  result name(__VA_ARGS__);               \
  }
#define PYFOCUS_BEST(name) PYFOCUS_ISA::name
#endif
