#include "tokenizer/readers/classes.h"

#include <string.h>

#include "model/json.h"
#include "tokenizer/model.h"
#include "tokenizer/readers/class_rows.h"

#define END "<|endoftext|>"

/* Sets of special tokens. */
#define ENDS(bos, eos) \
  {"bos_token", bos}, { "eos_token", eos }
#define FAIRSEQ \
  ENDS("<s>", "</s>"), {"unk_token", "<unk>"}, {"sep_token", "</s>"}, {"pad_token", "<pad>"}, { "cls_token", "<s>" }
#define BERT(unk) \
  {"unk_token", unk}, {"sep_token", "[SEP]"}, {"pad_token", "[PAD]"}, {"cls_token", "[CLS]"}, { "mask_token", "[MASK]" }
#define ALBERT                                                                                    \
  ENDS("[CLS]", "[SEP]"), {"unk_token", "<unk>"}, {"sep_token", "[SEP]"}, {"pad_token", "<pad>"}, \
      {"cls_token", "[CLS]"}, {                                                                   \
    "mask_token", "[MASK]"                                                                        \
  }
#define GEMMA \
  ENDS("<bos>", "<eos>"), {"unk_token", "<unk>"}, {"pad_token", "<pad>"}, { "mask_token", "<mask>" }

/* Of bytes, as GPT-2's are. */
#define BYTES_WITH_MODEL .model = "BPE", .bpe = {.prefix = "", .suffix = ""}, .decoder = {nb_step_from_bytes}
#define BYTES BYTES_WITH_MODEL, .pre_tokenizer = {nb_step_bytes}
#define PIECES .model = "BPE", .bpe = {.unk_token = "", .fuse_unk = true, .byte_fallback = true}

#define WORDPIECE                                                                                                    \
  .model = "WordPiece", .lowercase = true, .normalizer = {nb_step_bert_text}, .pre_tokenizer = {nb_step_bert_words}, \
  .decoder = {nb_step_wordpiece}
#define CLS_AND_SEP .single = "cls A sep", .pair = "cls A sep B:1 sep:1"

/* White space before the words, by add_prefix_space, and always. */
#define WORDS .pre_tokenizer = {nb_step_whitespace, nb_step_metaspace}, .decoder = {nb_step_metaspace}
#define WORDS_ALWAYS \
  .pre_tokenizer = {nb_step_whitespace, nb_step_metaspace_always}, .decoder = {nb_step_metaspace_always}
#define SPACED .pre_tokenizer = {nb_step_metaspace}, .decoder = {nb_step_metaspace}
#define SPACED_ALWAYS .pre_tokenizer = {nb_step_metaspace_always}, .decoder = {nb_step_metaspace_always}

#define MBART_CODES                                                                                                    \
  "ar_AR cs_CZ de_DE en_XX es_XX et_EE fi_FI fr_XX gu_IN hi_IN it_IT ja_XX kk_KZ ko_KR lt_LT lv_LV my_MM ne_NP nl_XX " \
  "ro_RO ru_RU si_LK tr_TR vi_VN zh_CN"
#define MBART50_CODES                                                                                                  \
  MBART_CODES                                                                                                          \
  " "                                                                                                                  \
  "af_ZA az_AZ bn_IN fa_IR he_IL hr_HR id_ID ka_GE km_KH mk_MK ml_IN mn_MN mr_IN pl_PL ps_AF pt_XX sv_SE sw_KE ta_IN " \
  "te_IN th_TH tl_XX uk_UA ur_PK xh_ZA gl_ES sl_SI"
#define NLLB_CODES                                                                                               \
  "ace_Arab ace_Latn acm_Arab acq_Arab aeb_Arab afr_Latn ajp_Arab aka_Latn amh_Ethi apc_Arab arb_Arab ars_Arab " \
  "ary_Arab arz_Arab asm_Beng ast_Latn awa_Deva ayr_Latn azb_Arab azj_Latn bak_Cyrl bam_Latn ban_Latn bel_Cyrl " \
  "bem_Latn ben_Beng bho_Deva bjn_Arab bjn_Latn bod_Tibt bos_Latn bug_Latn bul_Cyrl cat_Latn ceb_Latn ces_Latn " \
  "cjk_Latn ckb_Arab crh_Latn cym_Latn dan_Latn deu_Latn dik_Latn dyu_Latn dzo_Tibt ell_Grek eng_Latn epo_Latn " \
  "est_Latn eus_Latn ewe_Latn fao_Latn pes_Arab fij_Latn fin_Latn fon_Latn fra_Latn fur_Latn fuv_Latn gla_Latn " \
  "gle_Latn glg_Latn grn_Latn guj_Gujr hat_Latn hau_Latn heb_Hebr hin_Deva hne_Deva hrv_Latn hun_Latn hye_Armn " \
  "ibo_Latn ilo_Latn ind_Latn isl_Latn ita_Latn jav_Latn jpn_Jpan kab_Latn kac_Latn kam_Latn kan_Knda kas_Arab " \
  "kas_Deva kat_Geor knc_Arab knc_Latn kaz_Cyrl kbp_Latn kea_Latn khm_Khmr kik_Latn kin_Latn kir_Cyrl kmb_Latn " \
  "kon_Latn kor_Hang kmr_Latn lao_Laoo lvs_Latn lij_Latn lim_Latn lin_Latn lit_Latn lmo_Latn ltg_Latn ltz_Latn " \
  "lua_Latn lug_Latn luo_Latn lus_Latn mag_Deva mai_Deva mal_Mlym mar_Deva min_Latn mkd_Cyrl plt_Latn mlt_Latn " \
  "mni_Beng khk_Cyrl mos_Latn mri_Latn zsm_Latn mya_Mymr nld_Latn nno_Latn nob_Latn npi_Deva nso_Latn nus_Latn " \
  "nya_Latn oci_Latn gaz_Latn ory_Orya pag_Latn pan_Guru pap_Latn pol_Latn por_Latn prs_Arab pbt_Arab quy_Latn " \
  "ron_Latn run_Latn rus_Cyrl sag_Latn san_Deva sat_Beng scn_Latn shn_Mymr sin_Sinh slk_Latn slv_Latn smo_Latn " \
  "sna_Latn snd_Arab som_Latn sot_Latn spa_Latn als_Latn srd_Latn srp_Cyrl ssw_Latn sun_Latn swe_Latn swh_Latn " \
  "szl_Latn tam_Taml tat_Cyrl tel_Telu tgk_Cyrl tgl_Latn tha_Thai tir_Ethi taq_Latn taq_Tfng tpi_Latn tsn_Latn " \
  "tso_Latn tuk_Latn tum_Latn tur_Latn twi_Latn tzm_Tfng uig_Arab ukr_Cyrl umb_Latn urd_Arab uzn_Latn vec_Latn " \
  "vie_Latn war_Latn wol_Latn xho_Latn ydd_Hebr yor_Latn yue_Hant zho_Hans zho_Hant zul_Latn"

static const nb_tokenizer_class classes[] = {
    /* byte-level BPE */
    {.names = "GPT2Tokenizer CodeGenTokenizer", BYTES, .tokens = {{"unk_token", END}, ENDS(END, END)}},
    {.names = "Qwen2Tokenizer",
     BYTES_WITH_MODEL,
     .tokens = {{"unk_token", END}, {"eos_token", END}, {"pad_token", END}},
     .plain_tokens = true,
     .normalizer = {nb_step_nfc},
     .pre_tokenizer = {nb_step_qwen_words, nb_step_whole_bytes}},
    {.names = "Qwen3_5Tokenizer",
     BYTES_WITH_MODEL,
     .tokens = {{"unk_token", END}, {"eos_token", END}, {"pad_token", END}},
     .normalizer = {nb_step_nfc},
     .pre_tokenizer = {nb_step_qwen35_words, nb_step_whole_bytes}},
    {.names = "RobertaTokenizer BartTokenizer LEDTokenizer MvpTokenizer",
     BYTES,
     .tokens = {FAIRSEQ, {"mask_token", "<mask>"}},
     .post_processor = nb_ends_roberta},
    {.names = "LukeTokenizer",
     BYTES,
     .cleans_bytes = true,
     .tokens = {FAIRSEQ,
                {"mask_token", "<mask>"},
                {"entity_1_token", "<ent>"},
                {"entity_2_token", "<ent2>"},
                {"entity_unk_token", "[UNK]"},
                {"entity_pad_token", "[PAD]"},
                {"entity_mask_token", "[MASK]"},
                {"entity_mask2_token", "[MASK2]"}},
     .post_processor = nb_ends_roberta_plain},
    {.names = "BlenderbotTokenizer",
     BYTES,
     .add_prefix_space = true,
     .tokens = {FAIRSEQ, {"mask_token", "<mask>", .lstrip = true}}},
    {.names = "DebertaTokenizer",
     BYTES,
     .tokens = {ENDS("[CLS]", "[SEP]"), BERT("[UNK]")},
     .single = "cls A sep",
     .pair = "cls A sep sep B sep"},
    {.names = "GPTNeoXTokenizer",
     BYTES,
     .tokens = {ENDS(END, END), {"unk_token", END}, {"pad_token", "<|padding|>"}},
     .normalizer = {nb_step_nfc},
     .post_processor = nb_ends_none},
    {.names = "CohereTokenizer",
     .pads_left = true,
     BYTES_WITH_MODEL,
     .tokens = {ENDS("<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>"),
                {"unk_token", "<UNK>"},
                {"sep_token", "<SEP>"},
                {"pad_token", "<PAD>"},
                {"cls_token", "<CLS>"},
                {"mask_token", "<MASK_TOKEN>"}},
     .normalizer = {nb_step_nfc},
     .pre_tokenizer = {nb_step_digits, nb_step_bytes}},
    {.names = "NougatTokenizer",
     BYTES_WITH_MODEL,
     .tokens = {ENDS("<s>", "</s>"), {"unk_token", "<unk>"}, {"pad_token", "<pad>"}},
     .normalizer = {nb_step_nfkc},
     .pre_tokenizer = {nb_step_nougat_mark, nb_step_digits, nb_step_nougat_signs, nb_step_nougat_lines,
                       nb_step_plain_bytes},
     .single = "bos A eos",
     .pair = "A B:1"},
    {.names = "WhisperTokenizer",
     .model = "BPE",
     .bpe = {.prefix = "", .suffix = ""},
     .tokens = {ENDS(END, END), {"unk_token", END}},
     .pre_tokenizer = {nb_step_bytes},
     .decoder = {nb_step_from_bytes, nb_step_whisper_times},
     .post_processor = nb_ends_whisper,
     .unread = "language"},
    {.names = "CLIPTokenizer",
     .model = "BPE",
     .bpe = {.unk_token = "", .prefix = "", .suffix = "</w>"},
     .tokens = {ENDS("<|startoftext|>", END), {"unk_token", END}, {"pad_token", END}},
     .normalizer = {nb_step_nfc, nb_step_any_space, nb_step_lowercase},
     .pre_tokenizer = {nb_step_clip_words, nb_step_plain_bytes},
     .decoder = {nb_step_from_bytes, nb_step_clip_ends, nb_step_clip_trim},
     .post_processor = nb_ends_clip},

    /* BPE of words with an end */
    {.names = "HerbertTokenizer",
     .model = "BPE",
     .bpe = {.unk_token = "", .suffix = "</w>"},
     .tokens = {{"unk_token", "<unk>"},
                {"sep_token", "</s>"},
                {"pad_token", "<pad>"},
                {"cls_token", "<s>"},
                {"mask_token", "<mask>"}},
     .normalizer = {nb_step_herbert_text},
     .pre_tokenizer = {nb_step_bert_words},
     .decoder = {nb_step_word_ends},
     .post_processor = nb_ends_herbert},
    {.names = "OpenAIGPTTokenizer",
     .model = "BPE",
     .bpe = {.unk_token = "", .prefix = "", .suffix = "</w>"},
     .tokens = {{"unk_token", "<unk>"}},
     .normalizer = {nb_step_openai_text},
     .pre_tokenizer = {nb_step_bert_words},
     .decoder = {nb_step_word_ends}},

    /* BPE of SentencePiece's kind */
    {.names = "LlamaTokenizer",
     .pads_left = true,
     .model = "BPE",
     .bpe = {.fuse_unk = true, .byte_fallback = true},
     .tokens = {ENDS("<s>", "</s>"), {"unk_token", "<unk>"}},
     .add_prefix_space = true,
     .from_model = true,
     .pre_tokenizer = {nb_step_llama_words},
     .decoder = {nb_step_from_mark, nb_step_byte_fallback, nb_step_fuse, nb_step_strip_first_if}},
    {.names = "CodeLlamaTokenizer",
     .pads_left = true,
     PIECES,
     .tokens = {ENDS("<s>", "</s>"),
                {"unk_token", "<unk>"},
                {"prefix_token", "\u2581<PRE>"},
                {"suffix_token", "\u2581<SUF>"},
                {"middle_token", "\u2581<MID>"},
                {"eot_token", "\u2581<EOT>"},
                {"fill_token", "<FILL_ME>"}},
     .add_prefix_space = true,
     .pre_tokenizer = {nb_step_code_llama_words},
     .decoder = {nb_step_from_mark, nb_step_byte_fallback, nb_step_fuse, nb_step_strip_first},
     .post_processor = nb_ends_code_llama},
    {.names = "GemmaTokenizer",
     .pads_left = true,
     PIECES,
     .tokens = {GEMMA},
     .normalizer = {nb_step_mark},
     .pre_tokenizer = {nb_step_gemma_words},
     .decoder = {nb_step_from_mark, nb_step_byte_fallback, nb_step_fuse}},
    {.names = "Siglip2Tokenizer",
     .pads_left = true,
     PIECES,
     .tokens = {GEMMA},
     .normalizer = {nb_step_lowercase, nb_step_mark},
     .pre_tokenizer = {nb_step_gemma_words},
     .decoder = {nb_step_from_mark, nb_step_byte_fallback, nb_step_fuse}},
    {.names = "Tipsv2Tokenizer",
     .model = "BPE",
     .bpe = {.fuse_unk = true, .byte_fallback = true},
     .tokens = {{"unk_token", "<unk>"}, {"pad_token", "<pad>"}},
     .lowercase = true,
     .normalizer = {nb_step_lowercase_if, nb_step_precompiled},
     .pre_tokenizer = {nb_step_whitespace, nb_step_metaspace_always},
     .decoder = {nb_step_metaspace_always, nb_step_byte_fallback, nb_step_fuse}},
    {.names = "ReformerTokenizer",
     .model = "BPE",
     .bpe = {.unk_token = "", .fuse_unk = true},
     .tokens = {{"eos_token", "</s>"}, {"unk_token", "<unk>"}},
     .normalizer = {nb_step_precompiled, nb_step_spaces_if_precompiled},
     SPACED_ALWAYS},
    {.names = "NllbTokenizer",
     .model = "BPE",
     .bpe = {.unk_token = "", .fuse_unk = true},
     .tokens = {FAIRSEQ, {"mask_token", "<mask>", .lstrip = true, .normalized = true}},
     .extra = NLLB_CODES,
     .normalizer = {nb_step_precompiled, nb_step_spaces_if_precompiled},
     SPACED_ALWAYS,
     .post_processor = nb_ends_nllb},
    {.names = "SeamlessM4TTokenizer",
     .model = "BPE",
     .bpe = {.unk_token = "", .fuse_unk = true},
     .tokens = {FAIRSEQ},
     .normalizer = {nb_step_breaks, nb_step_nfkc, nb_step_strip_right, nb_step_before_mark, nb_step_only_marks,
                    nb_step_mark_spaces},
     .pre_tokenizer = {nb_step_metaspace_first},
     .decoder = {nb_step_metaspace_first},
     .post_processor = nb_ends_seamless},

    /* WordPiece */
    {.names = "BertTokenizer DistilBertTokenizer MobileBertTokenizer LxmertTokenizer SqueezeBertTokenizer "
              "DPRContextEncoderTokenizer DPRQuestionEncoderTokenizer",
     WORDPIECE,
     .tokens = {BERT("[UNK]")},
     CLS_AND_SEP},
    {.names = "ConvBertTokenizer", .keeps_steps = true, .tokens = {BERT("[UNK]")}, CLS_AND_SEP},
    {.names = "SplinterTokenizer",
     WORDPIECE,
     .tokens = {BERT("[UNK]"), {"question_token", "[QUESTION]"}},
     .single = "cls A sep",
     .pair = "cls A question 0 sep B:1 sep:1"},
    {.names = "MPNetTokenizer",
     WORDPIECE,
     .tokens = {ENDS("<s>", "</s>"),
                {"unk_token", "[UNK]"},
                {"sep_token", "</s>"},
                {"pad_token", "<pad>"},
                {"cls_token", "<s>"},
                {"mask_token", "<mask>", .lstrip = true}},
     .post_processor = nb_ends_roberta_plain},
    {.names = "FunnelTokenizer",
     .model = "WordPiece",
     .lowercase = true,
     .tokens = {ENDS("<s>", "</s>"),
                {"unk_token", "<unk>"},
                {"sep_token", "<sep>"},
                {"pad_token", "<pad>"},
                {"cls_token", "<cls>"},
                {"mask_token", "<mask>"}},
     .normalizer = {nb_step_funnel_text},
     .pre_tokenizer = {nb_step_bert_words},
     .decoder = {nb_step_funnel_wordpiece},
     .single = "cls:2 A sep",
     .pair = "cls:2 A sep B:1 sep:1"},

    /* Unigram */
    {.names = "T5Tokenizer",
     .model = "Unigram",
     .unk_id = 2,
     .from_model = true,
     .tokens = {{"eos_token", "</s>"}, {"unk_token", "<unk>"}, {"pad_token", "<pad>"}},
     .numbered = {"<extra_id_", "extra_ids", 0, 100},
     .normalizer = {nb_step_precompiled},
     WORDS_ALWAYS,
     .single = "A eos",
     .pair = "A eos B eos"},
    {.names = "VideoPrismTokenizer",
     .model = "Unigram",
     .unk_id = 2,
     .tokens = {{"eos_token", "</s>"}, {"unk_token", "<unk>"}, {"pad_token", "<pad>"}},
     .numbered = {"<extra_id_", "extra_ids", 0, 100},
     .normalizer = {nb_step_precompiled},
     WORDS_ALWAYS},
    {.names = "XLMRobertaTokenizer",
     .model = "Unigram",
     .unk_id = 3,
     .add_prefix_space = true,
     .tokens = {FAIRSEQ, {"mask_token", "<mask>"}},
     .normalizer = {nb_step_precompiled},
     WORDS,
     .single = "bos A eos",
     .pair = "bos A eos eos B eos"},
    {.names = "CamembertTokenizer",
     .model = "Unigram",
     .unk_rule = NB_UNK_NAMED,
     .add_prefix_space = true,
     .tokens = {FAIRSEQ, {"mask_token", "<mask>", .lstrip = true}},
     .extra = "<s>NOTUSED </s>NOTUSED <unk>NOTUSED",
     .normalizer = {nb_step_precompiled},
     WORDS,
     .single = "bos A eos",
     .pair = "bos A eos eos B eos"},
    {.names = "BarthezTokenizer",
     .model = "Unigram",
     .unk_id = 3,
     .add_prefix_space = true,
     .tokens = {FAIRSEQ, {"mask_token", "<mask>", .lstrip = true}},
     .normalizer = {nb_step_blanks, nb_step_nfc, nb_step_strip_right},
     SPACED},
    {.names = "AlbertTokenizer",
     .model = "Unigram",
     .unk_id = 1,
     .add_prefix_space = true,
     .lowercase = true,
     .tokens = {ALBERT},
     .normalizer = {nb_step_quotes, nb_step_nfkd_if, nb_step_strip_accents_if, nb_step_lowercase_if,
                    nb_step_precompiled},
     WORDS,
     CLS_AND_SEP,
     .ends_when = NB_ENDS_FOR_NONE},
    {.names = "FNetTokenizer", .keeps_steps = true, .tokens = {ALBERT}},
    {.names = "RemBertTokenizer",
     .model = "Unigram",
     .unk_id = 2,
     .add_prefix_space = true,
     .keep_accents = true,
     .tokens = {ALBERT},
     .normalizer = {nb_step_quotes, nb_step_spaces, nb_step_nfkd_if, nb_step_strip_accents_if, nb_step_lowercase_if,
                    nb_step_precompiled},
     SPACED,
     CLS_AND_SEP,
     .ends_when = NB_ENDS_FOR_ANY},
    {.names = "XLNetTokenizer",
     .pads_left = true,
     .model = "Unigram",
     .unk_rule = NB_UNK_SETTING,
     .tokens = {ENDS("<s>", "</s>"),
                {"unk_token", "<unk>"},
                {"sep_token", "<sep>"},
                {"pad_token", "<pad>"},
                {"cls_token", "<cls>"},
                {"mask_token", "<mask>", .lstrip = true}},
     .extra = "<eop> <eod>",
     .normalizer = {nb_step_quotes, nb_step_nfkd, nb_step_strip_accents, nb_step_lowercase_if, nb_step_precompiled},
     WORDS_ALWAYS,
     .single = "A sep cls:2",
     .pair = "A sep B:1 sep:1 cls:2"},
    {.names = "BigBirdTokenizer",
     .model = "Unigram",
     .unk_rule = NB_UNK_SCORED,
     .unk_id = 100,
     .add_prefix_space = true,
     .tokens = {ENDS("<s>", "</s>"),
                {"unk_token", "<unk>"},
                {"sep_token", "[SEP]"},
                {"pad_token", "<pad>"},
                {"cls_token", "[CLS]"},
                {"mask_token", "[MASK]", .lstrip = true}},
     .normalizer = {nb_step_mark_spaces},
     SPACED,
     CLS_AND_SEP},
    {.names = "DebertaV2Tokenizer",
     .model = "Unigram",
     .unk_rule = NB_UNK_SCORED,
     .unk_id = 1,
     .add_prefix_space = true,
     .tokens = {ENDS("[CLS]", "[SEP]"), BERT("[UNK]")},
     .normalizer = {nb_step_lowercase_if, nb_step_blanks, nb_step_nfc, nb_step_strip_right},
     .pre_tokenizer = {nb_step_punctuation_if, nb_step_metaspace_or_first},
     .decoder = {nb_step_metaspace_or_first},
     CLS_AND_SEP},
    {.names = "MLukeTokenizer",
     .model = "Unigram",
     .tokens = {FAIRSEQ,
                {"mask_token", "<mask>", .lstrip = true},
                {"entity_1_token", "\u2581<ent>"},
                {"entity_2_token", "\u2581<ent2>"},
                {"entity_unk_token", "[UNK]"},
                {"entity_pad_token", "[PAD]"},
                {"entity_mask_token", "[MASK]"},
                {"entity_mask2_token", "[MASK2]"}},
     .normalizer = {nb_step_quotes},
     SPACED_ALWAYS,
     .single = "cls A sep",
     .pair = "cls A sep sep B:1 sep:1"},
    {.names = "PegasusTokenizer",
     .model = "Unigram",
     .unk_rule = NB_UNK_SCORED,
     .tokens = {{"eos_token", "</s>"}, {"unk_token", "<unk>"}, {"pad_token", "<pad>"}, {"mask_token", "<mask_2>"}},
     .extra = "<mask_1>",
     .numbered = {"<unk_", "offset", 2, 103},
     .normalizer = {nb_step_precompiled, nb_step_newlines_if_not, nb_step_spaces},
     SPACED_ALWAYS,
     .single = "A eos",
     .pair = "A B eos"},
    {.names = "XGLMTokenizer",
     .model = "Unigram",
     .unk_id = 3,
     .add_prefix_space = true,
     .tokens = {FAIRSEQ},
     .numbered = {"<madeupword", NULL, 0, 7},
     .normalizer = {nb_step_precompiled, nb_step_spaces},
     SPACED,
     .single = "eos A",
     .pair = "eos A eos eos B"},
    {.names = "MBartTokenizer",
     .model = "Unigram",
     .unk_id = 3,
     .tokens = {FAIRSEQ, {"mask_token", "<mask>", .lstrip = true}},
     .extra = MBART_CODES,
     WORDS_ALWAYS,
     .post_processor = nb_ends_mbart},
    {.names = "MBart50Tokenizer",
     .model = "Unigram",
     .unk_id = 3,
     .tokens = {{"eos_token", "</s>"},
                {"unk_token", "<unk>"},
                {"sep_token", "</s>"},
                {"pad_token", "<pad>"},
                {"cls_token", "<s>"},
                {"mask_token", "<mask>", .lstrip = true}},
     .extra = MBART50_CODES,
     .normalizer = {nb_step_precompiled, nb_step_spaces},
     SPACED_ALWAYS,
     .post_processor = nb_ends_mbart50},
};

const nb_tokenizer_class *nb_class_named(const char *name, size_t n) {
  for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
    if (nb_has_word(classes[i].names, name, n)) return &classes[i];
  }
  return NULL;
}

const nb_class_token *nb_class_token_of(const nb_tokenizer_class *class, const char *key) {
  for (int i = 0; class && i < NB_CLASS_TOKENS && class->tokens[i].key; i++) {
    if (strcmp(class->tokens[i].key, key) == 0) return &class->tokens[i];
  }
  return NULL;
}

/* ---- applying one ---- */

static nibble_status read_options(nb_class_options *o) {
  const cJSON *s = o->settings;
  o->add_prefix_space = o->class->add_prefix_space;
  o->legacy = o->class->legacy;
  o->lowercase = o->class->lowercase;
  o->keep_accents = o->class->keep_accents;
  o->chinese = o->clean_text = true;
  const cJSON *accents = cJSON_GetObjectItemCaseSensitive(s, "strip_accents");
  o->strips = cJSON_IsBool(accents);
  o->strip_accents = cJSON_IsTrue(accents);
  const struct {
    const char *key;
    bool *out;
  } keys[] = {{"add_prefix_space", &o->add_prefix_space}, {"legacy", &o->legacy},
              {"do_lower_case", &o->lowercase},           {"keep_accents", &o->keep_accents},
              {"tokenize_chinese_chars", &o->chinese},    {"clean_text", &o->clean_text},
              {"split_by_punct", &o->split_by_punct}};
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; i < sizeof keys / sizeof *keys && status == NIBBLE_OK; i++) {
    if (cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(s, keys[i].key))) continue;
    status = nb_json_bool(o->where, s, keys[i].key, keys[i].out, o->err);
  }
  return status;
}

/* Puts a part in its place, and takes it over. */
static nibble_status put(const nb_class_options *o, const char *key, cJSON *part) {
  if (part && cJSON_ReplaceItemInObjectCaseSensitive(o->spec->parts, key, part)) return NIBBLE_OK;
  if (part && cJSON_AddItemToObject(o->spec->parts, key, part)) return NIBBLE_OK;
  cJSON_Delete(part);
  return nb_fail_memory(o->err, sizeof *part);
}

/* A group of steps, whose list is `list`; what is left out is null. */
static cJSON *steps(const nb_class_options *o, nb_class_make *const makes[NB_CLASS_STEPS], const char *list) {
  cJSON *out = cJSON_CreateArray();
  for (int i = 0; out && i < NB_CLASS_STEPS && makes[i]; i++) {
    cJSON *step = makes[i](o);
    if (cJSON_IsNull(step))
      cJSON_Delete(step);
    else
      out = nb_json_push(out, step);
  }
  if (!out || cJSON_GetArraySize(out) > 0) return nb_part_sequence(list, out);
  cJSON_Delete(out);
  return cJSON_CreateNull();
}

static nibble_status check(const nb_class_options *o) {
  const nb_tokenizer_class *class = o->class;
  const nb_token_model_kind *kind;
  nibble_status status = nb_token_model_kind_of(o->where, nb_json_object(o->spec->parts, "model"), &kind, o->err);
  if (status != NIBBLE_OK) return status;
  int n = (int)strcspn(class->names, " ");
  if (class->model && strcmp(kind->type, class->model) != 0)
    return nb_fail(o->err, NIBBLE_BAD_INPUT,
                   "%s: tokenizer_class '%.*s' has a model of type %s, the tokenizer's is %.32s", o->where, n,
                   class->names, class->model, kind->type);
  const cJSON *unread = class->unread ? cJSON_GetObjectItemCaseSensitive(o->settings, class->unread) : NULL;
  if (unread && !cJSON_IsNull(unread))
    return nb_fail(o->err, NIBBLE_BAD_INPUT, "%s: \"%s\" is not supported with tokenizer_class '%.*s'", o->where,
                   class->unread, n, class->names);
  return NIBBLE_OK;
}

bool nb_class_pads_left(const nb_tokenizer_class *class) { return class && class->pads_left; }

nibble_status nb_class_apply(const char *where, const nb_tokenizer_class *class, const cJSON *settings,
                             nb_tokenizer_spec *spec, nibble_error *err) {
  nb_class_options o = {.where = where, .class = class, .settings = settings, .spec = spec, .err = err};
  nibble_status status = check(&o);
  if (status == NIBBLE_OK) status = read_options(&o);
  if (status != NIBBLE_OK || class->keeps_steps) return status;
  status = put(&o, "normalizer", steps(&o, class->normalizer, "normalizers"));
  if (status == NIBBLE_OK) status = put(&o, "pre_tokenizer", steps(&o, class->pre_tokenizer, "pretokenizers"));
  if (status == NIBBLE_OK) status = put(&o, "decoder", steps(&o, class->decoder, "decoders"));
  return status == NIBBLE_OK ? put(&o, "model", nb_class_model(&o)) : status;
}

nibble_status nb_class_add_ends(const char *where, const nb_tokenizer_class *class, const cJSON *settings,
                                nb_tokenizer_spec *spec, nibble_error *err) {
  nb_class_options o = {.where = where, .class = class, .settings = settings, .spec = spec, .err = err};
  const cJSON *own = cJSON_GetObjectItemCaseSensitive(spec->parts, "post_processor");
  nb_class_make *make = class->single ? nb_ends_template : class->post_processor;
  bool has_own = cJSON_IsObject(own);
  if (!make || (class->ends_when == NB_ENDS_FOR_NONE && has_own) || (class->ends_when == NB_ENDS_FOR_ANY && !has_own))
    return NIBBLE_OK;
  nibble_status status = read_options(&o);
  return status == NIBBLE_OK ? put(&o, "post_processor", make(&o)) : status;
}
