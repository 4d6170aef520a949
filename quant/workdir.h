/* The folder in which a calibrated run keeps what it has finished, so that it can go on after a kill: a file for each
 * solved layer, written whole or not at all and checked by a hash when it is read, and settings.json, which says what
 * they were made with. It is removed when the output stands. */
#ifndef NB_QUANT_WORKDIR_H
#define NB_QUANT_WORKDIR_H

#include "model/json.h"
#include "quant/gptq.h"

/* What becomes of the layers that an earlier run has finished. */
typedef struct nb_workdir_rule {
  bool resume;                     /* this run goes on from them; */
  bool force;                      /* or else they may go; if neither, they are not touched */
  const nibble_progress *progress; /* is told of those that go; NULL: nobody is */
} nb_workdir_rule;

typedef struct nb_workdir {
  char *path;
  int lock; /* descriptor that holds the lock; -1: none */
  nb_workdir_rule rule;
} nb_workdir;

/* Opens the folder, made if need be. NIBBLE_SYSTEM if another process is at work there. NIBBLE_USAGE if the folder is
 * not this user's, or was neither empty nor marked by an earlier run (base/folder.h), or holds anything that no such
 * run has written, or finished layers that the rule has no use for; all in it then stays. */
nibble_status nb_workdir_open(const char *path, const nb_workdir_rule *rule, nb_workdir *out, nibble_error *err);

/* Before any layer is saved or loaded. With rule.resume the folder's settings must be `settings` (an object; the
 * caller's): NIBBLE_BAD_INPUT names the first difference. Else what an earlier run left is removed. */
nibble_status nb_workdir_begin(const nb_workdir *workdir, const cJSON *settings, nibble_error *err);

/* Finished layers that are in the folder. */
int64_t nb_workdir_count(const nb_workdir *workdir);

/* Leaves the folder for a later --resume if there is anything to go on from; with `remove` it goes away. */
void nb_workdir_close(nb_workdir *workdir, bool remove);

nibble_status nb_workdir_save(const nb_workdir *workdir, const char *layer, const nb_rounded *rounded,
                              nibble_error *err);

/* What a layer's file must hold to be this run's: the model's shape, rounded to the run's grid. */
typedef struct nb_layer_shape {
  int64_t rows, cols;
  const nb_grid *grid;
} nb_layer_shape;

/* *found is false, and nothing is loaded, if the layer is not there or its file is not what a run with this shape
 * writes. The hash tells damage only, since anyone can compute it: shapes, groups, codes, zeros, scales, g_idx and
 * errors are checked one by one, so that what is loaded is safe to index with. */
nibble_status nb_workdir_load(const nb_workdir *workdir, const char *layer, const nb_layer_shape *shape,
                              nb_rounded *out, bool *found, nibble_error *err);

/* The same of a file's bytes; `text` need not be aligned. */
nibble_status nb_layer_parse(const char *text, size_t length, const nb_layer_shape *shape, nb_rounded *out, bool *found,
                             nibble_error *err);

#endif
