/* Where the settings of a folder say how long its texts may be; for folder.c. */
#ifndef NB_TOKENIZER_READERS_FOLDER_LIMITS_H
#define NB_TOKENIZER_READERS_FOLDER_LIMITS_H

#include <cjson/cJSON.h>

#include "base/status.h"

typedef struct nb_folder_limits {
  const char *where;     /* tokenizer_config.json's path, for messages */
  const cJSON *settings; /* its object; NULL: none */
  int32_t pad_id;        /* of the padding token that the settings or the class name; -1: none */
  bool pads_left;        /* what the class does where no file says on which side */
  cJSON *parts;          /* of the specification */
  nibble_error *err;
} nb_folder_limits;

/* Puts model_max_length, truncation_side, padding_side and the padding token into "truncation" and "padding" of the
 * specification. */
nibble_status nb_folder_limits_apply(const nb_folder_limits *folder);

#endif
