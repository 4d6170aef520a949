/* transformers' classes of tokenizers. A folder's tokenizer_config.json names one, and its config.json a model type
 * that has one. Some take a tokenizer.json as it is; the others keep its vocabulary and merges only and bring steps of
 * their own, so that ids differ from what the file says. Those are the rows here (transformers 5.24).
 *
 *   class, tokenizer_config.json ──► nb_class_apply ──► the parts of the specification */
#ifndef NB_TOKENIZER_READERS_CLASSES_H
#define NB_TOKENIZER_READERS_CLASSES_H

#include "tokenizer/spec.h"

typedef struct nb_tokenizer_class nb_tokenizer_class;

/* What a folder says of its class. Names end in "Fast" or not; NULL where the folder says nothing. */
typedef struct nb_class_names {
  const char *in_tokenizer_config, *in_config, *model_type;
} nb_class_names;

/* The class that transformers would take; *out is NULL where it takes the file as it is (`is_byte_level`: the file's
 * pre-tokenizer is one of bytes). NIBBLE_BAD_INPUT for a class that would change ids but has no row. */
nibble_status nb_class_of(const char *where, nb_class_names names, bool is_byte_level, const nb_tokenizer_class **out,
                          nibble_error *err);

/* Puts the class's steps in the place of the specification's. `settings` is tokenizer_config.json's object, or NULL;
 * `where` names that file. NIBBLE_BAD_INPUT if the file's model is of another type than the class's. */
nibble_status nb_class_apply(const char *where, const nb_tokenizer_class *class, const cJSON *settings,
                             nb_tokenizer_spec *spec, nibble_error *err);

/* The special token that the class has under a key ("bos_token") where the settings have none; NULL: none. */
const char *nb_class_token(const nb_tokenizer_class *class, const char *key);

/* How many tokens <extra_id_N> it adds where the settings' "extra_ids" does not say. */
int nb_class_extra_ids(const nb_tokenizer_class *class);

#endif
