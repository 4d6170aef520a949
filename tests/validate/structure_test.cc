#include <gtest/gtest.h>

#include "tests/support.h"

extern "C" {
#include "convert/layouts.h"
#include "validate/structure.h"
}

namespace {

// A row that is new in nb_layouts belongs into the table of structure.c, too.
TEST(Structure, LooksIntoEveryLayout) {
  size_t layouts = 0;
  for (const nb_layout *const *row = nb_layouts; *row; row++, layouts++)
    EXPECT_TRUE(nb_structure_knows(*row)) << (*row)->name;
  EXPECT_GE(layouts, 3u);
  EXPECT_FALSE(nb_structure_knows(nullptr));
}

TEST(Structure, OfALayoutWithoutALookIsAFault) {
  nb_checkpoint c;
  nibble_error err = {};
  ASSERT_EQ(nb_checkpoint_open_loose(Golden("gptqmodel-7.7.0/gptq_v1.safetensors").c_str(), &c, &err), NIBBLE_OK)
      << err.message;
  nb_layout other = {};
  other.name = "another";
  size_t weights = 0;
  for (size_t i = 0; i < c.tensor_count; i++) {
    if (!c.tensors[i].layout) continue;
    c.tensors[i].layout = &other;
    weights++;
  }
  nb_findings findings = {};
  nb_structure structure;
  ASSERT_EQ(nb_structure_check(&c, nullptr, &findings, &structure, &err), NIBBLE_OK) << err.message;
  EXPECT_GT(weights, 0u);
  EXPECT_EQ(structure.packed_weights, weights);
  size_t told = 0;
  for (size_t i = 0; i < findings.count; i++) {
    if (findings.items[i].cause != std::string("unchecked-layout")) continue;
    told++;
    EXPECT_EQ(findings.items[i].severity, NIBBLE_FAULT);
    EXPECT_NE(std::string(findings.items[i].text).find("'another'"), std::string::npos) << findings.items[i].text;
  }
  EXPECT_EQ(told, weights);
  nb_findings_free(&findings);
  nb_checkpoint_close(&c);
}

}  // namespace
