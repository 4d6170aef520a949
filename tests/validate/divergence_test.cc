#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

extern "C" {
#include "validate/divergence.h"
}

namespace {

// By the definition, in long double.
double Kl(const std::vector<float> &x, const std::vector<float> &y) {
  long double sx = 0, sy = 0, kl = 0;
  for (float v : x) sx += expl(v);
  for (float v : y) sy += expl(v);
  for (size_t i = 0; i < x.size(); i++) kl += expl(x[i]) / sx * ((x[i] - logl(sx)) - (y[i] - logl(sy)));
  return (double)kl;
}

TEST(Divergence, FollowsTheDefinition) {
  std::vector<float> x(301), y(301);
  for (size_t i = 0; i < x.size(); i++) {
    x[i] = 4 * std::sin((float)i * 0.7f);
    y[i] = x[i] + 0.5f * std::cos((float)i * 1.3f);
  }
  nb_divergence d;
  nb_divergence_of(x.data(), y.data(), 301, 17, &d);
  EXPECT_NEAR(d.kl, Kl(x, y), 1e-12);
  double sum = 0;
  for (float v : y) sum += std::exp((double)v);
  EXPECT_NEAR(d.nll, std::log(sum) - (double)y[17], 1e-12);
  // Adding to all logits changes nothing.
  for (float &v : y) v += 64;
  nb_divergence moved;
  nb_divergence_of(x.data(), y.data(), 301, 17, &moved);
  EXPECT_NEAR(moved.kl, d.kl, 1e-5);
}

TEST(Divergence, OfADistributionFromItselfIsZero) {
  std::vector<float> x = {1, 5, -3, 2, 0, 4};
  nb_divergence d;
  nb_divergence_of(x.data(), x.data(), 6, 0, &d);
  EXPECT_EQ(d.kl, 0);
  EXPECT_EQ(d.top1, d.reference_top1);
  EXPECT_EQ(d.common_top5, 5);
  EXPECT_EQ(d.nll, d.reference_nll);
}

TEST(Divergence, CountsWhatTheLikeliestHaveInCommon) {
  std::vector<float> x = {9, 8, 7, 6, 5, 0, 0, 0}, y = {8, 9, 7, 0, 0, 6, 5, 0};
  nb_divergence d;
  nb_divergence_of(x.data(), y.data(), 8, 0, &d);
  EXPECT_EQ(d.top1, 1);
  EXPECT_EQ(d.reference_top1, 0);
  EXPECT_EQ(d.common_top5, 3);
  std::vector<float> small = {1, 2};  // a vocabulary of less than five
  nb_divergence_of(small.data(), small.data(), 2, 0, &d);
  EXPECT_EQ(d.top1, d.reference_top1);
  EXPECT_EQ(d.common_top5, 2);
}

TEST(Divergence, SaysWhereLogitsAreNoNumbers) {
  std::vector<float> x = {1, 2, 3}, y = {1, NAN, 3};
  nb_divergence d;
  nb_divergence_of(x.data(), y.data(), 3, 0, &d);
  EXPECT_FALSE(d.finite);
  y[1] = -std::numeric_limits<float>::infinity();
  nb_divergence_of(x.data(), y.data(), 3, 0, &d);
  EXPECT_FALSE(d.finite);
}

}  // namespace
