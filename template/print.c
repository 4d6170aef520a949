/* Values as text: str(), repr() and json.dumps(), as Python writes them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "template/render.h"
#include "template/text.h"

enum { FLOAT_WORK = 256 }; /* units; the shortest digits are found by trying */

static void put(nb_buf *out, nb_str text) { nb_buf_append(out, text.data, text.length); }

/* Output to memory is bounded by what a rendering may hold. */
static bool has_room(nb_render *r, const nb_buf *out) {
  if (out->length <= NB_RENDER_MEMORY) return nb_work(r, NB_NODE_WORK);
  nb_render_fail(r, "takes more than %d MiB of memory", NB_RENDER_MEMORY >> 20);
  return false;
}

/* The shortest digits that give the value back; 1e16 and more and less than 1e-4 with an exponent. */
void nb_put_float(nb_buf *out, double value) {
  if (isnan(value) || isinf(value)) {
    nb_buf_puts(out, isnan(value) ? "nan" : value > 0 ? "inf" : "-inf");
    return;
  }
  char text[40], digits[40];
  for (int precision = 0; precision < 17; precision++) {
    snprintf(text, sizeof text, "%.*e", precision, value);
    if (strtod(text, NULL) == value) break;
  }
  char *e = strchr(text, 'e');
  int exponent = (int)strtol(e + 1, NULL, 10), n = 0;
  for (const char *c = text; c < e; c++)
    if (*c >= '0' && *c <= '9') digits[n++] = *c;
  if (text[0] == '-') nb_buf_puts(out, "-");
  if (exponent < -4 || exponent >= 16) {
    nb_buf_append(out, digits, 1);
    if (n > 1) nb_buf_printf(out, ".%.*s", n - 1, digits + 1);
    nb_buf_printf(out, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
  } else if (exponent < 0) {
    nb_buf_printf(out, "0.%.*s%.*s", -exponent - 1, "000", n, digits);
  } else {
    for (int i = 0; i <= exponent; i++) nb_buf_append(out, i < n ? &digits[i] : "0", 1);
    nb_buf_printf(out, ".%.*s", n > exponent + 1 ? n - exponent - 1 : 1,
                  n > exponent + 1 ? digits + exponent + 1 : "0");
  }
}

/* ---- repr ------------------------------------------------------------------------------------------------------- */

static void put_quoted(nb_buf *out, nb_str text) {
  bool has_single = memchr(text.data, '\'', text.length), has_double = memchr(text.data, '"', text.length);
  char quote = has_single && !has_double ? '"' : '\'';
  nb_buf_append(out, &quote, 1);
  size_t n;
  for (size_t i = 0; i < text.length; i += n) {
    uint32_t code = nb_utf8_decode(text.data + i, &n);
    if (code == '\\' || code == (unsigned char)quote)
      nb_buf_printf(out, "\\%c", (int)code);
    else if (code == '\n' || code == '\t' || code == '\r')
      nb_buf_puts(out, code == '\n' ? "\\n" : code == '\t' ? "\\t" : "\\r");
    else if (nb_text_is_printable(code))
      nb_buf_append(out, text.data + i, n);
    else
      nb_buf_printf(out, code < 0x100 ? "\\x%02x" : code < 0x10000 ? "\\u%04x" : "\\U%08x", code);
  }
  nb_buf_append(out, &quote, 1);
}

static bool put_items(nb_render *r, nb_buf *out, nb_list list) {
  for (size_t i = 0; i < list.count; i++) {
    if (i > 0) nb_buf_puts(out, ", ");
    if (!nb_put_repr(r, out, list.items[i])) return false;
  }
  return true;
}

static bool put_dict(nb_render *r, nb_buf *out, const nb_dict *dict) {
  nb_buf_puts(out, "{");
  for (size_t i = 0; i < dict->count; i++) {
    if (i > 0) nb_buf_puts(out, ", ");
    if (!nb_put_repr(r, out, dict->pairs[i].key)) return false;
    nb_buf_puts(out, ": ");
    if (!nb_put_repr(r, out, dict->pairs[i].value)) return false;
  }
  nb_buf_puts(out, "}");
  return true;
}

static bool put_collection(nb_render *r, nb_buf *out, const nb_val *v) {
  bool ok;
  switch (v->type) {
    case NB_V_LIST:
      nb_buf_puts(out, "[");
      ok = put_items(r, out, v->list);
      nb_buf_puts(out, "]");
      return ok;
    case NB_V_TUPLE:
      nb_buf_puts(out, "(");
      ok = put_items(r, out, v->list);
      nb_buf_puts(out, v->list.count == 1 ? ",)" : ")");
      return ok;
    case NB_V_VIEW:
      nb_buf_printf(out, "%s([", v->name);
      ok = put_items(r, out, v->list);
      nb_buf_puts(out, "])");
      return ok;
    case NB_V_NAMESPACE:
      nb_buf_puts(out, "<Namespace ");
      ok = put_dict(r, out, v->dict);
      nb_buf_puts(out, ">");
      return ok;
    default: return put_dict(r, out, v->dict);
  }
}

bool nb_put_repr(nb_render *r, nb_buf *out, const nb_val *v) {
  if (!has_room(r, out)) return false;
  switch (v->type) {
    case NB_V_UNDEFINED: nb_buf_puts(out, "Undefined"); return true;
    case NB_V_NONE: nb_buf_puts(out, "None"); return true;
    case NB_V_BOOL: nb_buf_puts(out, v->truth ? "True" : "False"); return true;
    case NB_V_INT: nb_buf_printf(out, "%lld", (long long)v->integer); return true;
    case NB_V_FLOAT: nb_put_float(out, v->real); return nb_work(r, FLOAT_WORK);
    case NB_V_STRING:
      if (v->is_safe) nb_buf_puts(out, "Markup(");
      put_quoted(out, v->text);
      if (v->is_safe) nb_buf_puts(out, ")");
      return nb_work(r, 3 * v->text.length);
    case NB_V_RANGE:
      nb_buf_printf(out, "range(%lld, %lld", (long long)v->range.start, (long long)v->range.stop);
      if (v->range.step != 1) nb_buf_printf(out, ", %lld", (long long)v->range.step);
      nb_buf_puts(out, ")");
      return true;
    case NB_V_LIST:
    case NB_V_TUPLE:
    case NB_V_DICT:
    case NB_V_VIEW:
    case NB_V_NAMESPACE: break;
    default:
      nb_render_fail(r, "a %s cannot be printed", nb_val_type_name(v)); /* Python would print its address */
      return false;
  }
  if (!nb_render_enter(r)) return false;
  bool ok = put_collection(r, out, v);
  nb_render_leave(r);
  return ok;
}

bool nb_put_str(nb_render *r, nb_buf *out, const nb_val *v) {
  if (v->type == NB_V_UNDEFINED) return true;
  if (v->type != NB_V_STRING) return nb_put_repr(r, out, v);
  put(out, v->text);
  return has_room(r, out) && nb_work_bytes(r, v->text.length);
}

bool nb_str_of(nb_render *r, const nb_val *v, nb_str *out) {
  if (v->type == NB_V_STRING || v->type == NB_V_UNDEFINED) {
    *out = v->type == NB_V_STRING ? v->text : (nb_str){"", 0};
    return true;
  }
  nb_buf buf = {0};
  bool ok = nb_put_str(r, &buf, v);
  const nb_val *text = nb_new_taken(r, &buf);
  if (!ok || !text) return false;
  *out = text->text;
  return true;
}

/* ---- JSON ------------------------------------------------------------------------------------------------------- */

static void put_json_text(nb_buf *out, nb_str text, bool ascii) {
  nb_buf_puts(out, "\"");
  size_t n;
  for (size_t i = 0; i < text.length; i += n) {
    uint32_t code = nb_utf8_decode(text.data + i, &n);
    static const char names[] = "\b\f\n\r\t\"\\", letters[] = "bfnrt\"\\";
    const char *name = code && code < 0x80 ? strchr(names, (int)code) : NULL;
    if (name) {
      nb_buf_printf(out, "\\%c", letters[name - names]);
    } else if (code < 0x20 || (ascii && code >= 0x7f && code < 0x10000)) {
      nb_buf_printf(out, "\\u%04x", code);
    } else if (ascii && code >= 0x10000) {
      nb_buf_printf(out, "\\u%04x\\u%04x", 0xd7c0 + (code >> 10), 0xdc00 + (code & 0x3ff));
    } else {
      nb_buf_append(out, text.data + i, n);
    }
  }
  nb_buf_puts(out, "\"");
}

static void put_json_float(nb_buf *out, double value) {
  if (isnan(value) || isinf(value))
    nb_buf_puts(out, isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity");
  else
    nb_put_float(out, value);
}

static bool put_line(nb_render *r, nb_buf *out, const nb_json_style *style, int level) {
  if (!style->has_lines) return true;
  size_t n = (size_t)level * style->indent.length; /* of NB_RENDER_DEPTH and NB_RENDER_MEMORY at most */
  if (n > NB_RENDER_MEMORY / 4)
    return nb_render_fail(r, "takes more than %d MiB of memory", NB_RENDER_MEMORY >> 20) != NULL;
  nb_buf_puts(out, "\n");
  for (int i = 0; i < level; i++) put(out, style->indent);
  return nb_work_bytes(r, n) && has_room(r, out);
}

static bool put_json(nb_render *r, nb_buf *out, const nb_val *v, const nb_json_style *style, int level);

static bool put_json_list(nb_render *r, nb_buf *out, nb_list list, const nb_json_style *style, int level) {
  nb_buf_puts(out, "[");
  for (size_t i = 0; i < list.count; i++) {
    if (i > 0) put(out, style->item_separator);
    if (!put_line(r, out, style, level + 1) || !put_json(r, out, list.items[i], style, level + 1)) return false;
  }
  if (list.count && !put_line(r, out, style, level)) return false;
  nb_buf_puts(out, "]");
  return true;
}

/* A key: a string, or what becomes one. */
static bool put_json_key(nb_render *r, nb_buf *out, const nb_val *key, const nb_json_style *style) {
  if (key->type == NB_V_STRING) {
    put_json_text(out, key->text, style->ascii);
    return nb_work_bytes(r, key->text.length);
  }
  if (!nb_val_is_number(key) && key->type != NB_V_NONE) {
    nb_render_fail(r, "keys must be str, int, float, bool or None, not %s", nb_val_type_name(key));
    return false;
  }
  nb_buf_puts(out, "\"");
  bool ok = put_json(r, out, key, style, 0);
  nb_buf_puts(out, "\"");
  return ok;
}

static bool sort_pairs(nb_render *r, nb_pair *pairs, size_t count) { /* few, or the work runs out */
  for (size_t i = 1; i < count; i++) {
    nb_pair pair = pairs[i];
    size_t k = i;
    for (bool less; k > 0; k--) {
      if (!nb_less(r, pair.key, pairs[k - 1].key, "<", &less)) return false;
      if (!less) break;
      pairs[k] = pairs[k - 1];
    }
    pairs[k] = pair;
  }
  return true;
}

static bool put_json_dict(nb_render *r, nb_buf *out, const nb_dict *dict, const nb_json_style *style, int level) {
  nb_pair *pairs = dict->pairs;
  if (style->sorted) {
    if (!(pairs = nb_arena_array(&r->arena, dict->count + 1, sizeof *pairs))) return nb_render_no_memory(r) != NULL;
    memcpy(pairs, dict->pairs, dict->count * sizeof *pairs);
    if (!sort_pairs(r, pairs, dict->count)) return false;
  }
  nb_buf_puts(out, "{");
  for (size_t i = 0; i < dict->count; i++) {
    if (i > 0) put(out, style->item_separator);
    if (!put_line(r, out, style, level + 1) || !put_json_key(r, out, pairs[i].key, style)) return false;
    put(out, style->key_separator);
    if (!put_json(r, out, pairs[i].value, style, level + 1)) return false;
  }
  if (dict->count && !put_line(r, out, style, level)) return false;
  nb_buf_puts(out, "}");
  return true;
}

static bool put_json(nb_render *r, nb_buf *out, const nb_val *v, const nb_json_style *style, int level) {
  if (!has_room(r, out)) return false;
  bool ok;
  switch (v->type) {
    case NB_V_NONE: nb_buf_puts(out, "null"); return true;
    case NB_V_BOOL: nb_buf_puts(out, v->truth ? "true" : "false"); return true;
    case NB_V_INT: nb_buf_printf(out, "%lld", (long long)v->integer); return true;
    case NB_V_FLOAT: put_json_float(out, v->real); return nb_work(r, FLOAT_WORK);
    case NB_V_STRING: put_json_text(out, v->text, style->ascii); return nb_work(r, 2 * v->text.length);
    case NB_V_LIST:
    case NB_V_TUPLE:
      if (!nb_render_enter(r)) return false;
      ok = put_json_list(r, out, v->list, style, level);
      break;
    case NB_V_DICT:
      if (!nb_render_enter(r)) return false;
      ok = put_json_dict(r, out, v->dict, style, level);
      break;
    default: nb_render_fail(r, "an object of type %s is no JSON", nb_val_type_name(v)); return false;
  }
  nb_render_leave(r);
  return ok;
}

bool nb_put_json(nb_render *r, nb_buf *out, const nb_val *v, const nb_json_style *style) {
  return put_json(r, out, v, style, 0);
}
