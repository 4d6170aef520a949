#include "model/json_text.h"

#include <string.h>

#include "model/json_scan.h"

/* Where a member's parts begin, and where they end:
 *
 *   {  "key"  :  value  ,
 *    ^ ^    ^    ^    ^ ^
 *    | key  |    |    | end: the comma, or the object's brace
 *    |      |    |    value_end
 *    |      |    value
 *    |      key_end
 *    lead: after the brace or the comma before it */
typedef struct member {
  size_t lead, key, key_end, value, value_end, end;
} member;

/* What one pass over an object finds out for a change of `key`. */
typedef struct object {
  const char *text;
  size_t length;
  size_t count; /* of members; without any, what follows is zero but for close */
  size_t close; /* the brace at the end */
  member first, last;
  member found; /* the last with the key; has_found */
  member below; /* the last whose key goes before the key; has_below */
  bool has_found, has_below, sorted;
} object;

/* ---- members ---------------------------------------------------------------------------------------------------- */

/* Sets *scan before the first member. The whole text is checked, so that nothing fails after this. */
static nibble_status begin(const char *where, const char *text, size_t n, nb_json_scan *scan, nibble_error *err) {
  *scan = (nb_json_scan){.text = text, .length = n};
  if (!nb_json_scan_all(scan))
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: %s at byte %zu", where,
                   scan->fault ? scan->fault : "something follows the JSON value", scan->at);
  const char *brace = memchr(text, '{', n);
  size_t at = brace ? (size_t)(brace - text) : n;
  if (memchr(text, '[', at) || memchr(text, '"', at) || !brace)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: not a JSON object", where);
  *scan = (nb_json_scan){.text = text, .length = n, .at = at + 1};
  return NIBBLE_OK;
}

/* The next member; false, with out->key at the brace, after the last. */
static bool next(nb_json_scan *s, member *out) {
  out->lead = s->at;
  nb_json_scan_space(s);
  out->key = s->at;
  if (!nb_json_scan_string(s)) return false;
  out->key_end = s->at;
  nb_json_scan_space(s);
  nb_json_scan_byte(s, ':');
  nb_json_scan_space(s);
  out->value = s->at;
  nb_json_scan_value(s);
  out->value_end = s->at;
  nb_json_scan_space(s);
  out->end = s->at;
  nb_json_scan_byte(s, ',');
  return true;
}

/* Like strcmp of the member's key and `key`. */
static int compare_key(const char *text, const member *m, const char *key) {
  const char *quoted = text + m->key;
  size_t n = m->key_end - m->key, wanted = strlen(key);
  cJSON *decoded = memchr(quoted, '\\', n) ? cJSON_ParseWithLength(quoted, n) : NULL;
  const char *name = decoded ? decoded->valuestring : quoted + 1;
  size_t length = decoded ? strlen(name) : n - 2;
  int order = memcmp(name, key, length < wanted ? length : wanted);
  cJSON_Delete(decoded);
  return order ? order : (length > wanted) - (length < wanted);
}

/* Python sorts by code points, which is the order of UTF-8's bytes. */
static bool ascends(const char *text, const member *a, const member *b) {
  size_t m = a->key_end - a->key - 2, n = b->key_end - b->key - 2;
  int order = memcmp(text + a->key + 1, text + b->key + 1, m < n ? m : n);
  return order ? order < 0 : m < n;
}

static nibble_status examine(const char *where, const char *text, size_t n, const char *key, object *o,
                             nibble_error *err) {
  nb_json_scan scan;
  member m;
  *o = (object){.text = text, .length = n, .sorted = true};
  nibble_status status = begin(where, text, n, &scan, err);
  if (status != NIBBLE_OK) return status;
  while (next(&scan, &m)) {
    int order = compare_key(text, &m, key);
    if (o->count++ == 0) o->first = m;
    if (o->count > 1) o->sorted = o->sorted && ascends(text, &o->last, &m);
    if (order == 0) o->found = m, o->has_found = true;
    if (order < 0) o->below = m, o->has_below = true;
    o->last = m;
    o->close = m.end;
  }
  if (o->count == 0) o->close = m.key;
  return NIBBLE_OK;
}

/* ---- layout ----------------------------------------------------------------------------------------------------- */

/* White space of the text as strings. What is longer is cut, and the result is no less JSON. */
enum { MAX_SPACE = 64 };

typedef struct spacing {
  char lead[MAX_SPACE]; /* between a comma and the next key */
  char colon[MAX_SPACE], comma[MAX_SPACE + 1], indent[MAX_SPACE];
  nb_json_layout layout; /* made of these */
} spacing;

static void copy_space(char out[MAX_SPACE], const char *from, size_t n) {
  if (n > MAX_SPACE - 1) n = MAX_SPACE - 1;
  memcpy(out, from, n);
  out[n] = 0;
}

/* One level's indentation: what a member's line has more than that of the closing brace. */
static void find_indent(const object *o, const char *outer, char out[MAX_SPACE]) {
  size_t n = o->close, inner = strlen(outer);
  while (n > 0 && (o->text[n - 1] == ' ' || o->text[n - 1] == '\t')) n--;
  size_t closing = o->close - n;
  bool deeper = closing < inner && memcmp(outer, o->text + n, closing) == 0;
  copy_space(out, deeper ? outer + closing : "  ", deeper ? inner - closing : 2);
}

/* Of an object with members. The first shows it, unless it stands on the brace's line. */
static void find_layout(const object *o, spacing *out) {
  const member *m = &o->first;
  bool on_own_line = memchr(o->text + m->lead, '\n', m->key - m->lead) != NULL;
  const member *shown = on_own_line ? m : &o->last;
  copy_space(out->lead, o->text + shown->lead, shown->key - shown->lead);
  copy_space(out->colon, o->text + m->key_end, m->value - m->key_end);
  if (strpbrk(out->colon, "\r\n") || !strchr(out->colon, ':')) copy_space(out->colon, ": ", 2);
  out->layout = (nb_json_layout){.newline = "", .outer = "", .indent = "", .comma = out->comma, .colon = out->colon};
  const char *line = strrchr(out->lead, '\n');
  if (line) {
    memcpy(out->comma, ",", 2);
    find_indent(o, line + 1, out->indent);
    out->layout.newline = line > out->lead && line[-1] == '\r' ? "\r\n" : "\n";
    out->layout.outer = line + 1;
    out->layout.indent = out->indent;
    return;
  }
  bool spaced = out->colon[strlen(out->colon) - 1] == ' ';
  if (o->count == 1) copy_space(out->lead, " ", spaced); /* there is no comma to learn from */
  out->comma[0] = ',';
  memcpy(out->comma + 1, out->lead, sizeof out->lead);
}

/* ---- changes ---------------------------------------------------------------------------------------------------- */

static void put_member(nb_buf *out, const char *key, const cJSON *value, const nb_json_layout *layout) {
  nb_json_put_string(out, key);
  nb_buf_puts(out, layout->colon);
  nb_json_put(out, value, layout);
}

static void insert(const object *o, const cJSON *value, nb_buf *out) {
  spacing around;
  if (o->count == 0) {
    nb_json_layout layout = nb_json_indented;
    layout.outer = layout.indent;
    nb_buf_append(out, o->text, o->close);
    nb_buf_puts(out, "\n  ");
    put_member(out, value->string, value, &layout);
    nb_buf_puts(out, "\n");
    nb_buf_append(out, o->text + o->close, o->length - o->close);
    return;
  }
  find_layout(o, &around);
  bool in_place = o->sorted && o->count > 1, in_front = in_place && !o->has_below;
  size_t at = in_front ? o->first.key : in_place ? o->below.value_end : o->last.value_end;
  nb_buf_append(out, o->text, at);
  if (!in_front) nb_buf_puts(out, ",");
  if (!in_front) nb_buf_puts(out, around.lead);
  put_member(out, value->string, value, &around.layout);
  if (in_front) nb_buf_puts(out, ",");
  if (in_front) nb_buf_puts(out, around.lead);
  nb_buf_append(out, o->text + at, o->length - at);
}

static void replace(const object *o, const cJSON *value, nb_buf *out) {
  spacing around;
  find_layout(o, &around);
  nb_buf_append(out, o->text, o->found.value);
  nb_json_put(out, value, &around.layout);
  nb_buf_append(out, o->text + o->found.value_end, o->length - o->found.value_end);
}

/* In one pass however many there are. The white space before the first that stays is that of the first there was, so
 * what is left looks as if it had always been all. */
static nibble_status remove_all(const char *where, const object *o, const char *key, nb_buf *out, nibble_error *err) {
  nb_json_scan scan;
  member m, kept = {0};
  bool any = false;
  nibble_status status = begin(where, o->text, o->length, &scan, err);
  if (status != NIBBLE_OK) return status;
  nb_buf_append(out, o->text, o->first.lead);
  while (next(&scan, &m)) {
    if (compare_key(o->text, &m, key) == 0) continue;
    const member *lead = any ? &m : &o->first;
    if (any) nb_buf_append(out, o->text + kept.value_end, kept.end - kept.value_end);
    if (any) nb_buf_puts(out, ",");
    nb_buf_append(out, o->text + lead->lead, lead->key - lead->lead);
    nb_buf_append(out, o->text + m.key, m.value_end - m.key);
    kept = m;
    any = true;
  }
  nb_buf_append(out, o->text + o->last.value_end, o->length - o->last.value_end);
  return NIBBLE_OK;
}

static nibble_status change_one(const char *where, const char *text, size_t n, const cJSON *change, nb_buf *out,
                                nibble_error *err) {
  object o;
  nibble_status status = examine(where, text, n, change->string, &o, err);
  if (status != NIBBLE_OK) return status;
  if (cJSON_IsNull(change) && o.has_found) return remove_all(where, &o, change->string, out, err);
  if (cJSON_IsNull(change))
    nb_buf_append(out, text, n);
  else
    (o.has_found ? replace : insert)(&o, change, out);
  return NIBBLE_OK;
}

nibble_status nb_json_text_change(const char *where, const char *text, size_t n, const cJSON *changes, nb_buf *out,
                                  nibble_error *err) {
  nb_buf now = {0}, then = {0};
  nibble_status status = NIBBLE_OK;
  nb_buf_append(&now, text, n);
  for (const cJSON *change = changes ? changes->child : NULL; change && !now.failed; change = change->next) {
    then.length = 0;
    if ((status = change_one(where, now.data, now.length, change, &then, err)) != NIBBLE_OK) goto done;
    nb_buf swap = now;
    now = then;
    then = swap;
  }
  if (!now.failed) nb_buf_append(out, now.data, now.length);
  if (now.failed || out->failed) status = nb_fail_memory(err, n);
done:
  nb_buf_free(&now);
  nb_buf_free(&then);
  return status;
}
