# The CUDA backend as an object library, nibble_cuda, where CUDA's compiler is found; else NIBBLE_HAS_CUDA stays off.
# Included by the project and by kernels/CMakeLists.txt, which builds the kernels alone; NIBBLE_CUDA_INCLUDES is where
# base/ and kernels/ are found.
find_program(NIBBLE_NVCC nvcc HINTS ENV CUDACXX PATHS /usr/local/cuda/bin /opt/cuda/bin)
set(NIBBLE_HAS_CUDA OFF)
if(NIBBLE_NVCC)
  set(CMAKE_CUDA_COMPILER ${NIBBLE_NVCC})
  # Ampere and Hopper by themselves; anything newer compiles the first one's PTX when the program starts.
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80 90a-real)
  endif()
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    set(NIBBLE_HAS_CUDA ON)
  endif()
endif()

if(NIBBLE_HAS_CUDA)
  file(GLOB cuda_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*.cu)
  nibble_cuda_build(${CMAKE_CURRENT_LIST_DIR}/module.cu)
  add_library(nibble_cuda OBJECT ${cuda_sources})
  target_include_directories(nibble_cuda PRIVATE ${NIBBLE_CUDA_INCLUDES})
  target_compile_definitions(nibble_cuda PRIVATE _GNU_SOURCE)
  set_target_properties(nibble_cuda PROPERTIES POSITION_INDEPENDENT_CODE ON CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON
                                               CUDA_EXTENSIONS OFF CUDA_VISIBILITY_PRESET hidden)
  target_compile_options(nibble_cuda PRIVATE -O3 "-Xcompiler=-Wall,-Wextra,-fno-exceptions" -lineinfo
                                             "$<$<BOOL:${NIBBLE_WERROR}>:-Werror=all-warnings;-Xcompiler=-Werror>")
  # A fused multiply-add where the source has two operations would change the quantizers' rounding.
  set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/quantize.cu ${CMAKE_CURRENT_LIST_DIR}/gptq.cu PROPERTIES COMPILE_OPTIONS "-fmad=false;-prec-div=true")
endif()
