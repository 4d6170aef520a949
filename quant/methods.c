#include "quant/methods.h"

#include <stddef.h>
#include <string.h>

extern const nb_method nb_method_nf4, nb_method_fp4, nb_method_int8, nb_method_gptq, nb_method_rtn;

const nb_method *const nb_methods[] = {&nb_method_nf4,  &nb_method_fp4, &nb_method_int8,
                                       &nb_method_gptq, &nb_method_rtn, NULL};

#define FIELD(field) offsetof(nibble_quantize_options, field), sizeof((nibble_quantize_options *)0)->field

const nb_option_row nb_option_rows[] = {
    {NB_OPTION_DOUBLE_QUANT, "--double-quant", FIELD(double_quant)},
    {NB_OPTION_BLOCK_SIZE, "--block-size", FIELD(block_size)},
    {NB_OPTION_BITS, "--bits", FIELD(bits)},
    {NB_OPTION_GROUP_SIZE, "--group-size", FIELD(group_size)},
    {NB_OPTION_ZEROS, "--sym, --asym", FIELD(zeros)},
    {NB_OPTION_SCALES, "--mse, --no-mse", FIELD(scales)},
    {NB_OPTION_SCALE_DTYPE, "--scale-dtype", FIELD(scale_dtype)},
    {NB_OPTION_LAYOUT, "--layout", FIELD(layout)},
    {NB_OPTION_DESC_ACT, "--desc-act", FIELD(desc_act)},
    {NB_OPTION_DAMP, "--damp", FIELD(damp)},
    {NB_OPTION_CALIB, "--calib", FIELD(calib)},
    {NB_OPTION_NSAMPLES, "--nsamples", FIELD(nsamples)},
    {NB_OPTION_SEQLEN, "--seqlen", FIELD(seqlen)},
    {NB_OPTION_SAMPLING, "--sampling", FIELD(sampling)},
    {NB_OPTION_SEED, "--seed", FIELD(seed)},
    {NB_OPTION_MAX_MEMORY, "--max-memory", FIELD(max_memory)},
    {NB_OPTION_WORK_DIR, "--work-dir", FIELD(work_dir)},
    {NB_OPTION_RESUME, "--resume", FIELD(resume)},
    {0},
};

static bool is_set(const nb_option_row *row, const nibble_quantize_options *options) {
  const unsigned char *bytes = (const unsigned char *)options + row->offset;
  for (size_t i = 0; i < row->size; i++) {
    if (bytes[i]) return true;
  }
  return false;
}

static bool any(const nb_method *method, uint32_t arg) {
  (void)arg;
  return method != NULL;
}

static bool reads(const nb_method *method, uint32_t option) { return method->reads & option; }

void nb_method_names(nb_buf *out, bool (*has)(const nb_method *method, uint32_t arg), uint32_t arg, const char *last) {
  size_t left = 0, count = 0;
  for (const nb_method *const *row = nb_methods; *row; row++) left += has(*row, arg);
  for (const nb_method *const *row = nb_methods; *row; row++) {
    if (!has(*row, arg)) continue;
    left--;
    if (count++ && left) nb_buf_puts(out, ", ");
    if (count > 1 && !left) nb_buf_printf(out, " %s ", last);
    nb_buf_puts(out, (*row)->name);
  }
}

nibble_status nb_method_find(const char *name, const nb_method **out, nibble_error *err) {
  for (const nb_method *const *row = nb_methods; name && *row; row++) {
    if (strcmp(name, (*row)->name) != 0) continue;
    *out = *row;
    return NIBBLE_OK;
  }
  nb_buf names = {0};
  nb_method_names(&names, any, 0, "or");
  nibble_status status =
      nb_fail(err, NIBBLE_USAGE, "--method %s: %s is wanted", name ? name : "", names.failed ? "another" : names.data);
  nb_buf_free(&names);
  return status;
}

static nibble_status check_foreign(const nb_method *method, const nibble_quantize_options *options, nibble_error *err) {
  for (const nb_option_row *row = nb_option_rows; row->flag; row++) {
    if (reads(method, row->option) || !is_set(row, options)) continue;
    nb_buf names = {0};
    nb_method_names(&names, reads, row->option, "and");
    nibble_status status = nb_fail(err, NIBBLE_USAGE, "%s: --method %s does not read it, only %s", row->flag,
                                   method->name, names.failed ? "others" : names.data);
    nb_buf_free(&names);
    return status;
  }
  return NIBBLE_OK;
}

nibble_status nb_method_check(const nb_method *method, const nibble_quantize_options *options, nibble_error *err) {
  nibble_status status = check_foreign(method, options, err);
  return status == NIBBLE_OK && method->check ? method->check(options, err) : status;
}

bool nb_method_wants(const nb_method_run *run, const nb_tensor *weight) {
  return run->selection->choices[nb_checkpoint_index(run->checkpoint, weight)] == NB_CHOICE_QUANTIZE;
}

bool nb_method_add_selection(const nibble_quantize_options *o, cJSON *settings) {
  return (!o->include || cJSON_AddStringToObject(settings, "include", o->include)) &&
         (!o->exclude || cJSON_AddStringToObject(settings, "exclude", o->exclude));
}
