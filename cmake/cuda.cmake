# Finds nvcc and says how the kernels are compiled: a fat binary of PYFOCUS_CUDA_ARCHS, the last of them also as PTX for
# cards that do not exist yet, with the CUDA runtime linked in. Nothing here links to the driver.
set(PYFOCUS_WITH_CUDA OFF)
set(archs "")
foreach(arch ${PYFOCUS_CUDA_ARCHS})
  list(APPEND archs ${arch}-real)
endforeach()
list(GET PYFOCUS_CUDA_ARCHS -1 newest)
list(APPEND archs ${newest}-virtual)
set(CMAKE_CUDA_ARCHITECTURES ${archs})  # before the language is enabled
include(CheckLanguage)
check_language(CUDA)
if(CMAKE_CUDA_COMPILER)
  enable_language(CUDA)
  set(PYFOCUS_WITH_CUDA ON)
elseif(PYFOCUS_CUDA STREQUAL "ON")
  message(FATAL_ERROR "PYFOCUS_CUDA=ON needs nvcc 12 or 13, and none was found: put it on the PATH or set CUDACXX")
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)

# Definitions, includes and flags of the target that holds the .cu files.
function(pyfocus_cuda target)
  list(TRANSFORM PYFOCUS_CUDA_ARCHS PREPEND "sm_" OUTPUT_VARIABLE names)
  list(JOIN names " " names)
  target_compile_definitions(${target} PUBLIC PYFOCUS_CUDA PRIVATE "PYFOCUS_CUDA_ARCHS=\"${names} compute_${newest}\"")
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:-O3;-Werror=all-warnings;--compress-mode=size;\
-Xptxas=-warn-spills,-warn-lmem-usage;-Xcompiler=-Wall,-Wextra,-Werror,-fvisibility=hidden>")
  set_target_properties(${target} PROPERTIES CUDA_RESOLVE_DEVICE_SYMBOLS OFF)
endfunction()
