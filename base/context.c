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

nibble_status nibble_context_set_stop(nibble_context *context, bool (*stop)(void *ctx), void *ctx, nibble_error *err) {
  nibble_status status = nb_call_require(__func__, "context", context, err);
  if (status != NIBBLE_OK) return status;
  context->stop = stop;
  context->stop_ctx = ctx;
  return NIBBLE_OK;
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
  if (size < rules->options.least)
    return nb_fail(err, NIBBLE_USAGE, "%s: options.size is %zu; the size of the options struct, %zu, is required",
                   rules->function, size, rules->options.now);
  if (has_unknown_end(given, rules->options.now, size))
    return nb_fail(err, NIBBLE_USAGE, "%s: options of %zu bytes say what this version, which has %zu, does not know",
                   rules->function, size, rules->options.now);
  size_t common = size < rules->options.now ? size : rules->options.now;
  memset(options, 0, rules->options.now);
  memcpy(options, given, common);
  for (int i = 0; i < NB_MAX_REQUIRED && rules->required[i].name; i++) {
    const void *argument;
    memcpy(&argument, (const char *)options + rules->required[i].offset, sizeof argument);
    if ((status = nb_call_require(rules->function, rules->required[i].name, argument, err)) != NIBBLE_OK) return status;
  }
  return NIBBLE_OK;
}

nibble_status nb_result_clear(const char *function, const nb_sizes *sizes, void *out, nibble_error *err) {
  nibble_status status = nb_call_require(function, "out", out, err);
  if (status != NIBBLE_OK) return status;
  size_t size;
  memcpy(&size, out, sizeof size);
  if (size < sizes->least)
    return nb_fail(err, NIBBLE_USAGE, "%s: out.size is %zu; the size of the result struct, %zu, is required", function,
                   size, sizes->now);
  memset((char *)out + sizeof size, 0, size - sizeof size);
  return NIBBLE_OK;
}

void nb_result_fill(void *out, const void *result, size_t size) {
  size_t room;
  memcpy(&room, out, sizeof room);
  if (size > room) size = room;
  memcpy((char *)out + sizeof room, (const char *)result + sizeof room, size - sizeof room);
}

static nibble_status clear_out(const nb_call_rules *rules, void *out, nibble_error *err) {
  if (rules->result.now > 0) return nb_result_clear(rules->function, &rules->result, out, err);
  nibble_status status = nb_call_require(rules->function, "out", out, err);
  if (status == NIBBLE_OK) memset(out, 0, sizeof(void *));
  return status;
}

nibble_status nb_call_begin(nb_call *call, const nb_call_rules *rules, const void *given, void *out,
                            nibble_error *err) {
  nibble_status status = clear_out(rules, out, err);
  if (status == NIBBLE_OK) status = take_options(rules, given, call->options, err);
  if (status != NIBBLE_OK) return status;
  if (call->result) memset(call->result, 0, rules->result.now);
  call->out = out;
  call->result_size = rules->result.now;
  nb_options_head *head = call->options;
  if (!head->context) head->context = &call->own;
  nb_call_begin_in(call, head->context);
  return NIBBLE_OK;
}

void nb_call_begin_in(nb_call *call, const nibble_context *context) {
  int threads_before = nb_threads_use(context->threads);
  nb_stop_hook *stop_before = nb_stop_use(&call->stop);
  call->stop.ask = context->stop;
  call->stop.ctx = context->stop_ctx;
  if (call->has_begun) return;
  call->threads_before = threads_before;
  call->stop_before = stop_before;
  call->has_begun = true;
}

nibble_status nb_call_end(nb_call *call, nibble_status status) {
  if (call->has_begun) {
    nb_threads_use(call->threads_before);
    nb_stop_use(call->stop_before);
  }
  if (call->has_begun && call->result) nb_result_fill(call->out, call->result, call->result_size);
  call->has_begun = false;
  return status;
}
