#include "template/text.h"

#include <utf8proc.h>

#include "base/utf8.h"

bool nb_text_is_space(uint32_t code) {
  return (code >= 9 && code <= 13) || (code >= 28 && code <= 32) || code == 0x85 || code == 0xa0 || code == 0x1680 ||
         (code >= 0x2000 && code <= 0x200a) || code == 0x2028 || code == 0x2029 || code == 0x202f || code == 0x205f ||
         code == 0x3000;
}

size_t nb_text_space_before(nb_str text) {
  size_t at = 0, n;
  while (at < text.length && nb_text_is_space(nb_utf8_decode(text.data + at, &n))) at += n;
  return at;
}

size_t nb_text_space_after(nb_str text) {
  size_t at = text.length, n;
  while (at > 0) {
    size_t begin = at - 1;
    while (begin > 0 && !nb_utf8_begins(text.data[begin])) begin--;
    if (!nb_text_is_space(nb_utf8_decode(text.data + begin, &n))) break;
    at = begin;
  }
  return text.length - at;
}

size_t nb_text_characters(nb_str text) {
  size_t count = 0;
  for (size_t i = 0; i < text.length; i++) count += nb_utf8_begins(text.data[i]);
  return count;
}

size_t nb_text_offset(nb_str text, size_t at) {
  size_t i = 0;
  for (; i < text.length; i++) {
    if (nb_utf8_begins(text.data[i]) && at-- == 0) break;
  }
  return i;
}

bool nb_text_is_printable(uint32_t code) {
  switch (utf8proc_category((utf8proc_int32_t)code)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP: return false;
    case UTF8PROC_CATEGORY_ZS: return code == ' ';
    default: return true;
  }
}

size_t nb_text_find(nb_str text, nb_str part, size_t from) {
  if (from > text.length) return SIZE_MAX;
  if (part.length == 0) return from;
  const char *start = text.data + from;
  size_t length = text.length - from;
  const char *found =
      part.length == 1 ? memchr(start, *part.data, length) : memmem(start, length, part.data, part.length);
  return found ? (size_t)(found - text.data) : SIZE_MAX;
}

size_t nb_text_rfind(nb_str text, nb_str part) {
  if (part.length > text.length) return SIZE_MAX;
  for (size_t at = text.length - part.length + 1; at-- > 0;) {
    if (part.length == 0 || memcmp(text.data + at, part.data, part.length) == 0) return at;
  }
  return SIZE_MAX;
}

size_t nb_text_line_end(nb_str text, size_t at) {
  size_t n;
  uint32_t code = nb_utf8_decode(text.data + at, &n);
  if (code == '\r') return at + 1 < text.length && text.data[at + 1] == '\n' ? 2 : 1;
  bool ends =
      (code >= 10 && code <= 12) || (code >= 0x1c && code <= 0x1e) || code == 0x85 || code == 0x2028 || code == 0x2029;
  return ends ? n : 0;
}
