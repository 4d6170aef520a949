#include <gtest/gtest.h>

#include "checkpoint_files.h"
#include "support.h"

namespace {

// Python's standard library makes the damages; without it these tests cannot run.
bool HavePython() { return system("python3 -c 'import json, struct' >/dev/null 2>&1") == 0; }

TEST(Verify, PassesWhatTransformersAndBitsandbytesWrote) {
  for (const char *name : {"bf16", "nf4", "nf4-double", "fp4", "int8"}) {
    CommandResult r = Nibble("verify " + Golden(std::string("artifacts/") + name));
    EXPECT_EQ(r.code, 0) << name << ": " << r.out << r.err;
    EXPECT_NE(r.out.find("sound: 0 faults, 0 warnings"), std::string::npos) << name << ": " << r.out;
  }
}

TEST(Verify, PassesBitsandbytesOnRaggedAndExtremeWeights) {
  for (const char *name : {"nf4", "nf4-double", "fp4", "fp4-double", "int8"}) {
    CommandResult r = Nibble("verify " + Golden(std::string("bnb-0.50.2/") + name + ".safetensors"));
    EXPECT_EQ(r.code, 0) << name << ": " << r.out << r.err;
  }
}

TEST(Verify, PassesWhatGptqmodelWrote) {
  for (const char *name : {"gptq_v1", "gptq_v2"}) {
    CommandResult r = Nibble("verify " + Golden(std::string("gptqmodel-7.7.0/") + name + ".safetensors"));
    EXPECT_EQ(r.code, 0) << name << ": " << r.out << r.err;
  }
}

TEST(Verify, FindsEveryFaultOfTheCorpusAndNamesIt) {
  if (!HavePython()) GTEST_SKIP() << "skipped: no python3";
  std::string script = std::string(NIBBLE_SOURCE_DIR) + "/scripts/fault-corpus --brief --nibble " + NIBBLE_BINARY;
  EXPECT_EQ(system(script.c_str()), 0) << script;
}

TEST(Verify, NamesTensorBlockAndIndex) {
  TempFolder folder;
  // Three elements, the second infinite.
  std::string header = "{" + Entry("norm.weight", "F32", "3", 0, 12) + "}";
  WriteFile(folder / "a.safetensors", Safetensors(header, Bytes<float>({1, 1.0f / 0.0f, 3})));
  CommandResult r = Nibble("verify " + (folder / "a.safetensors") + " --json");
  EXPECT_EQ(r.code, 1);
  EXPECT_NE(r.out.find("\"cause\":\t\"not-finite\""), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("\"tensor\":\t\"norm.weight\""), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("\"index\":\t1"), std::string::npos) << r.out;
  EXPECT_NE(r.err.find("norm.weight"), std::string::npos) << r.err;
}

TEST(Verify, CannotJudgeWhatItCannotRead) {
  TempFolder folder;
  WriteFile(folder / "a.safetensors", "not a header");
  EXPECT_EQ(Nibble("verify " + (folder / "a.safetensors")).code, 3);
  EXPECT_EQ(Nibble("verify " + (folder / "nothing")).code, 3);
  EXPECT_EQ(Nibble("verify").code, 2);
}

}  // namespace
