/* The methods of str. Those that make text of Markup make Markup; Python's names, arguments and results. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"
#include "template/case.h"
#include "template/render.h"
#include "template/text.h"

#define METHOD(name) static const nb_val *name(nb_render *r, const nb_val *self, const nb_args *args)

static const nb_val *like(nb_render *r, const nb_val *self, nb_str text) {
  return nb_new(r, (nb_val){.type = NB_V_STRING, .is_safe = self->is_safe, .text = text});
}

static const nb_val *taken_like(nb_render *r, const nb_val *self, nb_buf *buf) {
  const nb_val *text = nb_new_taken(r, buf);
  return text && self->is_safe ? like(r, self, text->text) : text;
}

/* ---- case ------------------------------------------------------------------------------------------------------- */

static const nb_val *cased(nb_render *r, const nb_val *self, nb_case how) {
  nb_buf buf = {0};
  if (!nb_work(r, 4 * self->text.length)) return NULL;
  nb_put_case(&buf, self->text, how);
  return taken_like(r, self, &buf);
}

METHOD(to_upper) { return args ? cased(r, self, NB_CASE_UPPER) : NULL; }
METHOD(to_lower) { return args ? cased(r, self, NB_CASE_LOWER) : NULL; }
METHOD(to_title) { return args ? cased(r, self, NB_CASE_TITLE) : NULL; }
METHOD(to_capital) { return args ? cased(r, self, NB_CASE_CAPITAL) : NULL; }
METHOD(to_swapped) { return args ? cased(r, self, NB_CASE_SWAP) : NULL; }

/* ---- ends ------------------------------------------------------------------------------------------------------- */

/* Bytes of the first, or last, character if it is one of `set`, else 0. */
static size_t one_of(nb_str text, nb_str set, bool at_end) {
  size_t begin = at_end ? text.length : 0, n;
  if (text.length == 0) return 0;
  if (at_end) {
    do begin--;
    while (begin > 0 && !nb_utf8_begins(text.data[begin]));
  }
  nb_utf8_decode(text.data + begin, &n);
  for (size_t i = 0, k; i < set.length; i += k) {
    nb_utf8_decode(set.data + i, &k);
    if (k == n && memcmp(set.data + i, text.data + begin, n) == 0) return n;
  }
  return 0;
}

enum { AT_START = 1, AT_END = 2 };

static const nb_val *stripped(nb_render *r, const nb_val *self, const nb_args *args, int ends) {
  const nb_val *chars = nb_arg(args, 0, &nb_none);
  nb_str text = self->text, set = {0};
  if (chars->type != NB_V_NONE && !nb_arg_text(r, args, 0, &set)) return NULL;
  if (!nb_work_bytes(r, text.length)) return NULL;
  if (chars->type == NB_V_NONE) {
    if (ends & AT_START) text = nb_text_cut(text, nb_text_space_before(text), 0);
    if (ends & AT_END) text = nb_text_cut(text, 0, nb_text_space_after(text));
    return like(r, self, text);
  }
  for (int end = AT_START; end <= AT_END; end++) {
    for (size_t n; (ends & end) && (n = one_of(text, set, end == AT_END)) > 0;) {
      if (!nb_work(r, set.length + 1)) return NULL;
      text = end == AT_END ? nb_text_cut(text, 0, n) : nb_text_cut(text, n, 0);
    }
  }
  return like(r, self, text);
}

METHOD(strip) { return stripped(r, self, args, AT_START | AT_END); }
METHOD(lstrip) { return stripped(r, self, args, AT_START); }
METHOD(rstrip) { return stripped(r, self, args, AT_END); }

static bool has_end(nb_str text, nb_str end, bool at_end) {
  if (end.length > text.length) return false;
  const char *at = text.data + (at_end ? text.length - end.length : 0);
  return end.length == 0 || memcmp(at, end.data, end.length) == 0;
}

/* The part of the text from character `start` on and up to `stop`, as slices have them: parameters `i` and i + 1. */
static bool part_of(nb_render *r, const nb_val *self, const nb_args *args, size_t i, nb_str *out) {
  const nb_val *bounds[3] = {nb_arg(args, i, NULL), nb_arg(args, i + 1, NULL), NULL};
  *out = self->text;
  if (!bounds[0] && !bounds[1]) return true;
  const nb_val *part = nb_slice(r, self, bounds);
  if (part) *out = part->text;
  return part != NULL;
}

static const nb_val *ends_with(nb_render *r, const nb_val *self, const nb_args *args, bool at_end) {
  const nb_val *what = args->items[0];
  nb_str text;
  if (!part_of(r, self, args, 1, &text)) return NULL;
  if (what->type == NB_V_STRING) return nb_val_bool(has_end(text, what->text, at_end));
  if (what->type != NB_V_TUPLE)
    return nb_render_fail(r, "startswith and endswith take str or a tuple of str, not %s", nb_val_type_name(what));
  for (size_t i = 0; i < what->list.count; i++) {
    const nb_val *item = what->list.items[i];
    if (item->type != NB_V_STRING)
      return nb_render_fail(r, "a tuple for startswith or endswith holds str, not %s", nb_val_type_name(item));
    if (has_end(text, item->text, at_end)) return &nb_true;
  }
  return &nb_false;
}

METHOD(startswith) { return ends_with(r, self, args, false); }
METHOD(endswith) { return ends_with(r, self, args, true); }

static const nb_val *without(nb_render *r, const nb_val *self, const nb_args *args, bool at_end) {
  nb_str end = {0};
  if (!nb_arg_text(r, args, 0, &end)) return NULL;
  size_t n = has_end(self->text, end, at_end) ? end.length : 0;
  return like(r, self, nb_text_cut(self->text, at_end ? 0 : n, at_end ? n : 0));
}

METHOD(removeprefix) { return without(r, self, args, false); }
METHOD(removesuffix) { return without(r, self, args, true); }

/* ---- looking for text ------------------------------------------------------------------------------------------- */

static size_t place(nb_str text, nb_str part, bool from_end) {
  return from_end ? nb_text_rfind(text, part) : nb_text_find(text, part, 0);
}

static const nb_val *found_at(nb_render *r, const nb_val *self, const nb_args *args, bool from_end, bool must) {
  nb_str what = {0}, text;
  if (!nb_arg_text(r, args, 0, &what) || !part_of(r, self, args, 1, &text)) return NULL;
  if (!nb_work_bytes(r, 2 * self->text.length) || !nb_work(r, from_end ? text.length * (1 + what.length / 64) : 0))
    return NULL;
  size_t at = place(text, what, from_end);
  if (at == SIZE_MAX && must) return nb_render_fail(r, "substring not found");
  if (at == SIZE_MAX) return nb_new_int(r, -1);
  nb_str before = {self->text.data, (size_t)(text.data - self->text.data) + at};
  return nb_new_int(r, (int64_t)nb_text_characters(before));
}

METHOD(find) { return found_at(r, self, args, false, false); }
METHOD(rfind) { return found_at(r, self, args, true, false); }
METHOD(find_index) { return found_at(r, self, args, false, true); }
METHOD(find_rindex) { return found_at(r, self, args, true, true); }

METHOD(count) {
  nb_str what = {0}, text;
  int64_t times = 0;
  if (!nb_arg_text(r, args, 0, &what) || !part_of(r, self, args, 1, &text)) return NULL;
  if (!nb_work(r, text.length)) return NULL;
  if (what.length == 0) return nb_new_int(r, (int64_t)nb_text_characters(text) + 1);
  for (size_t at = 0; (at = nb_text_find(text, what, at)) != SIZE_MAX; at += what.length) times++;
  return nb_new_int(r, times);
}

METHOD(partition) {
  nb_str sep = {0};
  if (!nb_arg_text(r, args, 0, &sep) || !nb_work_bytes(r, self->text.length)) return NULL;
  if (sep.length == 0) return nb_render_fail(r, "empty separator");
  size_t at = nb_text_find(self->text, sep, 0);
  nb_list parts;
  if (!nb_list_new(r, 3, &parts)) return NULL;
  bool is_there = at != SIZE_MAX;
  nb_str empty = {"", 0};
  parts.items[0] = like(r, self, is_there ? (nb_str){self->text.data, at} : self->text);
  parts.items[1] = like(r, self, is_there ? sep : empty);
  parts.items[2] = like(r, self, is_there ? nb_text_cut(self->text, at + sep.length, 0) : empty);
  return parts.items[0] && parts.items[1] && parts.items[2] ? nb_new_list(r, NB_V_TUPLE, parts) : NULL;
}

METHOD(rpartition) {
  nb_str sep = {0};
  if (!nb_arg_text(r, args, 0, &sep) || !nb_work(r, self->text.length * (1 + sep.length / 64))) return NULL;
  if (sep.length == 0) return nb_render_fail(r, "empty separator");
  size_t at = nb_text_rfind(self->text, sep);
  nb_list parts;
  if (!nb_list_new(r, 3, &parts)) return NULL;
  bool is_there = at != SIZE_MAX;
  nb_str empty = {"", 0};
  parts.items[0] = like(r, self, is_there ? (nb_str){self->text.data, at} : empty);
  parts.items[1] = like(r, self, is_there ? sep : empty);
  parts.items[2] = like(r, self, is_there ? nb_text_cut(self->text, at + sep.length, 0) : self->text);
  return parts.items[0] && parts.items[1] && parts.items[2] ? nb_new_list(r, NB_V_TUPLE, parts) : NULL;
}

/* ---- splitting and joining -------------------------------------------------------------------------------------- */

/* Parts of a text, as many as come. */
typedef struct parts {
  nb_list list;
  size_t capacity;
} parts;

static bool add_part(nb_render *r, parts *p, const nb_val *self, nb_str text) {
  if (p->list.count == p->capacity) {
    nb_list more;
    if (!nb_list_new(r, p->capacity ? 2 * p->capacity : 8, &more)) return false;
    if (p->list.count) memcpy(more.items, p->list.items, p->list.count * sizeof *more.items);
    p->capacity = more.count;
    p->list.items = more.items;
  }
  const nb_val *part = nb_work(r, NB_NODE_WORK) ? like(r, self, text) : NULL;
  p->list.items[p->list.count++] = part;
  return part != NULL;
}

static bool split_at_space(nb_render *r, const nb_val *self, int64_t most, bool from_end, parts *p) {
  nb_str rest = self->text;
  for (size_t n; rest.length > 0;) {
    rest =
        from_end ? nb_text_cut(rest, 0, nb_text_space_after(rest)) : nb_text_cut(rest, nb_text_space_before(rest), 0);
    if (rest.length == 0) break;
    if (most-- == 0) return add_part(r, p, self, rest);
    size_t length = 0;
    if (from_end) {
      size_t at = rest.length;
      while (at > 0) {
        size_t begin = at - 1;
        while (begin > 0 && !nb_utf8_begins(rest.data[begin])) begin--;
        if (nb_text_is_space(nb_utf8_decode(rest.data + begin, &n))) break;
        at = begin;
      }
      if (!add_part(r, p, self, nb_text_cut(rest, at, 0))) return false;
      rest.length = at;
    } else {
      while (length < rest.length && !nb_text_is_space(nb_utf8_decode(rest.data + length, &n))) length += n;
      if (!add_part(r, p, self, (nb_str){rest.data, length})) return false;
      rest = nb_text_cut(rest, length, 0);
    }
  }
  return true;
}

static bool split_at(nb_render *r, const nb_val *self, nb_str sep, int64_t most, bool from_end, parts *p) {
  nb_str rest = self->text;
  for (size_t at; most-- != 0 && (at = place(rest, sep, from_end)) != SIZE_MAX;) {
    nb_str before = {rest.data, at}, after = nb_text_cut(rest, at + sep.length, 0);
    if (!add_part(r, p, self, from_end ? after : before)) return false;
    rest = from_end ? before : after;
  }
  return add_part(r, p, self, rest);
}

static const nb_val *split_from(nb_render *r, const nb_val *self, const nb_args *args, bool from_end) {
  const nb_val *by = nb_arg(args, 0, &nb_none);
  int64_t most = -1;
  nb_str sep = {0};
  parts p = {0};
  if (!nb_arg_int(r, args, 1, &most) || !nb_work_bytes(r, self->text.length)) return NULL;
  if (most < 0) most = -1;
  if (by->type != NB_V_NONE) {
    if (!nb_arg_text(r, args, 0, &sep)) return NULL;
    if (sep.length == 0) return nb_render_fail(r, "empty separator");
    if (from_end && !nb_work(r, self->text.length * (1 + sep.length / 64))) return NULL;
    if (!split_at(r, self, sep, most, from_end, &p)) return NULL;
  } else if (!nb_work(r, self->text.length) || !split_at_space(r, self, most, from_end, &p)) {
    return NULL;
  }
  for (size_t i = 0; from_end && i < p.list.count / 2; i++) {
    const nb_val *item = p.list.items[i];
    p.list.items[i] = p.list.items[p.list.count - 1 - i];
    p.list.items[p.list.count - 1 - i] = item;
  }
  return nb_new_list(r, NB_V_LIST, p.list);
}

METHOD(split) { return split_from(r, self, args, false); }
METHOD(rsplit) { return split_from(r, self, args, true); }

METHOD(splitlines) {
  parts p = {0};
  bool keeps = nb_val_is_true(nb_arg(args, 0, &nb_false));
  nb_str text = self->text;
  if (!nb_work(r, text.length)) return NULL;
  for (size_t start = 0, at = 0, n; start < text.length; start = at) {
    size_t end = 0;
    while (at < text.length && (end = nb_text_line_end(text, at)) == 0) {
      nb_utf8_decode(text.data + at, &n);
      at += n;
    }
    if (!add_part(r, &p, self, (nb_str){text.data + start, at - start + (keeps ? end : 0)})) return NULL;
    at += end;
  }
  return nb_new_list(r, NB_V_LIST, p.list);
}

METHOD(join) {
  nb_list items;
  nb_buf buf = {0};
  bool ok = nb_items(r, args->items[0], &items);
  for (size_t i = 0; ok && i < items.count; i++) {
    if (items.items[i]->type != NB_V_STRING) {
      nb_render_fail(r, "sequence item %zu: expected str instance, %s found", i, nb_val_type_name(items.items[i]));
      ok = false;
      break;
    }
    const nb_val *item = items.items[i];
    if (self->is_safe && !item->is_safe) item = nb_call_filter(r, (nb_str){"escape", 6}, item, &(nb_args){0});
    ok = item && (i == 0 || nb_put_str(r, &buf, self)) && nb_put_str(r, &buf, item);
  }
  const nb_val *text = taken_like(r, self, &buf);
  return ok ? text : NULL;
}

METHOD(replace) {
  nb_str old = {0}, new = {0}, text = self->text;
  int64_t most = -1;
  nb_buf buf = {0};
  size_t at = 0, n, found;
  if (!nb_arg_text(r, args, 0, &old) || !nb_arg_text(r, args, 1, &new) || !nb_arg_int(r, args, 2, &most)) return NULL;
  bool ok = nb_work_bytes(r, text.length);
  for (; ok && most != 0 && (found = nb_text_find(text, old, at)) != SIZE_MAX; most -= most > 0) {
    nb_buf_append(&buf, text.data + at, found - at);
    ok = nb_put_str(r, &buf, args->items[1]);
    at = found + old.length;
    if (old.length > 0) continue;
    if (at == text.length) break; /* nothing stands between any two characters, and at the ends */
    nb_utf8_decode(text.data + at, &n);
    nb_buf_append(&buf, text.data + at, n);
    at += n;
  }
  nb_buf_append(&buf, text.data + at, text.length - at);
  const nb_val *replaced = taken_like(r, self, &buf);
  return ok ? replaced : NULL;
}

/* ---- padding ---------------------------------------------------------------------------------------------------- */

enum { PAD_LEFT, PAD_RIGHT, PAD_BOTH };

static const nb_val *padded(nb_render *r, const nb_val *self, const nb_args *args, int side) {
  int64_t width = 0;
  nb_str fill = {" ", 1};
  if (!nb_arg_int(r, args, 0, &width) || !nb_arg_text(r, args, 1, &fill)) return NULL;
  if (nb_text_characters(fill) != 1) return nb_render_fail(r, "the fill character must be exactly one character long");
  int64_t length = nb_length(r, self), all = width > length ? width - length : 0;
  if (length < 0) return NULL;
  if (all > NB_RENDER_MEMORY / 4) return nb_render_fail(r, "takes more than %d MiB of memory", NB_RENDER_MEMORY >> 20);
  int64_t left = side == PAD_LEFT ? all : side == PAD_BOTH ? all / 2 + (all & width & 1) : 0;
  nb_buf buf = {0};
  bool ok = nb_work(r, (uint64_t)all);
  for (int64_t i = 0; ok && i < left; i++) nb_buf_append(&buf, fill.data, fill.length);
  nb_buf_append(&buf, self->text.data, self->text.length);
  for (int64_t i = left; ok && i < all; i++) nb_buf_append(&buf, fill.data, fill.length);
  const nb_val *text = taken_like(r, self, &buf);
  return ok ? text : NULL;
}

METHOD(ljust) { return padded(r, self, args, PAD_RIGHT); }
METHOD(rjust) { return padded(r, self, args, PAD_LEFT); }
METHOD(center) { return padded(r, self, args, PAD_BOTH); }

METHOD(zfill) {
  const nb_val zero = {.type = NB_V_STRING, .text = {"0", 1}}, *items[2] = {args->items[0], &zero};
  bool has_sign = self->text.length && (self->text.data[0] == '-' || self->text.data[0] == '+');
  const nb_val *text = padded(r, self, &(nb_args){.items = items, .count = 2}, PAD_LEFT);
  if (!text || !has_sign || text->text.length == self->text.length) return text;
  nb_buf buf = {0}; /* the sign goes before the zeros */
  size_t zeros = text->text.length - self->text.length;
  nb_buf_append(&buf, self->text.data, 1);
  nb_buf_append(&buf, text->text.data, zeros);
  nb_buf_append(&buf, self->text.data + 1, self->text.length - 1);
  return taken_like(r, self, &buf);
}

/* ---- kinds of characters ---------------------------------------------------------------------------------------- */

typedef bool character_test(uint32_t code);

static bool is_letter(uint32_t code) {
  utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)code);
  return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}

static bool is_decimal(uint32_t code) { return utf8proc_category((utf8proc_int32_t)code) == UTF8PROC_CATEGORY_ND; }

static bool is_digit(uint32_t code) { /* decimals, and those above or below the line or in a ring */
  return is_decimal(code) || code == 0xb2 || code == 0xb3 || code == 0xb9 || code == 0x2070 ||
         (code >= 0x2074 && code <= 0x2079) || (code >= 0x2080 && code <= 0x2089) ||
         (code >= 0x2460 && code <= 0x2468) || (code >= 0x2474 && code <= 0x247c) ||
         (code >= 0x2488 && code <= 0x2490) || code == 0x24ea || (code >= 0x24f5 && code <= 0x24fd) || code == 0x24ff ||
         (code >= 0x2776 && code <= 0x277e) || (code >= 0x2780 && code <= 0x2788) || (code >= 0x278a && code <= 0x2792);
}

static bool is_numeric(uint32_t code) {
  utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)code);
  return c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_NO;
}

static bool is_alnum(uint32_t code) { return is_letter(code) || is_numeric(code); }
static bool is_ascii(uint32_t code) { return code < 0x80; }

static const nb_val *all_are(nb_render *r, const nb_val *self, character_test *test, bool of_nothing) {
  size_t n;
  if (!nb_work(r, self->text.length)) return NULL;
  for (size_t i = 0; i < self->text.length; i += n)
    if (!test(nb_utf8_decode(self->text.data + i, &n))) return &nb_false;
  return nb_val_bool(self->text.length > 0 || of_nothing);
}

METHOD(all_alpha) { return args ? all_are(r, self, is_letter, false) : NULL; }
METHOD(all_digit) { return args ? all_are(r, self, is_digit, false) : NULL; }
METHOD(all_decimal) { return args ? all_are(r, self, is_decimal, false) : NULL; }
METHOD(all_numeric) { return args ? all_are(r, self, is_numeric, false) : NULL; }
METHOD(all_alnum) { return args ? all_are(r, self, is_alnum, false) : NULL; }
METHOD(all_space) { return args ? all_are(r, self, nb_text_is_space, false) : NULL; }
METHOD(all_ascii) { return args ? all_are(r, self, is_ascii, true) : NULL; }
METHOD(all_printable) { return args ? all_are(r, self, nb_text_is_printable, true) : NULL; }
METHOD(all_lower) { return nb_call_test(r, (nb_str){"lower", 5}, self, args); }
METHOD(all_upper) { return nb_call_test(r, (nb_str){"upper", 5}, self, args); }

METHOD(all_title) {
  const nb_val *title = cased(r, self, NB_CASE_TITLE), *lower = cased(r, self, NB_CASE_LOWER);
  bool same, plain;
  (void)args;
  if (!title || !lower || !nb_equal(r, title, self, &same) || !nb_equal(r, lower, self, &plain)) return NULL;
  return nb_val_bool(same && !plain);
}

const nb_builtin nb_string_methods[] = {{"strip", strip, "chars", 0},
                                        {"lstrip", lstrip, "chars", 0},
                                        {"rstrip", rstrip, "chars", 0},
                                        {"split", split, "sep maxsplit", 0},
                                        {"rsplit", rsplit, "sep maxsplit", 0},
                                        {"splitlines", splitlines, "keepends", 0},
                                        {"startswith", startswith, "prefix start end", 1},
                                        {"endswith", endswith, "suffix start end", 1},
                                        {"replace", replace, "old new count", 2},
                                        {"join", join, "iterable", 1},
                                        {"format", nb_format_call, NULL, 0},
                                        {"upper", to_upper, "", 0},
                                        {"lower", to_lower, "", 0},
                                        {"title", to_title, "", 0},
                                        {"capitalize", to_capital, "", 0},
                                        {"swapcase", to_swapped, "", 0},
                                        {"find", find, "sub start end", 1},
                                        {"rfind", rfind, "sub start end", 1},
                                        {"index", find_index, "sub start end", 1},
                                        {"rindex", find_rindex, "sub start end", 1},
                                        {"count", count, "sub start end", 1},
                                        {"partition", partition, "sep", 1},
                                        {"rpartition", rpartition, "sep", 1},
                                        {"removeprefix", removeprefix, "prefix", 1},
                                        {"removesuffix", removesuffix, "suffix", 1},
                                        {"ljust", ljust, "width fillchar", 1},
                                        {"rjust", rjust, "width fillchar", 1},
                                        {"center", center, "width fillchar", 1},
                                        {"zfill", zfill, "width", 1},
                                        {"isalpha", all_alpha, "", 0},
                                        {"isdigit", all_digit, "", 0},
                                        {"isdecimal", all_decimal, "", 0},
                                        {"isnumeric", all_numeric, "", 0},
                                        {"isalnum", all_alnum, "", 0},
                                        {"isspace", all_space, "", 0},
                                        {"isascii", all_ascii, "", 0},
                                        {"isprintable", all_printable, "", 0},
                                        {"islower", all_lower, "", 0},
                                        {"isupper", all_upper, "", 0},
                                        {"istitle", all_title, "", 0},
                                        {0}};
