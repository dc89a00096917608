# The plugin for TensorRT and TensorRT-RTX (csrc/tensorrt): a library of its own over the same kernels, which exports two
# functions and links neither TensorRT nor the driver. The interfaces come from csrc/third_party/tensorrt; those need a
# header of the CUDA toolkit, also where the host plays the device.
#
# PYFOCUS_TENSORRT: AUTO builds it where CUDA is built, ON insists, OFF leaves it out.
set(PYFOCUS_TENSORRT AUTO CACHE STRING "AUTO, ON or OFF")
set(cuda_headers ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
if(PYFOCUS_CUDA STREQUAL "EMULATE" AND NOT PYFOCUS_TENSORRT STREQUAL "OFF")
  find_package(CUDAToolkit 12.0 QUIET)
  set(cuda_headers ${CUDAToolkit_INCLUDE_DIRS})
endif()
if(PYFOCUS_TENSORRT STREQUAL "ON" AND NOT cuda_headers)
  message(FATAL_ERROR "PYFOCUS_TENSORRT=ON needs PYFOCUS_CUDA=ON with nvcc, or EMULATE with the CUDA toolkit's headers; "
                      "got PYFOCUS_CUDA=${PYFOCUS_CUDA}, and no toolkit")
endif()
if(PYFOCUS_TENSORRT STREQUAL "OFF" OR NOT cuda_headers)
  return()
endif()

set(PYFOCUS_PLUGIN csrc/tensorrt/attributes.cpp csrc/tensorrt/library.cpp csrc/tensorrt/plugin.cpp)
function(pyfocus_plugin target)
  target_include_directories(${target} SYSTEM PRIVATE csrc/third_party/tensorrt ${cuda_headers})
  target_link_libraries(${target} PRIVATE focus)
  if(PYFOCUS_LTO AND NOT PYFOCUS_SANITIZE)
    set_target_properties(${target} PROPERTIES INTERPROCEDURAL_OPTIMIZATION ON)
  endif()
endfunction()

if(PYFOCUS_WITH_CUDA)
  set(exports ${CMAKE_CURRENT_SOURCE_DIR}/csrc/tensorrt/exports.map)
  add_library(pyfocus_tensorrt SHARED ${PYFOCUS_PLUGIN})
  pyfocus_plugin(pyfocus_tensorrt)
  target_link_options(pyfocus_tensorrt PRIVATE -Wl,--version-script=${exports} -Wl,-z,defs -Wl,--gc-sections -Wl,--as-needed)
  set_target_properties(pyfocus_tensorrt PROPERTIES LINK_DEPENDS ${exports})
  install(TARGETS pyfocus_tensorrt LIBRARY DESTINATION pyfocus/export)
else()  # the host plays the device: what TensorRT would ask of the plugin, asked by a program
  add_executable(ask_tensorrt_plugin ${PYFOCUS_PLUGIN} tests/ask_tensorrt_plugin.cpp)
  pyfocus_plugin(ask_tensorrt_plugin)
endif()
