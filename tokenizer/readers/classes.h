/* transformers' classes of tokenizers. A folder's tokenizer_config.json names one, and its config.json a model type
 * that has one. Some take a tokenizer.json as it is; the others keep its vocabulary and merges only and bring steps of
 * their own, so that ids differ from what the file says. Those are the rows of classes.c (transformers 5.24).
 *
 *   class, tokenizer_config.json ──► nb_class_apply ──► steps and model of the specification
 *                                    (added tokens: folder.c)
 *                                ──► nb_class_add_ends ──► its post-processor, whose tokens have their ids by then */
#ifndef NB_TOKENIZER_READERS_CLASSES_H
#define NB_TOKENIZER_READERS_CLASSES_H

#include "tokenizer/readers/class_steps.h"

/* What a folder says of its class. Names end in "Fast" or not; NULL where the folder says nothing. */
typedef struct nb_class_names {
  const char *in_tokenizer_config, *in_config, *model_type;
} nb_class_names;

/* The class that transformers would take; *out is NULL where it takes the file as it is (`is_byte_level`: the file's
 * pre-tokenizer is one of bytes). NIBBLE_BAD_INPUT for a class that does what nibble does not. */
nibble_status nb_class_of(const char *where, nb_class_names names, bool is_byte_level, const nb_tokenizer_class **out,
                          nibble_error *err);

/* Puts the class's steps in the place of the specification's. `settings` is tokenizer_config.json's object, or NULL;
 * `where` names that file. NIBBLE_BAD_INPUT if the file's model is of another type than the class's, or if they have a
 * setting that the class reads and nibble does not. */
nibble_status nb_class_apply(const char *where, const nb_tokenizer_class *class, const cJSON *settings,
                             nb_tokenizer_spec *spec, nibble_error *err);

/* Puts the class's post-processor in the place of the specification's, whose added tokens are all there. */
nibble_status nb_class_add_ends(const char *where, const nb_tokenizer_class *class, const cJSON *settings,
                                nb_tokenizer_spec *spec, nibble_error *err);

/* Whether the class puts padding in front of a text, where no file says so; NULL: no class, no. */
bool nb_class_pads_left(const nb_tokenizer_class *class);

/* The special token that the class has under a key ("bos_token") where the settings have none; NULL: none. */
const nb_class_token *nb_class_token_of(const nb_tokenizer_class *class, const char *key);

#endif
