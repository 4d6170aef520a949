/* nf4, fp4 and int8: every weight by itself, as bitsandbytes does it (kernels/quantize.h), in its layouts. */
#include "convert/layouts/bnb.h"
#include "kernels/quantize.h"
#include "quant/methods.h"

/* 0: the format gives no choice. */
static int64_t block_size(const nb_method_run *run) {
  return run->options->block_size ? run->options->block_size : nb_format_info(run->method->format)->usual_block;
}

static nibble_status check_4bit(const nibble_quantize_options *o, nibble_error *err) {
  int64_t size = o->block_size;
  bool is_power = size > 0 && (size & (size - 1)) == 0;
  if (!size || (is_power && size >= 32 && size <= NB_MAX_BLOCK_SIZE)) return NIBBLE_OK;
  return nb_fail(err, NIBBLE_USAGE, "--block-size %lld: a power of two from 32 to %d is wanted", (long long)size,
                 NB_MAX_BLOCK_SIZE);
}

static nibble_status open_bnb(nb_method_run *run, nibble_error *err) {
  const nibble_quantize_options *o = run->options;
  cJSON *json = run->settings = cJSON_CreateObject();
  bool ok = json && cJSON_AddStringToObject(json, "method", run->method->name);
  if (block_size(run)) {
    ok = ok && cJSON_AddNumberToObject(json, "block_size", (double)block_size(run)) &&
         cJSON_AddBoolToObject(json, "double_quant", o->double_quant);
  }
  return ok && nb_method_add_selection(o, json) ? NIBBLE_OK : nb_fail_memory(err, sizeof(cJSON));
}

static nibble_status target_bnb(const nb_method_run *run, const nb_source *source, nb_packed *out, nibble_error *err) {
  (void)err;
  *out = nb_packed_usual(run->method->format, source->shape[0], source->shape[1], block_size(run),
                         run->options->double_quant);
  return NIBBLE_OK;
}

static nibble_status write_bnb(const nb_method_run *run, nb_packer *packer, const nb_pack_job *job, nb_pack_result *out,
                               nibble_error *err) {
  (void)run;
  return nb_pack_quantize(packer, job, out, err);
}

static cJSON *config_bnb(const nb_method_run *run) {
  nb_format format = run->method->format;
  bool int8 = nb_format_info(format)->bits == 8;
  nb_layout_config config = {.quant = {.load_in_4bit = !int8,
                                       .load_in_8bit = int8,
                                       .double_quant = run->options->double_quant,
                                       .quant_type = int8 ? NULL : nb_format_info(format)->name},
                             .kept = nb_skip_modules(run->checkpoint, run->selection)};
  return config.kept ? run->method->layout->config(&config) : NULL;
}

const nb_method nb_method_nf4 = {.name = "nf4",
                                 .reads = NB_OPTION_DOUBLE_QUANT | NB_OPTION_BLOCK_SIZE,
                                 .layout = &nb_layout_bnb4,
                                 .format = NB_FORMAT_NF4,
                                 .computes_on_gpu = true,
                                 .widens_kept = true,
                                 .check = check_4bit,
                                 .open = open_bnb,
                                 .target = target_bnb,
                                 .write = write_bnb,
                                 .config = config_bnb};

const nb_method nb_method_fp4 = {.name = "fp4",
                                 .reads = NB_OPTION_DOUBLE_QUANT | NB_OPTION_BLOCK_SIZE,
                                 .layout = &nb_layout_bnb4,
                                 .format = NB_FORMAT_FP4,
                                 .computes_on_gpu = true,
                                 .widens_kept = true,
                                 .check = check_4bit,
                                 .open = open_bnb,
                                 .target = target_bnb,
                                 .write = write_bnb,
                                 .config = config_bnb};

const nb_method nb_method_int8 = {.name = "int8",
                                  .layout = &nb_layout_bnb8,
                                  .format = NB_FORMAT_INT8,
                                  .computes_on_gpu = true,
                                  .widens_kept = true,
                                  .open = open_bnb,
                                  .target = target_bnb,
                                  .write = write_bnb,
                                  .config = config_bnb};
