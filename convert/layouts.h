/* How a packed matrix lies in a checkpoint: which tensors and which JSON it becomes, and back. One row a layout in
 * layouts.c; bitsandbytes' is the first. Reading works on any checkpoint: a weight that is not packed comes back plain.
 * Writing goes in two steps, because a file's header must be sized before its data is known: nb_layout_parts says
 * which tensors there will be, and the quantizer fills them.
 * docs/formats.md describes every byte. */
#ifndef NB_CONVERT_LAYOUTS_H
#define NB_CONVERT_LAYOUTS_H

#include "base/buf.h"
#include "base/str.h"
#include "convert/checkpoint.h"
#include "convert/sinks/safetensors.h"
#include "kernels/formats.h"

/* One logical weight matrix of a checkpoint. The descriptor's buffers point into the mapped file, or into `owned` where
 * the file's bytes are misaligned or in another order. */
typedef struct nb_weight {
  nb_packed packed;
  nb_dtype source_dtype; /* what a packed weight was before, from its quant state; F16 for int8 */
  void *owned[4];        /* freed by nb_weight_free */
} nb_weight;

enum { NB_MAX_PARTS = 6 };

typedef struct nb_part {
  nb_part_role role;
  char *name; /* malloc'd */
  nb_dtype dtype;
  int ndim;
  int64_t shape[2];
} nb_part;

typedef struct nb_part_name {
  const char *suffix;
  nb_part_role role;
} nb_part_name;

/* What quantization_config is to say. */
typedef struct nb_layout_config {
  nb_quant_config quant; /* as whoever reads it understands it; method and what one layout does not have are ignored */
  int variant;
  bool desc_act; /* groups are cut in the order of activations */
  bool head;     /* the output embedding is packed, too */
  cJSON *kept;   /* names the modules that are not packed, as the layout does; taken over. NULL: nothing is said */
} nb_layout_config;

/* An on-disk layout. A checkpoint's tensors are matched against the rows once, when it is opened (bind.c): the first
 * row that claims a tensor reads the weight. */
struct nb_layout {
  const char *name;
  const char *method;        /* quant_method in quantization_config */
  const char *main;          /* what stands after the module's name in that of the main tensor: "weight", "qweight" */
  const nb_part_name *parts; /* what stands there in the names of the other tensors; ends with a NULL suffix */
  const char *const
      *buffers; /* endings of names of what its kernels saved and nothing reads; ends with NULL, or NULL */
  bool (*claims)(const nb_checkpoint *checkpoint, const nb_tensor *main);
  nibble_status (*describe)(const nb_checkpoint *checkpoint, const nb_tensor *main, nb_packed *out,
                            nb_dtype *source_dtype, nibble_error *err);
  nibble_status (*load)(const nb_checkpoint *checkpoint, const nb_tensor *main, nb_weight *out, nibble_error *err);
  /* Once, when a weight of this layout was found: what the config says of all of them and the tensors tell better, with
   * a layout_warning of it. NULL: nothing. */
  nibble_status (*settle)(nb_checkpoint *checkpoint, const nb_tensor *main, nibble_error *err);
  bool (*holds)(nb_format format);
  /* Some layouts have variants, which differ in one part: */
  const char *const *variants; /* their names, the usual one first; ends with NULL. NULL: there are none */
  nb_part_role variant_part;
  /* Writes that part, of a weight in the checkpoint, to the writer's tensor `index` as the variant has it. */
  nibble_status (*rewrite)(const nb_checkpoint *checkpoint, const nb_tensor *part, int variant, nb_writer *writer,
                           size_t index, nibble_error *err);
  bool (*name_variant)(cJSON *config, int variant); /* in quantization_config; false without memory */
  const char *config_too; /* a file beside config.json that repeats quantization_config, or NULL */
  bool packs_experts;     /* each matrix of a layer's experts may be packed; else they stay as they are */
  bool blocks_only;       /* whoever loads it looks for packed weights in blocks, and for the output embedding */
  bool names_modules;     /* and for tensors by the names of their modules (NB_MODULE_LAST) */
  /* Members of quantization_config that say by rules of the layout's own which modules are packed; ends with NULL. */
  const char *const *choosers;
  /* quantization_config, for the caller; NULL without memory. */
  cJSON *(*config)(const nb_layout_config *config);
  bool (*add_parts)(const nb_packed *packed, nb_dtype source_dtype, const char *name, nb_part *out, int *count);
};

/* All of them; ends with NULL. */
extern const nb_layout *const nb_layouts[];

/* False for a linear layer's weight that whoever loads the layout takes for a plain one: of a rule, in a layer (-1:
 * outside of blocks). */
bool nb_layout_takes(const nb_layout *layout, const nb_rule *rule, int layer);

/* True if quantization_config names the layout's method. */
bool nb_layout_is_named(const nb_layout *layout, const nb_quant_config *quant);

/* The first row of which that is true; NULL if there is none. */
const nb_layout *nb_layout_of_config(const nb_quant_config *quant);

/* The layout of a tensor whose name ends as only that layout's do, if a file beside config.json may speak of it; NULL
 * if there is none. */
const nb_layout *nb_layout_beside(const nb_checkpoint *checkpoint);

/* True if the name is that of a buffer of some layout. */
bool nb_layout_is_buffer(const char *name);

/* NIBBLE_USAGE, with a list of those that there are, if no layout has a variant of that name. */
nibble_status nb_layout_variant(const char *name, const nb_layout **layout, int *variant, nibble_error *err);

/* The same of a tensor that was found already. */
nibble_status nb_weight_load_tensor(const nb_checkpoint *checkpoint, const nb_tensor *tensor, int64_t rows,
                                    int64_t cols, nb_weight *out, nibble_error *err);

/* Loads the 2-D weight `name` ("model.layers.0.mlp.up_proj.weight"), whose logical shape must be [rows, cols].
 * Everything that belongs to a packed weight is checked: presence, dtypes, shapes, the quant state's JSON, finite
 * scales. NIBBLE_BAD_INPUT names the tensor. Free with nb_weight_free. */
nibble_status nb_weight_load(const nb_checkpoint *checkpoint, const char *name, int64_t rows, int64_t cols,
                             nb_weight *out, nibble_error *err);
void nb_weight_free(nb_weight *weight);

/* Gives the pages of all tensors of a weight back. */
void nb_weight_release(const nb_checkpoint *checkpoint, const nb_tensor *main);

/* Memory for one of the weight's buffers, which nb_weight_free frees. */
nibble_status nb_weight_own(nb_weight *weight, uint64_t bytes, void **out, nibble_error *err);

/* The logical format and shape of the weight that `tensor` is the main tensor of, for inspect and memory: a matrix of
 * one row where the tensor has no rows. The buffers stay NULL. NIBBLE_BAD_INPUT if no format has the tensor's dtype
 * (int64 position ids, say) or its quant state is damaged. source_dtype: as in nb_weight; NULL where it is of no
 * interest. */
nibble_status nb_layout_describe(const nb_checkpoint *checkpoint, const nb_tensor *tensor, nb_packed *out,
                                 nb_dtype *source_dtype, nibble_error *err);

/* The tensors that weight `name` becomes in its format's layout. `packed` says format, shape, how its scales lie and
 * GPTQ's groups; its buffers are not looked at.
 * source_dtype is a word of a quant state. Returns how many, or -1 without memory. Free with nb_layout_parts_free. */
int nb_layout_parts(const nb_packed *packed, nb_dtype source_dtype, const char *name, nb_part out[NB_MAX_PARTS]);
void nb_layout_parts_free(nb_part *parts, int count);

/* The quant state's JSON, byte for byte as Python's json.dumps writes bitsandbytes' dictionary. source_dtype: F32, F16
 * or BF16. */
void nb_layout_state_json(const nb_packed *packed, nb_dtype source_dtype, nb_buf *out);

/* For the layouts' own files. */

enum { NB_MAX_PART_NAME = 512 }; /* bytes, with the NUL */

/* The tensor called main's name without its last `cut` characters + suffix; NULL if there is none. */
const nb_tensor *nb_part_find(const nb_checkpoint *checkpoint, const nb_tensor *main, size_t cut, const char *suffix);

/* NIBBLE_BAD_INPUT: main is packed, but its part is missing. */
nibble_status nb_part_missing(const nb_checkpoint *checkpoint, const nb_tensor *main, const char *suffix,
                              nibble_error *err);

/* Appends a part like `part`, which has no name, called stem + suffix; false without memory. */
bool nb_part_add(nb_part *parts, int *count, nb_str stem, const char *suffix, nb_part part);

/* NIBBLE_BAD_INPUT: "FILE: tensor 'NAME' <what>". */
nibble_status nb_tensor_fail(const nb_checkpoint *checkpoint, const nb_tensor *tensor, const char *what,
                             nibble_error *err);

/* The tensor's elements, aligned to their size: in the mapped file if they lie so there, else a copy. */
nibble_status nb_weight_view(const nb_checkpoint *checkpoint, const nb_tensor *tensor, nb_weight *weight,
                             const void **out, nibble_error *err);

#endif
