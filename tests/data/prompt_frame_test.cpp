// Other wordings of the prompts: the content stays, the words around it do not.
#include "data/prompt_frame.h"

#include <gtest/gtest.h>

#include "data/example_file.h"
#include "support/expect_error.h"

namespace moe {
namespace {

const std::string kData = MOE_DATA_DIR;

TEST(PromptFrame, IsTakenOffTheNameOfASchema) {
  std::string schema = "medmcqa@common";
  EXPECT_EQ(take_frame(schema), "common");
  EXPECT_EQ(schema, "medmcqa");
  schema = "@unseen";
  EXPECT_EQ(take_frame(schema), "unseen");
  EXPECT_EQ(schema, "");
  for (const char *plain : {"gsm8k", "some@folder/schema.json", "a@b"}) {
    schema = plain;
    EXPECT_EQ(take_frame(schema), "");
    EXPECT_EQ(schema, plain);
  }
}

TEST(PromptFrame, HoldsTheRolesOfThePromptAndNothingElse) {
  for (const auto &[frame, before, after] :
       {std::tuple{"@common", "Input: ", "\nOutput:"}, {"@unseen", "Please read this.\n\n", "\n\nMy response:"}}) {
    for (const auto &[file, space] : {std::pair{"medmcqa", true}, {"casehold", true}, {"gsm8k", false}, {"mbpp", false}}) {
      const std::string path = kData + "/" + file + "/heldout.jsonl";
      const ExampleFile own = read_examples(path, "", 3), other = read_examples(path, frame, 3);
      EXPECT_EQ(other.schema.name, own.schema.name + frame);
      ASSERT_EQ(other.examples.size(), 3u);
      for (size_t i = 0; i < 3; i++) {
        const std::string &prompt = other.examples[i].prompt, end = std::string(after) + (space ? "" : "\n");
        EXPECT_TRUE(prompt.starts_with(before) && prompt.ends_with(end)) << prompt;
        EXPECT_EQ(other.examples[i].completion, own.examples[i].completion);
        EXPECT_EQ(other.examples[i].choices.size(), own.examples[i].choices.size());
        // What stands between is in the prompt of the schema too, line by line.
        const std::string middle =
            prompt.substr(std::string(before).size(), prompt.size() - std::string(before).size() - end.size());
        for (size_t at = 0; at < middle.size();) {
          const size_t line = std::min(middle.find('\n', at), middle.size());
          EXPECT_NE(own.examples[i].prompt.find(middle.substr(at, line - at)), std::string::npos) << middle;
          at = line + 1;
        }
      }
    }
  }
}

TEST(PromptFrame, MedmcqaAndCaseholdCannotBeToldApartByTheirWords) {
  const auto words = [](const std::string &file) {
    const std::string prompt = read_examples(kData + "/" + file + "/heldout.jsonl", "@common", 1).examples[0].prompt;
    return prompt.substr(0, 7) + prompt.substr(prompt.size() - 8);
  };
  EXPECT_EQ(words("medmcqa"), words("casehold"));
}

TEST(PromptFrame, AnUnknownSchemaInAFrameIsStillUnknown) {
  EXPECT_FAILS(read_examples(kData + "/gsm8k/heldout.jsonl", "nothing@common", 1), Code::invalid, "nothing");
}

}  // namespace
}  // namespace moe
