/* Which class of transformers reads a folder: what its two configurations name, and the model type, as AutoTokenizer
 * weighs them (models/auto/tokenization_auto.py). */
#include <string.h>

#include "tokenizer/readers/class_rows.h"

/* The classes of model types, where a folder names none or another one; "" takes the file as it is. `wins`:
 * transformers holds what the hub's folders say for wrong. */
static const struct {
  const char *types, *class;
  bool wins;
} model_types[] = {
    {"EvollaModel aria beam bigbird_pegasus canary fastspeech2_conformer flex_olmo glm glm4 glm4_moe glm4_moe_lite "
     "glm4v glm4v_moe glm_image glmasr got_ocr2 gpt_bigcode gradium_phonon_tts granite granitemoe granitemoehybrid "
     "granitemoeshared kimi_k25 kimi_linear kosmos-2 mimo_v2_flash minicpm_ocr minicpmv4_6 minicpmv4_7 ministral "
     "ministral3 mistral mistral3 mistral_large4 mixtral nemo_speechlm nystromformer olmo2 olmo3 olmo_hybrid omniasr "
     "pegasus_x persimmon pix2struct pixtral pocket_tts stablelm umt5 voxtral voxtral_realtime xlm-roberta-xl",
     "", false},
    {"arctic camembertv2-base chatlm cohere_asr ernie4_5 ernie4_5_moe fuyu h2ovl_chat hyperclovax hyperclovax_vlm "
     "internlm2 internlm3 iquestcoder jamba llava llava_next minicpm3 minicpmv minimax_m2 modernbert "
     "modernbert-decoder molmo molmo2 nemotron nvfp4 opencua openvla paddleocr_vl phi3 phi3_v phimoe smolvlm "
     "step3_vl vipllava",
     "", true},
    {"albert yoso", "AlbertTokenizer", false},
    {"florence2", "BartTokenizer", false},
    {"barthez", "BarthezTokenizer", false},
    {"align bark bert blip bros chinese_clip convbert distilbert electra ernie flava git grounding-dino layoutlm "
     "megatron-bert mm-grounding-dino nezha nomic_bert qdqbert realm retribert squeezebert tvp vilt visual_bert",
     "BertTokenizer", false},
    {"big_bird", "BigBirdTokenizer", false},
    {"blenderbot", "BlenderbotTokenizer", false},
    {"aimv2 clip clipseg groupvit omdet-turbo oneformer owlv2 owlvit sam3 sam3_video xclip", "CLIPTokenizer", false},
    {"camembert", "CamembertTokenizer", false},
    {"code_llama", "CodeLlamaTokenizer", false},
    {"aya_vision cohere cohere2", "CohereTokenizer", false},
    {"dpr", "DPRQuestionEncoderTokenizer", false},
    {"deberta", "DebertaTokenizer", false},
    {"deberta-v2", "DebertaV2Tokenizer", false},
    {"esmc esmfold2", "EsmcTokenizer", false},
    {"fnet", "FNetTokenizer", false},
    {"funnel", "FunnelTokenizer", false},
    {"blip-2 codegen dbrx emu3 gpt2 gpt_neo gptj instructblip instructblipvideo jais2 opt phi starcoder2",
     "GPT2Tokenizer", false},
    {"hyperclovax_vision_v2", "GPT2Tokenizer", true},
    {"falcon_mamba gpt_neox mamba mamba2 mpt olmo olmoe rwkv xlstm", "GPTNeoXTokenizer", false},
    {"diffusion_gemma gemma gemma2 gemma3 gemma3_text gemma3n gemma3n_text recurrent_gemma shieldgemma2 t5gemma zaya",
     "GemmaTokenizer", false},
    {"herbert", "HerbertTokenizer", false},
    {"led", "LEDTokenizer", false},
    {"lasr_ctc lasr_encoder", "LasrTokenizer", false},
    {"layoutlmv2", "LayoutLMv2Tokenizer", false},
    {"layoutlmv3", "LayoutLMv3Tokenizer", false},
    {"layoutxlm", "LayoutXLMTokenizer", false},
    {"idefics idefics2", "LlamaTokenizer", false},
    {"luke", "LukeTokenizer", false},
    {"lxmert", "LxmertTokenizer", false},
    {"mbart50", "MBart50Tokenizer", false},
    {"mbart", "MBartTokenizer", false},
    {"mluke", "MLukeTokenizer", false},
    {"mpnet", "MPNetTokenizer", false},
    {"markuplm", "MarkupLMTokenizer", false},
    {"mobilebert", "MobileBertTokenizer", false},
    {"mvp", "MvpTokenizer", false},
    {"nllb nllb-moe", "NllbTokenizer", false},
    {"nougat pp_formulanet", "NougatTokenizer", false},
    {"openai-gpt", "OpenAIGPTTokenizer", false},
    {"granite_speech5_ctc nemotron3_5_asr nemotron_asr_streaming omniasr_ctc parakeet_ctc parakeet_rnnt parakeet_tdt",
     "ParakeetTokenizer", false},
    {"pegasus", "PegasusTokenizer", false},
    {"audioflamingo3 colqwen2 cosmos3_omni dots3_note fun_asr_nano hunyuan_vl internvl lighton_ocr "
     "moss_transcribe_diarize ovis2 qianfan_ocr qwen2_5_omni qwen2_5_vl qwen2_audio qwen2_moe qwen2_vl qwen3 "
     "qwen3_asr qwen3_moe qwen3_next qwen3_omni_moe qwen3_vl qwen3_vl_moe vibevoice",
     "Qwen2Tokenizer", false},
    {"qwen2", "Qwen2Tokenizer", true},
    {"qwen3_5_text", "Qwen3_5Tokenizer", false},
    {"qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen4_exp", "Qwen3_5Tokenizer", true},
    {"reformer", "ReformerTokenizer", false},
    {"rembert", "RemBertTokenizer", false},
    {"roformer", "RoFormerTokenizer", false},
    {"bart bridgetower clap data2vec-text ibert lilt longformer mega mra roberta roberta-prelayernorm",
     "RobertaTokenizer", false},
    {"seamless_m4t seamless_m4t_v2", "SeamlessM4TTokenizer", false},
    {"siglip2", "Siglip2Tokenizer", true},
    {"splinter", "SplinterTokenizer", false},
    {"mt5 musicgen musicgen_melody switch_transformers t5", "T5Tokenizer", false},
    {"tipsv2", "Tipsv2Tokenizer", false},
    {"udop", "UdopTokenizer", false},
    {"videoprism", "VideoPrismTokenizer", false},
    {"whisper", "WhisperTokenizer", false},
    {"xglm", "XGLMTokenizer", false},
    {"gte jina_embeddings_v3 metaclip_2 trocr xlm-roberta xmod", "XLMRobertaTokenizer", false},
    {"xlnet", "XLNetTokenizer", false},
};

/* Classes of transformers that nothing here stands for, and why. */
static const struct {
  const char *names, *why;
} refused[] = {
    {"BartphoTokenizer BertGenerationTokenizer BertJapaneseTokenizer BertweetTokenizer BioGptTokenizer "
     "BlenderbotSmallTokenizer ByT5Tokenizer CTRLTokenizer CanineTokenizer ClvpTokenizer CpmAntTokenizer CpmTokenizer "
     "DiaTokenizer EsmTokenizer FSMTTokenizer FastSpeech2ConformerTokenizer FlaubertTokenizer "
     "GPTNeoXJapaneseTokenizer GPTSw3Tokenizer M2M100Tokenizer MarianTokenizer MgpstrTokenizer MyT5Tokenizer "
     "PLBartTokenizer PerceiverTokenizer PhobertTokenizer Pop2PianoTokenizer ProphetNetTokenizer RagTokenizer "
     "RoCBertTokenizer SiglipTokenizer Speech2TextTokenizer SpeechT5Tokenizer TapasTokenizer VitsTokenizer "
     "Wav2Vec2CTCTokenizer Wav2Vec2PhonemeCTCTokenizer XLMTokenizer",
     "reads files of its own in Python, and no tokenizer.json"},
    {"LayoutLMv2Tokenizer LayoutLMv3Tokenizer LayoutXLMTokenizer UdopTokenizer",
     "takes words with their boxes, and no plain text"},
    {"MarkupLMTokenizer", "takes the nodes of a page, and no plain text"},
    {"DPRReaderTokenizer", "takes questions with titles and texts, and no plain text"},
    {"RoFormerTokenizer", "cuts Chinese words by a dictionary that the tokenizer's files do not hold"},
    {"EsmcTokenizer", "has a vocabulary of its own, whatever the file says"},
    {"LasrTokenizer ParakeetTokenizer", "takes equal neighbours for one when it decodes"},
};

bool nb_has_word(const char *words, const char *word, size_t n) {
  for (const char *at = words; *at;) {
    size_t length = strcspn(at, " ");
    if (length == n && memcmp(at, word, n) == 0) return true;
    at += length + (at[length] == ' ');
  }
  return false;
}

/* Its length without the "Fast" at its end. */
static size_t plain_length(const char *name) {
  size_t n = strlen(name);
  return n > 4 && strcmp(name + n - 4, "Fast") == 0 ? n - 4 : n;
}

static nibble_status find(const char *where, const char *name, const nb_tokenizer_class **out, nibble_error *err) {
  size_t n = plain_length(name);
  *out = nb_class_named(name, n);
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
    if (!nb_has_word(refused[i].names, name, n)) continue;
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tokenizer_class '%.64s' %s", where, name, refused[i].why);
  }
  return NIBBLE_OK; /* where there is no row, transformers takes the file as it is */
}

nibble_status nb_class_of(const char *where, nb_class_names names, bool is_byte_level, const nb_tokenizer_class **out,
                          nibble_error *err) {
  *out = NULL;
  const char *own = names.in_tokenizer_config ? names.in_tokenizer_config : names.in_config, *of_type = NULL;
  bool wins = false;
  for (size_t i = 0; names.model_type && i < sizeof model_types / sizeof *model_types; i++) {
    if (!nb_has_word(model_types[i].types, names.model_type, strlen(names.model_type))) continue;
    of_type = model_types[i].class;
    wins = model_types[i].wins;
  }
  bool is_llama = own && plain_length(own) == 14 && strncmp(own, "LlamaTokenizer", 14) == 0;
  if (is_llama && is_byte_level && !wins) return NIBBLE_OK; /* a class for pieces with white space as U+2581 */
  if (!own && !of_type) return NIBBLE_OK;
  if (own && of_type) {
    bool same = strlen(of_type) == plain_length(own) && strncmp(own, of_type, plain_length(own)) == 0;
    if (!same && !*of_type) return NIBBLE_OK;
    if (wins) own = of_type;
  }
  return find(where, own ? own : of_type, out, err);
}
