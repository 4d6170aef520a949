/* An output that is either whole or not there. It is built beside its destination under the name DST.partial, synced,
 * and renamed at the end; on an error it is removed, and after a kill the next run removes what it finds.
 * Two runs on one destination do not meet: the second finds the lock taken and fails.
 *
 *   nb_stage stage;
 *   nb_stage_begin(&stage, "out", force, err);        creates out.partial/
 *   ... write files below stage.path ...
 *   nb_stage_commit(&stage, sync, err);               or nb_stage_abort(&stage) */
#ifndef NB_BASE_STAGE_H
#define NB_BASE_STAGE_H

#include "base/buf.h"
#include "base/status.h"

typedef struct nb_stage {
  char *final_path; /* DST, without a slash at its end */
  char *path;       /* DST.partial: a folder, or for nb_stage_begin_file a file's name */
  int lock;         /* descriptor that holds the lock */
  bool is_file, force;
} nb_stage;

/* Makes the folder DST.partial (removing a stale one). NIBBLE_USAGE if DST exists and `force` is false, NIBBLE_SYSTEM
 * if it cannot be made or another process is at work on it. On failure the stage needs no abort. */
nibble_status nb_stage_begin(nb_stage *stage, const char *dst, bool force, nibble_error *err);

/* The same for an output that is one file: the caller then creates the file stage.path. */
nibble_status nb_stage_begin_file(nb_stage *stage, const char *dst, bool force, nibble_error *err);

/* Syncs every file (unless `sync` is false), then puts the output in its place; with force an older output is
 * exchanged in one step and then removed. NIBBLE_BAD_INPUT if a mapped input changed meanwhile. The stage is over
 * afterwards, also on failure (nothing is left behind). */
nibble_status nb_stage_commit(nb_stage *stage, bool sync, nibble_error *err);

/* Removes DST.partial. Harmless on a zeroed or finished stage. */
void nb_stage_abort(nb_stage *stage);

/* `folder`/`name`, malloc'd; NULL if there is no memory. */
char *nb_path_join(const char *folder, const char *name);

/* The last part of a path, slashes at its end left out; malloc'd, NULL if there is no memory. */
char *nb_path_name(const char *path);

/* Opens a file for reading. NIBBLE_BAD_INPUT if there is none. */
nibble_status nb_open_input(const char *path, int *fd, nibble_error *err);

/* Reads a whole file of at most `limit` bytes; *out is malloc'd with a NUL after the last byte, *length may be NULL.
 * NIBBLE_BAD_INPUT if it is missing or larger. */
nibble_status nb_read_file(const char *path, uint64_t limit, char **out, size_t *length, nibble_error *err);

/* Writes n bytes to a new file, replacing an old one. */
nibble_status nb_write_file(const char *path, const void *bytes, size_t n, nibble_error *err);

/* The same with the text of a buffer, in `folder`; NIBBLE_SYSTEM if the buffer has failed. */
nibble_status nb_write_file_in(const char *folder, const char *name, const nb_buf *text, nibble_error *err);

/* pwrite until all is written; NIBBLE_SYSTEM names `path`. */
nibble_status nb_pwrite_all(int fd, const char *path, const void *bytes, uint64_t n, uint64_t offset,
                            nibble_error *err);

#endif
