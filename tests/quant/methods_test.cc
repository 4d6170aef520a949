// The options of the methods: each refuses what it does not read, by name, and takes what it reads.
#include <gtest/gtest.h>

#include <cstddef>
#include <set>
#include <string>
#include <vector>

#include "nibble.h"
#include "tests/support.h"

extern "C" {
#include "quant/methods.h"
}

namespace {

using Options = nibble_quantize_options;

struct Setter {
  const char *flag;
  void (*set)(Options *);
  std::set<std::string> read_by;
};

const std::set<std::string> kBlocks = {"nf4", "fp4"}, kGrids = {"gptq", "rtn"}, kCalibrated = {"gptq"};

// Every option that not all methods read, at a value that makes sense.
const std::vector<Setter> kSetters = {
    {"--double-quant", [](Options *o) { o->double_quant = true; }, kBlocks},
    {"--block-size", [](Options *o) { o->block_size = 128; }, kBlocks},
    {"--bits", [](Options *o) { o->bits = 8; }, kGrids},
    {"--group-size", [](Options *o) { o->group_size = -1; }, kGrids},
    {"--sym", [](Options *o) { o->zeros = NIBBLE_ZEROS_MIDDLE; }, kGrids},
    {"--asym", [](Options *o) { o->zeros = NIBBLE_ZEROS_FITTED; }, kGrids},
    {"--mse", [](Options *o) { o->scales = NIBBLE_SCALES_SEARCHED; }, kGrids},
    {"--no-mse", [](Options *o) { o->scales = NIBBLE_SCALES_MIN_MAX; }, kGrids},
    {"--scale-dtype", [](Options *o) { o->scale_dtype = "bfloat16"; }, kGrids},
    {"--layout", [](Options *o) { o->layout = "gptq_v2"; }, kGrids},
    {"--desc-act", [](Options *o) { o->desc_act = true; }, kCalibrated},
    {"--damp", [](Options *o) { o->damp = 0.1; }, kCalibrated},
    {"--calib", [](Options *o) { o->calib = "/nowhere/text"; }, kCalibrated},
    {"--nsamples", [](Options *o) { o->nsamples = 4; }, kCalibrated},
    {"--seqlen", [](Options *o) { o->seqlen = 16; }, kCalibrated},
    {"--sampling", [](Options *o) { o->sampling = NIBBLE_SAMPLING_FIRST; }, kCalibrated},
    {"--sampling", [](Options *o) { o->sampling = NIBBLE_SAMPLING_RANDOM; }, kCalibrated},
    {"--seed", [](Options *o) { o->seed = 7; }, kCalibrated},
    {"--max-memory", [](Options *o) { o->max_memory = 1 << 20; }, kCalibrated},
    {"--work-dir", [](Options *o) { o->work_dir = "/nowhere/work"; }, kCalibrated},
    {"--resume", [](Options *o) { o->resume = true; }, kCalibrated},
};

// A run of the method whose options are sound, but whose source is not there.
Options OptionsOf(const std::string &method) {
  Options o = {};
  o.size = sizeof o;
  o.src = "/nowhere/model";
  o.dst = "/nowhere/out";
  if (method == "gptq") o.calib = "/nowhere/text";
  return o;
}

TEST(Methods, RefuseEveryOptionThatTheyDoNotRead) {
  for (const nb_method *const *row = nb_methods; *row; row++) {
    for (const Setter &setter : kSetters) {
      std::string method = (*row)->name;
      SCOPED_TRACE(method + " " + setter.flag);
      Options o = OptionsOf(method);
      o.method = (*row)->name;
      setter.set(&o);
      if (setter.flag == std::string("--seed") && setter.read_by.count(method)) o.sampling = NIBBLE_SAMPLING_RANDOM;
      nibble_quantize_result result = {};
      result.size = sizeof result;
      nibble_error err = {};
      nibble_status status = nibble_quantize(&o, &result, &err);
      if (setter.read_by.count(method)) {
        EXPECT_EQ(status, NIBBLE_BAD_INPUT) << err.message;
        EXPECT_NE(std::string(err.message).find("/nowhere/model"), std::string::npos) << err.message;
        continue;
      }
      EXPECT_EQ(status, NIBBLE_USAGE) << err.message;
      EXPECT_NE(std::string(err.message).find(setter.flag), std::string::npos) << err.message;
      EXPECT_NE(std::string(err.message).find("--method " + method + " does not read it"), std::string::npos)
          << err.message;
      for (const std::string &other : setter.read_by)
        EXPECT_NE(std::string(err.message).find(other), std::string::npos) << err.message;
    }
  }
}

// A byte of the options that no row of options and no common option covers would be an option that nobody refuses.
TEST(Methods, KnowEveryFieldOfTheOptions) {
  std::vector<int> covered(sizeof(Options));
  auto cover = [&](size_t offset, size_t size) {
    for (size_t i = 0; i < size; i++) covered[offset + i]++;
  };
#define COMMON(field) cover(offsetof(Options, field), sizeof(Options::field))
  COMMON(size);
  COMMON(context);
  COMMON(src);
  COMMON(dst);
  COMMON(method);
  COMMON(include);
  COMMON(exclude);
  COMMON(unknown_family);
  COMMON(requantize);
  COMMON(max_shard_size);
  COMMON(force);
  COMMON(no_sync);
  COMMON(progress);
#undef COMMON
  std::set<unsigned> bits;
  for (const nb_option_row *row = nb_option_rows; row->flag; row++) {
    cover(row->offset, row->size);
    EXPECT_TRUE(bits.insert(row->option).second) << row->flag;
  }
  // What is left is padding, less than a word at a time.
  for (size_t i = 0, gap = 0; i < covered.size(); i++) {
    EXPECT_LE(covered[i], 1) << "byte " << i << " belongs to two options";
    gap = covered[i] ? 0 : gap + 1;
    EXPECT_LT(gap, sizeof(void *)) << "byte " << i << " belongs to no option";
  }
}

TEST(Methods, AreNamedWhereAnotherIsAskedFor) {
  for (const char *name : {(const char *)nullptr, "", "awq", "NF4"}) {
    Options o = OptionsOf("");
    o.method = name;
    nibble_quantize_result result = {};
    result.size = sizeof result;
    nibble_error err = {};
    EXPECT_EQ(nibble_quantize(&o, &result, &err), NIBBLE_USAGE);
    EXPECT_EQ(std::string(err.message),
              std::string("--method ") + (name ? name : "") + ": nf4, fp4, int8, gptq or rtn is wanted");
  }
}

TEST(Methods, RefuseOnTheCommandLine) {
  const struct {
    const char *options, *named;
  } cases[] = {
      {"nf4 --bits 8", "--bits: --method nf4"},
      {"int8 --block-size 64", "--block-size: --method int8"},
      {"nf4 --sym", "--sym, --asym: --method nf4"},
      {"fp4 --sampling first", "--sampling: --method fp4"},
      {"rtn --seed 0", "--seed draws"},
      {"gptq --calib text --seed 0", "--seed draws"},
      {"gptq --calib text --double-quant", "--double-quant: --method gptq"},
      {"rtn --calib text", "--calib: --method rtn"},
  };
  for (const auto &c : cases) {
    CommandResult run = Nibble(std::string("quantize /nowhere/model /nowhere/out --method ") + c.options);
    EXPECT_EQ(run.code, 2) << c.options;
    EXPECT_NE(run.err.find(c.named), std::string::npos) << c.options << ": " << run.err;
  }
}

}  // namespace
