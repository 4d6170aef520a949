#include "tokenizer/script.h"

int nb_script_of(uint32_t code) {
  size_t low = 0, high = nb_script_start_count; /* the row of `code` is in [low, high) */
  while (high - low > 1) {
    size_t middle = low + (high - low) / 2;
    if (nb_script_starts[middle].code <= code)
      low = middle;
    else
      high = middle;
  }
  return nb_script_starts[low].script;
}
