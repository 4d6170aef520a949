# The folders of the library, the lowest first: each uses those before it and none after. Two things hold them to it. A
# folder's files are compiled with a folder of includes that has nothing but what they may see (nibble_see). And all
# folders up to each are linked with the libraries that these may use, where no name may be missing (up_to_FOLDER).
set(NIBBLE_FOLDERS base kernels model template tokenizer convert runner quant validate)

# What a folder links beside its own files, the folders before it and their libraries. base/ and kernels/ need nothing but
# a C compiler.
set(NIBBLE_NEEDS_base OpenMP::OpenMP_C m)
set(NIBBLE_NEEDS_kernels ${CMAKE_DL_LIBS})
set(NIBBLE_NEEDS_model PkgConfig::NIBBLE_libcjson PkgConfig::NIBBLE_libutf8proc)
set(NIBBLE_NEEDS_tokenizer PkgConfig::NIBBLE_libpcre2-8 PkgConfig::NIBBLE_libxxhash PkgConfig::NIBBLE_libprotobuf-c)
set(NIBBLE_NEEDS_convert ZLIB::ZLIB)
set(NIBBLE_NEEDS_validate PkgConfig::NIBBLE_libcrypto)

# A folder of includes named `view`: nibble.h, and the folders that follow.
function(nibble_see view)
  set(root ${PROJECT_BINARY_DIR}/include/${view})
  file(REMOVE_RECURSE ${root})
  file(MAKE_DIRECTORY ${root})
  foreach(name nibble.h ${ARGN})
    file(CREATE_LINK ${PROJECT_SOURCE_DIR}/${name} ${root}/${name} SYMBOLIC)
  endforeach()
endfunction()

# An object library of our own C files, which see what `view` has.
function(nibble_objects name view)
  add_library(${name} OBJECT ${ARGN})
  set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE ON C_VISIBILITY_PRESET hidden)
  target_compile_options(${name} PRIVATE ${NIBBLE_WARNINGS})
  target_include_directories(${name} PRIVATE ${PROJECT_BINARY_DIR}/include/${view})
  target_include_directories(${name} SYSTEM PRIVATE ${PROJECT_BINARY_DIR}/protobuf)
  target_link_libraries(${name} PRIVATE nibble_flags ${NIBBLE_NEEDS})
endfunction()

# Adds the C file that protoc-c makes of a .proto to a list of sources; its header is found as NAME.pb-c.h. It is not our
# code, so warnings are not asked of it.
find_program(NIBBLE_PROTOC_C protoc-c REQUIRED)
function(nibble_protobuf proto list)
  get_filename_component(name ${proto} NAME_WE)
  get_filename_component(folder ${PROJECT_SOURCE_DIR}/${proto} DIRECTORY)
  set(made ${PROJECT_BINARY_DIR}/protobuf/${name}.pb-c)
  file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/protobuf)
  add_custom_command(OUTPUT ${made}.c ${made}.h DEPENDS ${PROJECT_SOURCE_DIR}/${proto}
                     COMMAND ${NIBBLE_PROTOC_C} --proto_path=${folder} --c_out=${PROJECT_BINARY_DIR}/protobuf ${name}.proto)
  add_custom_target(${name}_protobuf DEPENDS ${made}.c ${made}.h) # for scripts/lint, which compiles nothing
  set_source_files_properties(${made}.c PROPERTIES COMPILE_OPTIONS -w)
  set(${list} ${${list}} ${made}.c ${made}.h PARENT_SCOPE)
endfunction()

# The object library nb_FOLDER of every .c file in a folder and below it; a new one needs no line here. NIBBLE_OBJECTS and
# NIBBLE_NEEDS are what all folders so far are made of and link.
foreach(folder ${NIBBLE_FOLDERS})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${folder}/*.c)
  if(folder STREQUAL tokenizer)
    nibble_protobuf(tokenizer/readers/sentencepiece.proto sources)
  endif()
  list(FILTER sources EXCLUDE REGEX "/kernels/cuda/(alone/|load\\.c$)") # a program of its own; the door, below
  if(NOT sources)
    continue()
  endif()
  nibble_isa(sources)
  list(APPEND folders_so_far ${folder})
  list(APPEND NIBBLE_NEEDS ${NIBBLE_NEEDS_${folder}})
  nibble_see(${folder} ${folders_so_far})
  nibble_objects(nb_${folder} ${folder} ${sources})
  list(APPEND NIBBLE_OBJECTS $<TARGET_OBJECTS:nb_${folder}>)
  set(NIBBLE_OBJECTS_UP_TO_${folder} ${NIBBLE_OBJECTS})
  if(folder STREQUAL kernels)
    # The library's door to the CUDA module, which is made of the other objects of base/ and kernels/ itself.
    nibble_cuda_build(${PROJECT_SOURCE_DIR}/kernels/cuda/load.c)
    nibble_objects(nb_cuda_door kernels ${PROJECT_SOURCE_DIR}/kernels/cuda/load.c)
    list(APPEND NIBBLE_OBJECTS $<TARGET_OBJECTS:nb_cuda_door>)
    set(NIBBLE_KERNELS_OBJECTS ${NIBBLE_OBJECTS})
    set(NIBBLE_KERNELS_NEEDS ${NIBBLE_NEEDS})
  endif()
  if(NIBBLE_TESTS AND NOT NIBBLE_SANITIZE) # whose runtime only programs link
    add_library(up_to_${folder} MODULE ${NIBBLE_OBJECTS})
    target_link_options(up_to_${folder} PRIVATE -Wl,--no-undefined)
    target_link_libraries(up_to_${folder} PRIVATE ${NIBBLE_NEEDS})
  endif()
endforeach()
list(REMOVE_DUPLICATES NIBBLE_NEEDS)
nibble_see(public)
nibble_see(cli cli)
