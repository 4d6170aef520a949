/* What nibble_context is inside, and what every public function does with its options before it reads any of them.
 * The caller may have been compiled against an older header, or passed NULL, or a struct of zeros; after nb_call_begin
 * there are whole options of this version, with a context, and the calling thread computes with that context's threads.
 *
 *   nibble_status nibble_ppl(const nibble_ppl_options *options, nibble_ppl_result *out, nibble_error *err) {
 *     nibble_ppl_options o;
 *     static const nb_call_rules rules = {"nibble_ppl", sizeof o, NB_UPTO(nibble_ppl_options, progress), sizeof *out,
 *                                         {NB_REQUIRED(nibble_ppl_options, model)}};
 *     nb_call call;
 *     nibble_status status = nb_call_begin(&call, &rules, options, &o, out, err);
 *     if (status == NIBBLE_OK) status = measure(&o, out, err);
 *     nb_call_end(&call);
 *     return status;
 *   }
 */
#ifndef NB_BASE_CONTEXT_H
#define NB_BASE_CONTEXT_H

#include "base/status.h"

struct nibble_context {
  int threads; /* 0: one a core */
  nibble_device device;
  uint64_t gpu_memory; /* bytes that NIBBLE_DEVICE_AUTO may fill; 0: nine tenths of what is free */
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

/* Size of an options struct as it was when `member` was its last. Later ones begin behind a struct's padding, which an
 * older caller leaves as it is. */
#define NB_UPTO(type, member) (offsetof(type, member) + sizeof(((type *)0)->member))

enum { NB_MAX_REQUIRED = 4 };

typedef struct nb_call_rules {
  const char *function;    /* for messages */
  size_t size, least_size; /* of the options struct: in this version, and in the first */
  size_t out_size;
  nb_required required[NB_MAX_REQUIRED];
} nb_call_rules;

typedef struct nb_call {
  nibble_context own; /* the default one, if the caller names none */
  int threads_before;
  bool has_begun;
} nb_call;

/* Copies `given` to *options, its missing end zeroed, and zeroes *out. NIBBLE_USAGE says what is required and not
 * there: the options, their size, a pointer among them, `out`. `call` lives until nb_call_end, which may follow a
 * failure, and to which options->context may point. */
nibble_status nb_call_begin(nb_call *call, const nb_call_rules *rules, const void *given, void *options, void *out,
                            nibble_error *err);

/* For functions that have a handle and no options: computes with its context. */
void nb_call_begin_in(nb_call *call, const nibble_context *context);
void nb_call_end(nb_call *call);

/* NIBBLE_USAGE, "nibble_f: name is required", where an argument is NULL. */
nibble_status nb_call_require(const char *function, const char *name, const void *argument, nibble_error *err);

#endif
