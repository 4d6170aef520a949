# Instruction sets. Which one a kernel file is for, its name's ending says (kernels/cpu/q8_avx2.c); the table in kernels/
# picks one at run time. The flags stand here and nowhere else: the project, kernels/CMakeLists.txt and, through it,
# scripts/test-neon read them. NIBBLE_ISAS: those of this processor.
set(NIBBLE_FLAGS_scalar -DNB_TARGET_SCALAR) # of a header that is compiled alone
set(NIBBLE_FLAGS_avx2 -mavx2 -mfma -mf16c)
set(NIBBLE_FLAGS_avxvnni ${NIBBLE_FLAGS_avx2} -mavxvnni)
set(NIBBLE_FLAGS_avx512 ${NIBBLE_FLAGS_avx2} -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx512vbmi
                        -mprefer-vector-width=512)
set(NIBBLE_FLAGS_neon "") # every aarch64 has it
set(NIBBLE_FLAGS_dotprod -march=armv8.2-a+dotprod)
set(NIBBLE_FLAGS_i8mm -march=armv8.2-a+dotprod+i8mm)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(NIBBLE_ISAS avx2 avxvnni avx512)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  set(NIBBLE_ISAS neon dotprod i8mm)
endif()

# Gives the files of this processor's instruction sets their flags, in the directory that calls, and takes those of other
# processors out of the list named `list`.
function(nibble_isa list)
  # Under the sanitizers, or as macros without optimization, the compiler's own intrinsics do not pass -Wconversion.
  if("avx2" IN_LIST NIBBLE_ISAS AND (NIBBLE_SANITIZE OR CMAKE_BUILD_TYPE STREQUAL "Debug"))
    set(quiet -Wno-conversion -Wno-sign-conversion)
  endif()
  # What the fuzzer looks for is in the parsers, and the tests of threads run the scalar kernels; the sanitized suite runs
  # these with all checks, which clang compiles for minutes.
  if(NIBBLE_FUZZ)
    list(APPEND quiet -fno-sanitize=undefined)
  elseif(NIBBLE_THREADS)
    list(APPEND quiet -fno-sanitize=thread)
  endif()
  foreach(isa avx2 avxvnni avx512 neon dotprod i8mm)
    set(files ${${list}})
    list(FILTER files INCLUDE REGEX "_${isa}\\.c$")
    set(flags ${NIBBLE_FLAGS_${isa}} ${quiet})
    if(files AND isa IN_LIST NIBBLE_ISAS)
      set_source_files_properties(${files} PROPERTIES COMPILE_OPTIONS "${flags}")
    elseif(files)
      list(REMOVE_ITEM ${list} ${files})
    endif()
  endforeach()
  set(${list} ${${list}} PARENT_SCOPE)
endfunction()

# A test for each of this processor's instruction sets: the headers of kernels/ compile alone.
function(nibble_test_headers)
  foreach(isa scalar ${NIBBLE_ISAS})
    add_test(NAME Headers.CompileAlone.${isa}
             COMMAND ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/../tests/kernels/compile_alone ${isa} ${CMAKE_C_COMPILER} -std=c17
                     -D_GNU_SOURCE -O1 ${NIBBLE_WARNINGS} -Werror -Wno-unused-function ${NIBBLE_FLAGS_${isa}})
  endforeach()
endfunction()
