/* The CUDA backend of a program that has it in a file of its own (module.h). */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/parallel.h"
#include "kernels/cuda/module.h"
#include "nibble.h"

static struct {
  nb_cuda_module_fn *entry;
  char problem[256]; /* empty: `entry` is there */
} loaded;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static const nb_cuda_module *in_its_place;

/* The program's and the library's runpath name the folders beside them (CMakeLists.txt). The file is never closed:
 * CUDA's runtime does not come apart cleanly. */
static void load(void) {
  void *library = dlopen(NB_CUDA_MODULE_FILE, RTLD_NOW | RTLD_LOCAL);
  void *symbol = library ? dlsym(library, NB_CUDA_MODULE_ENTRY) : NULL;
  if (!symbol) {
    snprintf(loaded.problem, sizeof loaded.problem, "%s", dlerror());
    return;
  }
  memcpy(&loaded.entry, &symbol, sizeof symbol); /* ISO C has no cast from data to function */
  const nb_cuda_module *module = loaded.entry(nb_threads());
  if (module->bytes != sizeof *module || strcmp(module->build, NB_CUDA_BUILD) != 0)
    snprintf(loaded.problem, sizeof loaded.problem, "%s is of another build of nibble", NB_CUDA_MODULE_FILE);
}

const nb_cuda_module *nb_cuda_module_get(nibble_error *err) {
  if (in_its_place) return in_its_place;
  pthread_once(&once, load);
  if (!loaded.problem[0]) return loaded.entry(nb_threads());
  nb_fail(err, NIBBLE_SYSTEM, "no CUDA device: %s", loaded.problem);
  return NULL;
}

void nb_cuda_module_set(const nb_cuda_module *module) { in_its_place = module; }

nb_backend *nb_backend_cuda(nibble_error *err) {
  const nb_cuda_module *module = nb_cuda_module_get(err);
  return module ? module->backend(err) : NULL;
}

uint64_t nb_backend_cuda_free_bytes(void) {
  const nb_cuda_module *module = nb_cuda_module_get(NULL);
  return module ? module->free_bytes() : 0;
}
