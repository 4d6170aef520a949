#include "template/case.h"

#include <stdlib.h>
#include <utf8proc.h>

#include "base/utf8.h"

static int by_code(const void *key, const void *row) {
  uint32_t code = *(const uint32_t *)key, other = ((const nb_case_row *)row)->code;
  return (code > other) - (code < other);
}

static void put_one(nb_buf *out, uint32_t code, nb_case how) {
  const nb_case_row *row =
      code < 0x80 ? NULL : bsearch(&code, nb_case_rows, nb_case_row_count, sizeof *nb_case_rows, by_code);
  if (row) {
    nb_buf_puts(out, row->to[how]);
    return;
  }
  utf8proc_int32_t c = (utf8proc_int32_t)code;
  c = how == NB_CASE_UPPER ? utf8proc_toupper(c) : how == NB_CASE_LOWER ? utf8proc_tolower(c) : utf8proc_totitle(c);
  char bytes[4];
  nb_buf_append(out, bytes, nb_utf8_encode((uint32_t)c, bytes));
}

bool nb_is_cased(uint32_t code) {
  switch (utf8proc_category((utf8proc_int32_t)code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT: return true;
    default:
      return (code >= 0x2160 && code <= 0x217f) || (code >= 0x24b6 && code <= 0x24e9) || code == 0xaa || code == 0xba;
  }
}

/* What stands in a word without being one of its letters: marks, apostrophes, dots. */
static bool is_ignored(uint32_t code) {
  if (code == '\'' || code == '.' || code == ':' || code == '^' || code == '`' || code == 0xb7 || code == 0x2018 ||
      code == 0x2019)
    return true;
  switch (utf8proc_category((utf8proc_int32_t)code)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK: return true;
    default: return false;
  }
}

/* A capital sigma at text[at]: at the end of a word, behind another letter, its lower case is another. */
static bool ends_word(nb_str text, size_t at, bool follows_letter) {
  size_t n;
  if (!follows_letter) return false;
  for (size_t i = at + 2; i < text.length; i += n) {
    uint32_t code = nb_utf8_decode(text.data + i, &n);
    if (!is_ignored(code)) return !nb_is_cased(code);
  }
  return true;
}

void nb_put_case(nb_buf *out, nb_str text, nb_case how) {
  enum { CAPITAL_SIGMA = 0x3a3 };
  bool in_word = false, follows_letter = false;
  size_t n;
  for (size_t i = 0; i < text.length; i += n) {
    uint32_t code = nb_utf8_decode(text.data + i, &n);
    bool is_cased = nb_is_cased(code);
    nb_case to = how;
    if (how == NB_CASE_TITLE) to = in_word ? NB_CASE_LOWER : NB_CASE_TITLE;
    if (how == NB_CASE_CAPITAL) to = i > 0 ? NB_CASE_LOWER : NB_CASE_TITLE;
    if (how == NB_CASE_SWAP)
      to = utf8proc_tolower((utf8proc_int32_t)code) != (utf8proc_int32_t)code ? NB_CASE_LOWER : NB_CASE_UPPER;
    if (to == NB_CASE_LOWER && code == CAPITAL_SIGMA)
      nb_buf_puts(out, ends_word(text, i, follows_letter) ? "\xcf\x82" : "\xcf\x83");
    else
      put_one(out, code, to);
    in_word = is_cased;
    if (!is_ignored(code)) follows_letter = is_cased;
  }
}
