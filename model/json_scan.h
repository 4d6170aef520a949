/* A walk over JSON text that builds nothing: it checks every byte and says where values begin and end. It takes what
 * Python's json module takes, so what passes here can be read by what reads our outputs: NaN, Infinity and -Infinity
 * are numbers, strings hold no raw control characters. Beyond that, text must be UTF-8 and no string may hold \u0000,
 * where a C string would end.
 *
 *   nb_json_scan s = {.text = text, .length = n};
 *   if (nb_json_scan_value(&s)) ... the value ends before byte s.at ... else ... s.fault, at byte s.at ... */
#ifndef NB_MODEL_JSON_SCAN_H
#define NB_MODEL_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>

typedef struct nb_json_scan {
  const char *text;
  size_t length, at; /* bytes; `at`: the next byte to look at */
  int depth;         /* containers that are open */
  const char *fault; /* NULL, or what is wrong at byte `at` */
  size_t values;     /* passed, those inside containers, too */
  size_t most;       /* values that the text may have; 0: any number */

  /* Called for each number, in the order of the text, if not NULL. */
  void (*number)(void *ctx, const char *text, size_t length);
  void *ctx;
} nb_json_scan;

/* Skips white space. */
void nb_json_scan_space(nb_json_scan *s);

/* True, with `byte` behind us, if it comes next. */
bool nb_json_scan_byte(nb_json_scan *s, char byte);

/* Each stands on the first byte of what it passes; false, with `fault` set, if that is not there. */
bool nb_json_scan_string(nb_json_scan *s);
bool nb_json_scan_value(nb_json_scan *s);

/* The whole text: one value and white space. On failure `at` is the place, and `fault` NULL if something follows. */
bool nb_json_scan_all(nb_json_scan *s);

#endif
