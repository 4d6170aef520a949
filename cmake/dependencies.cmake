# The libraries that nibble is linked with, beside OpenMP's. Read by the project and, for the static library, by the
# package that it installs; NIBBLE_FIND is how: REQUIRED or QUIET.
find_package(PkgConfig ${NIBBLE_FIND})
find_package(ZLIB ${NIBBLE_FIND})
set(NIBBLE_MODULES libcjson libpcre2-8 libutf8proc libxxhash libprotobuf-c libcrypto)
foreach(module ${NIBBLE_MODULES})
  if(PkgConfig_FOUND)
    pkg_check_modules(NIBBLE_${module} ${NIBBLE_FIND} IMPORTED_TARGET ${module})
  endif()
endforeach()
