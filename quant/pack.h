/* One tensor from a checkpoint into a writer, as a stream: cut into bands for the threads, which also hash what they
 * have finished, in order, and give its pages back. */
#ifndef NB_QUANT_PACK_H
#define NB_QUANT_PACK_H

#include "convert/manifest.h"
#include "convert/sinks/safetensors.h"
#include "convert/source.h"

typedef struct nb_packer nb_packer;

/* Scratch memory for any number of tensors; they are quantized where the context says. `progress` is told of
 * every tensor: weights done of `total`. */
nibble_status nb_packer_open(const nibble_context *context, nb_writer *writer, const nibble_progress *progress,
                             int64_t total, nb_packer **out, nibble_error *err);
void nb_packer_close(nb_packer *packer); /* NULL is fine */

/* A weight on its way into its layout's tensors. */
typedef struct nb_pack_job {
  const nb_source *source;
  const nb_packed *target; /* what it becomes: a descriptor without buffers (see nb_layout_parts) */
  const nb_part *parts;
  int part_count;
  size_t index; /* in the writer, of the first part, which was declared so; the others follow */
} nb_pack_job;

/* What was done to a tensor. */
typedef struct nb_pack_result {
  char hash[NB_HASH_CHARS]; /* of the source's stored bytes */
  double error, squares;    /* sums over the weights: of the squared differences to their copies, and of squares */
  cJSON *details;           /* an object for the manifest, the caller's; NULL: there are none */
} nb_pack_result;

/* Writes the tensor, as source->dtype, to `index` of the writer, which was declared so. */
nibble_status nb_pack_copy(nb_packer *packer, const nb_source *source, size_t index, nb_pack_result *out,
                           nibble_error *err);

/* Quantizes to nf4, fp4 or int8. NIBBLE_BAD_INPUT names the first weight that is not finite. */
nibble_status nb_pack_quantize(nb_packer *packer, const nb_pack_job *job, nb_pack_result *out, nibble_error *err);

/* For what packs weights itself. */
nb_writer *nb_packer_writer(const nb_packer *packer);

#endif
