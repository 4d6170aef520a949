/* Calls a fuzz target with every file of the folders given: the corpus, as a test that needs no clang. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/stage.h"
#include "tests/fuzz/fuzz.h"

static int replay(const char *folder_path) {
  DIR *folder = opendir(folder_path);
  if (!folder) return -1;
  int count = 0;
  for (struct dirent *entry; count >= 0 && (entry = readdir(folder));) {
    if (entry->d_name[0] == '.') continue;
    char *path = nb_path_join(folder_path, entry->d_name), *bytes = NULL;
    size_t size;
    nibble_error err;
    if (path && nb_read_file(path, 1 << 30, &bytes, &size, &err) == NIBBLE_OK) {
      LLVMFuzzerTestOneInput((const uint8_t *)bytes, size);
      count++;
    } else {
      count = -1;
    }
    free(bytes);
    free(path);
  }
  closedir(folder);
  return count;
}

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    int count = replay(argv[i]);
    printf("%s: %d files\n", argv[i], count);
    if (count <= 0) return EXIT_FAILURE; /* an empty corpus tests nothing */
  }
  return EXIT_SUCCESS;
}
