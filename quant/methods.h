/* The methods of quantization: a row each, in a file of its own under methods/. A row says what the method is called,
 * which options it reads, and what it makes of a weight; the driver (quantize.c) does the rest, and knows no method.
 *
 *   nb_method_find(name) -> nb_method_check(options) -> open -> for each weight: target, later write -> config -> close
 *
 * The driver opens a method once the source is open and the destination is its own; one that calibrates does all its
 * work then. `target` says what a weight becomes, from its shape alone, because a file's header is sized before its
 * data is known. */
#ifndef NB_QUANT_METHODS_H
#define NB_QUANT_METHODS_H

#include "convert/source.h"
#include "quant/pack.h"
#include "quant/select.h"

/* The options of nibble_quantize_options that some methods read and others do not: one bit each. */
typedef enum nb_option {
  NB_OPTION_DOUBLE_QUANT = 1 << 0,
  NB_OPTION_BLOCK_SIZE = 1 << 1,
  NB_OPTION_BITS = 1 << 2,
  NB_OPTION_GROUP_SIZE = 1 << 3,
  NB_OPTION_ZEROS = 1 << 4,
  NB_OPTION_SCALES = 1 << 5,
  NB_OPTION_SCALE_DTYPE = 1 << 6,
  NB_OPTION_LAYOUT = 1 << 7,
  NB_OPTION_DESC_ACT = 1 << 8,
  NB_OPTION_DAMP = 1 << 9,
  NB_OPTION_CALIB = 1 << 10,
  NB_OPTION_NSAMPLES = 1 << 11,
  NB_OPTION_SEQLEN = 1 << 12,
  NB_OPTION_SAMPLING = 1 << 13,
  NB_OPTION_SEED = 1 << 14,
  NB_OPTION_MAX_MEMORY = 1 << 15,
  NB_OPTION_WORK_DIR = 1 << 16,
  NB_OPTION_RESUME = 1 << 17,
} nb_option;

/* Where an option lies in nibble_quantize_options; it is set if any of its bytes is not 0. */
typedef struct nb_option_row {
  nb_option option;
  const char *flag; /* as the command line spells it */
  size_t offset, size;
} nb_option_row;

typedef struct nb_method nb_method;

/* One use of a method. The driver fills in the first fields; `settings` and `state` are made by `open`. */
typedef struct nb_method_run {
  const nb_method *method;
  const nibble_quantize_options *options;
  const nb_checkpoint *checkpoint;
  const nb_selection *selection;
  cJSON *settings; /* what made the output: for nibble.json, and for --resume to compare; the driver deletes it */
  void *state;     /* the method's own, for `close` to free */
} nb_method_run;

struct nb_method {
  const char *name;
  uint32_t reads;          /* nb_option bits; every other option is refused when it is set */
  const nb_layout *layout; /* that it writes */
  nb_format format;        /* what it packs to, where the options have no say in it */
  bool computes_on_gpu;    /* so that a device can be asked for */
  bool widens_kept;        /* float16 tensors that the family keeps in float32 are written as float32 */

  /* NIBBLE_USAGE if the options that it reads make no sense, together or alone. Looks at nothing else. NULL: they
   * always do. */
  nibble_status (*check)(const nibble_quantize_options *options, nibble_error *err);
  nibble_status (*open)(nb_method_run *run, nibble_error *err);
  /* The descriptor, without buffers, of what the weight becomes. NIBBLE_BAD_INPUT if its shape cannot be packed. */
  nibble_status (*target)(const nb_method_run *run, const nb_source *source, nb_packed *out, nibble_error *err);
  /* Writes the parts of one weight. */
  nibble_status (*write)(const nb_method_run *run, nb_packer *packer, const nb_pack_job *job, nb_pack_result *out,
                         nibble_error *err);
  /* quantization_config; the caller's. NULL without memory. */
  cJSON *(*config)(const nb_method_run *run);
  /* After `open`, failed or not. `status` is the run's: NIBBLE_OK if the output stands; to the message of
   * NIBBLE_STOPPED it adds what it keeps. NULL: nothing to free. */
  void (*close)(nb_method_run *run, nibble_status status, nibble_error *err);
};

/* All methods and all options of theirs; the last row's name and flag are NULL. */
extern const nb_method *const nb_methods[];
extern const nb_option_row nb_option_rows[];

/* NIBBLE_USAGE, with a list of those that there are, if no method has that name (NULL: none has). */
nibble_status nb_method_find(const char *name, const nb_method **out, nibble_error *err);

/* NIBBLE_USAGE names an option that is set and that the method does not read, or what its own check says. */
nibble_status nb_method_check(const nb_method *method, const nibble_quantize_options *options, nibble_error *err);

/* Appends the names of the methods for which `has` is true, as prose: "a, b and c", with `last` for "and". */
void nb_method_names(nb_buf *out, bool (*has)(const nb_method *method, uint32_t arg), uint32_t arg, const char *last);

/* True for a weight that was selected. */
bool nb_method_wants(const nb_method_run *run, const nb_tensor *weight);

/* Adds what selects tensors, as all methods do: include and exclude. False without memory. */
bool nb_method_add_selection(const nibble_quantize_options *options, cJSON *settings);

#endif
