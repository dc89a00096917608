// The row loops of ecc on the CPU: ecc.cpp holds them, ecc_launch.cpp the checks and the launches.
#pragma once

#include <cstdint>

#include "ecc.h"
#include "isa.h"

namespace pyfocus {

// Sums of rows [row_begin, row_end), at most one chunk, of one pair into its row of the workspace.
PYFOCUS_KERNEL(void, ecc_rows, const EccParams& p, int64_t pair, int64_t row_begin, int64_t row_end)

}  // namespace pyfocus
