#include "convert/gguf.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

/* What the smallest entry and the smallest tensor take in a file: a count that claims more of them than fit is wrong
 * before anything is allocated for it. */
enum { MIN_ENTRY = 8 + 1 + 4 + 1, MIN_TENSOR = 8 + 1 + 4 + 8 + 4 + 8 };
enum { MAX_NESTING = 4, MAX_NAME = 256, MAX_ALIGNMENT = 1 << 16, DEFAULT_ALIGNMENT = 32 };

static const uint8_t type_sizes[NB_GGUF_TYPE_COUNT] = {
    [NB_GGUF_U8] = 1,  [NB_GGUF_I8] = 1,   [NB_GGUF_U16] = 2, [NB_GGUF_I16] = 2, [NB_GGUF_U32] = 4, [NB_GGUF_I32] = 4,
    [NB_GGUF_F32] = 4, [NB_GGUF_BOOL] = 1, [NB_GGUF_U64] = 8, [NB_GGUF_I64] = 8, [NB_GGUF_F64] = 8,
};

/* Where reading has come to; everything before `at` has been checked. */
typedef struct cursor {
  const char *path;
  const uint8_t *data;
  uint64_t size, at;
  nibble_error *err;
} cursor;

static nibble_status truncated(cursor *c, const char *what) {
  return nb_fail(c->err, NIBBLE_BAD_INPUT, "%s: truncated: the file ends inside %s", c->path, what);
}

static uint64_t load(const uint8_t *at, size_t n) {
  uint64_t v = 0;
  memcpy(&v, at, n);
  return v;
}

static bool take(cursor *c, size_t n, uint64_t *out) {
  if (!nb_range_inside(c->at, n, c->size)) return false;
  *out = load(c->data + c->at, n);
  c->at += n;
  return true;
}

static bool take_string(cursor *c, nb_str *out) {
  uint64_t length;
  if (!take(c, 8, &length) || !nb_range_inside(c->at, length, c->size)) return false;
  *out = (nb_str){(const char *)c->data + c->at, (size_t)length};
  c->at += length;
  return true;
}

/* Keys and names are printed and looked up as C strings. */
static bool is_name(nb_str s) { return s.length > 0 && s.length <= MAX_NAME && !memchr(s.data, 0, s.length); }

/* Moves past `count` values of one type. Every item takes at least a byte of the file, so a count that lies is found
 * out after as many steps as the file has bytes. */
static nibble_status skip_values(cursor *c, nb_str key, uint64_t type, uint64_t count, int depth) {
  if (type >= NB_GGUF_TYPE_COUNT)
    return nb_fail(c->err, NIBBLE_BAD_INPUT, "%s: metadata '%.*s': value type %llu is not known", c->path,
                   (int)key.length, key.data, (unsigned long long)type);
  if (type_sizes[type]) {
    uint64_t bytes;
    if (!nb_mul_u64(count, type_sizes[type], &bytes) || !nb_range_inside(c->at, bytes, c->size))
      return truncated(c, "its metadata");
    c->at += bytes;
    return NIBBLE_OK;
  }
  if (depth == MAX_NESTING)
    return nb_fail(c->err, NIBBLE_BAD_INPUT, "%s: metadata '%.*s': arrays nested more than %d deep", c->path,
                   (int)key.length, key.data, MAX_NESTING);
  for (uint64_t i = 0; i < count; i++) {
    nb_str text;
    uint64_t item_type, item_count;
    if (type == NB_GGUF_STRING) {
      if (!take_string(c, &text)) return truncated(c, "its metadata");
      continue;
    }
    if (!take(c, 4, &item_type) || !take(c, 8, &item_count)) return truncated(c, "its metadata");
    nibble_status status = skip_values(c, key, item_type, item_count, depth + 1);
    if (status != NIBBLE_OK) return status;
  }
  return NIBBLE_OK;
}

static nibble_status parse_entry(cursor *c, nb_gguf_entry *entry) {
  uint64_t type;
  entry->count = 1;
  if (!take_string(c, &entry->key)) return truncated(c, "its metadata");
  if (!is_name(entry->key))
    return nb_fail(c->err, NIBBLE_BAD_INPUT, "%s: a metadata key is empty, too long or no text", c->path);
  if (!take(c, 4, &type)) return truncated(c, "its metadata");
  if (type == NB_GGUF_ARRAY) {
    entry->is_array = true;
    if (!take(c, 4, &type) || !take(c, 8, &entry->count)) return truncated(c, "its metadata");
  }
  entry->value = c->data + c->at;
  entry->type = (nb_gguf_type)type;
  return skip_values(c, entry->key, type, entry->count, 0);
}

static nibble_status parse_entries(cursor *c, nb_gguf *g) {
  for (size_t i = 0; i < g->entry_count; i++) {
    nb_gguf_entry *entry = &g->entries[i];
    nibble_status status = parse_entry(c, entry);
    if (status != NIBBLE_OK) return status;
    switch (nb_strmap_add(&g->by_key, entry->key.data, entry->key.length, (int64_t)i)) {
      case NB_STRMAP_ADDED: break;
      case NB_STRMAP_NO_MEMORY: return nb_fail_memory(c->err, g->entry_count * sizeof(nb_strmap_slot));
      case NB_STRMAP_EXISTS:
        return nb_fail(c->err, NIBBLE_BAD_INPUT, "%s: metadata '%.*s' is there twice", c->path, (int)entry->key.length,
                       entry->key.data);
    }
  }
  return NIBBLE_OK;
}

static nibble_status parse_tensor(cursor *c, nb_gguf_tensor *t) {
  uint64_t ndim, extent, type;
  if (!take_string(c, &t->name)) return truncated(c, "its list of tensors");
  if (!is_name(t->name))
    return nb_fail(c->err, NIBBLE_BAD_INPUT, "%s: a tensor's name is empty, too long or no text", c->path);
  if (!take(c, 4, &ndim)) return truncated(c, "its list of tensors");
  if (ndim < 1 || ndim > 4)
    return nb_fail(c->err, NIBBLE_BAD_INPUT, "%s: tensor '%.*s': %llu dimensions; 1 to 4 are possible", c->path,
                   (int)t->name.length, t->name.data, (unsigned long long)ndim);
  t->ndim = (int)ndim;
  for (int i = t->ndim - 1; i >= 0; i--) {
    if (!take(c, 8, &extent)) return truncated(c, "its list of tensors");
    if (extent < 1 || extent > INT64_MAX)
      return nb_fail(c->err, NIBBLE_BAD_INPUT, "%s: tensor '%.*s': an extent of %llu is not possible", c->path,
                     (int)t->name.length, t->name.data, (unsigned long long)extent);
    t->shape[i] = (int64_t)extent;
  }
  if (!take(c, 4, &type) || !take(c, 8, &t->offset)) return truncated(c, "its list of tensors");
  t->type = (uint32_t)type;
  return NIBBLE_OK;
}

static nibble_status parse_header(cursor *c, nb_gguf *g) {
  uint64_t magic, version, tensors, entries;
  if (!take(c, 4, &magic) || magic != 0x46554747u)
    return nb_fail(c->err, NIBBLE_BAD_INPUT, "%s: not a GGUF file", c->path);
  if (!take(c, 4, &version)) return truncated(c, "its header");
  if (version == 0x02000000u || version == 0x03000000u)
    return nb_fail(c->err, NIBBLE_BAD_INPUT, "%s: a big-endian GGUF file, which is not supported", c->path);
  if (version != 2 && version != 3)
    return nb_fail(c->err, NIBBLE_BAD_INPUT, "%s: GGUF version %llu; 2 and 3 are supported", c->path,
                   (unsigned long long)version);
  if (!take(c, 8, &tensors) || !take(c, 8, &entries)) return truncated(c, "its header");
  uint64_t rest = c->size - c->at;
  if (tensors > rest / MIN_TENSOR || entries > rest / MIN_ENTRY)
    return nb_fail(c->err, NIBBLE_BAD_INPUT,
                   "%s: its header claims %llu tensors and %llu metadata entries, the file "
                   "has %llu bytes",
                   c->path, (unsigned long long)tensors, (unsigned long long)entries, (unsigned long long)c->size);
  g->version = (uint32_t)version;
  g->tensor_count = (size_t)tensors;
  g->entry_count = (size_t)entries;
  g->tensors = nb_alloc(tensors, sizeof *g->tensors);
  g->entries = nb_alloc(entries, sizeof *g->entries);
  if ((tensors && !g->tensors) || (entries && !g->entries))
    return nb_fail_memory(c->err, g->tensor_count * sizeof *g->tensors + g->entry_count * sizeof *g->entries);
  return NIBBLE_OK;
}

static nibble_status find_data(cursor *c, nb_gguf *g) {
  int64_t alignment = DEFAULT_ALIGNMENT;
  nibble_status status = nb_gguf_int(g, "general.alignment", 1, MAX_ALIGNMENT, &alignment, c->err);
  if (status != NIBBLE_OK) return status;
  if (alignment & (alignment - 1))
    return nb_fail(c->err, NIBBLE_BAD_INPUT, "%s: general.alignment %lld is no power of two", c->path,
                   (long long)alignment);
  g->alignment = (uint64_t)alignment;
  g->data_at = (c->at + g->alignment - 1) / g->alignment * g->alignment;
  if (g->tensor_count && g->data_at > c->size) return truncated(c, "its list of tensors");
  return NIBBLE_OK;
}

nibble_status nb_gguf_parse(const char *path, const nb_mapfile *map, nb_gguf **out, nibble_error *err) {
  cursor c = {.path = path, .data = map->data, .size = map->size, .err = err};
  nb_gguf *g = nb_alloc(1, sizeof *g);
  *out = NULL;
  if (!g) return nb_fail_memory(err, sizeof *g);
  g->path = path;
  nibble_status status = parse_header(&c, g);
  if (status == NIBBLE_OK) status = parse_entries(&c, g);
  for (size_t i = 0; status == NIBBLE_OK && i < g->tensor_count; i++) status = parse_tensor(&c, &g->tensors[i]);
  if (status == NIBBLE_OK) status = find_data(&c, g);
  if (status == NIBBLE_OK)
    *out = g;
  else
    nb_gguf_free(g);
  return status;
}

void nb_gguf_free(nb_gguf *g) {
  if (!g) return;
  nb_strmap_free(&g->by_key);
  free(g->entries);
  free(g->tensors);
  free(g);
}

bool nb_gguf_probe(const uint8_t *head, uint64_t file_size) { return file_size >= 4 && memcmp(head, "GGUF", 4) == 0; }

const nb_gguf_entry *nb_gguf_find(const nb_gguf *g, const char *key) {
  int64_t index;
  return nb_strmap_find(&g->by_key, key, strlen(key), &index) ? &g->entries[index] : NULL;
}

static bool is_integer(nb_gguf_type type) {
  return type_sizes[type] && type != NB_GGUF_F32 && type != NB_GGUF_F64 && type != NB_GGUF_BOOL;
}

int64_t nb_gguf_item_int(const nb_gguf_entry *e, uint64_t i) {
  size_t n = type_sizes[e->type];
  uint64_t bits = load(e->value + i * n, n);
  switch (e->type) {
    case NB_GGUF_I8: return (int8_t)bits;
    case NB_GGUF_I16: return (int16_t)bits;
    case NB_GGUF_I32: return (int32_t)bits;
    case NB_GGUF_U64: return bits > INT64_MAX ? INT64_MAX : (int64_t)bits;
    case NB_GGUF_F32:
    case NB_GGUF_F64: return 0;
    default: return (int64_t)bits;
  }
}

double nb_gguf_item_double(const nb_gguf_entry *e, uint64_t i) {
  float f;
  double d;
  switch (e->type) {
    case NB_GGUF_F32: memcpy(&f, e->value + i * 4, 4); return (double)f;
    case NB_GGUF_F64: memcpy(&d, e->value + i * 8, 8); return d;
    default: return (double)nb_gguf_item_int(e, i);
  }
}

static nibble_status wrong_type(const nb_gguf *g, const char *key, const char *wanted, nibble_error *err) {
  return nb_fail(err, NIBBLE_BAD_INPUT, "%s: metadata '%s' must be %s", g->path, key, wanted);
}

nibble_status nb_gguf_int(const nb_gguf *g, const char *key, int64_t min, int64_t max, int64_t *out,
                          nibble_error *err) {
  const nb_gguf_entry *e = nb_gguf_find(g, key);
  if (!e) return NIBBLE_OK;
  if (e->is_array || !is_integer(e->type)) return wrong_type(g, key, "one whole number", err);
  int64_t value = nb_gguf_item_int(e, 0);
  if (value < min || value > max)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: metadata '%s' is %lld; it must be in [%lld, %lld]", g->path, key,
                   (long long)value, (long long)min, (long long)max);
  *out = value;
  return NIBBLE_OK;
}

nibble_status nb_gguf_double(const nb_gguf *g, const char *key, double *out, nibble_error *err) {
  const nb_gguf_entry *e = nb_gguf_find(g, key);
  if (!e) return NIBBLE_OK;
  if (e->is_array || e->type == NB_GGUF_BOOL || !type_sizes[e->type]) return wrong_type(g, key, "one number", err);
  double value = nb_gguf_item_double(e, 0);
  if (!(value >= -0x1p64 && value <= 0x1p64)) return wrong_type(g, key, "a finite number", err);
  *out = value;
  return NIBBLE_OK;
}

nibble_status nb_gguf_bool(const nb_gguf *g, const char *key, bool *out, nibble_error *err) {
  const nb_gguf_entry *e = nb_gguf_find(g, key);
  if (!e) return NIBBLE_OK;
  if (e->is_array || e->type != NB_GGUF_BOOL || e->value[0] > 1) return wrong_type(g, key, "true or false", err);
  *out = e->value[0] != 0;
  return NIBBLE_OK;
}

nibble_status nb_gguf_text(const nb_gguf *g, const char *key, nb_str *out, nibble_error *err) {
  const nb_gguf_entry *e = nb_gguf_find(g, key);
  if (!e) return NIBBLE_OK;
  if (e->is_array || e->type != NB_GGUF_STRING) return wrong_type(g, key, "one string", err);
  *out = (nb_str){(const char *)e->value + 8, (size_t)load(e->value, 8)};
  return NIBBLE_OK;
}

nibble_status nb_gguf_strings(const nb_gguf *g, const char *key, nb_str **out, size_t *count, nibble_error *err) {
  const nb_gguf_entry *e = nb_gguf_find(g, key);
  *out = NULL;
  *count = 0;
  if (!e) return NIBBLE_OK;
  if (!e->is_array || e->type != NB_GGUF_STRING) return wrong_type(g, key, "an array of strings", err);
  nb_str *strings = nb_alloc(e->count ? e->count : 1, sizeof *strings);
  if (!strings) return nb_fail_memory(err, e->count * sizeof *strings);
  const uint8_t *at = e->value;
  for (uint64_t i = 0; i < e->count; i++) {
    strings[i] = (nb_str){(const char *)at + 8, (size_t)load(at, 8)};
    at += 8 + strings[i].length;
  }
  *out = strings;
  *count = (size_t)e->count;
  return NIBBLE_OK;
}
