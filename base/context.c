#include "base/context.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/parallel.h"

enum { MAX_THREADS = 1024 };

nibble_status nibble_context_create(nibble_context **out, nibble_error *err) {
  nibble_status status = nb_call_require(__func__, "out", out, err);
  if (status != NIBBLE_OK) return status;
  *out = nb_alloc(1, sizeof **out);
  return *out ? NIBBLE_OK : nb_fail_memory(err, sizeof **out);
}

void nibble_context_free(nibble_context *context) { free(context); }

nibble_status nibble_context_set_threads(nibble_context *context, int threads, nibble_error *err) {
  nibble_status status = nb_call_require(__func__, "context", context, err);
  if (status != NIBBLE_OK) return status;
  if (threads < 0 || threads > MAX_THREADS)
    return nb_fail(err, NIBBLE_USAGE, "%s: threads is %d; from 0 to %d is required", __func__, threads, MAX_THREADS);
  context->threads = threads;
  return NIBBLE_OK;
}

nibble_status nibble_context_set_device(nibble_context *context, nibble_device device, uint64_t gpu_memory,
                                        nibble_error *err) {
  nibble_status status = nb_call_require(__func__, "context", context, err);
  if (status != NIBBLE_OK) return status;
  switch (device) {
    case NIBBLE_DEVICE_CPU:
    case NIBBLE_DEVICE_CUDA:
    case NIBBLE_DEVICE_AUTO:
      context->device = device;
      context->gpu_memory = gpu_memory;
      return NIBBLE_OK;
  }
  return nb_fail(err, NIBBLE_USAGE, "%s: device is %d, which is no nibble_device", __func__, (int)device);
}

nibble_status nb_call_require(const char *function, const char *name, const void *argument, nibble_error *err) {
  return argument ? NIBBLE_OK : nb_fail(err, NIBBLE_USAGE, "%s: %s is required", function, name);
}

/* A newer caller's struct is longer. What it says beyond ours cannot be followed, unless it says nothing. */
static bool has_unknown_end(const void *given, size_t from, size_t to) {
  const unsigned char *bytes = given;
  while (from < to && bytes[from] == 0) from++;
  return from < to;
}

static nibble_status take_options(const nb_call_rules *rules, const void *given, void *options, nibble_error *err) {
  nibble_status status = nb_call_require(rules->function, "options", given, err);
  if (status != NIBBLE_OK) return status;
  size_t size;
  memcpy(&size, given, sizeof size);
  if (size < rules->least_size)
    return nb_fail(err, NIBBLE_USAGE, "%s: options.size is %zu; the size of the options struct, %zu, is required",
                   rules->function, size, rules->size);
  if (has_unknown_end(given, rules->size, size))
    return nb_fail(err, NIBBLE_USAGE, "%s: options of %zu bytes say what this version, which has %zu, does not know",
                   rules->function, size, rules->size);
  size_t common = size < rules->size ? size : rules->size;
  memset(options, 0, rules->size);
  memcpy(options, given, common);
  for (int i = 0; i < NB_MAX_REQUIRED && rules->required[i].name; i++) {
    const void *argument;
    memcpy(&argument, (const char *)options + rules->required[i].offset, sizeof argument);
    if ((status = nb_call_require(rules->function, rules->required[i].name, argument, err)) != NIBBLE_OK) return status;
  }
  return NIBBLE_OK;
}

nibble_status nb_call_begin(nb_call *call, const nb_call_rules *rules, const void *given, void *options, void *out,
                            nibble_error *err) {
  *call = (nb_call){0};
  nibble_status status = nb_call_require(rules->function, "out", out, err);
  if (status != NIBBLE_OK) return status;
  memset(out, 0, rules->out_size);
  if ((status = take_options(rules, given, options, err)) != NIBBLE_OK) return status;
  nb_options_head *head = options;
  if (!head->context) head->context = &call->own;
  nb_call_begin_in(call, head->context);
  return NIBBLE_OK;
}

void nb_call_begin_in(nb_call *call, const nibble_context *context) {
  call->threads_before = nb_threads_use(context->threads);
  call->has_begun = true;
}

void nb_call_end(nb_call *call) {
  if (call->has_begun) nb_threads_use(call->threads_before);
  call->has_begun = false;
}
