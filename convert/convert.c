/* Rewrites a checkpoint tensor by tensor, each a window at a time: the window is hashed as it lies, its bands are
 * converted and written by whichever thread is free, and its pages are given back. */
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/context.h"
#include "base/parallel.h"
#include "base/stage.h"
#include "convert/checkpoint.h"
#include "convert/layouts.h"
#include "convert/manifest.h"
#include "convert/sidefiles.h"
#include "convert/sinks/safetensors.h"

enum {
  WINDOW = 1 << 22, /* elements between two looks at progress; at most 32 MiB of pages are held */
  BAND = 1 << 18,   /* elements a thread takes at a time */
  CHUNK = 1 << 14,  /* elements that stay in a core's cache while they are converted */
};

/* One tensor of the output. */
typedef struct item {
  nb_tensor tensor; /* as it lies in the source */
  const char *name; /* in the output */
  char *renamed;    /* `name`, if it is none of the source's; freed at the end */
  nb_dtype dtype;
  bool unpack; /* a packed weight that becomes a matrix [rows, cols], */
  bool turn;   /* which the family stores as [cols, rows] */
  int64_t rows, cols;
  bool rewrite; /* a part that the wanted variant of the layout has otherwise */
} item;

typedef struct plan {
  const nibble_convert_options *options;
  const nb_checkpoint *source;
  bool keep;               /* each float tensor keeps its dtype */
  const nb_layout *layout; /* if a variant of it is wanted */
  int variant;
  nb_dtype dtype;
  item *items;
  size_t count;
  uint64_t source_bytes;
} plan;

typedef struct job {
  const plan *plan;
  const item *item;
  const nb_packed *packed; /* if item->unpack */
  nb_writer *writer;
  size_t index;
  int64_t first; /* element that the window starts with */
  uint8_t *scratch;
  _Atomic uint64_t infinite; /* values that did not fit */
  nb_shared_error error;
} job;

static const char quantization_key[] = "quantization_config";

enum { SCRATCH = CHUNK * (sizeof(float) + sizeof(double)) }; /* bytes a thread */

/* What rounds to infinity, from here on. */
static float limit_of(nb_dtype dtype) {
  if (dtype == NB_F16) return 65520.0f;
  return dtype == NB_BF16 ? 0x1.ffp127f : INFINITY;
}

static uint64_t count_above(const float *values, int64_t n, float limit) {
  uint64_t count = 0;
  for (int64_t i = 0; i < n; i++) count += fabsf(values[i]) >= limit && fabsf(values[i]) < INFINITY;
  return count;
}

/* Elements [at, at + n) of a matrix as float32, through rows of which the first and the last may be cut; `turn`: of its
 * transpose, whose rows are columns here. */
static void dequantize(const nb_packed *m, bool turn, int64_t at, int64_t n, float *out) {
  const nb_format_row *format = nb_format_info(m->format);
  for (int64_t done = 0, k; turn && done < n; done += k) {
    int64_t col = (at + done) / m->rows, row = (at + done) % m->rows;
    k = nb_min_i64(m->rows - row, n - done);
    format->dequantize((nb_tile){m, row, k, col, 1}, out + done, 1);
  }
  for (int64_t done = 0, k; !turn && done < n; done += k) {
    int64_t row = (at + done) / m->cols, col = (at + done) % m->cols;
    k = nb_min_i64(m->cols - col, n - done);
    format->dequantize((nb_tile){m, row, 1, col, k}, out + done, k);
  }
}

static nibble_status convert_chunk(job *j, int64_t at, int64_t n, uint8_t *scratch, nibble_error *err) {
  const item *it = j->item;
  const nb_checkpoint *c = j->plan->source;
  size_t size = nb_dtype_size(it->dtype);
  uint8_t *stored = scratch + CHUNK * sizeof(float);
  nibble_status status = NIBBLE_OK;
  if (!it->unpack && it->dtype == it->tensor.dtype) {
    status = nb_tensor_read(c, &it->tensor, (nb_span){at, n}, it->dtype, stored, err);
  } else {
    float *values = (float *)(void *)scratch;
    if (it->unpack) {
      dequantize(j->packed, it->turn, at, n, values);
    } else {
      status = nb_tensor_read(c, &it->tensor, (nb_span){at, n}, NB_F32, values, err);
    }
    if (status != NIBBLE_OK) return status;
    uint64_t infinite = count_above(values, n, limit_of(it->dtype));
    if (infinite) atomic_fetch_add(&j->infinite, infinite);
    nb_from_f32(it->dtype, values, (size_t)n, stored);
  }
  if (status != NIBBLE_OK) return status;
  return nb_writer_write(j->writer, j->index, (uint64_t)at * size, stored, (uint64_t)n * size, err);
}

static void convert_band(void *ctx, int64_t begin, int64_t end, int thread) {
  job *j = ctx;
  const item *it = j->item;
  size_t size = nb_dtype_size(it->dtype);
  nibble_error err;
  nibble_status status = NIBBLE_OK;
  const uint8_t *view = it->unpack ? NULL : nb_tensor_view(j->plan->source, &it->tensor);
  int64_t at = j->first + begin, stop = j->first + end;
  if (view && it->dtype == it->tensor.dtype) {
    status = nb_writer_write(j->writer, j->index, (uint64_t)at * size, view + (uint64_t)at * size,
                             (uint64_t)(stop - at) * size, &err);
    at = stop;
  }
  for (; status == NIBBLE_OK && at < stop; at += CHUNK)
    status = convert_chunk(j, at, nb_min_i64(CHUNK, stop - at), j->scratch + (size_t)thread * SCRATCH, &err);
  if (status != NIBBLE_OK) nb_shared_error_set(&j->error, status, &err);
}

/* Windows of `count` elements; a tensor that lies as it is read is hashed on the way, when its pages are there. */
static nibble_status convert_windows(job *j, int64_t count, XXH3_state_t *hash, uint64_t *done, nibble_error *err) {
  const plan *p = j->plan;
  const nb_tensor *t = &j->item->tensor;
  const uint8_t *view = nb_tensor_view(p->source, t);
  bool in_order = view && !j->item->unpack;
  nibble_status status = in_order ? NIBBLE_OK : nb_tensor_feed(p->source, t, hash, err);
  for (j->first = 0; status == NIBBLE_OK && j->first < count; j->first += WINDOW) {
    int64_t n = nb_min_i64(WINDOW, count - j->first);
    size_t size = nb_dtype_size(t->dtype);
    if (in_order) XXH3_128bits_update(hash, view + (size_t)j->first * size, (size_t)n * size);
    status = nb_parallel_stoppable(n, BAND, convert_band, j, err);
    if (status == NIBBLE_OK) status = nb_shared_error_get(&j->error, err);
    if (status != NIBBLE_OK) return status;
    if (in_order) nb_tensor_release(p->source, t, j->first, n);
    uint64_t part = (uint64_t)((double)t->bytes * (double)(j->first + n) / (double)count);
    nb_step(&p->options->progress, t->name, *done + part, p->source_bytes, "bytes");
  }
  nb_tensor_release(p->source, t, 0, t->count);
  *done += t->bytes;
  return status;
}

/* A packed weight's parts may lie anywhere. */
static void release_all(const nb_checkpoint *c) {
  for (int i = 0; i < c->file_count; i++) nb_mapfile_release(&c->files[i].map, 0, c->files[i].map.size);
}

static nibble_status convert_tensor(job *j, nb_manifest *manifest, XXH3_state_t *hash, uint64_t *done,
                                    nibble_error *err) {
  const nb_tensor *t = &j->item->tensor;
  nb_weight weight = {0};
  int64_t count = j->item->unpack ? j->item->rows * j->item->cols : t->count;
  nibble_status status = nb_writer_begin(j->writer, j->index, count, err);
  if (status == NIBBLE_OK && j->item->unpack)
    status = nb_weight_load_tensor(j->plan->source, t, j->item->rows, j->item->cols, &weight, err);
  j->packed = &weight.packed;
  j->infinite = 0;
  XXH3_128bits_reset(hash);
  if (status == NIBBLE_OK && j->item->rewrite) {
    status = nb_tensor_feed(j->plan->source, t, hash, err);
    if (status == NIBBLE_OK)
      status = j->plan->layout->rewrite(j->plan->source, t, j->plan->variant, j->writer, j->index, err);
    *done += t->bytes;
  } else if (status == NIBBLE_OK) {
    status = convert_windows(j, count, hash, done, err);
  }
  if (status == NIBBLE_OK) {
    char text[NB_HASH_CHARS];
    nb_hash_print(XXH3_128bits_digest(hash), text);
    status = nb_manifest_add(manifest, t->name, text, NULL, err);
  }
  nb_weight_free(&weight);
  if (j->item->unpack) release_all(j->plan->source);
  return status;
}

static nibble_status convert_all(const plan *p, nb_writer *writer, nb_manifest *manifest, nibble_convert_result *out,
                                 nibble_error *err) {
  nibble_status status = NIBBLE_OK;
  uint64_t done = 0;
  XXH3_state_t *hash = XXH3_createState();
  job j = {.plan = p, .writer = writer, .scratch = nb_alloc_aligned((uint64_t)nb_threads(), SCRATCH)};
  if (!hash || !j.scratch) status = nb_fail_memory(err, (size_t)nb_threads() * SCRATCH);
  for (j.index = 0; status == NIBBLE_OK && j.index < p->count; j.index++) {
    j.item = &p->items[j.index];
    status = convert_tensor(&j, manifest, hash, &done, err);
    if (status != NIBBLE_OK || !j.infinite) continue;
    out->overflowed++;
    nb_warn(&p->options->progress, "tensor '%s': %llu values are too large for %s and became infinite",
            j.item->tensor.name, (unsigned long long)j.infinite, nb_dtype_torch_name(j.item->dtype));
  }
  free(j.scratch);
  XXH3_freeState(hash);
  return status;
}

/* GGUF files mix: matrices in blocks, norms in float32. A folder is all one dtype, as its config says. */
static nb_dtype dtype_of_gguf(const nb_checkpoint *c) {
  int64_t elements[NB_DTYPE_COUNT] = {0};
  nb_dtype most = NB_BF16;
  for (size_t i = 0; i < c->tensor_count; i++) {
    const nb_tensor *t = &c->tensors[i];
    if (t->is_blocks) return NB_BF16;
    if (nb_dtype_is_float(t->dtype)) elements[t->dtype] += t->count;
    if (elements[t->dtype] > elements[most]) most = t->dtype;
  }
  return most;
}

static nibble_status choose_dtype(plan *p, nibble_error *err) {
  const char *name = p->options->dtype;
  if (name && strcmp(name, "keep") != 0) {
    static const struct {
      const char *name;
      nb_dtype dtype;
    } names[] = {{"float32", NB_F32}, {"f32", NB_F32},       {"float16", NB_F16},
                 {"f16", NB_F16},     {"bfloat16", NB_BF16}, {"bf16", NB_BF16}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
      if (strcmp(name, names[i].name) != 0) continue;
      p->dtype = names[i].dtype;
      return NIBBLE_OK;
    }
    return nb_fail(err, NIBBLE_USAGE, "dtype '%s': one of float32, float16, bfloat16, keep is wanted", name);
  }
  p->keep = p->source->gguf == NULL;
  p->dtype = p->keep ? p->source->config.dtype : dtype_of_gguf(p->source);
  return NIBBLE_OK;
}

static nibble_status check_layout(plan *p, nibble_error *err) {
  const char *layout = p->options->layout;
  if (!layout) return NIBBLE_OK;
  nibble_status status = nb_layout_variant(layout, &p->layout, &p->variant, err);
  if (status != NIBBLE_OK) return status;
  if (p->options->dequantize) return nb_fail(err, NIBBLE_USAGE, "--layout and --dequantize exclude each other");
  if (nb_layout_is_named(p->layout, &p->source->config.quant)) return NIBBLE_OK;
  return nb_fail(err, NIBBLE_BAD_INPUT, "%s: --layout %s: its config.json names no packing of method '%s'",
                 p->source->path, layout, p->layout->method);
}

/* Values of a packing that is not read here mean nothing by themselves: they can be copied, and no more. */
static nibble_status check_foreign(const plan *p, nibble_error *err) {
  const nb_checkpoint *c = p->source;
  if (!c->foreign || (p->keep && !p->options->dequantize)) return NIBBLE_OK;
  return nb_fail(err, NIBBLE_BAD_INPUT, "%s: it is packed in a way that cannot be undone here ('%s')", c->path,
                 c->foreign);
}

static nibble_status make_plan(plan *p, nibble_error *err) {
  const nb_checkpoint *c = p->source;
  nibble_status status = choose_dtype(p, err);
  if (status == NIBBLE_OK) status = check_layout(p, err);
  if (status == NIBBLE_OK) status = check_foreign(p, err);
  if (status != NIBBLE_OK) return status;
  if (!(p->items = nb_alloc(c->tensor_count, sizeof *p->items)))
    return nb_fail_memory(err, c->tensor_count * sizeof *p->items);
  const nb_layout *layout = p->options->dequantize ? nb_layout_of_config(&c->config.quant) : NULL;
  bool by_modules = layout && layout->names_modules;
  for (size_t i = 0; i < c->tensor_count; i++) {
    const nb_tensor *t = &c->tensors[i];
    if (t->is_part && p->options->dequantize) continue;
    item it = {.tensor = nb_tensor_as_stored(t), .dtype = t->dtype, .unpack = t->layout && p->options->dequantize};
    it.name = it.unpack ? nb_tensor_weight_name(t) : t->name;
    if (by_modules && t->id.rule && t->id.rule->stored & NB_MODULE_LAST && !t->twin) {
      /* A plain model's files do not name it by its module, as packed ones of that layout do. */
      if (!(it.renamed = nb_identity_name(&c->config, &t->id))) return nb_fail_memory(err, strlen(t->name));
      it.name = it.renamed;
    }
    if (it.unpack) {
      it.rows = t->packed->rows;
      it.cols = t->packed->cols;
      it.turn = t->id.rule && t->id.rule->stored & NB_TRANSPOSED;
      it.dtype = p->dtype;
    } else if (nb_dtype_is_float(t->dtype) && !t->is_part && !t->layout && !p->keep) {
      it.dtype = p->dtype;
    }
    it.rewrite = p->layout && t->is_part && t->main->layout == p->layout && t->part == p->layout->variant_part;
    p->source_bytes += t->bytes;
    p->items[p->count++] = it;
  }
  return NIBBLE_OK;
}

static nibble_status declare(const plan *p, nb_writer *writer, nibble_error *err) {
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; status == NIBBLE_OK && i < p->count; i++) {
    const item *it = &p->items[i];
    const int64_t matrix[] = {it->turn ? it->cols : it->rows, it->turn ? it->rows : it->cols};
    status = nb_writer_declare(writer, it->name, it->dtype, it->unpack ? matrix : it->tensor.shape,
                               it->unpack ? 2 : it->tensor.ndim, err);
  }
  return status;
}

/* Side files were copied as they are: those that say how the weights were packed go. */
static void remove_configs(const nb_folder *folder) {
  for (const nb_layout *const *row = nb_layouts; *row; row++) {
    if ((*row)->config_too) unlinkat(folder->fd, (*row)->config_too, 0);
  }
}

static nibble_status change_variant(const plan *p, const nb_folder *folder, cJSON *changes, nibble_error *err) {
  cJSON *config = cJSON_Duplicate(nb_json_object(p->source->config.json, quantization_key), true);
  nibble_status status =
      config && p->layout->name_variant(config, p->variant) ? NIBBLE_OK : nb_fail_memory(err, sizeof *config);
  if (status == NIBBLE_OK && p->layout->config_too)
    status = nb_json_save_in(folder, p->layout->config_too, config, err);
  if (status != NIBBLE_OK || !cJSON_AddItemToObject(changes, quantization_key, config)) cJSON_Delete(config);
  return status;
}

/* What becomes of quantization_config, in config.json and beside it. */
static nibble_status change_quantization(const plan *p, const nb_folder *folder, cJSON *changes, nibble_error *err) {
  if (p->layout) return change_variant(p, folder, changes, err);
  if (!p->options->dequantize) return NIBBLE_OK;
  if (!cJSON_AddNullToObject(changes, quantization_key)) return nb_fail_memory(err, sizeof *changes);
  remove_configs(folder);
  return NIBBLE_OK;
}

/* config.json and all that is no tensor. */
static nibble_status write_rest(const plan *p, const nb_folder *folder, nibble_error *err) {
  const nb_checkpoint *c = p->source;
  cJSON *changes = cJSON_CreateObject();
  bool ok = changes != NULL;
  if (ok && (!p->keep || p->options->dequantize))
    ok = cJSON_AddStringToObject(changes, "dtype", nb_dtype_torch_name(p->dtype));
  nibble_status status =
      ok ? nb_sidefiles_copy(c, folder, &p->options->progress, err) : nb_fail_memory(err, sizeof *changes);
  if (status == NIBBLE_OK) status = change_quantization(p, folder, changes, err);
  if (status == NIBBLE_OK) status = nb_config_save(&c->config, changes, folder, err);
  cJSON_Delete(changes);
  return status;
}

static nibble_status begin_manifest(const plan *p, const char *dtype, nb_manifest **out, nibble_error *err) {
  nibble_status status = nb_manifest_begin("convert", p->source, out, err);
  if (status != NIBBLE_OK) return status;
  cJSON *settings = nb_manifest_settings(*out);
  bool ok = cJSON_AddStringToObject(settings, "to", "hf") && cJSON_AddStringToObject(settings, "dtype", dtype) &&
            cJSON_AddBoolToObject(settings, "dequantize", p->options->dequantize);
  if (ok && p->options->layout) ok = cJSON_AddStringToObject(settings, "layout", p->options->layout);
  return ok ? NIBBLE_OK : nb_fail_memory(err, sizeof(cJSON));
}

static nibble_status convert(const nibble_convert_options *o, nibble_convert_result *out, nibble_error *err) {
  double start = nb_seconds();
  nb_checkpoint source = {0};
  plan p = {.options = o, .source = &source};
  nb_stage stage = {0};
  nb_replace replace = {.force = o->force, .progress = &o->progress};
  nb_writer *writer = NULL;
  nb_manifest *manifest = NULL;
  nibble_status status = nb_checkpoint_open(o->src, &source, err);
  if (status != NIBBLE_OK) goto done;
  nb_checkpoint_warn(&source, &o->progress);
  if ((status = nb_checkpoint_complete(&source, err)) != NIBBLE_OK) goto done;
  if ((status = make_plan(&p, err)) != NIBBLE_OK) goto done;
  strcpy(out->dtype, p.keep ? "keep" : nb_dtype_torch_name(p.dtype));
  if ((status = nb_checkpoint_protect(&source, o->dst, err)) != NIBBLE_OK) goto done;
  if ((status = nb_stage_begin(&stage, o->dst, &replace, err)) != NIBBLE_OK) goto done;
  if ((status = nb_writer_open(&stage.folder, o->max_shard_size, &writer, err)) != NIBBLE_OK) goto done;
  if ((status = begin_manifest(&p, out->dtype, &manifest, err)) != NIBBLE_OK) goto done;
  if ((status = declare(&p, writer, err)) != NIBBLE_OK) goto done;
  if ((status = convert_all(&p, writer, manifest, out, err)) != NIBBLE_OK) goto done;
  if ((status = nb_writer_finish(writer, err)) != NIBBLE_OK) goto done;
  if ((status = write_rest(&p, &stage.folder, err)) != NIBBLE_OK) goto done;
  if ((status = nb_manifest_save(manifest, &stage.folder, err)) != NIBBLE_OK) goto done;
  status = nb_stage_commit(&stage, !o->no_sync, err);
  out->tensors = p.count;
  out->tensor_bytes = nb_writer_bytes(writer);
  out->source_bytes = p.source_bytes;
  out->seconds = nb_seconds() - start;
done:
  nb_manifest_free(manifest);
  nb_writer_close(writer);
  nb_stage_abort(&stage, status, err);
  for (size_t i = 0; i < p.count; i++) free(p.items[i].renamed);
  free(p.items);
  nb_checkpoint_close(&source);
  return status;
}

nibble_status nibble_convert(const nibble_convert_options *options, nibble_convert_result *out, nibble_error *err) {
  nibble_convert_options o;
  nibble_convert_result r;
  static const nb_call_rules rules = {
      "nibble_convert",
      NB_SIZES(nibble_convert_options, progress),
      NB_SIZES(nibble_convert_result, seconds),
      {NB_REQUIRED(nibble_convert_options, src), NB_REQUIRED(nibble_convert_options, dst)}};
  nb_call call = {.options = &o, .result = &r};
  nibble_status status = nb_call_begin(&call, &rules, options, out, err);
  if (status == NIBBLE_OK) status = convert(&o, &r, err);
  return nb_call_end(&call, status);
}
