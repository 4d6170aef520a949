// Families that have no row: nobody can tell which of their matrices are linear layers' (CLIP's projections, Falcon's
// own class of them, gpt-oss' experts look like any other), so nothing is packed or called sound unless it is asked
// for.
#include <gtest/gtest.h>

#include "tests/golden_folder.h"

extern "C" {
#include "model/family.h"
}

namespace {

TEST(SilentDamageFamilies, WithoutARowAreRefusedByName) {
  const std::pair<const char *, const char *> families[] = {
      {"clip", "text_projection"},
      {"falcon", "transformer.h.0.self_attention.query_key_value"},
      {"gpt_oss", "model.layers.0.mlp.router"},
      {"bart", "model.encoder.layers.0.fc1"},
      {"modernbert", "model.layers.0.attn.Wqkv"},
      {"gemma2", "model.layers.0.mlp.up_proj"},
      {"no_such_family", "layers.0.up"},
  };
  int unknown = 0;
  for (const auto &[type, module] : families) {
    if (nb_family_by_model_type(type)) continue;  // it has one by now
    unknown++;
    TempFolder dir;
    GoldenFolder model("tiny/llama-f32");
    GoldenTensor linear = model.file.tensors["model.layers.0.mlp.up_proj.weight"];
    model.file.tensors = {{std::string(module) + ".weight", linear}};
    model.config = std::string("{\"model_type\": \"") + type + R"(", "final_logit_softcapping": 30.0})";
    std::string source = model.Save(dir / "in");
    for (const char *method : {"nf4", "fp4", "int8", "rtn", "gptq --calib /dev/null"}) {
      ExpectRefused("quantize " + source + " " + (dir / "q") + " --method " + method, std::string("\"") + type + "\"");
      EXPECT_FALSE(Exists(dir / "q"));
    }
    CommandResult forced = Nibble("quantize " + source + " " + (dir / "q") + " --method nf4 --unknown-family");
    EXPECT_EQ(forced.code, 0) << forced.err;
    EXPECT_NE(forced.err.find(std::string("\"") + type + "\""), std::string::npos) << forced.err;
    EXPECT_NE(ReadFile(dir / "q/config.json").find("30.0"), std::string::npos);
    for (const char *folder : {"in", "q"}) {
      CommandResult r = Nibble("verify " + (dir / folder));
      EXPECT_EQ(r.code, 0) << r.out;
      EXPECT_NE(r.out.find(std::string("warning: the family of model_type '") + type + "' is not known"),
                std::string::npos)
          << r.out;
    }
    ExpectRefused("logits " + source + " --ids 1 --out " + (dir / "l"), std::string("'") + type + "'");
  }
  EXPECT_GE(unknown, 1);
}

}  // namespace
