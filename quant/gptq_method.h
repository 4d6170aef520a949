/* --method gptq and rtn of nibble_quantize: what is asked for, what a weight becomes, and how config.json says so. The
 * driver (quantize.c) opens the method once the source is open and the destination is its own; for gptq that is when
 * all the work is done (calibrate.h). Then it writes tensor by tensor, as for any other method. */
#ifndef NB_QUANT_GPTQ_METHOD_H
#define NB_QUANT_GPTQ_METHOD_H

#include "convert/source.h"
#include "convert/writer.h"
#include "quant/calibrate.h"
#include "quant/pack.h"
#include "quant/select.h"
#include "runner/model.h"

typedef struct nb_gptq_method {
  const nibble_quantize_options *options;
  const nb_checkpoint *checkpoint;
  const nb_selection *selection;
  bool is_rtn, v2;
  nb_grid grid;
  nb_format format;
  nb_windows windows; /* gptq only */
  nb_workdir workdir;
  cJSON *settings; /* as they are written to nibble.json and compared on --resume */
} nb_gptq_method;

/* True if the method's name is gptq or rtn. */
bool nb_gptq_method_is(const char *method);

/* NIBBLE_USAGE if the options make no sense, together or alone. Looks at nothing else. */
nibble_status nb_gptq_method_check(const nibble_quantize_options *options, nibble_error *err);

/* Calibrates, if the method does. Close it also after a failure. */
nibble_status nb_gptq_method_open(const nibble_quantize_options *options, const nb_checkpoint *checkpoint,
                                  const nb_selection *selection, nb_gptq_method *out, nibble_error *err);

/* Keeps the work folder unless `is_done`: the output stands. */
void nb_gptq_method_close(nb_gptq_method *method, bool is_done);

/* The descriptor, without buffers, of what the weight becomes. NIBBLE_BAD_INPUT if its shape cannot be packed. */
nibble_status nb_gptq_method_target(const nb_gptq_method *method, const nb_source *source, nb_packed *out,
                                    nibble_error *err);

/* Writes the weight's parts to the writer's tensors from `index` on. *details is an object for the manifest; the
 * caller's. */
nibble_status nb_gptq_method_write(const nb_gptq_method *method, nb_writer *writer, const nb_source *source,
                                   const nb_part *parts, int part_count, size_t index, nb_pack_result *out,
                                   cJSON **details, nibble_error *err);

/* quantization_config, and quantize_config.json alike; the caller's. NULL without memory. */
cJSON *nb_gptq_method_config(const nb_gptq_method *method);

#endif
