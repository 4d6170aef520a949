#include "tokenizer/unicode.h"

#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"

static const nb_code_range *find(const nb_code_range *ranges, size_t count, uint32_t code) {
  size_t low = 0, high = count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (code > ranges[middle].last)
      low = middle + 1;
    else
      high = middle;
  }
  return low < count && code >= ranges[low].first ? &ranges[low] : NULL;
}

/* The stand-in's bytes are written to out (as many as the code point has); false if it needs none. */
static bool stand_in(uint32_t code, char out[4]) {
  const nb_code_range *range = find(nb_unicode_new, nb_unicode_new_count, code);
  if (!range) return false;
  nb_utf8_encode((uint32_t)range->value, out);
  return true;
}

/* The first byte of every code point in nb_unicode_new is one of these; most scripts' are not. */
static bool may_be_new(unsigned char lead) { return lead >= 0xe0 && (lead <= 0xe3 || lead == 0xea || lead == 0xf0); }

/* Offset of the next code point at or after i that needs a stand-in, which is then in bytes; n if there is none. */
static size_t next_new(const char *text, size_t n, size_t i, char bytes[4]) {
  while (i < n) {
    uint64_t eight;
    if (i + 8 <= n && (memcpy(&eight, text + i, 8), (eight & 0x8080808080808080u) == 0)) {
      i += 8;
      continue;
    }
    if (may_be_new((unsigned char)text[i])) {
      size_t length;
      if (stand_in(nb_utf8_decode(text + i, &length), bytes)) return i;
      i += length;
    } else {
      i++;
    }
  }
  return n;
}

bool nb_needs_shadow(const char *text, size_t n) {
  char bytes[4];
  return next_new(text, n, 0, bytes) < n;
}

void nb_make_shadow(const char *text, size_t n, nb_buf *out) {
  out->length = 0;
  nb_buf_append(out, text, n);
  if (out->failed) return;
  char bytes[4];
  size_t length;
  for (size_t i = 0; (i = next_new(text, n, i, bytes)) < n; i += length) {
    nb_utf8_decode(text + i, &length);
    memcpy(out->data + i, bytes, length);
  }
}

bool nb_is_space(uint32_t code) {
  if (code < 0x80) return code == ' ' || (code >= '\t' && code <= '\r');
  if (code == 0x85) return true;
  utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);
  return category >= UTF8PROC_CATEGORY_ZS && category <= UTF8PROC_CATEGORY_ZP;
}

uint32_t nb_stand_in(uint32_t code) {
  const nb_code_range *range = find(nb_unicode_new, nb_unicode_new_count, code);
  return range ? (uint32_t)range->value : code;
}

bool nb_is_numeric(uint32_t code) {
  if (code < 0x80) return code >= '0' && code <= '9';
  utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)nb_stand_in(code));
  return (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO) ||
         find(nb_unicode_numeric, nb_unicode_numeric_count, code);
}

bool nb_is_punct(uint32_t code) {
  if (code < 0x80)
    return code > ' ' && code < 0x7f && !((code | 0x20) >= 'a' && (code | 0x20) <= 'z') && !nb_is_numeric(code);
  const nb_code_range *range = find(nb_unicode_punct, nb_unicode_punct_count, code);
  if (range) return range->value;
  if (find(nb_unicode_new, nb_unicode_new_count, code)) return false; /* the reference's table is older still */
  utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);
  return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

bool nb_is_inert(uint32_t code) {
  return code >= 0x300 &&
         (find(nb_unicode_inert, nb_unicode_inert_count, code) || find(nb_unicode_new, nb_unicode_new_count, code));
}

bool nb_is_other(uint32_t code) { return find(nb_unicode_other, nb_unicode_other_count, code); }

bool nb_is_nonspacing(uint32_t code) {
  return code >= 0x300 && find(nb_unicode_nonspacing, nb_unicode_nonspacing_count, code);
}

bool nb_is_mark(uint32_t code) { return code >= 0x300 && find(nb_unicode_mark, nb_unicode_mark_count, code); }

int nb_script(uint32_t code) {
  const nb_code_range *range = find(nb_unicode_script, nb_unicode_script_count, code);
  return range ? range->value : 0;
}

int nb_lower(uint32_t code, uint32_t out[2]) {
  out[1] = 0x307;
  if (code == 0x130) { /* the only lower case of two code points */
    out[0] = 'i';
    return 2;
  }
  const nb_code_range *range = find(nb_unicode_lower, nb_unicode_lower_count, code);
  out[0] = range ? (uint32_t)((int32_t)code + range->value) : (uint32_t)utf8proc_tolower((utf8proc_int32_t)code);
  return 1;
}
