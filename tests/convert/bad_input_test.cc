/* Damaged and hostile checkpoints: each ends `nibble convert` with exit code 3 and one line that names the file and the
 * fault, and leaves nothing behind. */
#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "tests/checkpoint_files.h"
#include "tests/support.h"

extern "C" {
#include "convert/checkpoint.h"
}

namespace {

using pickle::Dict;
using pickle::Global;
using pickle::Int;
using pickle::Ints;
using pickle::Storage;
using pickle::Str;
using pickle::Tensor;
using pickle::Tuple;

// A file's bytes; those of large ones are a function that makes them, as every start of the program lists all cases.
struct Content {
  std::string bytes;
  std::string (*make)() = nullptr;

  Content(const char *text) : bytes(text) {}
  Content(const std::string &some) : bytes(some) {}
  Content(std::string (*function)()) : make(function) {}
  std::string Get() const { return make ? make() : bytes; }
};

struct BadInput {
  const char *name;
  const char *file;  // the file that is bad, and that the message must name
  Content content;
  const char *message;                                           // part of the line
  std::vector<std::pair<std::string, std::string>> others = {};  // files beside it
};

// Without this a test's name ends with the struct's bytes.
void PrintTo(const BadInput &bad, std::ostream *out) { *out << bad.name; }

std::string One(const std::string &entry, const std::string &data = "12345678") {
  return Safetensors("{" + entry + "}", data);
}

std::string Deep(size_t n, const std::string &open) {
  std::string s;
  s.reserve(n * open.size());
  for (size_t i = 0; i < n; i++) s += open;
  return s;
}

const std::string kOk = One(Entry("w", "F32", "2", 0, 8));
const std::string kOkTensor = Tensor(Storage("0", 4), 0, {2, 2}, {2, 1});

const char kLlama[] =
    R"({"model_type": "llama", "hidden_size": 2, "intermediate_size": 3, "num_hidden_layers": 0,
        "num_attention_heads": 1, "vocab_size": 3, "tie_word_embeddings": true})";

std::vector<BadInput> SafetensorsCases() {
  const char *f = "model.safetensors";
  return {
      {"Empty", f, "", "not a checkpoint in a format that is known"},
      {"TooShort", f, "abc", "not a checkpoint in a format that is known"},
      {"Text", f, "# my model\nis very good", "not a checkpoint in a format that is known"},
      {"HeaderPastTheEnd", f, U64(1000) + "{}", "truncated: its header claims 1000 bytes"},
      {"HeaderOversized", f, U64(1ull << 40) + "{}", "more than the 100000000"},
      {"HeaderLengthOverflows", f, U64(UINT64_MAX) + "{}", "more than the 100000000"},
      {"HeaderNoJson", f, Safetensors("{\"w\": ", ""), "not valid JSON"},
      {"HeaderDeep", f, +[] { return Safetensors("{\"w\":" + Deep(100000, "["), ""); },
       "not valid JSON (or nested too deeply)"},
      {"HeaderFollowedByMore", f, Safetensors("{} {}", ""), "something follows the JSON value"},
      {"MetadataNoObject", f, One("\"__metadata__\":7", ""), "\"__metadata__\" is not an object"},
      {"EntryNoObject", f, One("\"w\":7"), "tensor 'w': dtype ''"},
      {"DtypeUnknown", f, One(Entry("w", "F4", "2", 0, 8)), "tensor 'w': dtype 'F4' is not known"},
      {"DtypeByTorchsName", f, One(Entry("w", "float32", "2", 0, 8)), "dtype 'float32' is not known"},
      {"ShapeTooSmall", f, One(Entry("w", "F32", "1", 0, 8)), "its shape takes 4 bytes, but 8 are stored"},
      {"ShapeTooLarge", f, One(Entry("w", "F32", "3", 0, 8)), "its shape takes 12 bytes, but 8 are stored"},
      {"ShapeOverflows", f, One(Entry("w", "F32", "4294967296,4294967296", 0, 8)),
       "tensor 'w': its shape is too large"},
      {"ShapeWrapsToItsBytes", f, One(Entry("w", "F32", "4611686018427387906", 0, 8)), "tensor 'w'"},
      {"ShapeNegative", f, One(Entry("w", "F32", "-2", 0, 8)), "\"shape\" must be"},
      {"ShapeFraction", f, One(Entry("w", "F32", "1.5", 0, 8)), "\"shape\" must be"},
      {"ShapeText", f, One(Entry("w", "F32", "\"2\"", 0, 8)), "\"shape\" must be"},
      {"ShapeOfNineDimensions", f, One(Entry("w", "F32", "1,1,1,1,1,1,1,1,2", 0, 8)), "\"shape\" must be"},
      {"OffsetsReversed", f, One(Entry("w", "F32", "2", 8, 0)), "\"data_offsets\" must be"},
      {"OffsetsMissing", f, One(R"("w":{"dtype":"F32","shape":[2]})"), "\"data_offsets\" must be"},
      {"OffsetsPastTheEnd", f, One(Entry("w", "F32", "2", 0, 8), "1234"), "reach past the end of the file"},
      {"OffsetsHuge", f, One(Entry("w", "F32", "2", 9007199254740984, 9007199254740992)), "reach past the end"},
      {"Overlap", f, One(Entry("w", "F32", "2", 0, 8) + "," + Entry("x", "F32", "1", 4, 8)), "tensor 'x' overlaps 'w'"},
      {"Gap", f, One(Entry("w", "F32", "1", 0, 4) + "," + Entry("x", "U8", "3", 5, 8)), "the 1 bytes before it"},
      {"BytesLeftOver", f, One(Entry("w", "F32", "1", 0, 4)), "the last 4 bytes belong to no tensor"},
      {"Twice", f, One(Entry("w", "F32", "1", 0, 4) + "," + Entry("w", "F32", "1", 4, 8)), "tensor 'w' is there twice"},
      {"NameClimbs", f, One(Entry("../../w", "F32", "2", 0, 8)), "not a name that a tensor may have"},
      {"NameClimbsInside", f, One(Entry("a/../w", "F32", "2", 0, 8)), "not a name that a tensor may have"},
      {"NameAbsolute", f, One(Entry("/etc/passwd", "F32", "2", 0, 8)), "not a name that a tensor may have"},
      {"NameEmpty", f, One(Entry("", "F32", "2", 0, 8)), "not a name that a tensor may have"},
      {"NameNoUtf8", f, One(Entry("w\xff", "F32", "2", 0, 8)), "not valid UTF-8 at byte 3"},
      {"NameWithNul", f, One(Entry("nul\\u0000x", "F32", "2", 0, 8)), "a string with \\u0000 at byte 6"},
      {"NameWithEscapeCodes", f, One(Entry("w\\u001b[2J", "F9", "2", 0, 8)), "tensor 'w?[2J'"},
  };
}

std::vector<BadInput> ConfigCases() {
  const char *f = "config.json";
  std::string embed =
      One(Entry("model.embed_tokens.weight", "U8", "3,2", 0, 6) + "," + Entry("model.norm.weight", "U8", "2", 6, 8));
  std::string floats = One(
      Entry("model.embed_tokens.weight", "F16", "2,3", 0, 12) + "," + Entry("model.norm.weight", "F16", "2", 12, 16),
      "1234567812345678");
  std::string no_norm = One(Entry("model.embed_tokens.weight", "F16", "3,2", 0, 12), "123456781234");
  return {
      {"ConfigNoJson", f, "{", "not valid JSON", {{"model.safetensors", kOk}}},
      {"ConfigDeep",
       f,
       +[] { return "{\"a\":" + Deep(100000, "{\"a\":"); },
       "not valid JSON",
       {{"model.safetensors", kOk}}},
      {"ConfigNoUtf8",
       f,
       "{\"model_type\": \"lla\xff\"}",
       "config.json: not valid UTF-8 at byte 19",
       {{"model.safetensors", kOk}}},
      {"ConfigNul",
       f,
       R"({"model_type": "lla\u0000ma"})",
       "config.json: a string with \\u0000 at byte 20",
       {{"model.safetensors", kOk}}},
      {"ConfigNewlineInString",
       f,
       "{\"model_type\": \"lla\nma\"}",
       "config.json: a string with a control character at byte 19",
       {{"model.safetensors", kOk}}},
      {"ConfigNaN",
       f,
       R"({"model_type": "llama", "hidden_size": NaN})",
       "config.json: \"hidden_size\" must be a whole number",
       {{"model.safetensors", kOk}}},
      {"ConfigInfinity",
       f,
       std::string(kLlama).replace(strlen(kLlama) - 1, 1, R"(, "rms_norm_eps": Infinity})"),
       "config.json: \"rms_norm_eps\" must be a number",
       {{"model.safetensors", kOk}}},
      {"ConfigArray", f, "[]", "not a JSON object", {{"model.safetensors", kOk}}},
      {"ConfigOfAnotherKind",
       f,
       R"({"tokenizer_class": "X"})",
       "no model's configuration",
       {{"model.safetensors", kOk}}},
      {"ConfigOfAnotherModel",
       "",
       "",
       "tensor 'model.embed_tokens.weight' is missing",
       {{"model.safetensors", kOk}, {"config.json", kLlama}}},
      {"ShapeAgainstTheConfig",
       "model.safetensors",
       floats,
       "its shape is [2, 3], the config makes it [3, 2]",
       {{"config.json", kLlama}}},
      {"TensorMissing",
       "",
       "",
       "tensor 'model.norm.weight' is missing",
       {{"model.safetensors", no_norm}, {"config.json", kLlama}}},
  };
}

std::vector<BadInput> IndexCases() {
  const char *f = "model.safetensors.index.json";
  auto map = [](const std::string &entries) { return "{\"weight_map\": {" + entries + "}}"; };
  std::string other = One(Entry("v", "F32", "2", 0, 8));
  return {
      {"IndexNoJson", f, "{", "not valid JSON"},
      {"IndexDeep", f, +[] { return Deep(100000, "["); }, "not valid JSON"},
      {"IndexWithoutMap", f, "{}", "\"weight_map\" is missing or empty"},
      {"IndexEmpty", f, map(""), "\"weight_map\" is missing or empty"},
      {"ShardMissing", f, map(R"("w": "a.safetensors")"), "its shard 'a.safetensors' is missing"},
      {"ShardClimbs", f, map(R"("w": "../a.safetensors")"), "'../a.safetensors' is not the name of a file"},
      {"ShardAbsolute", f, map(R"("w": "/etc/passwd")"), "'/etc/passwd' is not the name of a file"},
      {"ShardBelow", f, map(R"("w": "sub/a.safetensors")"), "is not the name of a file"},
      {"ShardIsTheFolder", f, map(R"("w": "..")"), "is not the name of a file"},
      {"ShardNoText", f, map(R"("w": 7)"), "tensor 'w': its shard"},
      {"ListedTwice", f, map(R"("w": "a.safetensors", "w": "a.safetensors")"), "tensor 'w' is listed twice"},
      {"TensorNotInItsShard",
       f,
       map(R"("w": "a.safetensors", "v": "a.safetensors")"),
       "tensor 'v' is not in 'a.safetensors'",
       {{"a.safetensors", kOk}, {"b.safetensors", other}}},
      {"TensorInTheOtherShard",
       f,
       map(R"("w": "b.safetensors", "v": "a.safetensors")"),
       "where the index says it is",
       {{"a.safetensors", kOk}, {"b.safetensors", other}}},
      {"TensorInBothShards",
       "b.safetensors",
       kOk,
       "tensor 'w' is there twice, also in",
       {{f, map(R"("w": "a.safetensors", "v": "b.safetensors")")}, {"a.safetensors", kOk}}},
      {"ShardsOfTwoKinds",
       "b.safetensors",
       TorchFile(Dict({{"v", kOkTensor}})),
       "a pytorch file among safetensors shards",
       {{f, map(R"("w": "a.safetensors", "v": "b.safetensors")")}, {"a.safetensors", kOk}}},
      {"ShardDamaged",
       "a.safetensors",
       kOk.substr(0, kOk.size() - 1),
       "reach past the end of the file",
       {{f, map(R"("w": "a.safetensors")")}}},
  };
}

std::vector<BadInput> PickleCases() {
  const char *f = "pytorch_model.bin";
  auto torch = [&](const char *name, const std::string &body, const char *message) {
    return BadInput{name, f, TorchFile(body), message};
  };
  auto view = [&](int64_t offset, const std::vector<int64_t> &size, const std::vector<int64_t> &stride) {
    return Dict({{"w", Tensor(Storage("0", 4), offset, size, stride)}});
  };
  const std::string run = "(" + Str("echo hello") + "t";
  return {
      torch("CallsSystem", Global("posix", "system") + run + "R", "would call posix.system; refused"),
      torch("CallsOsSystem", Global("os", "system") + run + "R", "would call os.system; refused"),
      torch("CallsEval", Dict({{"w", Global("builtins", "eval") + run + "R"}}), "would call builtins.eval; refused"),
      torch("CallsByStack", Str("os") + Str("system") + "\x93" + run + "R", "would call os.system; refused"),
      torch("CallsByInst", "(" + Str("x") + "ios\nsystem\n", "would call os.system; refused"),
      torch("CallsByNewobj", Global("subprocess", "Popen") + ")\x81", "would call subprocess.Popen; refused"),
      torch("CallsTorchLoad", Global("torch.storage", "_load_from_bytes") + run + "R",
            "torch.storage._load_from_bytes"),
      torch("NamesWithoutCalling", Global("numpy", "ndarray") + "0" + Dict({{"w", kOkTensor}}),
            "would call numpy.ndarray"),
      torch("CallsAStorage", Global("torch", "FloatStorage") + ")R", "calls what is no function"),
      torch("NewObjectOfAnAllowedName", Global("collections", "OrderedDict") + ")\x81", "makes an instance"),
      torch("SetsStateOfATensor", kOkTensor + "}b", "sets the state of what is no dict"),
      torch("OpcodeUnknown", "\x97", "opcode 0x97"),
      torch("NoDict", kOkTensor, "it is no dict of tensors"),
      torch("NoTensor", Dict({{"step", Int(7)}}), "its dict holds no tensor"),
      torch("StackEmpty", "t", "a mark is missing"),
      torch("PopsNothing", "0", "the stack is empty"),
      torch("RecallsNothing", "h\x05", "recalls what it did not store"),
      torch("StoresFarAway", std::string("Nr\xff\xff\xff\xff", 6), "stores under a number that is too large"),
      {"MarksWithoutEnd", f, +[] { return TorchFile(Deep(1000000, "(")); }, "larger than any state dict"},
      {"StackWithoutEnd", f, +[] { return TorchFile(Deep(1000000, "N")); }, "larger than any state dict"},
      {"ValuesWithoutEnd", f, +[] { return TorchFile(Deep(5000000, "N0")); }, "larger than any state dict"},
      torch("StringPastTheEnd", "X" + Little(1000, 4) + "abc", "truncated"),
      torch("KeyWithZeroByte", Dict({{std::string("w\0x", 3), kOkTensor}}), "zero byte"),
      torch("TensorNameClimbs", Dict({{"../w", kOkTensor}}), "not a name that a tensor may have"),
      torch("TensorTwice", Dict({{"w", kOkTensor}, {"w", kOkTensor}}), "tensor 'w' is there twice"),
      torch("StorageMissing", Dict({{"w", Tensor(Storage("7", 4), 0, {2}, {1})}}), "its storage '7' is missing"),
      torch("StorageClimbs", Dict({{"w", Tensor(Storage("../data.pkl", 4), 0, {2}, {1})}}),
            "storage '../data.pkl' is missing"),
      torch("StorageOfAnotherSize", Dict({{"w", Tensor(Storage("0", 5), 0, {2}, {1})}}),
            "has 16 bytes, the pickle says 20"),
      torch("StorageSizeOverflows", Dict({{"w", Tensor(Storage("0", INT64_MAX), 0, {2}, {1})}}), "out of range"),
      torch("StorageSizeNegative", Dict({{"w", Tensor(Storage("0", -4), 0, {2}, {1})}}), "out of range"),
      torch("StorageTypeUnknown", Dict({{"w", Tensor(Storage("0", 4, "ComplexFloatStorage"), 0, {2}, {1})}}),
            "torch.ComplexFloatStorage"),
      torch("ViewPastTheEnd", view(0, {5}, {1}), "reaches past the end of its storage"),
      torch("ViewOffsetPastTheEnd", view(3, {2}, {1}), "reaches past the end of its storage"),
      torch("ViewOffsetHuge", view(INT64_MAX, {2}, {1}), "reaches past the end of its storage"),
      torch("ViewOffsetNegative", view(-1, {2}, {1}), "a tensor's offset"),
      torch("ViewStridePastTheEnd", view(0, {2}, {4}), "reaches past the end of its storage"),
      torch("ViewStrideOverflows", view(0, {3}, {INT64_MAX}), "tensor 'w'"),
      torch("ViewStrideNegative", view(0, {2}, {-1}), "size and stride"),
      torch("ViewShapeOverflows", view(0, {INT64_MAX, INT64_MAX}, {1, 1}), "its shape is too large"),
      torch("ViewExpanded", view(0, {1ll << 40}, {0}), "its strides let elements overlap"),
      torch("ViewOverlapping", view(0, {3, 2}, {1, 1}), "its strides let elements overlap"),
      torch("ViewOfNineDimensions", view(0, std::vector<int64_t>(9, 1), std::vector<int64_t>(9, 1)), "size and stride"),
      torch("StridesOfAnotherCount", view(0, {2, 2}, {2}), "size and stride"),
  };
}

std::vector<BadInput> ZipCases() {
  const char *f = "pytorch_model.bin";
  std::string pkl = pickle::Pickle(Dict({{"w", kOkTensor}})), data = Bytes<float>({1, 2, 3, 4});
  auto zip = [&](const char *name, const Zip &z, const char *message) { return BadInput{name, f, z.Build(), message}; };
  Zip::Member p{"m/data.pkl", pkl}, d{"m/data/0", data};
  auto with = [](Zip::Member m, auto change) {
    change(m);
    return m;
  };
  std::string whole = Zip().Add(p).Add(d).Build();
  std::string comment = whole;
  comment[comment.size() - 2] = 9; /* claims a comment that is not there */
  return {
      {"ZipTruncated", f, whole.substr(0, whole.size() - 30), "no end record"},
      {"ZipCommentMissing", f, comment, "no end record"},
      zip("ZipCompressed", Zip().Add(p).Add(with(d, [](auto &m) { m.method = 8; })), "member 'm/data/0' is compressed"),
      zip("ZipEncrypted", Zip().Add(p).Add(with(d, [](auto &m) { m.flags = 1; })), "member 'm/data/0' is encrypted"),
      zip("ZipCrc", Zip().Add(p).Add(with(d, [](auto &m) { m.crc_change = 1; })),
          "member 'm/data/0' is damaged: its CRC"),
      zip("ZipCrcOfThePickle", Zip().Add(with(p, [](auto &m) { m.crc_change = 1; })).Add(d), "'m/data.pkl' is damaged"),
      zip("ZipMemberTooLong", Zip().Add(p).Add(with(d, [](auto &m) { m.size = 1 << 30; })), "reaches past the end"),
      zip("ZipMembersOverlap",
          Zip().Add(p).Add(with(d,
                                [](auto &m) {
                                  m.header = 0;
                                  m.name = m.local_name = "m/data.pkl";
                                })),
          "overlaps"),
      zip("ZipOverlapByLength", Zip().Add(with(p, [&](auto &m) { m.size = (int64_t)pkl.size() + 20; })).Add(d),
          "overlaps"),
      zip("ZipMemberElsewhere", Zip().Add(p).Add(with(d, [](auto &m) { m.header = 7; })),
          "is not where the directory says"),
      zip("ZipMemberFarAway", Zip().Add(p).Add(with(d, [](auto &m) { m.header = 0x7ffffff0; })),
          "is not where the directory"),
      zip("ZipNamesDiffer", Zip().Add(p).Add(with(d, [](auto &m) { m.local_name = "m/data/1"; })),
          "another name in its own"),
      zip("ZipNameClimbs", Zip().Add(p).Add(d).Add({"m/../../x", "y"}), "member 'm/../../x': not a name"),
      zip("ZipNameAbsolute", Zip().Add(p).Add(d).Add({"/etc/x", "y"}), "member '/etc/x': not a name"),
      zip("ZipNameBackslash", Zip().Add(p).Add(d).Add({"m\\..\\x", "y"}), "not a name that a member may have"),
      zip("ZipTwice", Zip().Add(p).Add(d).Add(d), "member 'm/data/0' is there twice"),
      zip("ZipWithoutPickle", Zip().Add(d), "without data.pkl"),
      zip("ZipTwoPickles", Zip().Add(p).Add(d).Add({"n/data.pkl", pkl}), "are in it"),
      zip("ZipBigEndian", Zip().Add(p).Add(d).Add({"m/byteorder", "big"}), "not little-endian"),
  };
}

std::vector<BadInput> AllCases() {
  std::vector<BadInput> all;
  for (auto cases : {SafetensorsCases(), ConfigCases(), IndexCases(), PickleCases(), ZipCases()})
    all.insert(all.end(), cases.begin(), cases.end());
  return all;
}

void ExpectOneLineAndNothingLeftBehind(const BadInput &bad) {
  SCOPED_TRACE(bad.name);
  TempFolder dir;
  std::filesystem::create_directory(dir / "src");
  for (const auto &other : bad.others) WriteFile(dir / "src/" + other.first, other.second);
  if (*bad.file) WriteFile(dir / "src/" + bad.file, bad.content.Get());
  CommandResult r = Nibble("convert " + (dir / "src") + " " + (dir / "dst"));
  EXPECT_EQ(r.code, 3) << r.err;
  EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << r.err;
  EXPECT_NE(r.err.find(bad.file), std::string::npos) << r.err;
  EXPECT_NE(r.err.find(bad.message), std::string::npos) << r.err;
  EXPECT_EQ(r.out, "");
  EXPECT_EQ(ListFolder(dir.path()), (std::vector<std::string>{"src"}));
}

class BadInputTest : public testing::TestWithParam<BadInput> {};

TEST_P(BadInputTest, EndsWithOneLineAndNothingLeftBehind) { ExpectOneLineAndNothingLeftBehind(GetParam()); }

TEST(BadInput, OfManyMegabytesEndsWithOneLine) {
  std::vector<std::pair<std::string, std::string>> many; /* each a few bytes of pickle and 4 MB of output */
  for (int i = 0; i < 40; i++)
    many.push_back({"w" + std::to_string(i), Tensor(Storage("0", 1 << 20), 0, {1 << 20}, {1})});
  Zip sharing, large;
  sharing.Add({"m/data.pkl", pickle::Pickle(Dict(many))}).Add({"m/data/0", std::string(4 << 20, 0)});
  large.Add({"m/data.pkl", std::string((64 << 20) + 1, 0)});
  const char *f = "pytorch_model.bin";
  ExpectOneLineAndNothingLeftBehind({"SharedTooOften", f, sharing.Build(), "claim more than 8 times the file's size"});
  ExpectOneLineAndNothingLeftBehind({"PickleTooLarge", f, large.Build(), "more than any state dict"});
}

INSTANTIATE_TEST_SUITE_P(All, BadInputTest, testing::ValuesIn(AllCases()),
                         [](const auto &info) { return std::string(info.param.name); });

TEST(BadInput, WhatTheCasesStartFromIsGood) {
  TempFolder dir;
  for (const std::string &bytes : {kOk, TorchFile(Dict({{"w", kOkTensor}}))}) {
    WriteFile(dir / "good", bytes);
    CommandResult r = Nibble("convert --force " + (dir / "good") + " " + (dir / "dst"));
    EXPECT_EQ(r.code, 0) << r.err;
  }
}

TEST(BadInput, Zip64IsRead) {
  TempFolder dir;
  Zip zip;
  zip.Add({"any name/data.pkl", pickle::Pickle(Dict({{"w", kOkTensor}}))}).Add({"any name/data/0", "0123456789abcdef"});
  WriteFile(dir / "x.bin", zip.Build(true));
  nb_checkpoint c;
  nibble_error err;
  ASSERT_EQ(nb_checkpoint_open((dir / "x.bin").c_str(), &c, &err), NIBBLE_OK) << err.message;
  EXPECT_EQ(memcmp(nb_tensor_view(&c, &c.tensors[0]), "0123456789abcdef", 16), 0);
  nb_checkpoint_close(&c);
}

/* Opens `bytes` and reads everything; the status. */
nibble_status ReadAll(const std::string &path, const std::string &bytes) {
  unlink(path.c_str()); /* some file systems wait for the disk when a file is written over */
  WriteFile(path, bytes);
  nb_checkpoint c;
  nibble_error err;
  nibble_status status = nb_checkpoint_open(path.c_str(), &c, &err);
  if (status != NIBBLE_OK) return status;
  for (size_t i = 0; i < c.tensor_count; i++) {
    const nb_tensor *t = &c.tensors[i];
    std::string out((size_t)t->count * nb_dtype_size(t->dtype), 0);
    EXPECT_EQ(nb_tensor_read(&c, t, nb_span{0, t->count}, t->dtype, out.data(), &err), NIBBLE_OK) << err.message;
  }
  nb_checkpoint_close(&c);
  return NIBBLE_OK;
}

TEST(BadInput, NoPrefixOfAFileIsTakenForTheWhole) {
  TempFolder dir;
  for (const char *name : {"dtypes.safetensors", "dtypes.bin", "views.bin"}) {
    std::string whole = ReadFile(Golden(std::string("checkpoints/") + name));
    ASSERT_EQ(ReadAll(dir / "x", whole), NIBBLE_OK);
    for (size_t n = 0; n < whole.size(); n++)
      ASSERT_EQ(ReadAll(dir / "x", whole.substr(0, n)), NIBBLE_BAD_INPUT) << name << " cut to " << n << " bytes";
  }
}

TEST(BadInput, EveryFlippedBitIsSurvived) {
  TempFolder dir;
  for (const char *name : {"dtypes.safetensors", "views.bin"}) {
    std::string bytes = ReadFile(Golden(std::string("checkpoints/") + name));
    for (size_t i = 0; i < bytes.size(); i++) {
      for (int bit : {0, 3, 7}) {
        bytes[i] = (char)(bytes[i] ^ 1 << bit);
        nibble_status status = ReadAll(dir / "x", bytes);
        ASSERT_TRUE(status == NIBBLE_OK || status == NIBBLE_BAD_INPUT) << name << " byte " << i << " bit " << bit;
        bytes[i] = (char)(bytes[i] ^ 1 << bit);
      }
    }
  }
}

}  // namespace
