# The libraries that nibble is linked with, beside OpenMP's.
find_package(PkgConfig REQUIRED)
find_package(ZLIB REQUIRED)
foreach(module libcjson libpcre2-8 libutf8proc libxxhash libcrypto)
  pkg_check_modules(NIBBLE_${module} REQUIRED IMPORTED_TARGET ${module})
endforeach()
