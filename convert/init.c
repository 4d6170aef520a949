/* A model of a given config with random weights, for tests and measurements at any size. */
#include <stdlib.h>
#include <sys/stat.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/context.h"
#include "base/parallel.h"
#include "base/stage.h"
#include "convert/sidefiles.h"
#include "convert/sinks/safetensors.h"
#include "model/tensors.h"

enum { BAND = 1 << 20, CHUNK = 1 << 12 };

typedef struct fill_job {
  nb_writer *writer;
  size_t index;
  nb_dtype dtype;
  uint64_t key; /* of this tensor: seed and name */
  float mean, deviation;
  nb_shared_error error;
} fill_job;

/* SplitMix64 (Steele, Lea & Flood 2014) of a counter: element i of a tensor depends on nothing but its key and i. */
static uint64_t mix(uint64_t z) {
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

static uint64_t tensor_key(uint64_t seed, const char *name) {
  uint64_t key = mix(seed + 0x9e3779b97f4a7c15u);
  for (; *name; name++) key = mix(key + (unsigned char)*name);
  return key;
}

/* The sum of four 16-bit uniforms is close to normal and costs one multiplication a number; 37837 is its deviation. */
static float bell(uint64_t random) {
  uint32_t sum = (uint32_t)(random & 0xffff) + (uint32_t)(random >> 16 & 0xffff) + (uint32_t)(random >> 32 & 0xffff) +
                 (uint32_t)(random >> 48);
  return ((float)sum - 131070.0f) * (1.0f / 37837.0f);
}

static void fill_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  fill_job *job = ctx;
  float values[CHUNK];
  uint8_t stored[CHUNK * sizeof(double)];
  size_t size = nb_dtype_size(job->dtype);
  for (int64_t at = begin; at < end; at += CHUNK) {
    int64_t n = nb_min_i64(CHUNK, end - at);
    for (int64_t i = 0; i < n; i++) {
      float noise =
          job->deviation == 0 ? 0 : job->deviation * bell(mix(job->key + (uint64_t)(at + i) * 0x9e3779b97f4a7c15u));
      values[i] = job->mean + noise;
    }
    nb_from_f32(job->dtype, values, (size_t)n, stored);
    nibble_error err;
    nibble_status status =
        nb_writer_write(job->writer, job->index, (uint64_t)at * size, stored, (uint64_t)n * size, &err);
    if (status == NIBBLE_OK) continue;
    nb_shared_error_set(&job->error, status, &err);
    return;
  }
}

/* The model that is made. */
typedef struct model {
  const nibble_init_options *options;
  nb_model_tensors tensors;
  nb_dtype dtype;
  double range; /* of random weights: their standard deviation */
  nb_writer *writer;
} model;

static nibble_status declare_tensors(const model *m, int64_t *total, nibble_error *err) {
  for (size_t i = 0; i < m->tensors.count; i++) {
    const nb_model_tensor *t = &m->tensors.items[i];
    int64_t count, stored[3];
    nb_model_tensor_stored_shape(t, stored);
    if (!nb_shape_count(t->shape, t->ndim, &count) || __builtin_add_overflow(*total, count, total))
      return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s' is too large", m->options->config, t->name);
    nibble_status status = nb_writer_declare(m->writer, t->name, m->dtype, stored, t->ndim, err);
    if (status != NIBBLE_OK) return status;
  }
  return NIBBLE_OK;
}

static nibble_status write_tensors(const model *m, int64_t *total, nibble_error *err) {
  int64_t done = 0;
  nibble_status status = declare_tensors(m, total, err);
  for (size_t i = 0; status == NIBBLE_OK && i < m->tensors.count; i++) {
    const nb_model_tensor *t = &m->tensors.items[i];
    bool one = t->kind == NB_KIND_NORM && !t->is_bias;
    bool random = !one && !t->is_bias && t->ndim > 1;
    int64_t count = 0;
    nb_shape_count(t->shape, t->ndim, &count);
    if ((status = nb_writer_begin(m->writer, i, count, err)) != NIBBLE_OK) return status;
    fill_job job = {.writer = m->writer, .index = i, .dtype = m->dtype, .key = tensor_key(m->options->seed, t->name)};
    job.mean = one ? 1 : 0;
    job.deviation = random ? (float)m->range : 0;
    status = nb_parallel_stoppable(count, BAND, fill_band, &job, err);
    if (status == NIBBLE_OK) status = nb_shared_error_get(&job.error, err);
    done += count;
    nb_step(&m->options->progress, t->name, (uint64_t)done, (uint64_t)*total, "weights");
  }
  return status;
}

static nibble_status load_config(const char *path, nb_config *config, nibble_error *err) {
  struct stat info;
  char *inside = stat(path, &info) == 0 && S_ISDIR(info.st_mode) ? nb_path_join(path, "config.json") : NULL;
  nibble_status status = nb_config_load(inside ? inside : path, config, err);
  free(inside);
  if (status == NIBBLE_OK && !config->family)
    status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: no table for model_type \"%s\", so its tensors are not known", path,
                     config->model_type);
  return status;
}

static nibble_status save_config(const nb_config *config, nb_dtype dtype, const nb_folder *folder, nibble_error *err) {
  cJSON *changes = cJSON_CreateObject();
  bool ok = cJSON_AddStringToObject(changes, "dtype", nb_dtype_torch_name(dtype)) &&
            cJSON_AddNullToObject(changes, "quantization_config");
  nibble_status status = ok ? nb_config_save(config, changes, folder, err) : nb_fail_memory(err, sizeof *changes);
  cJSON_Delete(changes);
  return status;
}

static nibble_status init(const nibble_init_options *o, nibble_init_result *out, nibble_error *err) {
  double start = nb_seconds();
  nb_config config = {0};
  model m = {.options = o, .range = 0.02};
  nb_stage stage = {0};
  nb_replace replace = {.force = o->force, .progress = &o->progress};
  nibble_status status = load_config(o->config, &config, err);
  if (status != NIBBLE_OK) goto done;
  m.dtype = config.dtype;
  if (o->dtype && (!nb_dtype_parse(o->dtype, &m.dtype) || !nb_dtype_is_float(m.dtype) || nb_dtype_size(m.dtype) == 1)) {
    status = nb_fail(err, NIBBLE_USAGE, "dtype %s: one of float32, float16, bfloat16 is wanted", o->dtype);
    goto done;
  }
  if ((status = nb_json_double(o->config, config.json, "initializer_range", &m.range, err)) != NIBBLE_OK) goto done;
  if ((status = nb_model_tensors_list(&config, &m.tensors, err)) != NIBBLE_OK) goto done;
  if ((status = nb_stage_spare(o->dst, o->config, err)) != NIBBLE_OK) goto done;
  if ((status = nb_stage_begin(&stage, o->dst, &replace, err)) != NIBBLE_OK) goto done;
  if ((status = nb_writer_open(&stage.folder, o->max_shard_size, &m.writer, err)) != NIBBLE_OK) goto done;
  if ((status = write_tensors(&m, &out->parameters, err)) != NIBBLE_OK) goto done;
  if ((status = nb_writer_finish(m.writer, err)) != NIBBLE_OK) goto done;
  if ((status = save_config(&config, m.dtype, &stage.folder, err)) != NIBBLE_OK) goto done;
  status = nb_stage_commit(&stage, !o->no_sync, err);
  out->file_bytes = nb_writer_bytes(m.writer);
  out->seconds = nb_seconds() - start;
done:
  nb_writer_close(m.writer);
  nb_stage_abort(&stage, status, err);
  nb_model_tensors_free(&m.tensors);
  nb_config_free(&config);
  return status;
}

nibble_status nibble_init(const nibble_init_options *options, nibble_init_result *out, nibble_error *err) {
  nibble_init_options o;
  nibble_init_result r;
  static const nb_call_rules rules = {
      "nibble_init",
      NB_SIZES(nibble_init_options, progress),
      NB_SIZES(nibble_init_result, seconds),
      {NB_REQUIRED(nibble_init_options, config), NB_REQUIRED(nibble_init_options, dst)}};
  nb_call call = {.options = &o, .result = &r};
  nibble_status status = nb_call_begin(&call, &rules, options, out, err);
  if (status == NIBBLE_OK) status = init(&o, &r, err);
  return nb_call_end(&call, status);
}
