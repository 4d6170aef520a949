/* The rules of a family (family.h) against a config and against names: which tensors a config promises, and what the
 * tensor of a given name is. */
#ifndef NB_MODEL_TENSORS_H
#define NB_MODEL_TENSORS_H

#include "model/family.h"

/* One tensor that a config promises. */
typedef struct nb_model_tensor {
  char *name; /* as transformers saves it */
  const nb_rule *rule;
  nb_role role;      /* the rule's */
  nb_kind kind;      /* the role's */
  bool is_bias;      /* NAME.bias of that module */
  int stack;         /* which of the family's stacks has it */
  int layer, expert; /* -1: none */
  int ndim;
  int64_t shape[3]; /* logical: [out, in] also where it is stored transposed */
} nb_model_tensor;

typedef struct nb_model_tensors {
  nb_model_tensor *items;
  size_t count;
} nb_model_tensors;

/* Lists them in the order a checkpoint is written. config->family must not be NULL. Free with nb_model_tensors_free. */
nibble_status nb_model_tensors_list(const nb_config *config, nb_model_tensors *out, nibble_error *err);
void nb_model_tensors_free(nb_model_tensors *tensors);

/* True if a model is sound without it. */
bool nb_model_tensor_is_optional(const nb_config *config, const nb_model_tensor *tensor);

/* Its shape as it lies in a file. */
void nb_model_tensor_stored_shape(const nb_model_tensor *tensor, int64_t out[3]);

/* Blocks of a stack; 0 where the family has no such stack. */
int64_t nb_config_layers(const nb_config *config, int stack);

/* What a tensor is, by its name alone. */
typedef struct nb_identity {
  nb_role role;
  const nb_rule *rule; /* NULL: no rule names it */
  bool is_bias;
  int stack, layer, expert; /* -1: none */
  int spelling;             /* 0: the one that is written; else one of the others that are read */
} nb_identity;

/* The identity of the tensor `name` with `ndim` dimensions: with or without the family's prefix, in any spelling. Of a
 * family without rules, and of names that no rule knows: NB_BUFFER, or one of NB_UNKNOWN_*, which is a guess. */
nb_identity nb_identify(const nb_config *config, const char *name, int ndim);

/* What a tensor of a role with parts (nb_role_parts) is made of: slices [rows, cols], one an expert, in which the
 * parts' matrices stand one below the other. */
typedef struct nb_pieces {
  int64_t slices, rows, cols;
  int count;
  struct {
    const nb_rule *rule;
    int64_t first, rows; /* rows [first, first + rows) of each slice */
  } items[NB_MAX_ROLE_PARTS];
} nb_pieces;

/* The same of that identity under this config. False if it is of a role without parts, or none of the family's. */
bool nb_identity_pieces(const nb_config *config, const nb_identity *id, nb_pieces *out);

/* What most families call their output embedding. */
extern const char nb_usual_head[];

/* The family's first rule with that role; NULL if it has none. */
const nb_rule *nb_family_rule(const nb_family *family, nb_role role);

/* What transformers calls the tensor of that identity in a model of this config, malloc'd; id->rule must not be NULL.
 * NULL without memory. */
char *nb_identity_name(const nb_config *config, const nb_identity *id);

/* The same by the name of its module, where files call that otherwise (NB_MODULE_LAST). */
char *nb_identity_module_name(const nb_config *config, const nb_identity *id);

/* The same for a GGUF name of the family. False if the family has no tensor of that name; *name is then NULL. *name is
 * what transformers calls it, malloc'd; NIBBLE_SYSTEM without memory. */
nibble_status nb_identify_gguf(const nb_family *family, const char *gguf_name, nb_identity *out, char **name,
                               nibble_error *err);

/* Parses the name of an activation: "layers.3.mlp.down_proj.input", the input of any module with a matrix, by its name
 * without base_prefix; "layers.3.input", the residual stream before a block (role NB_ROLE_OTHER); "norm.input", that
 * after the last (NB_FINAL_NORM, layer -1), and so in every family. False if there is none of that name. */
bool nb_identify_activation(const nb_config *config, const char *name, nb_identity *out);

#endif
