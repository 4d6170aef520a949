/* An output that is either whole or not there. It is built as DST.partial/output, synced, and renamed at the end; on an
 * error DST.partial is removed, and after a kill the next run removes what it finds. DST.partial is a folder that only
 * this user can enter and that bears a marker (base/folder.h), so nobody can plant anything in it, and nothing else is
 * ever taken for it. Two runs on one destination do not meet: the second finds the lock taken and fails.
 *
 *   nb_stage stage;
 *   nb_stage_begin(&stage, "out", &rule, err);        makes out.partial/output
 *   ... make files in stage.folder ...                a file: write to stage.fd
 *   nb_stage_commit(&stage, sync, err);               or nb_stage_abort(&stage, status, err)
 *
 * What stands at DST is looked at, not only named: a folder gives way to a folder if it is empty, or under --force if
 * it holds a model; a file to a file under --force, or where its content says that nibble wrote it. Links, devices and
 * whatever else stay where they are. */
#ifndef NB_BASE_STAGE_H
#define NB_BASE_STAGE_H

#include <sys/types.h>

#include "base/folder.h"

/* What may stand at DST. */
typedef struct nb_replace {
  bool force;                        /* the user says that it may go */
  bool (*is_ours)(const char *text); /* of a file: whether nibble wrote what begins so, which needs no force; or NULL */
  const nibble_progress *progress;   /* is told of an older output that cannot be removed; NULL: nobody is */
} nb_replace;

/* What stands at DST. */
typedef struct nb_older {
  bool is_there;
  dev_t device;
  ino_t inode;
  mode_t mode;
} nb_older;

typedef struct nb_stage {
  int fd;           /* the output: an empty folder, or an empty file opened for reading and writing */
  char *path;       /* DST.partial/output, for messages */
  nb_folder folder; /* the two together, for an output that is a folder */

  bool is_file;
  nb_replace replace;
  nb_older older;
  char *final_path; /* DST, without a slash at its end */
  const char *name; /* the last part of it */
  int parent;       /* the folder that it is in */
  int partial;      /* DST.partial; holds the lock */
} nb_stage;

/* Makes DST.partial, emptying what a killed run left of it, and in it the folder stage->folder. NIBBLE_USAGE if what
 * stands at DST or at DST.partial is not to be touched, NIBBLE_SYSTEM if the system refuses or another process is at
 * work on it. On failure the stage needs no abort. */
nibble_status nb_stage_begin(nb_stage *stage, const char *dst, const nb_replace *replace, nibble_error *err);

/* The same for an output that is one file, stage->fd. */
nibble_status nb_stage_begin_file(nb_stage *stage, const char *dst, const nb_replace *replace, nibble_error *err);

/* NIBBLE_USAGE where nb_stage_begin_file would refuse what stands at DST: asked before hours of work. */
nibble_status nb_stage_check_file(const char *dst, const nb_replace *replace, nibble_error *err);

/* Syncs every file (unless `sync` is false), then puts the output in its place, exchanged in one step for an older one,
 * whose mode it gets and which is then removed. What cannot be removed of it is moved to DST.older, with a warning.
 * NIBBLE_BAD_INPUT if a mapped input changed meanwhile, NIBBLE_STOPPED if the caller wants to stop before it is in its
 * place. The stage is over afterwards, also on failure (nothing is left
 * behind). */
nibble_status nb_stage_commit(nb_stage *stage, bool sync, nibble_error *err);

/* An output that is one file with this text, from beginning to commit. NIBBLE_SYSTEM if the buffer has failed. */
nibble_status nb_stage_write_file(const char *dst, const nb_replace *replace, const nb_buf *text, bool sync,
                                  nibble_error *err);

/* Removes DST.partial. Where `status`, why it ends, is NIBBLE_STOPPED, *err then says what stays. Harmless on a zeroed
 * or finished stage. */
void nb_stage_abort(nb_stage *stage, nibble_status status, nibble_error *err);

/* NIBBLE_USAGE if an output put at `dst` would take the place of `input`, or of a folder that it lies in, by whatever
 * names the two go. */
nibble_status nb_stage_spare(const char *dst, const char *input, nibble_error *err);

/* `folder`/`name`, malloc'd; NULL if there is no memory. */
char *nb_path_join(const char *folder, const char *name);

/* The last part of a path, slashes at its end left out; malloc'd, NULL if there is no memory. */
char *nb_path_name(const char *path);

/* What errno says of an input that could not be opened or looked at: NIBBLE_BAD_INPUT where the path leads nowhere,
 * NIBBLE_SYSTEM where the system refuses. */
nibble_status nb_fail_input(const char *path, nibble_error *err);

/* Opens a file for reading. NIBBLE_BAD_INPUT if there is none. A FIFO is opened without waiting for its other end; look
 * at what it is before you read. */
nibble_status nb_open_input(const char *path, int *fd, nibble_error *err);

/* Reads a whole file of at most `limit` bytes; *out is malloc'd with a NUL after the last byte, *length may be NULL.
 * NIBBLE_BAD_INPUT if it is missing or larger. */
nibble_status nb_read_file(const char *path, uint64_t limit, char **out, size_t *length, nibble_error *err);

/* pwrite until all is written; NIBBLE_SYSTEM names `path`. */
nibble_status nb_pwrite_all(int fd, const char *path, const void *bytes, uint64_t n, uint64_t offset,
                            nibble_error *err);

#endif
