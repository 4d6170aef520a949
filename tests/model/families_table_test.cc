// What a family file could get wrong, told over all families before anything runs: names and roles given twice,
// operations without a weight of their kind, registers that nobody wrote, widths that do not fit. The configs are those
// of the golden models; that the checks find what they are for is shown on families that are broken on purpose.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/support.h"

extern "C" {
#include "model/heads.h"
#include "runner/program.h"
}

namespace {

using Faults = std::vector<std::string>;

std::string Joined(const Faults &faults) {
  std::string text;
  for (const std::string &fault : faults) text += fault + "\n";
  return text;
}

// ---- names ----

// One spelling with its holes filled.
std::string Filled(const std::string &pattern, const char *layer, const char *expert) {
  std::string name = pattern;
  for (const char *number : {layer, expert}) {
    size_t at = name.find("{}");
    if (at != std::string::npos) name.replace(at, 2, number);
  }
  return name;
}

std::vector<std::string> Spellings(const char *names) {
  std::vector<std::string> all;
  std::stringstream text(names);
  for (std::string one; std::getline(text, one, '|');) all.push_back(one);
  return all;
}

std::vector<const nb_rule *> Rules(const nb_family *family) {
  std::vector<const nb_rule *> rules;
  for (const nb_stack &stack : family->stacks) {
    for (const nb_rule *rule = stack.rules; rule && rule->name; rule++) rules.push_back(rule);
  }
  return rules;
}

void CheckName(const nb_config &config, const nb_rule *rule, const std::string &name, Faults *faults) {
  nb_identity id = nb_identify(&config, name.c_str(), rule->in ? 2 : 1);
  if (id.rule != rule) faults->push_back(name + " is the name of '" + (id.rule ? id.rule->name : "none") + "', too");
}

// Every spelling of every rule names that rule and no other one, with and without the prefix.
Faults CheckNames(const nb_config &config) {
  Faults faults;
  const nb_family *family = config.family;
  for (const nb_rule *rule : Rules(family)) {
    std::string suffix = rule->stored & NB_BARE ? "" : ".weight";
    for (const std::string &spelling : Spellings(rule->name)) {
      std::string name = Filled(spelling, "1", "0") + suffix;
      CheckName(config, rule, name, &faults);
      if (!(rule->stored & NB_NO_PREFIX)) CheckName(config, rule, family->base_prefix + name, &faults);
    }
    if (!family->gguf_arch || !rule->gguf) continue;
    nb_identity id = {};
    char *name = nullptr;
    nibble_error err;
    EXPECT_EQ(nb_identify_gguf(family, (Filled(rule->gguf, "1", "0") + ".weight").c_str(), &id, &name, &err), 0);
    if (!name || id.rule != rule) faults.push_back(std::string(rule->gguf) + " is the GGUF name of another rule");
    free(name);
  }
  return faults;
}

// ---- roles ----

std::string Place(const nb_model_tensor &t) {
  return std::string(nb_role_info(t.role)->name) + (t.is_bias ? " bias" : "") + " of stack " + std::to_string(t.stack) +
         " layer " + std::to_string(t.layer) + " expert " + std::to_string(t.expert);
}

// In one model no two tensors have one name, or one role at one place.
Faults CheckRoles(const nb_model_tensors &promised) {
  Faults faults;
  std::set<std::string> names, places;
  for (size_t i = 0; i < promised.count; i++) {
    const nb_model_tensor &t = promised.items[i];
    if (!names.insert(t.name).second) faults.push_back(std::string(t.name) + " is promised twice");
    if (!places.insert(Place(t)).second) faults.push_back(Place(t) + " is given twice");
  }
  return faults;
}

// ---- operations ----

// Which list an operation stands in, for messages.
std::string Where(const char *list, int at, const nb_op &op) {
  return std::string(list) + " operation " + std::to_string(at) + " (" + nb_role_info(op.role)->name + ")";
}

bool IsKindOf(nb_op_kind op, nb_kind kind) {
  if (op == NB_OP_EMBED) return kind == NB_KIND_EMBEDDING;
  if (op == NB_OP_NORM) return kind == NB_KIND_NORM;
  return kind == NB_KIND_LINEAR || kind == NB_KIND_ROUTER || kind == NB_KIND_HEAD;
}

bool HasWeight(const nb_op &op) { return op.kind == NB_OP_EMBED || op.kind == NB_OP_NORM || op.kind == NB_OP_LINEAR; }

const nb_rule *RuleOf(const nb_family *family, int stack, nb_role role) {
  for (int s : {stack, 0}) {
    for (const nb_rule *rule = family->stacks[s].rules; rule && rule->name; rule++) {
      if (rule->role == role) return rule;
    }
  }
  return nullptr;
}

// An operation with a weight names a rule of its stack, or one that all stacks share, and the weight is of its kind.
void CheckOps(const nb_family *family, int stack, const char *list, const nb_op *ops, Faults *faults) {
  for (int i = 0; ops[i].kind != NB_OP_END; i++) {
    if (!HasWeight(ops[i])) continue;
    if (!RuleOf(family, stack, ops[i].role)) faults->push_back(Where(list, i, ops[i]) + " has no rule");
    if (!IsKindOf(ops[i].kind, nb_role_info(ops[i].role)->kind))
      faults->push_back(Where(list, i, ops[i]) + " has a weight of another kind");
  }
}

// ---- registers and widths ----

unsigned Bit(nb_reg reg) { return 1u << reg; }

// One list in one model: which of its operations run, checked against the registers written by then.
struct Walk {
  const nb_config *config;
  const nb_model_tensors *promised;
  int stack, layer;
  std::map<const nb_op *, bool> *ran;      // of the family's lists, over all models
  std::set<const nb_model_tensor *> used;  // weights that something multiplies by
  Faults faults;
};

const nb_model_tensor *Weight(const Walk &w, nb_role role, int expert) {
  const nb_model_tensor *other = nullptr;
  for (size_t i = 0; i < w.promised->count; i++) {
    const nb_model_tensor &t = w.promised->items[i];
    if (t.role != role || t.layer != w.layer || t.expert != expert || t.is_bias) continue;
    if (t.stack == w.stack) return &t;
    if (t.layer < 0) other = &t;
  }
  if (!other && role == NB_HEAD) return Weight(w, NB_TOKEN_EMBED, -1);  // tied
  return other;
}

// What of a register is in use: of G and U only the config's own width.
int64_t Width(const nb_config *c, nb_reg reg) {
  return reg == NB_G || reg == NB_U ? c->intermediate_size : nb_register_width(c, reg);
}

void CheckShape(Walk *w, const std::string &where, const nb_model_tensor *t, int64_t out, int64_t in) {
  bool fits = t->shape[0] == out && (t->ndim == 1 || t->shape[1] == in);
  if (!fits) w->faults.push_back(where + ": " + t->name + " does not have the width of its registers");
}

void CheckWidths(Walk *w, const std::string &where, const nb_op &op, const nb_model_tensor *t) {
  const nb_config *c = w->config;
  if (op.kind == NB_OP_EMBED) CheckShape(w, where, t, t->shape[0], Width(c, op.out));
  if (op.kind == NB_OP_NORM && !(op.flags & NB_PER_HEAD)) CheckShape(w, where, t, Width(c, op.in), 0);
  if (op.kind == NB_OP_NORM && op.flags & NB_PER_HEAD) CheckShape(w, where, t, c->head_dim, 0);
  if (op.kind == NB_OP_NORM && Width(c, op.in) != Width(c, op.out)) w->faults.push_back(where + " changes the width");
  if (op.kind != NB_OP_LINEAR) return;
  int64_t out = op.role == NB_CLASSIFIER ? c->num_labels : op.out == NB_L ? c->vocab_size : Width(c, op.out);
  CheckShape(w, where, t, out, Width(c, op.in));
}

void CheckExperts(Walk *w, const std::string &where, const nb_op &op, unsigned written) {
  const nb_config *c = w->config;
  if (!(written & Bit(NB_R))) w->faults.push_back(where + " reads scores that nobody wrote");
  for (int e = 0; e < c->num_experts; e++) {
    for (nb_role role : {NB_EXPERT_GATE, NB_EXPERT_UP, NB_EXPERT_DOWN}) {
      const nb_model_tensor *t = Weight(*w, role, e);
      bool down = role == NB_EXPERT_DOWN;
      if (!t) w->faults.push_back(where + ": expert " + std::to_string(e) + " has no " + nb_role_info(role)->name);
      if (t)
        CheckShape(w, where, t, down ? Width(c, op.out) : c->moe_intermediate_size,
                   down ? c->moe_intermediate_size : Width(c, op.in));
      w->used.insert(t);
    }
  }
}

unsigned Reads(const nb_op &op) {
  unsigned kv = Bit(NB_K) | Bit(NB_V), reads = Bit(op.in);
  bool adds = op.flags & NB_ADDED || op.kind == NB_OP_EXPERTS;
  if (op.kind == NB_OP_CACHE) reads |= kv;
  if (op.kind == NB_OP_CACHE && op.flags & NB_ROTATED) reads |= Bit(NB_Q);
  if (adds) reads |= Bit(op.out);
  return reads & ~Bit(NB_NO_REG);
}

// The operations that have what they need; `written` gains what they write.
void Run(Walk *w, const char *list, const nb_op *ops, unsigned *written) {
  bool cached[2] = {false, false};
  for (int i = 0; ops[i].kind != NB_OP_END; i++) {
    const nb_op &op = ops[i];
    std::string where = Where(list, i, op);
    const nb_model_tensor *t = HasWeight(op) ? Weight(*w, op.role, -1) : nullptr;
    bool &ran = (*w->ran)[&op];
    if (HasWeight(op) && !t) continue;
    if (op.kind == NB_OP_EXPERTS && !Weight(*w, NB_EXPERT_DOWN, 0)) continue;
    if (Reads(op) & ~*written) {  // what has a weight must run; the rest may be for layers of another kind
      if (t) w->faults.push_back(where + " reads a register that nobody wrote");
      continue;
    }
    ran = true;
    if (t) CheckWidths(w, where, op, t);
    if (t) w->used.insert(t);
    bool cross = op.flags & NB_CROSS;
    if (op.kind == NB_OP_CACHE) cached[cross] = true;
    if (op.kind == NB_OP_ATTEND && !cached[cross]) w->faults.push_back(where + " attends to an empty cache");
    if (op.kind == NB_OP_SPLIT) *written |= Bit(NB_Q) | Bit(NB_K) | Bit(NB_V);
    if (op.kind == NB_OP_EXPERTS) CheckExperts(w, where, op, *written);
    if (op.out) *written |= Bit(op.out);
  }
}

// That the runner's own choice of operations is the one that was checked.
void CompareWithRunner(Walk *w, const nb_op *ops, unsigned given) {
  std::vector<nb_module> items;
  for (size_t i = 0; i < w->promised->count; i++) {
    const nb_model_tensor &t = w->promised->items[i];
    if (t.is_bias || t.layer != w->layer || (t.layer >= 0 && t.stack != w->stack)) continue;
    nb_module module = {};
    module.role = t.role, module.stack = t.stack, module.layer = t.layer, module.expert = t.expert;
    items.push_back(module);
  }
  if (w->layer < 0) {  // a tied head, which comes after one that is not
    nb_module module = {};
    module.role = NB_HEAD, module.layer = module.expert = -1;
    items.push_back(module);
  }
  nb_modules modules = {items.data(), (int)items.size()};
  nb_program_source from = {w->config, ops, &modules, w->stack};
  nb_program program;
  nibble_error err;
  ASSERT_EQ(nb_program_resolve(&from, given, &program, &err), NIBBLE_OK);
  Walk again = *w;
  std::map<const nb_op *, bool> ran;
  unsigned written = given;
  again.ran = &ran;
  Run(&again, "", ops, &written);
  int count = 0;
  for (int i = 0; ops[i].kind != NB_OP_END; i++) {
    if (ops[i].kind == NB_OP_SCALE || !ran[&ops[i]]) continue;  // a factor of 1 is left out
    while (count < program.count && program.steps[count].op.kind == NB_OP_SCALE) count++;
    bool same = count < program.count && program.steps[count].op.kind == ops[i].kind &&
                program.steps[count].op.in == ops[i].in && program.steps[count].op.out == ops[i].out &&
                program.steps[count].op.role == ops[i].role;
    if (!same) w->faults.push_back(Where("list", i, ops[i]) + " is not the step that the runner takes");
    count++;
  }
  nb_program_free(&program);
}

void RunList(Walk *w, const char *list, const nb_op *ops, unsigned given) {
  unsigned written = given;
  CompareWithRunner(w, ops, given);
  Run(w, list, ops, &written);
  bool is_scores = !strcmp(list, "head") && w->config->head->kind != NB_HEAD_BASE;
  if (!(written & Bit(is_scores ? NB_L : NB_X))) w->faults.push_back(std::string(list) + " does not write its result");
}

// A block adds to the residual stream last, and so do the lists around it.
void CheckLast(const char *list, const nb_op *ops, Faults *faults) {
  const nb_op *last = nullptr;
  for (const nb_op *op = ops; op->kind != NB_OP_END; op++) last = op;
  if (last && last->out != NB_X) faults->push_back(std::string(list) + " does not end with X");
}

// Base classes have a pooler that is not part of their output; a bias of its own joins the head, a table the scores.
bool MayIdle(const nb_config *c, const nb_model_tensor &t) {
  return t.is_bias || t.kind == NB_KIND_TABLE || t.role == NB_HEAD_BIAS || nb_model_tensor_is_optional(c, &t);
}

int StackCount(const nb_family *family) {
  int count = 0;
  while (count < NB_MAX_STACKS && family->stacks[count].rules) count++;
  return count;
}

// All of one model. The head reads the output embedding, or the embedding where the two are tied.
Faults CheckModel(const nb_config &config, std::map<const nb_op *, bool> *ran) {
  const nb_family *family = config.family;
  nb_model_tensors promised;
  nibble_error err;
  EXPECT_EQ(nb_model_tensors_list(&config, &promised, &err), NIBBLE_OK);
  Walk w = {&config, &promised, 0, -1, ran, {}, CheckRoles(promised)};
  int stacks = StackCount(family);
  for (w.stack = 0; w.stack < stacks; w.stack++) {
    const nb_stack &stack = family->stacks[w.stack];
    RunList(&w, "embed", stack.embed, 0);
    RunList(&w, "end", stack.end, Bit(NB_X));
    for (w.layer = 0; w.layer < nb_config_layers(&config, w.stack); w.layer++)
      RunList(&w, "block", stack.block, Bit(NB_X) | (w.stack ? Bit(NB_E) : 0));
    w.layer = -1;
  }
  w.stack = stacks - 1;
  RunList(&w, "head", config.head->ops, Bit(NB_X));
  for (size_t i = 0; i < promised.count; i++) {
    const nb_model_tensor &t = promised.items[i];
    if (!w.used.count(&t) && !MayIdle(&config, t)) w.faults.push_back(std::string(t.name) + " is used by nothing");
  }
  nb_model_tensors_free(&promised);
  return w.faults;
}

// ---- over all families ----

struct Sample {
  std::string name;
  nb_config config;
};

// The configs of the golden models of a family.
std::vector<Sample> Samples(const nb_family *family) {
  std::vector<Sample> samples;
  std::string stem = family->model_type;
  std::replace(stem.begin(), stem.end(), '_', '-');
  for (const std::string &name : ListFolder(Golden("tiny"))) {
    if (name.rfind(stem + "-", 0) != 0 || !Exists(Golden("tiny/" + name + "/config.json"))) continue;
    Sample sample = {name, {}};
    nibble_error err;
    EXPECT_EQ(nb_config_load(Golden("tiny/" + name + "/config.json").c_str(), &sample.config, &err), 0) << err.message;
    if (sample.config.family == family && Exists(Golden("tiny/" + name + ".safetensors"))) {
      samples.push_back(sample);
    } else {
      nb_config_free(&sample.config);
    }
  }
  return samples;
}

void FreeSamples(std::vector<Sample> *samples) {
  for (Sample &sample : *samples) nb_config_free(&sample.config);
}

// All that is said of `family`, on the configs of `samples`. It may be another than they were read with.
Faults CheckFamily(const nb_family *family, std::vector<Sample> samples, std::map<const nb_op *, bool> *ran) {
  Faults faults;
  for (int s = 0; s < StackCount(family); s++) {
    const nb_stack &stack = family->stacks[s];
    CheckOps(family, s, "embed", stack.embed, &faults);
    CheckOps(family, s, "block", stack.block, &faults);
    CheckOps(family, s, "end", stack.end, &faults);
    CheckLast("embed", stack.embed, &faults);
    CheckLast("block", stack.block, &faults);
    CheckLast("end", stack.end, &faults);
  }
  for (Sample &sample : samples) {
    sample.config.family = family;
    for (const Faults &found : {CheckNames(sample.config), CheckModel(sample.config, ran)}) {
      for (const std::string &fault : found) faults.push_back(sample.name + ": " + fault);
    }
  }
  return faults;
}

// The operations that ran in none of the models seen.
Faults NeverRun(const nb_family *family, const std::map<const nb_op *, bool> &ran) {
  Faults faults;
  for (int s = 0; s < StackCount(family); s++) {
    for (const nb_op *ops : {family->stacks[s].embed, family->stacks[s].block, family->stacks[s].end}) {
      for (int i = 0; ops[i].kind != NB_OP_END; i++) {
        if (!ran.at(&ops[i])) faults.push_back(Where("list", i, ops[i]) + " runs in no model");
      }
    }
  }
  return faults;
}

class FamilyTable : public testing::TestWithParam<const nb_family *> {};

TEST_P(FamilyTable, IsSoundInAllItsGoldenModels) {
  std::vector<Sample> samples = Samples(GetParam());
  ASSERT_FALSE(samples.empty()) << "tests/golden/tiny has no model of it";
  std::map<const nb_op *, bool> ran;
  EXPECT_EQ(Joined(CheckFamily(GetParam(), samples, &ran)), "");
  FreeSamples(&samples);
}

TEST_P(FamilyTable, IsTheOnlyOneOfItsNames) {
  EXPECT_EQ(nb_family_by_model_type(GetParam()->model_type), GetParam());
  if (GetParam()->gguf_arch) {
    EXPECT_EQ(nb_family_by_gguf(GetParam()->gguf_arch), GetParam());
  }
}

std::vector<const nb_family *> Families() {
  std::vector<const nb_family *> all;
  for (const nb_family *const *family = nb_families; *family; family++) all.push_back(*family);
  return all;
}

INSTANTIATE_TEST_SUITE_P(Families, FamilyTable, testing::ValuesIn(Families()),
                         [](const auto &info) { return std::string(info.param->model_type); });

// Families share lists, so one with norms of Q and K may be another than the one that is named first.
TEST(FamilyTables, HaveNoOperationThatNeverRuns) {
  std::map<const nb_op *, bool> ran;
  for (const nb_family *family : Families()) {
    std::vector<Sample> samples = Samples(family);
    CheckFamily(family, samples, &ran);
    FreeSamples(&samples);
  }
  for (const nb_family *family : Families()) EXPECT_EQ(Joined(NeverRun(family, ran)), "") << family->model_type;
}

// ---- broken families ----

// Llama's lists, copied so that one line can be spoiled.
struct Broken {
  std::vector<nb_rule> rules;
  std::vector<nb_op> block;
  nb_family family;

  Broken() : family(*nb_family_by_model_type("llama")) {
    for (const nb_rule *rule = nb_llama_rules;; rule++) {
      rules.push_back(*rule);
      if (!rule->name) break;
    }
    for (const nb_op *op = nb_llama_block;; op++) {
      block.push_back(*op);
      if (op->kind == NB_OP_END) break;
    }
  }
  nb_rule &Rule(nb_role role) {
    return *std::find_if(rules.begin(), rules.end(), [&](const nb_rule &r) { return r.role == role; });
  }
  nb_op &Op(nb_op_kind kind, nb_role role) {
    return *std::find_if(block.begin(), block.end(), [&](const nb_op &o) { return o.kind == kind && o.role == role; });
  }
  void ExpectFault(const char *part) {
    family.stacks[0].rules = rules.data();
    family.stacks[0].block = block.data();
    std::vector<Sample> samples = Samples(nb_family_by_model_type("llama"));
    std::map<const nb_op *, bool> ran;
    std::string faults = Joined(CheckFamily(&family, samples, &ran));
    faults += Joined(NeverRun(&family, ran));
    EXPECT_NE(faults.find(part), std::string::npos) << faults;
    FreeSamples(&samples);
  }
};

TEST(BrokenFamily, ThatNamesATensorTwiceIsFound) {
  Broken b;
  b.Rule(NB_ATTN_K).name = b.Rule(NB_ATTN_Q).name;
  b.ExpectFault("model.layers.1.self_attn.q_proj.weight is the name of 'layers.{}.self_attn.q_proj', too");
}

TEST(BrokenFamily, WhoseSpellingsOverlapIsFound) {
  Broken b;
  b.Rule(NB_MLP_UP).name = "layers.{}.mlp.up_proj|layers.{}.mlp.gate_proj";
  b.ExpectFault("layers.1.mlp.gate_proj.weight is the name of 'layers.{}.mlp.gate_proj', too");
}

TEST(BrokenFamily, ThatGivesARoleTwiceIsFound) {
  Broken b;
  b.Rule(NB_ATTN_K).role = NB_ATTN_V;
  b.ExpectFault("attn_v of stack 0 layer 0 expert -1 is given twice");
}

TEST(BrokenFamily, WithAnOperationWithoutARuleIsFound) {
  Broken b;
  b.Op(NB_OP_NORM, NB_MLP_NORM).role = NB_MLP_POST_NORM;
  b.ExpectFault("block operation 9 (mlp_post_norm) has no rule");
}

TEST(BrokenFamily, WithAWeightOfTheWrongKindIsFound) {
  Broken b;
  b.Op(NB_OP_LINEAR, NB_ATTN_Q).role = NB_ATTN_NORM;
  b.ExpectFault("block operation 1 (attn_norm) has a weight of another kind");
}

TEST(BrokenFamily, ThatReadsARegisterNobodyWroteIsFound) {
  Broken b;
  b.Op(NB_OP_LINEAR, NB_ATTN_O).in = NB_F;
  b.ExpectFault("block operation 8 (attn_o) reads a register that nobody wrote");
}

TEST(BrokenFamily, WithAnOperationThatNeverRunsIsFound) {
  Broken b;
  b.Op(NB_OP_ATTEND, NB_ROLE_OTHER).in = NB_R;
  b.ExpectFault("list operation 7 (other) runs in no model");
}

TEST(BrokenFamily, ThatAttendsBeforeItCachesIsFound) {
  Broken b;
  b.Op(NB_OP_CACHE, NB_ROLE_OTHER).flags |= NB_CROSS;
  b.ExpectFault("block operation 7 (other) attends to an empty cache");
}

TEST(BrokenFamily, WhoseWidthsDoNotFitIsFound) {
  Broken b;
  b.Rule(NB_ATTN_O).in = NB_DIM_INTERMEDIATE;
  b.ExpectFault("model.layers.0.self_attn.o_proj.weight does not have the width of its registers");
}

TEST(BrokenFamily, WithAWeightThatNothingUsesIsFound) {
  Broken b;
  b.Op(NB_OP_LINEAR, NB_MLP_UP).role = NB_MLP_GATE;
  b.ExpectFault("model.layers.0.mlp.up_proj.weight is used by nothing");
}

TEST(BrokenFamily, WhoseBlockEndsElsewhereIsFound) {
  Broken b;
  b.Op(NB_OP_LINEAR, NB_MLP_DOWN).out = NB_T;
  b.ExpectFault("block does not end with X");
}

}  // namespace
