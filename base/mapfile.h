/* A file mapped read-only, and the pages of it that are no longer needed given back.
 * Every reader works on such a view; nothing reads a whole checkpoint into memory. */
#ifndef NB_BASE_MAPFILE_H
#define NB_BASE_MAPFILE_H

#include "base/status.h"

typedef struct nb_mapfile {
  const uint8_t *data; /* NULL for an empty file */
  uint64_t size;       /* bytes */
} nb_mapfile;

/* Maps a regular file; NIBBLE_BAD_INPUT if it is missing or no regular file, NIBBLE_SYSTEM if the system refuses. */
nibble_status nb_mapfile_open(const char *path, nb_mapfile *out, nibble_error *err);
/* The same of an open file, whose descriptor stays the caller's. `path` is its name, for messages. */
nibble_status nb_mapfile_open_fd(int fd, const char *path, nb_mapfile *out, nibble_error *err);

void nb_mapfile_close(nb_mapfile *map);

/* Gives the pages of [offset, offset + length) back, and a few beside them; they are read again if touched again. */
void nb_mapfile_release(const nb_mapfile *map, uint64_t offset, uint64_t length);

#endif
