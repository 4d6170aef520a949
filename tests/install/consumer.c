/* What somebody else writes against the installed library: is it the header's version, and does it read a model?
 * Compiled as C and as C++. */
#include <nibble.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  if (strcmp(nibble_version(), NIBBLE_VERSION) != 0 || NIBBLE_VERSION_NUMBER < 100) {
    fprintf(stderr, "the library is %s, its header %s\n", nibble_version(), NIBBLE_VERSION);
    return 1;
  }
  nibble_error err;
  nibble_inspection *seen = NULL;
  nibble_inspect_options options = {0};
  options.size = sizeof options;
  options.model = "/nowhere";
  nibble_status status = nibble_inspect(&options, &seen, &err);
  if (status != NIBBLE_BAD_INPUT || strcmp(nibble_status_name(status), "bad_input") != 0) {
    fprintf(stderr, "a model that is not there: %s\n", nibble_status_name(status));
    return 1;
  }
  options.model = argv[1];
  if (nibble_inspect(&options, &seen, &err) != NIBBLE_OK) {
    fprintf(stderr, "%s\n", err.message);
    return 1;
  }
  nibble_memory_options asked = {0};
  nibble_memory_result needed = {0};
  asked.size = sizeof asked;
  asked.model = argv[1];
  if (nibble_memory(&asked, &needed, &err) != NIBBLE_USAGE) {
    fprintf(stderr, "a result without its size is taken\n");
    return 1;
  }
  needed.size = sizeof needed;
  if (nibble_memory(&asked, &needed, &err) != NIBBLE_OK || needed.parameters != seen->parameters) {
    fprintf(stderr, "memory: %s\n", err.message);
    return 1;
  }
  printf("nibble %s: %s, %zu tensors\n", nibble_version(), seen->architecture, seen->tensor_count);
  nibble_inspection_free(seen);
  return 0;
}
