# Instruction sets. Which one a kernel file is for, its name's ending says (kernels/cpu/q8_avx2.c); the table in kernels/
# picks one at run time. The flags stand here and nowhere else: the project, kernels/CMakeLists.txt and, through it,
# scripts/test-neon read them.
set(NIBBLE_FLAGS_avx2 -mavx2 -mfma -mf16c)
set(NIBBLE_FLAGS_avx512 ${NIBBLE_FLAGS_avx2} -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx512vbmi
                        -mprefer-vector-width=512)
set(NIBBLE_FLAGS_neon "") # every aarch64 has it
set(NIBBLE_FLAGS_dotprod -march=armv8.2-a+dotprod)
set(NIBBLE_FLAGS_i8mm -march=armv8.2-a+dotprod+i8mm)

# Gives the files of this processor's instruction sets their flags, in the directory that calls, and takes those of other
# processors out of the list named `list`.
function(nibble_isa list)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    set(ours avx2 avx512)
    # Under the sanitizers, or as macros without optimization, the compiler's own intrinsics do not pass -Wconversion.
    if(NIBBLE_SANITIZE OR CMAKE_BUILD_TYPE STREQUAL "Debug")
      set(quiet -Wno-conversion -Wno-sign-conversion)
    endif()
  elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
    set(ours neon dotprod i8mm)
  endif()
  foreach(isa avx2 avx512 neon dotprod i8mm)
    set(files ${${list}})
    list(FILTER files INCLUDE REGEX "_${isa}\\.c$")
    set(flags ${NIBBLE_FLAGS_${isa}} ${quiet})
    if(files AND isa IN_LIST ours)
      set_source_files_properties(${files} PROPERTIES COMPILE_OPTIONS "${flags}")
    elseif(files)
      list(REMOVE_ITEM ${list} ${files})
    endif()
  endforeach()
  set(${list} ${${list}} PARENT_SCOPE)
endfunction()
