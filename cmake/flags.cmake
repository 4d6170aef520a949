# How our C and C++ is compiled: for the project, and for kernels/CMakeLists.txt, which builds the kernels alone.
option(NIBBLE_WERROR "warnings are errors" OFF)
option(NIBBLE_SANITIZE "build everything with AddressSanitizer and UndefinedBehaviorSanitizer" OFF)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Release, RelWithDebInfo or Debug" FORCE)
endif()
set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

add_library(nibble_flags INTERFACE)
target_compile_definitions(nibble_flags INTERFACE _GNU_SOURCE _FILE_OFFSET_BITS=64)
# A fused multiply-add where the source has two operations would change the quantizers' rounding.
target_compile_options(nibble_flags INTERFACE $<$<COMPILE_LANGUAGE:C,CXX>:-ffp-contract=off -fno-math-errno>)
if(NIBBLE_SANITIZE)
  # -O1: kernels written in intrinsics are fifty times slower without it. -g1: a report names lines, and needs no more.
  target_compile_options(nibble_flags INTERFACE -fsanitize=address,undefined -fno-sanitize-recover=all
                                                -fno-omit-frame-pointer -g1 $<$<COMPILE_LANGUAGE:C>:-O1>)
  # -no-pie: what the sanitizers say of each check holds addresses, a quarter of a million to relocate at every start.
  target_link_options(nibble_flags INTERFACE -fsanitize=address,undefined
                                             $<$<STREQUAL:$<TARGET_PROPERTY:TYPE>,EXECUTABLE>:-no-pie>)
endif()
if(NIBBLE_SANITIZE OR NIBBLE_THREADS)
  # A kernel that is compiled anew for each set of constants is one function here, whose checks are the same: a twentieth of
  # the compiler's time. The compiler's own intrinsics spell the attribute __always_inline__ and keep it.
  target_compile_options(nibble_flags INTERFACE $<$<COMPILE_LANGUAGE:C>:-Dalways_inline=unused>)
endif()

set(NIBBLE_TEST_WARNINGS -Wall -Wextra) # of the tests' C++
if(NIBBLE_WERROR)
  list(APPEND NIBBLE_TEST_WARNINGS -Werror)
endif()
set(NIBBLE_WARNINGS ${NIBBLE_TEST_WARNINGS} -Wconversion)
if(CMAKE_C_COMPILER_ID MATCHES "Clang")
  list(APPEND NIBBLE_WARNINGS -Wno-missing-field-initializers) # a table's row may leave its last fields zero
endif()
