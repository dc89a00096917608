# Finds nvcc and says how the kernels are compiled: a fat binary of PYFOCUS_CUDA_ARCHS, the last of them also as PTX for
# cards that do not exist yet, with the CUDA runtime linked in. Nothing here links to the driver.
#
# nvcc 12.0 and newer do. What the one found does not know is left out, with a message: sm_100 and sm_120 came with
# 12.8, and so did the compression that makes the binary a quarter of its size.
set(PYFOCUS_WITH_CUDA OFF)
include(CheckLanguage)
check_language(CUDA)  # before the architectures are set: it would try to compile for them
if(NOT CMAKE_CUDA_COMPILER)
  if(PYFOCUS_CUDA STREQUAL "ON")
    message(FATAL_ERROR "PYFOCUS_CUDA=ON needs nvcc 12 or 13, and none was found: put it on the PATH or set CUDACXX")
  endif()
  message(STATUS "pyfocus: no nvcc; built without CUDA")
  return()
endif()

execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --list-gpu-arch OUTPUT_VARIABLE known ERROR_QUIET)
string(REGEX MATCHALL "[0-9]+" known "${known}")
set(wanted ${PYFOCUS_CUDA_ARCHS})
set(PYFOCUS_CUDA_ARCHS "")
foreach(arch ${wanted})
  if(arch IN_LIST known OR NOT known)  # a compiler that cannot say what it knows is asked for everything
    list(APPEND PYFOCUS_CUDA_ARCHS ${arch})
  else()
    message(STATUS "pyfocus: ${CMAKE_CUDA_COMPILER} does not know sm_${arch}; left out")
  endif()
endforeach()
if(NOT PYFOCUS_CUDA_ARCHS)
  message(FATAL_ERROR "pyfocus: ${CMAKE_CUDA_COMPILER} knows none of PYFOCUS_CUDA_ARCHS=${wanted}; it knows ${known}")
endif()

list(GET PYFOCUS_CUDA_ARCHS -1 newest)
set(CMAKE_CUDA_ARCHITECTURES ${newest}-real)  # for the tests of the compiler
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
enable_language(CUDA)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.0)
  message(FATAL_ERROR "pyfocus: nvcc 12.0 or newer is needed, found ${CMAKE_CUDA_COMPILER_VERSION}; "
                      "or build with PYFOCUS_CUDA=OFF")
endif()
set(PYFOCUS_WITH_CUDA ON)
include(CheckCompilerFlag)
check_compiler_flag(CUDA --compress-mode=size PYFOCUS_COMPRESS_SIZE)
if(PYFOCUS_COMPRESS_SIZE)
  set(PYFOCUS_COMPRESS --compress-mode=size)
else()
  message(STATUS "pyfocus: nvcc ${CMAKE_CUDA_COMPILER_VERSION} has no --compress-mode=size; the binary grows")
  set(PYFOCUS_COMPRESS -Xfatbin=-compress-all)
endif()

list(TRANSFORM PYFOCUS_CUDA_ARCHS APPEND "-real" OUTPUT_VARIABLE CMAKE_CUDA_ARCHITECTURES)
list(APPEND CMAKE_CUDA_ARCHITECTURES ${newest}-virtual)
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)

# Definitions, includes and flags of the target that holds the .cu files.
function(pyfocus_cuda target)
  list(TRANSFORM PYFOCUS_CUDA_ARCHS PREPEND "sm_" OUTPUT_VARIABLE names)
  list(JOIN names " " names)
  target_compile_definitions(${target} PUBLIC PYFOCUS_CUDA PRIVATE "PYFOCUS_CUDA_ARCHS=\"${names} compute_${newest}\"")
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:-O3;-Werror=all-warnings;${PYFOCUS_COMPRESS};\
-Xptxas=-warn-spills,-warn-lmem-usage;-Xcompiler=-Wall,-Wextra,-Werror,-fvisibility=hidden>")
  set_target_properties(${target} PROPERTIES CUDA_RESOLVE_DEVICE_SYMBOLS OFF)
endfunction()
