// SPDX-License-Identifier: Apache-2.0
#include <fulmen/attention/flashinfer_code.h>
#include <fulmen/attention/flashinfer_variant.h>

#include <algorithm>
#include <cctype>
#include <cstring>

namespace fulmen::attention {
namespace {

constexpr const char* kOp = "flashinfer_variant";

void check_name(const std::string& name, const char* what) {
  const bool good = !name.empty() && !std::isdigit(uint8_t(name[0])) &&
                    std::all_of(name.begin(), name.end(), [](char c) { return std::isalnum(uint8_t(c)) || c == '_'; });
  if (!good) fail(kOp, what, "is \"" + name + "\", expected a C++ name");
}

template <class T>
void put(char* to, double x) {
  const T value = T(x);
  std::memcpy(to, &value, sizeof value);
}

struct ScalarType {
  const char* name;
  size_t size;
  void (*put)(char* to, double x);
};
constexpr ScalarType kScalars[] = {{"float", 4, put<float>},       {"double", 8, put<double>},
                                   {"int", 4, put<int32_t>},       {"int32_t", 4, put<int32_t>},
                                   {"uint32_t", 4, put<uint32_t>}, {"int64_t", 8, put<int64_t>},
                                   {"uint64_t", 8, put<uint64_t>}, {"bool", 1, put<bool>},
                                   {"int8_t", 1, put<int8_t>},     {"uint8_t", 1, put<uint8_t>}};

const ScalarType& scalar_type(const std::string& name) {
  for (const ScalarType& t : kScalars)
    if (name == t.name) return t;
  fail(kOp, "a scalar's type", "is \"" + name + "\", which is none of float, double, bool and the integers");
}

}  // namespace

VariantCode code_of(const FlashInferVariant& v) {
  check_name(v.name, "name");
  std::string text = "#include <fulmen/attention/flashinfer_variant.h>\nnamespace flashinfer {\nstruct Additional {\n";
  for (const auto& t : v.tensors) {
    check_name(t.name, "a tensor's name"), check_name(t.type, "a tensor's type");
    text += "  " + t.type + "* " + t.name + ";\n";
  }
  for (const auto& s : v.scalars) {
    check_name(s.name, "a scalar's name"), scalar_type(s.type);
    text += "  " + s.type + " " + s.name + ";\n";
  }
  text += "};\n#line 1 \"" + v.name + "\"\n" + v.text + "\n#line 1000 \"unit\"\n}\n";
  text +=
      "struct Adapted_" + v.name + " : flashinfer::Adapted<flashinfer::" + v.name + ", flashinfer::Additional> {};\n";
  return {.name = "Adapted_" + v.name, .text = std::move(text)};
}

std::vector<char> fields_of(const FlashInferVariant& v, const FlashInferLaunch& launch,
                            std::span<const void* const> tensors, std::span<const double> scalars) {
  require(tensors.size() == v.tensors.size(), kOp, "number of tensors", int64_t(tensors.size()),
          std::to_string(v.tensors.size()));
  require(scalars.size() == v.scalars.size(), kOp, "number of scalars", int64_t(scalars.size()),
          std::to_string(v.scalars.size()));
  const flashinfer::Launch head{uint32_t(launch.num_qo_heads), uint32_t(launch.num_kv_heads), launch.window_left,
                                launch.causal ? 1 : 0};
  std::vector<char> bytes(sizeof head);
  std::memcpy(bytes.data(), &head, sizeof head);
  static_assert(sizeof head % 8 == 0);
  const auto append = [&bytes](size_t size) {
    const size_t at = (bytes.size() + size - 1) / size * size;
    bytes.resize(at + size);
    return bytes.data() + at;
  };
  for (const void* t : tensors) {
    char* const to = append(sizeof t);
    std::memcpy(to, &t, sizeof t);
  }
  for (size_t i = 0; i < scalars.size(); ++i) {
    const ScalarType& type = scalar_type(v.scalars[i].type);
    type.put(append(type.size), scalars[i]);
  }
  bytes.resize((bytes.size() + 7) / 8 * 8);
  return bytes;
}

}  // namespace fulmen::attention
