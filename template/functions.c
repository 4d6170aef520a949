/* What templates call by name (namespace, range, raise_exception, ...), and the methods of lists, dicts and loops. */
#include <stdlib.h>
#include <string.h>

#include "template/render.h"
#include "template/text.h"

/* ---- functions -------------------------------------------------------------------------------------------------- */

/* The pairs of dict(x, a=1): of a mapping, of pairs in a list, and by name. */
static nb_dict *pairs_of(nb_render *r, const nb_args *args) {
  nb_dict *dict = nb_dict_new(r, 4);
  if (!dict) return NULL;
  if (args->count > 1) {
    nb_render_fail(r, "expected at most 1 argument, got %zu", args->count);
    return NULL;
  }
  const nb_val *from = nb_arg(args, 0, NULL);
  nb_list items = {0};
  if (from && from->type == NB_V_DICT) {
    for (size_t i = 0; i < from->dict->count; i++)
      if (!nb_dict_set(r, dict, from->dict->pairs[i].key, from->dict->pairs[i].value)) return NULL;
  } else if (from && !nb_items(r, from, &items)) {
    return NULL;
  }
  for (size_t i = 0; i < items.count; i++) {
    nb_list pair;
    if (!nb_items(r, items.items[i], &pair)) return NULL;
    if (pair.count != 2) {
      nb_render_fail(r, "an item of a dict has %zu parts, not 2", pair.count);
      return NULL;
    }
    if (!nb_dict_set(r, dict, pair.items[0], pair.items[1])) return NULL;
  }
  for (const nb_binding *named = args->named; named; named = named->next) {
    const nb_val *key = nb_new_text(r, named->name);
    if (!key || !nb_dict_set(r, dict, key, named->value)) return NULL;
  }
  return dict;
}

static const nb_val *make_dict(nb_render *r, const nb_val *self, const nb_args *args) {
  (void)self;
  nb_dict *dict = pairs_of(r, args);
  return dict ? nb_new_dict(r, dict) : NULL;
}

static const nb_val *make_namespace(nb_render *r, const nb_val *self, const nb_args *args) {
  (void)self;
  nb_dict *dict = pairs_of(r, args);
  if (!dict) return NULL;
  for (size_t i = 0; i < dict->count; i++) {
    const nb_val *key = dict->pairs[i].key;
    if (key->type == NB_V_STRING && key->text.length && key->text.data[0] == '_')
      return nb_render_fail(r, "'%.*s': a namespace takes no name that begins with _", (int)key->text.length,
                            key->text.data);
  }
  return nb_new(r, (nb_val){.type = NB_V_NAMESPACE, .dict = dict});
}

enum { MAX_RANGE = 100000 }; /* Jinja2's sandbox has it */

/* Numbers from start on that lie before stop. */
static uint64_t range_count(int64_t start, int64_t stop, int64_t step) {
  uint64_t pace = step < 0 ? 0 - (uint64_t)step : (uint64_t)step;
  uint64_t span = step < 0 ? (uint64_t)start - (uint64_t)stop : (uint64_t)stop - (uint64_t)start;
  bool is_empty = step < 0 ? start <= stop : start >= stop;
  return is_empty || pace == 0 ? 0 : (span - 1) / pace + 1;
}

static const nb_val *make_range(nb_render *r, const nb_val *self, const nb_args *args) {
  (void)self;
  int64_t given[3] = {0, 0, 1};
  if (args->named || args->count < 1 || args->count > 3)
    return nb_render_fail(r, "range() takes 1 to 3 arguments, none by name");
  for (size_t i = 0; i < args->count; i++)
    if (!nb_arg_int(r, args, i, &given[i])) return NULL;
  if (args->count == 1) {
    given[1] = given[0];
    given[0] = 0;
  }
  if (given[2] == 0) return nb_render_fail(r, "range() arg 3 must not be zero");
  uint64_t count = range_count(given[0], given[1], given[2]);
  if (count > MAX_RANGE) return nb_render_fail(r, "a range of more than %d numbers", MAX_RANGE);
  return nb_new(r, (nb_val){.type = NB_V_RANGE, .range = {given[0], given[1], given[2], (int64_t)count}});
}

static const nb_val *raise_exception(nb_render *r, const nb_val *self, const nb_args *args) {
  (void)self;
  nb_str message;
  if (!nb_str_of(r, args->items[0], &message)) return NULL;
  return nb_render_fail(r, "the template says: %.*s", (int)(message.length < 800 ? message.length : 800), message.data);
}

/* What C's strftime has otherwise than Python's: microseconds, and a time without a zone. */
static bool put_for_c(nb_buf *out, nb_str format) {
  for (size_t i = 0; i < format.length; i++) {
    if (format.data[i] == 0) return false;
    if (format.data[i] != '%' || i + 1 == format.length) {
      nb_buf_append(out, format.data + i, 1);
      continue;
    }
    i++;
    if (format.data[i] == 'f')
      nb_buf_puts(out, "000000");
    else if (format.data[i] != 'z' && format.data[i] != 'Z')
      nb_buf_append(out, format.data + i - 1, 2);
  }
  return true;
}

static const nb_val *strftime_now(nb_render *r, const nb_val *self, const nb_args *args) {
  (void)self;
  enum { MOST = 4096 };
  char text[MOST];
  nb_str format = {0};
  nb_buf for_c = {0};
  if (!nb_arg_text(r, args, 0, &format)) return NULL;
  bool ok = put_for_c(&for_c, format);
  nb_buf_puts(&for_c, "."); /* an empty time is none that did not fit */
  size_t n = ok && !for_c.failed ? strftime(text, sizeof text, for_c.data, r->now) : 0;
  nb_buf_free(&for_c);
  if (n == 0) return nb_render_fail(r, "strftime_now: a format that gives no time of up to %d bytes", MOST - 2);
  return nb_new_copy(r, (nb_str){text, n - 1});
}

const nb_builtin nb_functions[] = {{"namespace", make_namespace, NULL, 0},
                                   {"dict", make_dict, NULL, 0},
                                   {"range", make_range, NULL, 0},
                                   {"raise_exception", raise_exception, "message", 1},
                                   {"strftime_now", strftime_now, "format", 1},
                                   {0}};

/* ---- lists ------------------------------------------------------------------------------------------------------ */

static const nb_val *list_count(nb_render *r, const nb_val *self, const nb_args *args) {
  int64_t count = 0;
  for (size_t i = 0; i < self->list.count; i++) {
    bool same;
    if (!nb_equal(r, self->list.items[i], args->items[0], &same)) return NULL;
    count += same;
  }
  return nb_new_int(r, count);
}

static const nb_val *list_index(nb_render *r, const nb_val *self, const nb_args *args) {
  for (size_t i = 0; i < self->list.count; i++) {
    bool same;
    if (!nb_equal(r, self->list.items[i], args->items[0], &same)) return NULL;
    if (same) return nb_new_int(r, (int64_t)i);
  }
  return nb_render_fail(r, "what index() looks for is not in the %s", nb_val_type_name(self));
}

const nb_builtin nb_list_methods[] = {{"count", list_count, "value", 1}, {"index", list_index, "value", 1}, {0}},
                 nb_tuple_methods[] = {{"count", list_count, "value", 1}, {"index", list_index, "value", 1}, {0}};

/* ---- dicts ------------------------------------------------------------------------------------------------------ */

static const nb_val *view(nb_render *r, nb_list list, const char *name) {
  return nb_new(r, (nb_val){.type = NB_V_VIEW, .list = list, .name = name});
}

static const nb_val *dict_keys(nb_render *r, const nb_val *self, const nb_args *args) {
  (void)args;
  nb_list list;
  return nb_items(r, self, &list) ? view(r, list, "dict_keys") : NULL;
}

static const nb_val *dict_values(nb_render *r, const nb_val *self, const nb_args *args) {
  (void)args;
  nb_list list;
  if (!nb_list_new(r, self->dict->count, &list)) return NULL;
  for (size_t i = 0; i < list.count; i++) list.items[i] = self->dict->pairs[i].value;
  return view(r, list, "dict_values");
}

static const nb_val *dict_items(nb_render *r, const nb_val *self, const nb_args *args) {
  (void)args;
  nb_list list;
  if (!nb_list_new(r, self->dict->count, &list)) return NULL;
  for (size_t i = 0; i < list.count; i++)
    if (!(list.items[i] = nb_new_pair(r, self->dict->pairs[i].key, self->dict->pairs[i].value))) return NULL;
  return view(r, list, "dict_items");
}

static const nb_val *dict_get(nb_render *r, const nb_val *self, const nb_args *args) {
  const nb_val *found;
  if (!nb_dict_get(r, self->dict, args->items[0], &found)) return NULL;
  return found ? found : nb_arg(args, 1, &nb_none);
}

static const nb_val *dict_copy(nb_render *r, const nb_val *self, const nb_args *args) {
  (void)r;
  (void)args;
  return self; /* nothing can change either */
}

const nb_builtin nb_dict_methods[] = {{"keys", dict_keys, "", 0},   {"values", dict_values, "", 0},
                                      {"items", dict_items, "", 0}, {"get", dict_get, "key default", 1},
                                      {"copy", dict_copy, "", 0},   {0}};

/* ---- loops ------------------------------------------------------------------------------------------------------ */

static const nb_val *loop_cycle(nb_render *r, const nb_val *self, const nb_args *args) {
  if (args->count == 0) return nb_render_fail(r, "no items for cycling given");
  return args->items[self->loop->at % args->count];
}

static const nb_val *loop_changed(nb_render *r, const nb_val *self, const nb_args *args) {
  const nb_val *now = nb_new_list(r, NB_V_TUPLE, (nb_list){args->items, args->count});
  bool same = false;
  if (!now) return NULL;
  if (self->loop->changed && !nb_equal(r, self->loop->changed, now, &same)) return NULL;
  self->loop->changed = now;
  return nb_val_bool(!same);
}

const nb_builtin nb_loop_methods[] = {{"cycle", loop_cycle, NULL, 0}, {"changed", loop_changed, NULL, 0}, {0}};
