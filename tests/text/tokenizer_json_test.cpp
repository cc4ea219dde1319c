// The ways to write a tokenizer.json: small tokenizers against the answers of Hugging Face `tokenizers`
// (golden/text/small), and files that are damaged or ask for what is not supported.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "base/error.h"
#include "text/golden_lines.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace moe {
namespace {

using golden::text_at;

const std::string kSmall = golden::kText + "small/";

TEST(TokenizerJson, EveryFormGivesTheIdsAndTextsOfTheReference) {
  std::map<std::string, std::shared_ptr<const Tokenizer>> tokenizers;
  int64_t lines = 0;
  for (const Json &row : golden::read_lines(kSmall + "lines.jsonl")) {
    const std::string &name = text_at(row, "tokenizer"), &text = text_at(row, "text");
    if (!tokenizers.contains(name)) {
      try {
        tokenizers[name] = load_tokenizer(kSmall + name);
      } catch (const Error &error) {  // a build without a library refuses what needs it, by its name
        EXPECT_EQ(error.code(), Code::unsupported) << error.message();
        const char *missing = MOE_HAVE_UTF8PROC ? "PCRE2" : "utf8proc";
        EXPECT_NE(error.message().find(missing), std::string::npos) << error.message();
        EXPECT_FALSE(MOE_HAVE_PCRE2 && MOE_HAVE_UTF8PROC) << error.message();
        tokenizers[name] = nullptr;
      }
    }
    const auto &tokenizer = tokenizers[name];
    if (!tokenizer) continue;
    ++lines;
    const bool special = row.at("special", "").boolean();
    const std::vector<int32_t> ids = tokenizer->encode(text, {special, special, {}});
    EXPECT_EQ(ids, golden::ids_at(row, "ids")) << name << " " << row.at("text", "").dump() << (special ? "" : " as text");
    // An added token stands for its own text; the reference prints the é of "<nrmé>" as the byte E9 of the byte alphabet.
    const std::string &decoded = golden::decoded_of(row);
    if (decoded.find("<nrm\xEF\xBF\xBD>") == std::string::npos && decoded.find("<nrme\xCC\x81>") == std::string::npos) {
      EXPECT_EQ(unicode::replace_invalid(tokenizer->decode(golden::ids_at(row, "ids"))), decoded) << name;
    }
  }
  EXPECT_EQ(tokenizers.size(), 10u);
  EXPECT_GT(lines, MOE_HAVE_PCRE2 && MOE_HAVE_UTF8PROC ? 700 : 60);
}

// A folder with the given files, removed again.
class Folder {
 public:
  Folder() {
    static int count = 0;
    path_ = testing::TempDir() + "moe_tokenizer_" + std::to_string(::testing::UnitTest::GetInstance()->random_seed()) + "_" +
            std::to_string(reinterpret_cast<uintptr_t>(this)) + "_" + std::to_string(count++);
    make_folders(path_);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  void write(const std::string &name, std::string_view content) {
    std::ofstream(join_path(path_, name), std::ios::binary) << content;
  }
  const std::string &path() const { return path_; }

 private:
  std::string path_;
};

// A SentencePiece-style file that every build can read.
std::string tiny_model(const std::string &model, const std::string &rest = "") {
  return R"({"added_tokens":[{"id":7,"content":"<s>","special":true}],"normalizer":{"type":"Replace","pattern":{"String":" "},)"
         R"("content":"▁"},"pre_tokenizer":null,"decoder":null)" +
         rest + R"(,"model":)" + model + "}";
}
const std::string kTinyModel =
    R"({"type":"BPE","unk_token":"<unk>","vocab":{"<unk>":0,"a":1,"b":2,"▁":3,"ab":4,"▁a":5,"▁ab":6},"merges":["a b",["▁","ab"]]})";

std::string refusal(const std::string &content, Code code) {
  Folder folder;
  folder.write("tokenizer.json", content);
  try {
    load_tokenizer(folder.path());
  } catch (const Error &error) {
    EXPECT_EQ(error.code(), code) << error.message();
    EXPECT_EQ(error.message().find('\n'), std::string::npos);
    return error.message();
  }
  ADD_FAILURE() << "accepted: " << content;
  return "";
}

TEST(TokenizerJson, ReadsATinySentencePieceModel) {
  Folder folder;
  folder.write("tokenizer.json", tiny_model(kTinyModel));
  folder.write("tokenizer_config.json",
               R"({"bos_token":{"content":"<s>"},"eos_token":"<s>","add_bos_token":true,"chat_template":"T"})");
  folder.write("generation_config.json", R"({"eos_token_id":[7,2]})");
  const auto tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(tokenizer->encode("ab ab?", {true, true, {}}), (std::vector<int32_t>{7, 4, 6, 0}));
  EXPECT_EQ(tokenizer->bos(), 7);
  EXPECT_TRUE(tokenizer->adds_bos());
  EXPECT_FALSE(tokenizer->adds_eos());
  EXPECT_EQ(tokenizer->end_tokens(), (std::vector<int32_t>{2, 7}));
  EXPECT_EQ(tokenizer->chat_template(), "T");
  EXPECT_EQ(tokenizer->find(" ab"), 6);
  EXPECT_EQ(tokenizer->find("<s>"), 7);
  EXPECT_EQ(tokenizer->find("c"), -1);
  EXPECT_TRUE(tokenizer->is_control(7));
  EXPECT_FALSE(tokenizer->is_control(6));
  EXPECT_EQ(tokenizer->decode({7, 6}, true), " ab");
  EXPECT_THROW(tokenizer->bytes(8), Error);
  EXPECT_THROW(tokenizer->decode({-1}), Error);
}

TEST(TokenizerJson, ATemplateFileComesBeforeTheConfiguration) {
  Folder folder;
  folder.write("tokenizer.json", tiny_model(kTinyModel));
  folder.write("tokenizer_config.json",
               R"({"chat_template":[{"name":"tools","template":"A"},{"name":"default","template":"B"}]})");
  EXPECT_EQ(load_tokenizer(folder.path())->chat_template(), "B");
  folder.write("chat_template.jinja", "C");
  EXPECT_EQ(load_tokenizer(folder.path())->chat_template(), "C");
}

TEST(TokenizerJson, RefusesOtherKindsByName) {
  for (const std::string type : {"WordPiece", "Unigram", "WordLevel"}) {
    EXPECT_NE(refusal(tiny_model(R"({"type":")" + type + R"(","vocab":{}})"), Code::unsupported).find(type), std::string::npos);
  }
  const auto with = [](const std::string &key, const std::string &value) {
    std::string content = tiny_model(kTinyModel);
    const size_t at = content.find("\"" + key + "\":");
    if (at == std::string::npos) return tiny_model(kTinyModel, ",\"" + key + "\":" + value);
    const size_t begin = at + key.size() + 3,
                 end = content.find(",\"", content[begin] == '{' ? content.find("},", begin) : begin);
    return content.replace(begin, end - begin, value);
  };
  EXPECT_NE(refusal(with("post_processor", R"({"type":"BertProcessing"})"), Code::unsupported).find("BertProcessing"),
            std::string::npos);
  EXPECT_NE(refusal(with("pre_tokenizer", R"({"type":"WhitespaceSplit"})"), Code::unsupported).find("WhitespaceSplit"),
            std::string::npos);
  EXPECT_NE(refusal(with("pre_tokenizer", R"({"type":"BertPreTokenizer"})"), Code::unsupported).find("BertPreTokenizer"),
            std::string::npos);
  std::string other = tiny_model(kTinyModel);
  other.replace(other.find("\"Replace\""), 9, "\"BertNormalizer\"");
  EXPECT_NE(refusal(other, Code::unsupported).find("BertNormalizer"), std::string::npos);
  EXPECT_NE(refusal(tiny_model(R"({"type":"BPE","end_of_word_suffix":"</w>","vocab":{},"merges":[]})"), Code::unsupported)
                .find("end_of_word_suffix"),
            std::string::npos);
}

TEST(TokenizerJson, RefusesWhatContradictsItself) {
  const auto model = [](const std::string &vocabulary, const std::string &merges) {
    return tiny_model(R"({"type":"BPE","vocab":{)" + vocabulary + R"(},"merges":[)" + merges + "]}");
  };
  EXPECT_NE(refusal(model(R"("a":0,"a":1)", ""), Code::format).find("same text"), std::string::npos);
  EXPECT_NE(refusal(model(R"("a":0,"b":0)", ""), Code::format).find("two tokens have the id 0"), std::string::npos);
  EXPECT_NE(refusal(model(R"("a":-1)", ""), Code::format).find("token id -1"), std::string::npos);
  EXPECT_NE(refusal(model(R"("a":9999999999)", ""), Code::format).find("9999999999"), std::string::npos);
  EXPECT_NE(refusal(model(R"("a":"0")", ""), Code::format).find("integer"), std::string::npos);
  EXPECT_NE(refusal(model(R"("a":1.5)", ""), Code::format).find("integer"), std::string::npos);
  EXPECT_NE(refusal(model(R"("a":0,"b":1)", R"("a b")"), Code::format).find("merge 0"), std::string::npos);
  EXPECT_NE(refusal(model(R"("a":0,"aa":1)", R"("a a a")"), Code::format).find("merge 0"), std::string::npos);
  EXPECT_NE(refusal(model(R"("a":0,"aa":1)", R"(["a"])"), Code::format).find("two strings"), std::string::npos);
  EXPECT_NE(refusal(model(R"("a":7)", ""), Code::format).find("added token 7"), std::string::npos);
  std::string long_token = tiny_model(kTinyModel);
  long_token.replace(long_token.find("<s>"), 3, std::string(1025, 'x'));
  EXPECT_NE(refusal(long_token, Code::format).find("1025 bytes"), std::string::npos);
  EXPECT_NE(refusal(tiny_model("{\"type\":\"BPE\"}"), Code::format).find("model.vocab"), std::string::npos);
  EXPECT_NE(refusal("{}", Code::format).find("'model' is missing"), std::string::npos);
  EXPECT_NE(refusal(R"({"model":{},"model":{}})", Code::format).find("second time"), std::string::npos);
}

TEST(TokenizerJson, AnUnknownBosTokenIsAnError) {
  Folder folder;
  folder.write("tokenizer.json", tiny_model(kTinyModel));
  folder.write("tokenizer_config.json", R"({"bos_token":"<none>"})");
  EXPECT_THROW(load_tokenizer(folder.path()), Error);
  folder.write("tokenizer_config.json", R"({"bos_token":7})");
  EXPECT_THROW(load_tokenizer(folder.path()), Error);
  folder.write("tokenizer_config.json", R"({"added_tokens_decoder":{"1":{"content":"<x>","special":true}}})");
  EXPECT_THROW(load_tokenizer(folder.path()), Error);
}

TEST(TokenizerJson, EveryTruncationIsAnError) {
  const std::string whole = tiny_model(kTinyModel);
  Folder folder;
  for (size_t length = 0; length < whole.size(); ++length) {
    folder.write("tokenizer.json", std::string_view(whole).substr(0, length));
    EXPECT_THROW(load_tokenizer(folder.path()), Error) << length;
  }
}

TEST(TokenizerJson, NoChangedByteDoesHarm) {
  const std::string whole = tiny_model(kTinyModel);
  Folder folder;
  for (size_t i = 0; i < whole.size(); ++i) {
    for (const char byte : {'"', '}', ']', ',', '\0', '\xFF', '9', '\\'}) {
      std::string edited = whole;
      edited[i] = byte;
      folder.write("tokenizer.json", edited);
      try {
        load_tokenizer(folder.path())->encode("ab <s> \xFF ab", {true, true, {}});
      } catch (const Error &) {
      }
    }
  }
}

TEST(TokenizerJson, AFolderWithoutVocabularyIsAnError) {
  Folder folder;
  EXPECT_THROW(load_tokenizer(folder.path()), Error);
  EXPECT_THROW(load_tokenizer(folder.path() + "/absent"), Error);
  folder.write("vocab.json", R"({"a":0})");
  folder.write("tokenizer_config.json", R"({"tokenizer_class":"CLIPTokenizer"})");
  EXPECT_THROW(load_tokenizer(folder.path()), Error);
  folder.write("tokenizer_config.json", R"({"tokenizer_class":"GPT2Tokenizer"})");
  EXPECT_THROW(load_tokenizer(folder.path()), Error);  // no merges.txt
}

}  // namespace
}  // namespace moe
