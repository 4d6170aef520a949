/* One description of each model family, read by everything: opening, converting, quantizing, memory, running,
 * calibrating. A family is a file of data, families/NAME.c, and a line in families.c.
 *
 *   rules    which tensors there are: role, name in Hugging Face and GGUF files, shape, when the config promises it
 *   stacks   what is computed with them: operations (ops.h) of the embedding, the block and the end; one stack, or an
 *            encoder and a decoder
 *   keys     which members of config.json it reads (keys.h), with the defaults of its config class in transformers
 *
 * No arithmetic on weights happens in this folder. */
#ifndef NB_MODEL_FAMILY_H
#define NB_MODEL_FAMILY_H

#include "model/keys.h"
#include "model/ops.h"

/* Extents, resolved against a config. */
typedef enum nb_dim {
  NB_DIM_NONE,
  NB_DIM_VOCAB,
  NB_DIM_HIDDEN,
  NB_DIM_INTERMEDIATE,
  NB_DIM_Q,    /* num_attention_heads * head_dim */
  NB_DIM_KV,   /* num_key_value_heads * head_dim */
  NB_DIM_QKV,  /* Q + 2 KV */
  NB_DIM_HEAD, /* head_dim */
  NB_DIM_HEADS,
  NB_DIM_POSITIONS,
  NB_DIM_TYPES,
  NB_DIM_BUCKETS, /* relative_attention_num_buckets */
  NB_DIM_EXPERTS,
  NB_DIM_EXPERT, /* intermediate size of one expert */
  NB_DIM_LABELS,
} nb_dim;

/* When a config promises a tensor. */
typedef enum nb_when {
  NB_WHEN_ALWAYS,
  NB_WHEN_NEVER, /* a rule that only says what such a tensor would be */
  NB_IF_ATTENTION_BIAS,
  NB_IF_OUTPUT_BIAS, /* attention_bias, in a family where it reaches the output projection */
  NB_IF_MLP_BIAS,
  NB_IF_QK_NORM,
  NB_IF_GATED,
  NB_IF_NOT_GATED,
  NB_IF_SPARSE, /* a layer with experts */
  NB_IF_DENSE,  /* a layer without */
  NB_IF_FIRST_LAYER,
  NB_IF_HEAD, /* a class with an output embedding, not tied to the input's */
  NB_IF_MASKED,
  NB_IF_CLASSIFY,
  NB_IF_POOLER, /* a base class, whose pooler transformers makes anew where it is missing, or a classifier */
} nb_when;

/* How a tensor is stored. */
enum {
  NB_TRANSPOSED = 1,   /* a plain weight lies as [in, out] (transformers' Conv1D); a packed one as any other */
  NB_KEEP_F32 = 2,     /* transformers never packs it, and makes float32 of float16 (_keep_in_fp32_modules) */
  NB_BARE = 4,         /* its name is the rule's, with no ".weight" after it */
  NB_NO_PREFIX = 8,    /* no base_prefix before it */
  NB_MODULE_LAST = 16, /* transformers renames it on loading: its module has the last of the names */
  NB_UNLISTED = 32,    /* GPTQModel's table of the family's layers lacks it, so it loads it plain only */
};

typedef struct nb_rule {
  nb_role role;
  const char *name; /* the module's in Hugging Face files, without base_prefix and ".weight"; the first "{}" stands for
                       the layer's number, the second for the expert's. Other spellings that are read, but never
                       written, follow after "|" */
  const char *gguf; /* the same in GGUF files; NULL: it has none there */
  nb_dim out, in;   /* weight [out, in]; in NONE: [out]. Of a role with parts (roles.h) `out` is their number, and their
                       rules say the rest */
  nb_when when;
  nb_when bias;    /* when there is NAME.bias [out], too */
  unsigned stored; /* flags above */
} nb_rule;

/* Which field of a config counts the blocks of a stack is told by its key. */
typedef struct nb_stack {
  const nb_rule *rules; /* in the order of writing; ends with a NULL name */
  const nb_op *embed, *block, *end;
  nb_key layers; /* the key that counts its blocks */
  bool causal;   /* attention sees no later token, and keys are kept between steps */
} nb_stack;

/* A member of config.json that a family reads; NB_KEY_NONE ends a list. */
typedef struct nb_key_use {
  nb_key key;
  double value;     /* the default; NAN: there is none, the config must say it */
  const char *text; /* the default of a key whose value is text */
  bool fixed;       /* it is always the default: transformers does not look at the key here either */
} nb_key_use;

enum { NB_MAX_STACKS = 2 };

struct nb_family {
  const char *model_type;
  const char *default_class; /* of a config that names none, and of one made from GGUF */
  const char *base_prefix;   /* before every tensor's name but of those with NB_NO_PREFIX, in classes with a head */
  const char *gguf_arch;     /* general.architecture; NULL: none */
  bool gguf_interleaved;     /* there the rows of Q and K lie with the two halves of each head interleaved */
  bool attention_unscaled;   /* scores are not divided by sqrt(head_dim) */
  bool positions_learned;    /* max_position_embeddings bounds a table, and not only habit */
  bool centered_norm;        /* LayerNorm, else RMS */
  bool rotary;
  bool output_bias; /* attention_bias gives the output projection a bias, too */
  bool qk_norm;
  nb_stack stacks[NB_MAX_STACKS]; /* the last one with a block is what the head is on */
  const nb_key_use *keys[2];      /* its own, then what it shares (NULL: nothing); the first that names a key counts */
  nibble_status (*finish)(const char *where, nb_config *config, nibble_error *err); /* what is not data; NULL: none */
};

/* All families, in a list that ends with NULL. */
extern const nb_family *const nb_families[];

const nb_family *nb_family_by_model_type(const char *model_type);
const nb_family *nb_family_by_gguf(const char *gguf_arch);

/* What families share: the decoder that Llama made common. */
extern const nb_rule nb_llama_rules[];
extern const nb_op nb_llama_embed[], nb_llama_block[], nb_llama_end[];
extern const nb_key_use nb_llama_keys[];

#endif
