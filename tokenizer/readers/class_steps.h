/* The steps that transformers' classes put in the place of a file's (classes.h), as functions that rows of a table
 * name: each makes one part of a tokenizer.json from what the settings say. A step that these settings leave out is
 * cJSON_CreateNull(); without memory it is NULL. */
#ifndef NB_TOKENIZER_READERS_CLASS_STEPS_H
#define NB_TOKENIZER_READERS_CLASS_STEPS_H

#include "tokenizer/readers/parts.h"

typedef struct nb_class_options nb_class_options;
typedef cJSON *nb_class_make(const nb_class_options *o);

/* A special token by its key in tokenizer_config.json. */
typedef struct nb_class_token {
  const char *key, *text;
  bool lstrip, normalized; /* how it is matched where the settings give no more than its text */
} nb_class_token;

/* Special tokens of one spelling with a number in it: from `first` to below `end`. */
typedef struct nb_class_numbered {
  const char *prefix; /* "<unk_", to which the number and ">" are added; NULL: none */
  const char *key;    /* of the setting that has `end`; NULL: none has */
  int first, end;
} nb_class_numbered;

/* Which token of a Unigram model stands for what has none. */
typedef enum nb_unk_rule {
  NB_UNK_FIXED,   /* unk_id of the row */
  NB_UNK_SETTING, /* unk_id of the settings, or the row's */
  NB_UNK_NAMED,   /* unk_token, or the row's */
  NB_UNK_SCORED,  /* unk_token if its score is 0; or as NB_UNK_SETTING */
} nb_unk_rule;

/* When the class's post-processor counts. */
typedef enum nb_ends_when {
  NB_ENDS_ALWAYS,
  NB_ENDS_FOR_NONE, /* where the file has none; else the file's */
  NB_ENDS_FOR_ANY,  /* where the file has one; else there is none */
} nb_ends_when;

enum { NB_CLASS_TOKENS = 14, NB_CLASS_STEPS = 7 };

typedef struct nb_tokenizer_class {
  const char *names;                      /* parted by spaces; without "Fast" */
  const char *model;                      /* the type of model; NULL: any */
  nb_class_token tokens[NB_CLASS_TOKENS]; /* special tokens by default */
  const char *extra;                      /* more of them, parted by spaces, where the settings list none */
  nb_class_numbered numbered;             /* and more */
  bool add_prefix_space, legacy, lowercase, keep_accents; /* what is so by default */
  bool from_model;                                        /* a SentencePiece file keeps its ids under this class */
  bool cleans_bytes;                                      /* clean_up_tokenization_spaces counts for a BPE model, too */
  bool plain_tokens; /* special tokens are matched as they are spelled, whatever the settings or the file say */
  bool pads_left;    /* padding stands in front of a text */
  bool keeps_steps;  /* the file's normalizer, pre-tokenizer, model and decoder stay */
  nb_class_make *normalizer[NB_CLASS_STEPS], *pre_tokenizer[NB_CLASS_STEPS], *decoder[NB_CLASS_STEPS];
  nb_part_bpe bpe; /* of a BPE model; `unk_token` "" is the settings' */
  nb_unk_rule unk_rule;
  int unk_id;
  /* What stands around a text, and around two: keys of tokens without "_token", "A", "B", "0" for
   * the token "."; each may have a type id behind it, "sep:1". */
  const char *single, *pair;
  nb_class_make *post_processor; /* where no template says it; NULL as well: the file's stays */
  nb_ends_when ends_when;
  const char *unread; /* a setting that changes ids and must not be there; NULL: none */
} nb_tokenizer_class;

struct nb_class_options {
  const char *where; /* names tokenizer_config.json */
  const nb_tokenizer_class *class;
  const cJSON *settings;
  nb_tokenizer_spec *spec;
  nibble_error *err;
  bool add_prefix_space, legacy, lowercase, keep_accents, chinese, strips, strip_accents, split_by_punct, clean_text;
};

/* A special token by its key, with its id among the vocabulary and the specification's added tokens; -1: it has none.
 * `text` is NULL if there is none under this key. */
nb_part_token nb_class_special(const nb_class_options *o, const char *key);

/* Normalizers. */
nb_class_make nb_step_nfc, nb_step_nfkc, nb_step_quotes, nb_step_spaces, nb_step_mark_spaces, nb_step_nfkd,
    nb_step_strip_accents, nb_step_nfkd_if, nb_step_strip_accents_if, nb_step_lowercase, nb_step_lowercase_if,
    nb_step_precompiled, nb_step_spaces_if_precompiled, nb_step_newlines_if_not, nb_step_blanks, nb_step_strip_right,
    nb_step_mark, nb_step_bert_text, nb_step_funnel_text, nb_step_herbert_text, nb_step_openai_text, nb_step_any_space,
    nb_step_breaks, nb_step_before_mark, nb_step_only_marks;

/* Pre-tokenizers. */
nb_class_make nb_step_bytes, nb_step_plain_bytes, nb_step_whole_bytes, nb_step_qwen_words, nb_step_qwen35_words,
    nb_step_clip_words, nb_step_digits, nb_step_bert_words, nb_step_whitespace, nb_step_punctuation_if,
    nb_step_llama_words, nb_step_code_llama_words, nb_step_gemma_words, nb_step_nougat_mark, nb_step_nougat_signs,
    nb_step_nougat_lines;

/* Pre-tokenizers and decoders. */
nb_class_make nb_step_metaspace, nb_step_metaspace_always, nb_step_metaspace_first, nb_step_metaspace_or_first;

/* Decoders. */
nb_class_make nb_step_from_bytes, nb_step_from_mark, nb_step_byte_fallback, nb_step_fuse, nb_step_strip_first,
    nb_step_strip_first_if, nb_step_wordpiece, nb_step_funnel_wordpiece, nb_step_word_ends, nb_step_clip_ends,
    nb_step_clip_trim, nb_step_whisper_times;

/* Post-processors. */
nb_class_make nb_ends_roberta, nb_ends_roberta_plain, nb_ends_clip, nb_ends_code_llama, nb_ends_whisper, nb_ends_mbart,
    nb_ends_mbart50, nb_ends_nllb, nb_ends_seamless, nb_ends_herbert, nb_ends_none;

/* The template that the class's `single` and `pair` spell. */
cJSON *nb_ends_template(const nb_class_options *o);

/* The model's options, without vocabulary and merges. */
cJSON *nb_class_model(const nb_class_options *o);

#endif
