/* Filters of many values. Those that are generators in Jinja2 give NB_V_GENERATOR: always true, without a length, and
 * empty once they were gone through. */
#include <string.h>

#include "template/render.h"
#include "template/text.h"

#define FILTER(name) static const nb_val *name(nb_render *r, const nb_val *self, const nb_args *args)

static const nb_val *generator(nb_render *r, nb_list list) { return nb_new_list(r, NB_V_GENERATOR, list); }

/* ---- items ------------------------------------------------------------------------------------------------------ */

FILTER(length) {
  (void)args;
  int64_t n = nb_length(r, self);
  return n < 0 ? NULL : nb_new_int(r, n);
}

FILTER(list) {
  nb_list items;
  (void)args;
  return nb_items(r, self, &items) ? nb_new_list(r, NB_V_LIST, items) : NULL;
}

FILTER(first) {
  nb_list items;
  (void)args;
  if (self->type == NB_V_GENERATOR) { /* takes that one and no more */
    if (*self->at < self->list.count) return self->list.items[(*self->at)++];
    return nb_new_undefined(r, "No first item, sequence was empty.");
  }
  if (!nb_items(r, self, &items)) return NULL;
  return items.count ? items.items[0] : nb_new_undefined(r, "No first item, sequence was empty.");
}

FILTER(last) {
  nb_list items;
  (void)args;
  if (self->type == NB_V_GENERATOR) return nb_render_fail(r, "'generator' object is not reversible");
  if (!nb_items(r, self, &items)) return NULL;
  return items.count ? items.items[items.count - 1] : nb_new_undefined(r, "No last item, sequence was empty.");
}

FILTER(reverse) {
  nb_list items, list;
  const nb_val *bounds[3] = {NULL, NULL, &(nb_val){.type = NB_V_INT, .integer = -1}};
  (void)args;
  if (self->type == NB_V_STRING) return nb_slice(r, self, bounds);
  if (!nb_items(r, self, &items) || !nb_list_new(r, items.count, &list)) return NULL;
  for (size_t i = 0; i < list.count; i++) list.items[i] = items.items[list.count - 1 - i];
  return self->type == NB_V_GENERATOR ? nb_new_list(r, NB_V_LIST, list) : generator(r, list);
}

FILTER(items) {
  (void)args;
  if (self->type == NB_V_UNDEFINED) return generator(r, (nb_list){0});
  if (self->type != NB_V_DICT) return nb_render_fail(r, "Can only get item pairs from a mapping.");
  const nb_val *view = nb_call_builtin(r, nb_find_builtin(nb_dict_methods, (nb_str){"items", 5}), self, &(nb_args){0});
  return view ? generator(r, view->list) : NULL;
}

FILTER(join) {
  static const nb_val nothing = {.type = NB_V_STRING, .text = {"", 0}};
  const nb_val *between = nb_arg(args, 0, &nothing), *path = nb_arg(args, 1, &nb_none);
  nb_list items;
  nb_buf buf = {0};
  bool ok = nb_items(r, self, &items);
  for (size_t i = 0; ok && i < items.count; i++) {
    const nb_val *item = nb_attribute_path(r, items.items[i], path);
    ok = item && (i == 0 || nb_put_str(r, &buf, between)) && nb_put_str(r, &buf, item);
  }
  const nb_val *text = nb_new_taken(r, &buf);
  return ok ? text : NULL;
}

FILTER(sum) {
  static const nb_val zero = {.type = NB_V_INT};
  const nb_val *path = nb_arg(args, 0, &nb_none), *total = nb_arg(args, 1, &zero);
  nb_list items;
  if (!nb_items(r, self, &items)) return NULL;
  if (total->type == NB_V_STRING) return nb_render_fail(r, "sum() can't sum strings [use ''.join(seq) instead]");
  for (size_t i = 0; total && i < items.count; i++) {
    const nb_val *item = nb_attribute_path(r, items.items[i], path);
    total = item ? nb_binary(r, '+', total, item) : NULL;
  }
  return total;
}

FILTER(batch) {
  int64_t size = 0;
  const nb_val *fill = nb_arg(args, 1, &nb_none);
  nb_list items, batches;
  if (!nb_items(r, self, &items) || !nb_arg_int(r, args, 0, &size)) return NULL;
  if (size < 1) return nb_render_fail(r, "batch takes a size of at least 1");
  size_t each = (uint64_t)size > items.count && fill->type == NB_V_NONE ? items.count + 1 : (size_t)size;
  if (!nb_list_new(r, items.count / each + (items.count % each != 0), &batches)) return NULL;
  for (size_t i = 0; i < batches.count; i++) {
    nb_list part = {items.items + i * each, items.count - i * each < each ? items.count - i * each : each}, filled;
    if (part.count < each && fill->type != NB_V_NONE) {
      if (!nb_list_new(r, each, &filled)) return NULL;
      for (size_t k = 0; k < each; k++) filled.items[k] = k < part.count ? part.items[k] : fill;
      part = filled;
    }
    if (!(batches.items[i] = nb_new_list(r, NB_V_LIST, part))) return NULL;
  }
  return generator(r, batches);
}

FILTER(slice) {
  int64_t count = 0;
  const nb_val *fill = nb_arg(args, 1, &nb_none);
  nb_list items, slices;
  if (!nb_items(r, self, &items) || !nb_arg_int(r, args, 0, &count)) return NULL;
  if (count < 1) return nb_render_fail(r, "slice takes a count of at least 1");
  if (!nb_list_new(r, (size_t)count, &slices)) return NULL;
  size_t each = items.count / slices.count, longer = items.count % slices.count, at = 0;
  for (size_t i = 0; i < slices.count; i++) {
    bool is_filled = fill->type != NB_V_NONE && i >= longer;
    size_t n = each + (i < longer);
    nb_list part;
    if (!nb_list_new(r, n + is_filled, &part)) return NULL;
    for (size_t k = 0; k < n; k++) part.items[k] = items.items[at++];
    if (is_filled) part.items[n] = fill;
    if (!(slices.items[i] = nb_new_list(r, NB_V_LIST, part))) return NULL;
  }
  return generator(r, slices);
}

/* ---- choosing --------------------------------------------------------------------------------------------------- */

FILTER(map) {
  nb_list items, list;
  const nb_val *path = NULL, *otherwise = &nb_none, *value;
  for (const nb_binding *named = args->named; named && args->count == 0; named = named->next) {
    if (nb_str_is(named->name, "attribute"))
      path = named->value;
    else if (nb_str_is(named->name, "default"))
      otherwise = named->value;
    else
      return nb_render_fail(r, "map() has no use for an argument '%.*s'", (int)named->name.length, named->name.data);
  }
  if (!path && (args->count == 0 || args->items[0]->type != NB_V_STRING))
    return nb_render_fail(r, "map requires a filter argument");
  if (!nb_val_is_true(self)) return generator(r, (nb_list){0});
  if (!nb_items(r, self, &items) || !nb_list_new(r, items.count, &list)) return NULL;
  nb_args rest = nb_args_from(args, 1);
  for (size_t i = 0; i < list.count; i++) {
    value = path ? nb_attribute_path(r, items.items[i], path)
                 : nb_call_filter(r, args->items[0]->text, items.items[i], &rest);
    if (path && value && value->type == NB_V_UNDEFINED && otherwise->type != NB_V_NONE) value = otherwise;
    if (!(list.items[i] = value)) return NULL;
  }
  return generator(r, list);
}

/* Items that, or an attribute of which, is true or passes a test, or those that do not. */
static const nb_val *chosen(nb_render *r, const nb_val *self, const nb_args *args, bool by_attribute, bool wanted) {
  nb_list items, list;
  const nb_val *path = &nb_none, *test = NULL;
  size_t at = 0;
  if (by_attribute && args->count == 0) return nb_render_fail(r, "Missing parameter for attribute name");
  if (by_attribute) path = args->items[at++];
  if (at < args->count) test = args->items[at++];
  if (test && test->type != NB_V_STRING) return nb_render_fail(r, "a test is named by str");
  if (!nb_val_is_true(self)) return generator(r, (nb_list){0});
  if (!nb_items(r, self, &items) || !nb_list_new(r, items.count, &list)) return NULL;
  nb_args rest = nb_args_from(args, at);
  list.count = 0;
  for (size_t i = 0; i < items.count; i++) {
    const nb_val *value = nb_attribute_path(r, items.items[i], path);
    if (value && test) value = nb_call_test(r, test->text, value, &rest);
    if (!value) return NULL;
    if (nb_val_is_true(value) == wanted) list.items[list.count++] = items.items[i];
  }
  return generator(r, list);
}

FILTER(select_items) { return chosen(r, self, args, false, true); }
FILTER(reject) { return chosen(r, self, args, false, false); }
FILTER(selectattr) { return chosen(r, self, args, true, true); }
FILTER(rejectattr) { return chosen(r, self, args, true, false); }

/* ---- order ------------------------------------------------------------------------------------------------------ */

typedef struct keyed {
  const nb_val *key, *value;
} keyed;

static const nb_val *lowered(nb_render *r, const nb_val *key, bool keeps_case) {
  if (keeps_case || key->type != NB_V_STRING) return key;
  return nb_call_filter(r, (nb_str){"lower", 5}, key, &(nb_args){0});
}

/* The key by which an item is ordered: of one attribute, or a list of those with commas between them. */
static const nb_val *key_of(nb_render *r, const nb_val *item, const nb_val *path, bool keeps_case) {
  if (path->type != NB_V_STRING || nb_text_find(path->text, (nb_str){",", 1}, 0) == SIZE_MAX) {
    const nb_val *key = nb_attribute_path(r, item, path);
    return key ? lowered(r, key, keeps_case) : NULL;
  }
  const nb_val comma = {.type = NB_V_STRING, .text = {",", 1}}, *sep = &comma;
  const nb_builtin *split = nb_find_builtin(nb_string_methods, (nb_str){"split", 5});
  const nb_val *paths = nb_call_builtin(r, split, path, &(nb_args){.items = &sep, .count = 1});
  nb_list keys;
  if (!paths || !nb_list_new(r, paths->list.count, &keys)) return NULL;
  for (size_t i = 0; i < keys.count; i++)
    if (!(keys.items[i] = key_of(r, item, paths->list.items[i], keeps_case))) return NULL;
  return nb_new_list(r, NB_V_LIST, keys);
}

/* By their keys, equal ones as they were, by merging runs that are twice as long each time. With `descending` the
 * larger first. `room` is as long as `items`. */
static bool sort(nb_render *r, keyed *items, keyed *room, size_t count, bool descending) {
  for (size_t run = 1; run < count; run *= 2) {
    for (size_t start = 0; start < count; start += 2 * run) {
      size_t middle = start + run < count ? start + run : count;
      size_t end = start + 2 * run < count ? start + 2 * run : count;
      for (size_t a = start, b = middle, to = start; to < end; to++) {
        bool takes_second = a == middle;
        if (a < middle && b < end) {
          const nb_val *low = descending ? items[a].key : items[b].key,
                       *high = descending ? items[b].key : items[a].key;
          if (!nb_less(r, low, high, "<", &takes_second)) return false;
        }
        room[to] = takes_second ? items[b++] : items[a++];
      }
    }
    memcpy(items, room, count * sizeof *items);
  }
  return true;
}

static const nb_val *sorted(nb_render *r, keyed *items, size_t count, bool descending) {
  nb_list list;
  keyed *room = nb_arena_array(&r->arena, count + 1, sizeof *room);
  if (!room) return nb_render_no_memory(r);
  if (!sort(r, items, room, count, descending) || !nb_list_new(r, count, &list)) return NULL;
  for (size_t i = 0; i < count; i++) list.items[i] = items[i].value;
  return nb_new_list(r, NB_V_LIST, list);
}

static keyed *keyed_items(nb_render *r, nb_list items, const nb_val *path, bool keeps_case) {
  keyed *out = nb_arena_array(&r->arena, items.count + 1, sizeof *out);
  if (!out) nb_render_no_memory(r);
  for (size_t i = 0; out && i < items.count; i++) {
    out[i] = (keyed){key_of(r, items.items[i], path, keeps_case), items.items[i]};
    if (!out[i].key) return NULL;
  }
  return out;
}

FILTER(sort_items) {
  nb_list items;
  bool descending = nb_val_is_true(nb_arg(args, 0, &nb_false)), keeps_case = nb_val_is_true(nb_arg(args, 1, &nb_false));
  if (!nb_items(r, self, &items)) return NULL;
  keyed *keys = keyed_items(r, items, nb_arg(args, 2, &nb_none), keeps_case);
  return keys ? sorted(r, keys, items.count, descending) : NULL;
}

FILTER(dictsort) {
  bool keeps_case = nb_val_is_true(nb_arg(args, 0, &nb_false)), descending = nb_val_is_true(nb_arg(args, 2, &nb_false));
  nb_str by = {"key", 3};
  nb_list items;
  if (!nb_arg_text(r, args, 1, &by)) return NULL;
  if (!nb_str_is(by, "key") && !nb_str_is(by, "value"))
    return nb_render_fail(r, "You can only sort by either \"key\" or \"value\"");
  if (self->type != NB_V_DICT) return nb_render_fail(r, "dictsort takes a mapping, not %s", nb_val_type_name(self));
  const nb_builtin *pairs_of = nb_find_builtin(nb_dict_methods, (nb_str){"items", 5});
  const nb_val *pairs = nb_call_builtin(r, pairs_of, self, &(nb_args){0});
  if (!pairs || !nb_items(r, pairs, &items)) return NULL;
  const nb_val place = {.type = NB_V_INT, .integer = nb_str_is(by, "value")};
  keyed *keys = keyed_items(r, items, &place, keeps_case);
  return keys ? sorted(r, keys, items.count, descending) : NULL;
}

FILTER(unique) {
  nb_list items, list, seen;
  bool keeps_case = nb_val_is_true(nb_arg(args, 0, &nb_false));
  if (!nb_items(r, self, &items) || !nb_list_new(r, items.count, &list) || !nb_list_new(r, items.count, &seen))
    return NULL;
  list.count = 0;
  for (size_t i = 0; i < items.count; i++) {
    const nb_val *key = key_of(r, items.items[i], nb_arg(args, 1, &nb_none), keeps_case);
    bool is_seen = false;
    if (!key) return NULL;
    if (key->type == NB_V_LIST || key->type == NB_V_DICT)
      return nb_render_fail(r, "unhashable type: '%s'", nb_val_type_name(key));
    for (size_t k = 0; !is_seen && k < list.count; k++)
      if (!nb_equal(r, seen.items[k], key, &is_seen)) return NULL;
    if (is_seen) continue;
    seen.items[list.count] = key;
    list.items[list.count++] = items.items[i];
  }
  return generator(r, list);
}

static const nb_val *extreme(nb_render *r, const nb_val *self, const nb_args *args, bool is_least) {
  nb_list items;
  bool keeps_case = nb_val_is_true(nb_arg(args, 0, &nb_false));
  if (!nb_items(r, self, &items)) return NULL;
  if (items.count == 0) return nb_new_undefined(r, "No aggregated item, sequence was empty.");
  keyed *keys = keyed_items(r, items, nb_arg(args, 1, &nb_none), keeps_case);
  if (!keys) return NULL;
  size_t best = 0;
  for (size_t i = 1; i < items.count; i++) {
    bool is_better;
    const nb_val *low = is_least ? keys[i].key : keys[best].key, *high = is_least ? keys[best].key : keys[i].key;
    if (!nb_less(r, low, high, is_least ? "<" : ">", &is_better)) return NULL;
    if (is_better) best = i;
  }
  return items.items[best];
}

FILTER(least) { return extreme(r, self, args, true); }
FILTER(most) { return extreme(r, self, args, false); }

/* Runs of equal keys among the sorted items: pairs of the key, as the first item of the run has it, and the items. */
FILTER(groupby) {
  const nb_val *path = args->items[0], *otherwise = nb_arg(args, 1, &nb_none);
  bool keeps_case = nb_val_is_true(nb_arg(args, 2, &nb_false));
  nb_list items, groups;
  if (!nb_items(r, self, &items) || !nb_list_new(r, items.count, &groups)) return NULL;
  keyed *keys = keyed_items(r, items, path, keeps_case),
        *room = nb_arena_array(&r->arena, items.count + 1, sizeof *room);
  if (!room) return nb_render_no_memory(r);
  for (size_t i = 0; keys && i < items.count; i++)
    if (keys[i].key->type == NB_V_UNDEFINED && otherwise->type != NB_V_NONE)
      if (!(keys[i].key = lowered(r, otherwise, keeps_case))) return NULL;
  if (!keys || !sort(r, keys, room, items.count, false)) return NULL;
  groups.count = 0;
  for (size_t start = 0, end; start < items.count; start = end) {
    bool same = true;
    for (end = start + 1; end < items.count; end++) {
      if (!nb_equal(r, keys[start].key, keys[end].key, &same)) return NULL;
      if (!same) break;
    }
    nb_list members;
    if (!nb_list_new(r, end - start, &members)) return NULL;
    for (size_t i = start; i < end; i++) members.items[i - start] = keys[i].value;
    const nb_val *key = nb_attribute_path(r, keys[start].value, path);
    if (key && key->type == NB_V_UNDEFINED && otherwise->type != NB_V_NONE) key = otherwise;
    groups.items[groups.count] = nb_new_pair(r, key, nb_new_list(r, NB_V_LIST, members));
    if (!groups.items[groups.count++]) return NULL;
  }
  return nb_new_list(r, NB_V_LIST, groups);
}

const nb_builtin nb_list_filters[] = {{"length", length, "", 0},
                                      {"count", length, "", 0},
                                      {"list", list, "", 0},
                                      {"first", first, "", 0},
                                      {"last", last, "", 0},
                                      {"reverse", reverse, "", 0},
                                      {"items", items, "", 0},
                                      {"join", join, "d attribute", 0},
                                      {"sum", sum, "attribute start", 0},
                                      {"batch", batch, "linecount fill_with", 1},
                                      {"slice", slice, "slices fill_with", 1},
                                      {"map", map, NULL, 0},
                                      {"select", select_items, NULL, 0},
                                      {"reject", reject, NULL, 0},
                                      {"selectattr", selectattr, NULL, 0},
                                      {"rejectattr", rejectattr, NULL, 0},
                                      {"sort", sort_items, "reverse case_sensitive attribute", 0},
                                      {"dictsort", dictsort, "case_sensitive by reverse", 0},
                                      {"unique", unique, "case_sensitive attribute", 0},
                                      {"min", least, "case_sensitive attribute", 0},
                                      {"max", most, "case_sensitive attribute", 0},
                                      {"groupby", groupby, "attribute default case_sensitive", 1},
                                      {0}};
