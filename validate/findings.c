#include "validate/findings.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/grow.h"

/* Names and texts from files go to terminals and reports. */
static char *printable(const char *text) {
  char *copy = strdup(text);
  if (copy) nibble_printable(copy, "");
  return copy;
}

static nibble_finding *add_slot(nb_findings *f) {
  nibble_finding *items = nb_grow(f->items, &f->capacity, f->count + 1, sizeof *items);
  if (!items) return NULL;
  f->items = items;
  return &f->items[f->count];
}

void nb_find(nb_findings *f, nibble_severity severity, const char *check, const char *cause, nb_place place,
             const char *format, ...) {
  char text[NIBBLE_MESSAGE_MAX];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  nibble_finding *slot = add_slot(f);
  if (!slot) {
    f->failed = true;
    return;
  }
  *slot = (nibble_finding){.severity = severity,
                           .check = strdup(check),
                           .cause = strdup(cause),
                           .tensor = printable(place.tensor),
                           .block = place.block,
                           .index = place.index,
                           .count = place.count,
                           .text = printable(text)};
  f->count++;
  if (!slot->check || !slot->cause || !slot->tensor || !slot->text) f->failed = true;
}

size_t nb_findings_count(const nb_findings *f, nibble_severity severity) {
  size_t n = 0;
  for (size_t i = 0; i < f->count; i++) n += f->items[i].severity == severity;
  return n;
}

void nb_findings_free(nb_findings *f) {
  for (size_t i = 0; i < f->count; i++) {
    free((void *)(uintptr_t)f->items[i].check);
    free((void *)(uintptr_t)f->items[i].cause);
    free((void *)(uintptr_t)f->items[i].tensor);
    free((void *)(uintptr_t)f->items[i].text);
  }
  free(f->items);
  *f = (nb_findings){0};
}
