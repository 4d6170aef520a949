# What tells a CUDA module of another build: a hash of module.h and of every header of ours that it includes. A field or a
# row added in one of them is another build, and so is a comment, which costs no more than building both again.
set(header_root ${CMAKE_CURRENT_LIST_DIR}/..)
set(headers kernels/cuda/module.h)
set(headers_left ${headers})
set(all_headers "")
while(headers_left)
  list(POP_FRONT headers_left header)
  file(READ ${header_root}/${header} text)
  string(APPEND all_headers "${text}")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${header_root}/${header})
  string(REGEX MATCHALL "#include \"[^\"]+" includes "${text}")
  list(TRANSFORM includes REPLACE "#include \"" "")
  list(REMOVE_ITEM includes ${headers} "")
  list(APPEND headers ${includes})
  list(APPEND headers_left ${includes})
endwhile()
string(SHA256 NIBBLE_CUDA_BUILD "${all_headers}")

# Tells the files, in the directory that calls: the door (load.c) and what stands behind it (module.cu).
function(nibble_cuda_build)
  set_source_files_properties(${ARGN} PROPERTIES COMPILE_DEFINITIONS NB_CUDA_BUILD="${NIBBLE_CUDA_BUILD}")
endfunction()
