// SPDX-License-Identifier: Apache-2.0
#include <fulmen/core/philox.h>
#include <gtest/gtest.h>

#include <array>

namespace fulmen {
namespace {

std::array<uint32_t, 4> words(PhiloxBlock b) { return {b.words[0], b.words[1], b.words[2], b.words[3]}; }

// The published vectors of philox4x32-10: zeros, ones, digits of pi.
TEST(Philox, GivesTheKnownAnswers) {
  EXPECT_EQ(words(philox(0, 0, 0)), (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(words(philox(~0ull, ~0ull, ~0ull)),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(words(philox(0x299f31d0a4093822ull, 0x85a308d3243f6a88ull, 0x0370734413198a2eull)),
            (std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, UniformIsBelowOne) {
  const PhiloxBlock ones{{0xffffffffu, 0xffffffffu, 0, 0}};
  EXPECT_EQ(uniform(ones, 0), 1 - 0x1p-53);
  EXPECT_EQ(uniform(ones, 1), 0);
  static_assert(uniform(PhiloxBlock{{0, 0x80000000u, 0, 0}}, 0) == 0.5);
}

}  // namespace
}  // namespace fulmen
