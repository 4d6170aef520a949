// The only file of the tests that is compiled with absolute paths, so that a compiler cache serves every checkout.
#include "tests/support.h"

const char *const kSourceDir = NIBBLE_SOURCE_DIR;
const char *const kBinary = NIBBLE_BINARY;
const char *const kFailAlloc = NIBBLE_FAIL_ALLOC;
const char *const kSlowSync = NIBBLE_SLOW_SYNC;
const char *const kOtherModule = NIBBLE_OTHER_MODULE;
const char *const kOlderModule = NIBBLE_OLDER_MODULE;
