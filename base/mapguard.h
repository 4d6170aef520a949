/* What happens to a mapped file whose file changes under it. A page past the new end of a truncated file raises SIGBUS
 * when it is touched, which would kill the process in the middle of its work: pages of guarded maps read as zeros
 * instead, and the loss is remembered. So is a change of size or time that is seen when the map is closed. Whoever is
 * about to keep or to announce a result asks nb_mapguard_lost first; nb_stage_commit and the command line do.
 * The handler is installed with the first map, unless the program has one of its own for SIGBUS. */
#ifndef NB_BASE_MAPGUARD_H
#define NB_BASE_MAPGUARD_H

#include <sys/stat.h>

#include "base/status.h"

/* Guards [data, data + size), mapped from `path`, which looked like *info. If too many maps are guarded
 * already, or there is no memory, this one is not. */
void nb_mapguard_add(const void *data, uint64_t size, const char *path, const struct stat *info);

/* Before the map goes. */
void nb_mapguard_remove(const void *data);

/* True if a guarded file has changed since it was mapped, whether the map is still open or was closed since the last
 * call of nb_mapguard_forget. */
bool nb_mapguard_lost(void);

/* NIBBLE_BAD_INPUT if it has. */
nibble_status nb_mapguard_check(nibble_error *err);

/* All that a result needs has been read: what happens to the files mapped so far matters no more. */
void nb_mapguard_settle(void);

void nb_mapguard_forget(void);

#endif
