/* A folder that is open. What is made or removed in it is named by its descriptor, never by its path again: a path may
 * lead elsewhere the next time, where somebody else can write beside us.
 *
 * A claimed folder is one that nibble made for itself, to build an output in (base/stage.h) or to keep finished work
 * (quant/workdir.h). It bears a marker, an empty file, and only a folder with that marker is ever emptied. */
#ifndef NB_BASE_FOLDER_H
#define NB_BASE_FOLDER_H

#include "base/buf.h"
#include "base/status.h"

typedef struct nb_folder {
  int fd;
  const char *path; /* for messages only; the caller's */
} nb_folder;

/* Makes the file `name`, which must not be there yet, to be read and written; no link is followed. */
nibble_status nb_folder_create(const nb_folder *folder, const char *name, int *fd, nibble_error *err);

/* Writes a whole new file; an older one of that name is removed, not written into. */
nibble_status nb_folder_write(const nb_folder *folder, const char *name, const void *bytes, size_t n,
                              nibble_error *err);

/* The same with the text of a buffer; NIBBLE_SYSTEM if the buffer has failed. */
nibble_status nb_write_file_in(const nb_folder *folder, const char *name, const nb_buf *text, nibble_error *err);

/* Makes the folder `name` in it; *fd is the caller's. */
nibble_status nb_folder_make(const nb_folder *folder, const char *name, int *fd, nibble_error *err);

/* Opens the folder `name` in the folder `parent` (or AT_FDCWD), locked: made, or found empty or with `marker` in it,
 * and in any case owned by this user. Afterwards it bears the marker. `path` is for messages. NIBBLE_USAGE if something
 * else stands there, NIBBLE_SYSTEM if another process has it or the system refuses. */
nibble_status nb_folder_claim(int parent, const char *name, const char *path, const char *marker, int *fd,
                              nibble_error *err);

/* Calls `visit` for each name in the folder but "." and "..", until it returns non-zero, and returns that; -1 with
 * errno if the folder cannot be read. Allocates nothing: an output must go when memory has run out, too. */
int nb_folder_list(int fd, int (*visit)(void *ctx, int folder, const char *name), void *ctx);

/* Removes `name` in `parent`, a file, or a folder with all that is in it, following no link; 0 if it is not there. -1
 * with errno at the first thing that cannot be removed. */
int nb_folder_remove(int parent, const char *name);

/* Waits until the disk has `name` and all that is in it; -1 with errno, ECANCELED if the caller wants to stop
 * (base/stop.h). */
int nb_folder_sync(int parent, const char *name);

#endif
