#include <gtest/gtest.h>

#include "tests/checkpoint_files.h"
#include "tests/support.h"

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
  std::string script = std::string(kSourceDir) + "/scripts/fault-corpus --brief --nibble " + kBinary;
  EXPECT_EQ(system(script.c_str()), 0) << script;
}

// The figures of the line of `--layers` that names a tensor: error, expected error.
std::pair<double, double> Errors(const std::string &out, const std::string &tensor) {
  size_t at = out.find("\n" + tensor + " ");
  char format[32];
  double error = -1, expected = -1;
  if (at != std::string::npos) sscanf(out.c_str() + at + 1 + tensor.size(), "%31s %lf %lf", format, &error, &expected);
  return {error, expected};
}

TEST(VerifyWeights, MeasuresTheErrorThatRoundingToNearestMakes) {
  for (const char *name : {"nf4", "fp4", "int8"}) {
    CommandResult r = Nibble("verify " + Golden(std::string("artifacts/") + name) +
                             " --no-certificate --layers --against " + Golden("artifacts/bf16"));
    ASSERT_EQ(r.code, 0) << r.out << r.err;
    auto [error, expected] = Errors(r.out, "model.layers.1.mlp.up_proj.weight");
    EXPECT_GT(error, 0.003) << name;
    EXPECT_NEAR(error, expected, 1e-3 * expected) << name;  // the very same rounding
  }
}

TEST(VerifyWeights, SaysTheSameWhateverTheThreads) {
  std::string args =
      "verify " + Golden("artifacts/nf4-double") + " --no-certificate --layers --against " + Golden("artifacts/bf16");
  CommandResult one = Nibble(args + " --threads 1"), three = Nibble(args + " --threads 3");
  EXPECT_EQ(one.out.substr(one.out.find("\nweight ")), three.out.substr(three.out.find("\nweight ")));
}

TEST(VerifyWeights, OfAModelAgainstItselfAreExact) {
  CommandResult r =
      Nibble("verify " + Golden("artifacts/bf16") + " --no-certificate --against " + Golden("artifacts/bf16"));
  EXPECT_EQ(r.code, 0);
  EXPECT_NE(r.out.find("the largest relative error is 0 "), std::string::npos) << r.out;
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
