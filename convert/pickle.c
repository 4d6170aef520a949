#include "convert/pickle.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

/* A state dict takes about 25 values a tensor. The limits are far above any real one and keep a hostile one from
 * taking more than some 250 MiB. */
enum {
  MAX_STACK = 1 << 16,
  MAX_MARKS = 256,
  MAX_MEMO = 1 << 22,
  MAX_VALUES = 1 << 22,
  MAX_ITEMS = 1 << 23,
  MAX_GLOBAL = 256
};

typedef enum kind {
  KIND_OPAQUE, /* None, a float, a list: may be there, means nothing to us */
  KIND_NUMBER, /* an integer or a bool */
  KIND_STRING,
  KIND_TUPLE,
  KIND_DICT,
  KIND_GLOBAL,
  KIND_STORAGE,
  KIND_TENSOR,
} kind;

typedef struct value {
  kind kind;
  bool is_list, is_none;
  uint32_t length;     /* string: bytes; tuple, dict: items (a dict's are key, value, key, value) */
  uint32_t first;      /* tuple: index into items; dict: its first pair in pairs; tensor: index into tensors */
  uint32_t last;       /* dict: its last pair */
  int64_t number;      /* number; global: row of globals; storage: bytes */
  nb_dtype dtype;      /* storage */
  bool untyped;        /* storage */
  const uint8_t *text; /* string; storage: its key, `length` bytes */
} value;

typedef struct pair {
  uint32_t key, value, next; /* next: 0 ends the list */
} pair;

typedef struct tensor {
  nb_pickle_tensor view; /* without name and storage */
  uint32_t storage;      /* value */
  const char *fault;     /* why it cannot be used; said once its name is known */
} tensor;

typedef struct machine {
  const char *where;
  const uint8_t *bytes;
  size_t n, at;
  uint32_t *stack, *marks, *memo; /* memo holds value + 1 */
  size_t depth, mark_count, memo_count;
  size_t stack_room, mark_room, memo_room;
  value *values;
  size_t value_count, value_room;
  uint32_t *items;
  size_t item_count, item_room;
  pair *pairs; /* [0] is no pair */
  size_t pair_count, pair_room;
  tensor *tensors;
  size_t tensor_count, tensor_room;
  bool stopped;
  nibble_error *err;
} machine;

typedef nibble_status (*call_fn)(machine *m, const value *args, uint32_t *out);

static nibble_status call_tensor_v2(machine *m, const value *args, uint32_t *out);
static nibble_status call_tensor_v3(machine *m, const value *args, uint32_t *out);
static nibble_status call_parameter(machine *m, const value *args, uint32_t *out);
static nibble_status call_dict(machine *m, const value *args, uint32_t *out);

typedef enum global_kind { GLOBAL_CALL, GLOBAL_STORAGE, GLOBAL_UNTYPED, GLOBAL_DTYPE } global_kind;

/* All that a pickle may name. */
static const struct {
  const char *module, *name;
  global_kind kind;
  call_fn call;
  nb_dtype dtype;
} globals[] = {
    {"torch._utils", "_rebuild_tensor_v2", GLOBAL_CALL, call_tensor_v2, 0},
    {"torch._utils", "_rebuild_tensor_v3", GLOBAL_CALL, call_tensor_v3, 0},
    {"torch._utils", "_rebuild_parameter", GLOBAL_CALL, call_parameter, 0},
    {"collections", "OrderedDict", GLOBAL_CALL, call_dict, 0},
    {"torch", "DoubleStorage", GLOBAL_STORAGE, NULL, NB_F64},
    {"torch", "FloatStorage", GLOBAL_STORAGE, NULL, NB_F32},
    {"torch", "HalfStorage", GLOBAL_STORAGE, NULL, NB_F16},
    {"torch", "BFloat16Storage", GLOBAL_STORAGE, NULL, NB_BF16},
    {"torch", "LongStorage", GLOBAL_STORAGE, NULL, NB_I64},
    {"torch", "IntStorage", GLOBAL_STORAGE, NULL, NB_I32},
    {"torch", "ShortStorage", GLOBAL_STORAGE, NULL, NB_I16},
    {"torch", "CharStorage", GLOBAL_STORAGE, NULL, NB_I8},
    {"torch", "ByteStorage", GLOBAL_STORAGE, NULL, NB_U8},
    {"torch", "BoolStorage", GLOBAL_STORAGE, NULL, NB_BOOL},
    {"torch", "UntypedStorage", GLOBAL_UNTYPED, NULL, NB_U8},
    {"torch.storage", "UntypedStorage", GLOBAL_UNTYPED, NULL, NB_U8},
    {"torch", "float64", GLOBAL_DTYPE, NULL, NB_F64},
    {"torch", "float32", GLOBAL_DTYPE, NULL, NB_F32},
    {"torch", "float16", GLOBAL_DTYPE, NULL, NB_F16},
    {"torch", "bfloat16", GLOBAL_DTYPE, NULL, NB_BF16},
    {"torch", "float8_e4m3fn", GLOBAL_DTYPE, NULL, NB_F8_E4M3},
    {"torch", "float8_e5m2", GLOBAL_DTYPE, NULL, NB_F8_E5M2},
    {"torch", "int64", GLOBAL_DTYPE, NULL, NB_I64},
    {"torch", "int32", GLOBAL_DTYPE, NULL, NB_I32},
    {"torch", "int16", GLOBAL_DTYPE, NULL, NB_I16},
    {"torch", "int8", GLOBAL_DTYPE, NULL, NB_I8},
    {"torch", "uint64", GLOBAL_DTYPE, NULL, NB_U64},
    {"torch", "uint32", GLOBAL_DTYPE, NULL, NB_U32},
    {"torch", "uint16", GLOBAL_DTYPE, NULL, NB_U16},
    {"torch", "uint8", GLOBAL_DTYPE, NULL, NB_U8},
    {"torch", "bool", GLOBAL_DTYPE, NULL, NB_BOOL},
};

static nibble_status bad(machine *m, const char *what) {
  return nb_fail(m->err, NIBBLE_BAD_INPUT, "%s: bad pickle at byte %zu: %s", m->where, m->at, what);
}

/* Room for one more item in an array of at most `most`. */
static nibble_status reserve(machine *m, void *array, size_t count, size_t *room, size_t size, size_t most) {
  if (count < *room) return NIBBLE_OK;
  if (count >= most) return bad(m, "larger than any state dict");
  size_t wanted = *room ? *room * 2 : 256;
  void *grown = realloc(*(void **)array, wanted * size);
  if (!grown) return nb_fail_memory(m->err, wanted * size);
  *(void **)array = grown;
  *room = wanted;
  return NIBBLE_OK;
}

static nibble_status push(machine *m, uint32_t v) {
  nibble_status status = reserve(m, &m->stack, m->depth, &m->stack_room, sizeof *m->stack, MAX_STACK);
  if (status == NIBBLE_OK) m->stack[m->depth++] = v;
  return status;
}

static nibble_status make(machine *m, value v, uint32_t *out) {
  nibble_status status = reserve(m, &m->values, m->value_count, &m->value_room, sizeof *m->values, MAX_VALUES);
  if (status != NIBBLE_OK) return status;
  *out = (uint32_t)m->value_count;
  m->values[m->value_count++] = v;
  return NIBBLE_OK;
}

static nibble_status push_new(machine *m, value v) {
  uint32_t index = 0;
  nibble_status status = make(m, v, &index);
  return status == NIBBLE_OK ? push(m, index) : status;
}

/* Values above the last mark are all that an opcode may take off the stack. */
static nibble_status pop(machine *m, uint32_t *out) {
  size_t floor = m->mark_count ? m->marks[m->mark_count - 1] : 0;
  if (m->depth <= floor) return bad(m, "the stack is empty");
  *out = m->stack[--m->depth];
  return NIBBLE_OK;
}

static nibble_status take(machine *m, size_t n, const uint8_t **out) {
  if (n > m->n - m->at) return bad(m, "truncated");
  *out = m->bytes + m->at;
  m->at += n;
  return NIBBLE_OK;
}

static nibble_status take_number(machine *m, int bytes, uint64_t *out) {
  const uint8_t *p = NULL;
  nibble_status status = take(m, (size_t)bytes, &p);
  *out = 0;
  for (int i = bytes - 1; status == NIBBLE_OK && i >= 0; i--) *out = *out << 8 | p[i];
  return status;
}

static bool is_text(const value *v, const char *text) {
  return v->kind == KIND_STRING && v->length == strlen(text) && memcmp(v->text, text, v->length) == 0;
}

/* ---- what the callables do -------------------------------------------------------------------------------------- */

static const value *item(const machine *m, const value *tuple, uint32_t i) {
  return &m->values[m->items[tuple->first + i]];
}

static bool read_extents(const machine *m, const value *tuple, int *ndim, int64_t *out) {
  if (tuple->kind != KIND_TUPLE || tuple->length > NB_MAX_DIMS) return false;
  *ndim = (int)tuple->length;
  for (uint32_t i = 0; i < tuple->length; i++) {
    const value *v = item(m, tuple, i);
    if (v->kind != KIND_NUMBER || v->number < 0) return false;
    out[i] = v->number;
  }
  return true;
}

/* (storage, storage_offset, size, stride, requires_grad, backward_hooks, ...) */
static nibble_status add_tensor(machine *m, const value *args, nb_dtype dtype, const value *metadata, uint32_t *out) {
  nibble_status status = reserve(m, &m->tensors, m->tensor_count, &m->tensor_room, sizeof *m->tensors, MAX_VALUES);
  if (status != NIBBLE_OK) return status;
  tensor *t = &m->tensors[m->tensor_count];
  *t = (tensor){.storage = m->items[args->first], .view = {.dtype = dtype}};
  const value *offset = item(m, args, 1);
  int strides;
  if (offset->kind != KIND_NUMBER || offset->number < 0) return bad(m, "a tensor's offset is no number");
  t->view.storage_offset = offset->number;
  if (!read_extents(m, item(m, args, 2), &t->view.ndim, t->view.shape) ||
      !read_extents(m, item(m, args, 3), &strides, t->view.stride) || strides != t->view.ndim)
    return bad(m, "a tensor's size and stride do not fit together");
  /* It would say that the values are to be negated or conjugated. */
  if (metadata && !metadata->is_none && !(metadata->kind == KIND_DICT && metadata->length == 0))
    t->fault = "it carries metadata that this reader does not know";
  return make(m, (value){.kind = KIND_TENSOR, .first = (uint32_t)m->tensor_count++}, out);
}

static nibble_status call_tensor_v2(machine *m, const value *args, uint32_t *out) {
  if (args->length < 6 || args->length > 7 || item(m, args, 0)->kind != KIND_STORAGE || item(m, args, 0)->untyped)
    return bad(m, "_rebuild_tensor_v2 is given other things than a tensor's");
  return add_tensor(m, args, item(m, args, 0)->dtype, args->length == 7 ? item(m, args, 6) : NULL, out);
}

static nibble_status call_tensor_v3(machine *m, const value *args, uint32_t *out) {
  const value *dtype = args->length >= 7 ? item(m, args, 6) : NULL;
  if (!dtype || args->length > 8 || item(m, args, 0)->kind != KIND_STORAGE || dtype->kind != KIND_GLOBAL ||
      globals[dtype->number].kind != GLOBAL_DTYPE)
    return bad(m, "_rebuild_tensor_v3 is given other things than a tensor's");
  return add_tensor(m, args, globals[dtype->number].dtype, args->length == 8 ? item(m, args, 7) : NULL, out);
}

static nibble_status call_parameter(machine *m, const value *args, uint32_t *out) {
  if (args->length != 3 || item(m, args, 0)->kind != KIND_TENSOR)
    return bad(m, "_rebuild_parameter is given something else than a tensor");
  *out = m->items[args->first];
  return NIBBLE_OK;
}

static nibble_status call_dict(machine *m, const value *args, uint32_t *out) {
  if (args->length != 0) return bad(m, "OrderedDict is given arguments");
  return make(m, (value){.kind = KIND_DICT}, out);
}

/* ---- opcodes ---------------------------------------------------------------------------------------------------- */

static nibble_status op_proto(machine *m, uint8_t op) {
  (void)op;
  uint64_t version;
  nibble_status status = take_number(m, 1, &version);
  return status == NIBBLE_OK && version > 5 ? bad(m, "its protocol is newer than 5") : status;
}

static nibble_status op_frame(machine *m, uint8_t op) {
  (void)op;
  const uint8_t *length;
  return take(m, 8, &length);
}

static nibble_status op_stop(machine *m, uint8_t op) {
  (void)op;
  m->stopped = true;
  return m->at == m->n ? NIBBLE_OK : bad(m, "something follows its end");
}

static nibble_status op_mark(machine *m, uint8_t op) {
  (void)op;
  nibble_status status = reserve(m, &m->marks, m->mark_count, &m->mark_room, sizeof *m->marks, MAX_MARKS);
  if (status == NIBBLE_OK) m->marks[m->mark_count++] = (uint32_t)m->depth;
  return status;
}

/* The values above the last mark, which is taken away: they stay on the stack, at [*first, depth). */
static nibble_status pop_mark(machine *m, size_t *first) {
  if (m->mark_count == 0) return bad(m, "a mark is missing");
  *first = m->marks[--m->mark_count];
  return NIBBLE_OK;
}

static nibble_status op_pop(machine *m, uint8_t op) {
  (void)op;
  uint32_t v;
  return pop(m, &v);
}

static nibble_status op_constant(machine *m, uint8_t op) {
  if (op == 'N') return push_new(m, (value){.kind = KIND_OPAQUE, .is_none = true});
  return push_new(m, (value){.kind = KIND_NUMBER, .number = op == 0x88});
}

static nibble_status op_int(machine *m, uint8_t op) {
  uint64_t v;
  nibble_status status = take_number(m, op == 'J' ? 4 : op == 'M' ? 2 : 1, &v);
  if (status != NIBBLE_OK) return status;
  return push_new(m, (value){.kind = KIND_NUMBER, .number = op == 'J' ? (int64_t)(int32_t)(uint32_t)v : (int64_t)v});
}

/* LONG1: a length, then a little-endian number in two's complement. */
static nibble_status op_long(machine *m, uint8_t op) {
  (void)op;
  uint64_t n, v;
  nibble_status status = take_number(m, 1, &n);
  if (status != NIBBLE_OK) return status;
  if (n > 8) return bad(m, "a number is too large");
  status = take_number(m, (int)n, &v);
  if (status != NIBBLE_OK) return status;
  if (n > 0 && n < 8 && v >> (8 * n - 1) & 1) v |= UINT64_MAX << 8 * n;
  int64_t number;
  memcpy(&number, &v, sizeof number);
  return push_new(m, (value){.kind = KIND_NUMBER, .number = number});
}

static nibble_status op_float(machine *m, uint8_t op) {
  (void)op;
  const uint8_t *bytes;
  nibble_status status = take(m, 8, &bytes);
  return status == NIBBLE_OK ? push_new(m, (value){.kind = KIND_OPAQUE}) : status;
}

static nibble_status op_string(machine *m, uint8_t op) {
  int bytes = op == 'X' || op == 'T' ? 4 : op == 0x8d ? 8 : 1;
  uint64_t n = 0;
  const uint8_t *text = NULL;
  nibble_status status = take_number(m, bytes, &n);
  if (status != NIBBLE_OK) return status;
  if (n > INT32_MAX) return bad(m, "a string is too long");
  status = take(m, (size_t)n, &text);
  if (status != NIBBLE_OK) return status;
  return push_new(m, (value){.kind = KIND_STRING, .text = text, .length = (uint32_t)n});
}

static nibble_status op_empty(machine *m, uint8_t op) {
  if (op == ']') return push_new(m, (value){.kind = KIND_OPAQUE, .is_list = true});
  return push_new(m, (value){.kind = op == '}' ? KIND_DICT : KIND_TUPLE});
}

static nibble_status op_tuple(machine *m, uint8_t op) {
  size_t first = 0, count = op == 't' ? 0 : (size_t)(op - 0x84);
  nibble_status status = NIBBLE_OK;
  if (op == 't') {
    status = pop_mark(m, &first);
  } else {
    size_t floor = m->mark_count ? m->marks[m->mark_count - 1] : 0;
    if (m->depth - floor < count) return bad(m, "the stack is empty");
    first = m->depth - count;
  }
  if (status != NIBBLE_OK) return status;
  value tuple = {.kind = KIND_TUPLE, .first = (uint32_t)m->item_count, .length = (uint32_t)(m->depth - first)};
  for (size_t i = first; i < m->depth; i++) {
    status = reserve(m, &m->items, m->item_count, &m->item_room, sizeof *m->items, MAX_ITEMS);
    if (status != NIBBLE_OK) return status;
    m->items[m->item_count++] = m->stack[i];
  }
  m->depth = first;
  return push_new(m, tuple);
}

static nibble_status op_append(machine *m, uint8_t op) {
  size_t first = 0;
  uint32_t list = 0;
  nibble_status status = op == 'e' ? pop_mark(m, &first) : pop(m, &list);
  if (status != NIBBLE_OK) return status;
  if (op == 'e') m->depth = first;
  if ((status = pop(m, &list)) != NIBBLE_OK) return status;
  if (!m->values[list].is_list) return bad(m, "it appends to what is no list");
  return push(m, list);
}

static nibble_status add_pair(machine *m, uint32_t dict, uint32_t key, uint32_t v) {
  nibble_status status = reserve(m, &m->pairs, m->pair_count + 1, &m->pair_room, sizeof *m->pairs, MAX_VALUES);
  if (status != NIBBLE_OK) return status;
  uint32_t index = (uint32_t)++m->pair_count;
  value *d = &m->values[dict];
  m->pairs[index] = (pair){.key = key, .value = v};
  if (d->length++) {
    m->pairs[d->last].next = index;
  } else {
    d->first = index;
  }
  d->last = index;
  return NIBBLE_OK;
}

static nibble_status op_setitems(machine *m, uint8_t op) {
  size_t first = m->depth >= 2 ? m->depth - 2 : 0;
  size_t floor = m->mark_count ? m->marks[m->mark_count - 1] : 0;
  nibble_status status = NIBBLE_OK;
  if (op == 'u') status = pop_mark(m, &first);
  if (status != NIBBLE_OK) return status;
  if (op == 'u') floor = m->mark_count ? m->marks[m->mark_count - 1] : 0;
  if (first <= floor || (m->depth - first) % 2) return bad(m, "a dict's items are no pairs");
  uint32_t dict = m->stack[first - 1];
  if (m->values[dict].kind != KIND_DICT) return bad(m, "it sets an item of what is no dict");
  for (size_t i = first; status == NIBBLE_OK && i < m->depth; i += 2)
    status = add_pair(m, dict, m->stack[i], m->stack[i + 1]);
  m->depth = first;
  return status;
}

static nibble_status op_get(machine *m, uint8_t op) {
  uint64_t index;
  nibble_status status = take_number(m, op == 'j' ? 4 : 1, &index);
  if (status != NIBBLE_OK) return status;
  if (index >= m->memo_count || m->memo[index] == 0) return bad(m, "it recalls what it did not store");
  return push(m, m->memo[index] - 1);
}

static nibble_status op_put(machine *m, uint8_t op) {
  uint64_t index = m->memo_count;
  nibble_status status = op == 0x94 ? NIBBLE_OK : take_number(m, op == 'r' ? 4 : 1, &index);
  if (status != NIBBLE_OK) return status;
  if (m->depth == 0) return bad(m, "the stack is empty");
  if (index >= MAX_MEMO) return bad(m, "it stores under a number that is too large");
  while (m->memo_count <= index) {
    status = reserve(m, &m->memo, m->memo_count, &m->memo_room, sizeof *m->memo, MAX_MEMO);
    if (status != NIBBLE_OK) return status;
    m->memo[m->memo_count++] = 0;
  }
  m->memo[index] = m->stack[m->depth - 1] + 1;
  return NIBBLE_OK;
}

static bool equals(const char *text, const uint8_t *bytes, size_t n) {
  return strlen(text) == n && memcmp(text, bytes, n) == 0;
}

/* The one gate: what is not in the table is refused by its name, called or not. */
static nibble_status push_global(machine *m, const uint8_t *module, size_t module_n, const uint8_t *name,
                                 size_t name_n) {
  for (size_t i = 0; i < sizeof globals / sizeof *globals; i++) {
    if (equals(globals[i].module, module, module_n) && equals(globals[i].name, name, name_n))
      return push_new(m, (value){.kind = KIND_GLOBAL, .number = (int64_t)i});
  }
  return nb_fail(m->err, NIBBLE_BAD_INPUT, "%s: its pickle would call %.*s.%.*s; refused", m->where,
                 (int)(module_n < MAX_GLOBAL ? module_n : MAX_GLOBAL), (const char *)module,
                 (int)(name_n < MAX_GLOBAL ? name_n : MAX_GLOBAL), (const char *)name);
}

static nibble_status take_line(machine *m, const uint8_t **text, size_t *n) {
  const uint8_t *end = memchr(m->bytes + m->at, '\n', m->n - m->at);
  if (!end) return bad(m, "truncated");
  *n = (size_t)(end - (m->bytes + m->at));
  const uint8_t *newline;
  nibble_status status = take(m, *n, text);
  return status == NIBBLE_OK ? take(m, 1, &newline) : status;
}

/* GLOBAL, and INST, which would call it at once. */
static nibble_status op_global(machine *m, uint8_t op) {
  const uint8_t *module = NULL, *name = NULL;
  size_t module_n = 0, name_n = 0;
  nibble_status status = take_line(m, &module, &module_n);
  if (status == NIBBLE_OK) status = take_line(m, &name, &name_n);
  if (status == NIBBLE_OK) status = push_global(m, module, module_n, name, name_n);
  return status == NIBBLE_OK && op == 'i' ? bad(m, "it makes an instance") : status;
}

static nibble_status op_stack_global(machine *m, uint8_t op) {
  (void)op;
  uint32_t name = 0, module = 0;
  nibble_status status = pop(m, &name);
  if (status == NIBBLE_OK) status = pop(m, &module);
  if (status != NIBBLE_OK) return status;
  const value *a = &m->values[module], *b = &m->values[name];
  if (a->kind != KIND_STRING || b->kind != KIND_STRING) return bad(m, "a name is no string");
  return push_global(m, a->text, a->length, b->text, b->length);
}

static nibble_status op_reduce(machine *m, uint8_t op) {
  (void)op;
  uint32_t args = 0, callable = 0, result = 0;
  nibble_status status = pop(m, &args);
  if (status == NIBBLE_OK) status = pop(m, &callable);
  if (status != NIBBLE_OK) return status;
  const value *f = &m->values[callable];
  if (f->kind != KIND_GLOBAL || globals[f->number].kind != GLOBAL_CALL) return bad(m, "it calls what is no function");
  if (m->values[args].kind != KIND_TUPLE) return bad(m, "a call's arguments are no tuple");
  value copy = m->values[args]; /* making the result may move the values */
  status = globals[f->number].call(m, &copy, &result);
  return status == NIBBLE_OK ? push(m, result) : status;
}

/* An OrderedDict's attributes, of which torch sets one: _metadata. */
static nibble_status op_build(machine *m, uint8_t op) {
  (void)op;
  uint32_t state = 0, object = 0;
  nibble_status status = pop(m, &state);
  if (status == NIBBLE_OK) status = pop(m, &object);
  if (status != NIBBLE_OK) return status;
  if (m->values[object].kind != KIND_DICT) return bad(m, "it sets the state of what is no dict");
  return push(m, object);
}

/* ("storage", type, key, location, elements); the elements of an untyped storage are bytes. */
static nibble_status op_persid(machine *m, uint8_t op) {
  (void)op;
  uint32_t id = 0;
  nibble_status status = pop(m, &id);
  if (status != NIBBLE_OK) return status;
  const value *v = &m->values[id];
  if (v->kind != KIND_TUPLE || v->length != 5 || !is_text(item(m, v, 0), "storage"))
    return bad(m, "a persistent id is not that of a storage");
  const value *type = item(m, v, 1), *key = item(m, v, 2), *count = item(m, v, 4);
  global_kind k = type->kind == KIND_GLOBAL ? globals[type->number].kind : GLOBAL_CALL;
  if ((k != GLOBAL_STORAGE && k != GLOBAL_UNTYPED) || key->kind != KIND_STRING || count->kind != KIND_NUMBER)
    return bad(m, "a persistent id is not that of a storage");
  value storage = {.kind = KIND_STORAGE, .dtype = globals[type->number].dtype, .untyped = k == GLOBAL_UNTYPED};
  storage.text = key->text;
  storage.length = key->length;
  if (count->number < 0 ||
      __builtin_mul_overflow(count->number, (int64_t)nb_dtype_size(storage.dtype), &storage.number))
    return bad(m, "a storage's size is out of range");
  return push_new(m, storage);
}

static nibble_status op_new(machine *m, uint8_t op) {
  (void)op;
  return bad(m, "it makes an instance");
}

typedef nibble_status (*op_fn)(machine *m, uint8_t op);

static const op_fn ops[256] = {
    [0x80] = op_proto,   [0x95] = op_frame,        ['.'] = op_stop,      ['('] = op_mark,     ['0'] = op_pop,
    ['N'] = op_constant, [0x88] = op_constant,     [0x89] = op_constant, ['K'] = op_int,      ['M'] = op_int,
    ['J'] = op_int,      [0x8a] = op_long,         ['G'] = op_float,     ['X'] = op_string,   ['T'] = op_string,
    ['U'] = op_string,   [0x8c] = op_string,       [0x8d] = op_string,   ['}'] = op_empty,    [']'] = op_empty,
    [')'] = op_empty,    ['t'] = op_tuple,         [0x85] = op_tuple,    [0x86] = op_tuple,   [0x87] = op_tuple,
    ['a'] = op_append,   ['e'] = op_append,        ['s'] = op_setitems,  ['u'] = op_setitems, ['h'] = op_get,
    ['j'] = op_get,      ['q'] = op_put,           ['r'] = op_put,       [0x94] = op_put,     ['c'] = op_global,
    ['i'] = op_global,   [0x93] = op_stack_global, ['R'] = op_reduce,    ['b'] = op_build,    ['Q'] = op_persid,
    [0x81] = op_new,     [0x92] = op_new,          ['o'] = op_new,
};

static nibble_status run(machine *m) {
  nibble_status status = NIBBLE_OK;
  while (status == NIBBLE_OK && !m->stopped) {
    if (m->at == m->n) return bad(m, "truncated");
    uint8_t op = m->bytes[m->at++];
    if (!ops[op])
      return nb_fail(m->err, NIBBLE_BAD_INPUT,
                     "%s: its pickle has opcode 0x%02x at byte %zu, which no state dict needs; refused", m->where, op,
                     m->at - 1);
    status = ops[op](m, op);
  }
  return status;
}

/* ---- the result ------------------------------------------------------------------------------------------------- */

static nibble_status copy_text(machine *m, const value *v, char **out) {
  if (memchr(v->text, 0, v->length)) return bad(m, "a name has a zero byte in it");
  *out = strndup((const char *)v->text, v->length);
  return *out ? NIBBLE_OK : nb_fail_memory(m->err, v->length);
}

static nibble_status collect(machine *m, nb_pickle *out) {
  uint32_t top = 0;
  nibble_status status = pop(m, &top);
  if (status != NIBBLE_OK) return status;
  const value *dict = &m->values[top];
  if (dict->kind != KIND_DICT || m->depth || m->mark_count) return bad(m, "it is no dict of tensors");
  if (!(out->tensors = nb_alloc(dict->length, sizeof *out->tensors))) return nb_fail_memory(m->err, dict->length);
  for (uint32_t p = dict->length ? dict->first : 0; p; p = m->pairs[p].next) {
    const value *key = &m->values[m->pairs[p].key], *v = &m->values[m->pairs[p].value];
    if (v->kind != KIND_TENSOR || key->kind != KIND_STRING) {
      out->skipped++;
      continue;
    }
    const tensor *t = &m->tensors[v->first];
    const value *storage = &m->values[t->storage];
    nb_pickle_tensor *copy = &out->tensors[out->count++];
    *copy = t->view;
    copy->storage_bytes = storage->number;
    if ((status = copy_text(m, key, &copy->name)) != NIBBLE_OK) return status;
    if ((status = copy_text(m, storage, &copy->storage)) != NIBBLE_OK) return status;
    if (t->fault) return nb_fail(m->err, NIBBLE_BAD_INPUT, "%s: tensor '%s': %s", m->where, copy->name, t->fault);
  }
  return NIBBLE_OK;
}

nibble_status nb_pickle_read(const char *where, const uint8_t *bytes, size_t n, nb_pickle *out, nibble_error *err) {
  machine m = {.where = where, .bytes = bytes, .n = n, .err = err};
  *out = (nb_pickle){0};
  nibble_status status = run(&m);
  if (status == NIBBLE_OK) status = collect(&m, out);
  if (status != NIBBLE_OK) nb_pickle_free(out);
  free(m.stack);
  free(m.marks);
  free(m.memo);
  free(m.values);
  free(m.items);
  free(m.pairs);
  free(m.tensors);
  return status;
}

void nb_pickle_free(nb_pickle *pickle) {
  for (size_t i = 0; i < pickle->count; i++) {
    free(pickle->tensors[i].name);
    free(pickle->tensors[i].storage);
  }
  free(pickle->tensors);
  *pickle = (nb_pickle){0};
}
