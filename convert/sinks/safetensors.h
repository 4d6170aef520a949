/* Writes a safetensors checkpoint as a stream: one file, or shards with an index, named as transformers names them.
 * A caller first declares every tensor in the order it will write them (name, dtype, shape), which fixes the shards and
 * the room for each header; then writes each tensor's bytes, in any order inside the tensor and from any thread.
 * A header's JSON is written last, into space that was reserved and padded, so nothing is ever held back in memory.
 * Inside a shard tensors lie as the safetensors library sorts them (by dtype, then name), which keeps each aligned.
 *
 *   nb_writer_open(&folder, max_shard_size, &w, err);
 *   nb_writer_declare(w, "a.weight", NB_U8, shape, 2, err); ...
 *   nb_writer_begin(w, i, bytes) -> pwrite at any offset of the tensor -> next tensor
 *   nb_writer_finish(w); nb_writer_close(w) */
#ifndef NB_CONVERT_SINKS_SAFETENSORS_H
#define NB_CONVERT_SINKS_SAFETENSORS_H

#include "base/dtype.h"
#include "base/folder.h"

typedef struct nb_writer nb_writer;

/* Makes model*.safetensors in `folder`, which must stay open. max_shard_size in bytes; 0 means 5 GB. */
nibble_status nb_writer_open(const nb_folder *folder, uint64_t max_shard_size, nb_writer **out, nibble_error *err);

/* Writes one file, which is open for writing and empty; `path` is for messages. */
nibble_status nb_writer_open_file(int fd, const char *path, nb_writer **out, nibble_error *err);

/* Declares the next tensor. Names are checked: not empty, no duplicate, no path that leads elsewhere. */
nibble_status nb_writer_declare(nb_writer *writer, const char *name, nb_dtype dtype, const int64_t *shape, int ndim,
                                nibble_error *err);

/* Declares a 1-D U8 tensor whose length is known only when it is begun (a quant state's JSON with a figure in it): at
 * most `most` bytes. Such tensors lie after the others of their shard. */
nibble_status nb_writer_declare_upto(nb_writer *writer, const char *name, int64_t most, nibble_error *err);

/* Starts tensor `index` (the order of declaration; each must be begun in turn). `count` is the product of the shape, or
 * of a tensor declared with nb_writer_declare_upto what it came to. */
nibble_status nb_writer_begin(nb_writer *writer, size_t index, int64_t count, nibble_error *err);

/* Writes n bytes at byte `offset` inside a tensor that was begun; each byte once. Any thread. */
nibble_status nb_writer_write(nb_writer *writer, size_t index, uint64_t offset, const void *bytes, uint64_t n,
                              nibble_error *err);

/* Checks that every byte was written, writes the headers that are not written yet (with {"format": "pt"} as metadata)
 * and, for more than one shard, model.safetensors.index.json. */
nibble_status nb_writer_finish(nb_writer *writer, nibble_error *err);

/* Closes and frees. Files of an unfinished writer stay where they are: they lie in a staged folder. */
void nb_writer_close(nb_writer *writer);

/* Bytes of all tensors written. */
uint64_t nb_writer_bytes(const nb_writer *writer);

#endif
