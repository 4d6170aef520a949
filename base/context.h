/* What nibble_context is inside, and what every public function does with its options before it reads any of them.
 * The caller may have been compiled against an older header, or passed NULL, or a struct of zeros; after nb_call_begin
 * there are whole options of this version, with a context, and the calling thread computes with that context's threads
 * and asks its `stop`.
 * nb_call_end hands out as much of the result as the caller's struct has.
 *
 *   nibble_status nibble_ppl(const nibble_ppl_options *options, nibble_ppl_result *out, nibble_error *err) {
 *     nibble_ppl_options o;
 *     nibble_ppl_result r;
 *     static const nb_call_rules rules = {"nibble_ppl",
 *                                         NB_SIZES(nibble_ppl_options, progress),
 *                                         NB_SIZES(nibble_ppl_result, file_bytes),
 *                                         {NB_REQUIRED(nibble_ppl_options, model)}};
 *     nb_call call = {.options = &o, .result = &r};
 *     nibble_status status = nb_call_begin(&call, &rules, options, out, err);
 *     if (status == NIBBLE_OK) status = measure(&o, &r, err);
 *     return nb_call_end(&call, status);
 *   }
 */
#ifndef NB_BASE_CONTEXT_H
#define NB_BASE_CONTEXT_H

#include "base/stop.h"

struct nibble_context {
  int threads; /* 0: one a core */
  nibble_device device;
  uint64_t gpu_memory; /* bytes that NIBBLE_DEVICE_AUTO may fill; 0: nine tenths of what is free */
  bool (*stop)(void *ctx);
  void *stop_ctx;
};

/* How every options struct of nibble.h begins. */
typedef struct nb_options_head {
  size_t size;
  const nibble_context *context;
} nb_options_head;

/* A pointer among the options that may not be NULL. */
typedef struct nb_required {
  const char *name; /* NULL: the end of the list */
  size_t offset;
} nb_required;

#define NB_REQUIRED(type, member) \
  { #member, offsetof(type, member) }

/* Sizes of a struct of nibble.h that begins with its size: in this version, and as it was when its first version ended
 * with `last`. Later members begin behind a struct's padding, which an older caller leaves as it is. */
typedef struct nb_sizes {
  size_t now, least;
} nb_sizes;

#define NB_UPTO(type, last) (offsetof(type, last) + sizeof(((type *)0)->last))
#define NB_SIZES(type, last) \
  { sizeof(type), NB_UPTO(type, last) }

enum { NB_MAX_REQUIRED = 4 };

typedef struct nb_call_rules {
  const char *function; /* for messages */
  nb_sizes options;
  nb_sizes result; /* zeros: it is a pointer to a handle, or to what the library allocates */
  nb_required required[NB_MAX_REQUIRED];
} nb_call_rules;

/* Set the first two, leave the rest zero. */
typedef struct nb_call {
  void *options; /* of this version */
  void *result;  /* of this version; NULL where the result is a pointer */
  void *out;     /* the caller's, */
  size_t result_size;
  nibble_context own; /* the default one, if the caller names none */
  int threads_before;
  nb_stop_hook stop, *stop_before;
  bool has_begun;
} nb_call;

/* Copies `given` to *call->options, its missing end zeroed, and zeroes *call->result and *out. NIBBLE_USAGE says what
 * is required and not there: the options, their size, a pointer among them, `out`, its size. `call` lives until
 * nb_call_end, which may follow a failure, and to which options->context may point. */
nibble_status nb_call_begin(nb_call *call, const nb_call_rules *rules, const void *given, void *out, nibble_error *err);

/* For functions that have a handle and no options: computes with its context. Again, with another one, it changes to
 * that. */
void nb_call_begin_in(nb_call *call, const nibble_context *context);

/* Returns `status`. */
nibble_status nb_call_end(nb_call *call, nibble_status status);

/* The result of a function without options. The first zeroes *out but for its size, NIBBLE_USAGE if it is NULL or its
 * size none; the second copies as much of *result, [size] of this version, as the caller has room for. */
nibble_status nb_result_clear(const char *function, const nb_sizes *sizes, void *out, nibble_error *err);
void nb_result_fill(void *out, const void *result, size_t size);

/* NIBBLE_USAGE, "nibble_f: name is required", where an argument is NULL. */
nibble_status nb_call_require(const char *function, const char *name, const void *argument, nibble_error *err);

#endif
