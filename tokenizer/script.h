/* The script of a character (Unicode's Script property): Latin, Han, ..., Common for what several write, Inherited for
 * marks that are of the script before them, Unknown for what is not assigned.
 *
 *   code point ──► nb_script_of ──► index of nb_script_names */
#ifndef NB_TOKENIZER_SCRIPT_H
#define NB_TOKENIZER_SCRIPT_H

#include <stddef.h>
#include <stdint.h>

enum { NB_SCRIPT_UNKNOWN, NB_SCRIPT_COMMON, NB_SCRIPT_INHERITED, NB_SCRIPT_FIRST /* of those that are one */ };

extern const char *const nb_script_names[];
extern const size_t nb_script_count;

int nb_script_of(uint32_t code);

/* --- the table, script_data.c --- */

typedef struct nb_script_start {
  uint32_t code; /* from here on */
  uint8_t script;
} nb_script_start;

extern const nb_script_start nb_script_starts[];
extern const size_t nb_script_start_count;

#endif
