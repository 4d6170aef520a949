/* The first depth of `verify`: can this be a sound artifact at all? Needs no original, reads every byte once.
 * Three looks, each adding to the same findings: the files against the config (structure.c), every packed weight
 * against what its quantizer can have written (structure_packed.c, structure_gptq.c, structure_gguf.c), the tokenizer
 * against the vocabulary (structure_vocab.c). None of them stops at a fault; each tests only what the layout can be
 * understood by.
 */
#ifndef NB_VALIDATE_STRUCTURE_H
#define NB_VALIDATE_STRUCTURE_H

#include "convert/checkpoint.h"
#include "validate/findings.h"

typedef struct nb_structure {
  size_t tensors, packed_weights;
  uint64_t bytes;
} nb_structure;

/* All three looks. The checkpoint was opened loosely. Fails only for want of memory. */
nibble_status nb_structure_check(const nb_checkpoint *checkpoint, const nibble_progress *progress,
                                 nb_findings *findings, nb_structure *out, nibble_error *err);

/* True if weights of that layout are looked into; of any other each weight is a fault. */
bool nb_structure_knows(const nb_layout *layout);

/* One packed weight, of which `main` is the main tensor. */
nibble_status nb_structure_packed(const nb_checkpoint *checkpoint, const nb_tensor *main, nb_findings *findings,
                                  nibble_error *err);

/* The same for GPTQ's layout; and what concerns all weights of it together. */
nibble_status nb_structure_gptq(const nb_checkpoint *checkpoint, const nb_tensor *main, nb_findings *findings,
                                nibble_error *err);

void nb_structure_gptq_label(const nb_checkpoint *checkpoint, nb_findings *findings);

/* tokenizer.json and the special ids of config.json against the embedding's rows. */
nibble_status nb_structure_vocab(const nb_checkpoint *checkpoint, nb_findings *findings, nibble_error *err);

/* A tensor of GGUF's blocks. True if its values need no further look: a scale that is not finite has been named. */
bool nb_structure_blocks(const nb_checkpoint *checkpoint, const nb_tensor *tensor, nb_findings *findings);

/* A GGUF file's own vocabulary against the embedding's rows. */
void nb_structure_gguf_vocab(const nb_checkpoint *checkpoint, nb_findings *findings);

#endif
