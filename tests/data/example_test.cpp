#include "data/example.h"

#include <gtest/gtest.h>

#include "data/row_view.h"
#include "support/expect_error.h"

namespace moe {
namespace {

struct Result {
  std::vector<Example> examples;
  SkipReport skipped;
};

Result examples_of(const std::string &schema, const std::string &row) {
  Result result;
  append_examples(find_schemas(schema).at(0), Json::parse(row, "row"), 7, result.examples, result.skipped);
  return result;
}

// The one reason why a row is skipped; "" when it is not.
std::string reason_of(const std::string &schema, const std::string &row) {
  const Result result = examples_of(schema, row);
  EXPECT_EQ(result.examples.size() + static_cast<size_t>(result.skipped.total()), 1u) << row;
  return result.skipped.total() ? result.skipped.reasons().begin()->first : "";
}

const std::string kMed = R"({"question": "Which?", "opa": "one", "opb": "two", "opc": "three", "opd": "four", "cop": )";

TEST(Example, MedMcqaListsTheOptionsAndAnswersWithTheText) {
  const Example example = examples_of("medmcqa_from_0", kMed + "2}").examples.at(0);
  EXPECT_EQ(example.prompt, "Question: Which?\nA. one\nB. two\nC. three\nD. four\nAnswer:");
  EXPECT_EQ(example.completion, " three");
  EXPECT_EQ(example.gold, 2);
  EXPECT_EQ(example.reference, "three");
  EXPECT_EQ(example.row, 7);
  ASSERT_EQ(example.choices.size(), 4u);
  EXPECT_EQ(example.choices[3].text, "four");
  EXPECT_EQ(example.choices[3].continuation, " four");
}

TEST(Example, TheTwoReleasesOfMedMcqaCountTheirAnswersDifferently) {
  EXPECT_EQ(examples_of("medmcqa_from_0", kMed + "1}").examples.at(0).completion, " two");
  EXPECT_EQ(examples_of("medmcqa_from_1", kMed + "1}").examples.at(0).completion, " one");
  EXPECT_EQ(examples_of("medmcqa_from_1", kMed + "4}").examples.at(0).completion, " four");
  EXPECT_EQ(reason_of("medmcqa_from_0", kMed + "4}"), "field 'cop' is outside the options");
  EXPECT_EQ(reason_of("medmcqa_from_1", kMed + "0}"), "field 'cop' is outside the options");
}

TEST(Example, HiddenAnswersAreNeverTheFirstOption) {
  EXPECT_EQ(reason_of("medmcqa_from_0", kMed + "-1}"), "no answer: field 'cop' is -1 (an unlabelled row)");
  EXPECT_EQ(reason_of("medmcqa_from_0", kMed + "null}"), "no answer: field 'cop' is absent (an unlabelled row)");
  EXPECT_EQ(reason_of("medmcqa_from_0", kMed + "\"\"}"), "no answer: field 'cop' is empty (an unlabelled row)");
  EXPECT_EQ(reason_of("medmcqa_from_0", R"({"question": "Which?", "opa": "1", "opb": "2", "opc": "3", "opd": "4"})"),
            "no answer: field 'cop' is absent (an unlabelled row)");
}

TEST(Example, Gsm8kKeepsTheWholeAnswerAndComparesWhatFollowsTheMark) {
  const Example example =
      examples_of("gsm8k", R"({"question": "How many?", "answer": "2+1=<<2+1=3>>3\n#### 1,003 "})").examples.at(0);
  EXPECT_EQ(example.prompt, "How many?\n");
  EXPECT_EQ(example.completion, "2+1=<<2+1=3>>3\n#### 1,003 ");
  EXPECT_EQ(example.reference, "1,003");
  EXPECT_EQ(reason_of("gsm8k", R"({"question": "How many?", "answer": "3"})"), "the answer has no '####'");
  EXPECT_EQ(reason_of("gsm8k", R"({"question": "How many?", "answer": "3 #### \n"})"), "the answer has nothing after '####'");
}

TEST(Example, CaseHoldContinuesItsContextWithAHolding) {
  const Example example =
      examples_of("casehold", R"({"context": "See A (<HOLDING>).", "endings": ["holding a", "holding b"], "label": 1})")
          .examples.at(0);
  EXPECT_EQ(example.prompt, "Question: See A (<HOLDING>).\nAnswer:");
  EXPECT_EQ(example.completion, " holding b");
}

TEST(Example, AnswersMayBeLettersTextsOrDigitsInText) {
  const std::string row = R"({"question": "Q", "choices": ["red", "B", "2"], "answer": )";
  EXPECT_EQ(examples_of("multiple_choice", row + "2}").examples.at(0).gold, 2);
  EXPECT_EQ(examples_of("multiple_choice", row + "\"red\"}").examples.at(0).gold, 0);
  EXPECT_EQ(examples_of("multiple_choice", row + "\"c\"}").examples.at(0).gold, 2);  // a letter, in any case
  EXPECT_EQ(examples_of("multiple_choice", row + "\"2\"}").examples.at(0).gold, 2);  // the text of an option comes first
  EXPECT_EQ(examples_of("multiple_choice", row + "\"1\"}").examples.at(0).gold, 1);  // digits that are no option count
  EXPECT_EQ(reason_of("multiple_choice", row + "\"blue\"}"), "field 'answer' names none of the options");
}

TEST(Example, LabelsOfOptionsAreTakenOffWhenAllCarryTheirOwn) {
  std::vector<Option> options{{"A", "A. Half life"}, {"B", "b) 1"}, {"C", "C ) x"}};
  strip_labels(options);
  EXPECT_EQ(options[0].text, "Half life");
  EXPECT_EQ(options[1].text, "1");
  EXPECT_EQ(options[2].text, "x");
  std::vector<Option> unlabelled{{"A", "A. fumigatus"}, {"B", "Candida"}};
  strip_labels(unlabelled);
  EXPECT_EQ(unlabelled[0].text, "A. fumigatus");
}

TEST(Example, OptionsInOneTextAreSplitAtTheirLabels) {
  std::vector<Option> options;
  ASSERT_TRUE(split_options("a ) rs . 1 , 200 , b ) 27.675 , c ) none of a ) , d ) e", options));
  ASSERT_EQ(options.size(), 4u);
  EXPECT_EQ(options[0].text, "rs . 1 , 200");
  EXPECT_EQ(options[1].text, "27.675");
  EXPECT_EQ(options[2].text, "none of a )");
  EXPECT_EQ(options[3].text, "e");
  // Some rows hold the list as Python prints it.
  ASSERT_TRUE(split_options(R"(['a ) 4', "b ) 4 ' , c ) x", 'c ) 16'])", options));
  ASSERT_EQ(options.size(), 3u);
  EXPECT_EQ(options[0].text, "4");
  EXPECT_EQ(options[1].text, "4 ' , c ) x");
  EXPECT_EQ(options[2].text, "16");
  EXPECT_FALSE(split_options("['38', '27']", options));
  EXPECT_FALSE(split_options("38 , 27", options));
  EXPECT_FALSE(split_options("", options));
}

TEST(Example, OptionsMayBeKeyedOrTwoLists) {
  EXPECT_EQ(
      examples_of("medqa", R"({"question": "Q", "options": {"A": "x", "B": "y"}, "answer_idx": "B"})").examples.at(0).completion,
      " y");
  const std::string arc = R"({"question": "Q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answer": "2"})";
  EXPECT_EQ(examples_of("multiple_choice", arc).examples.at(0).completion, " y");
}

TEST(Example, InstructionsWithoutInputHaveAShorterPrompt) {
  const std::string with = "### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n",
                    without = "### Instruction:\nAdd.\n\n### Response:\n";
  EXPECT_EQ(examples_of("instruction", R"({"instruction": "Add.", "input": "1 2", "output": "3"})").examples.at(0).prompt, with);
  EXPECT_EQ(examples_of("instruction", R"({"instruction": "Add.", "input": "", "output": "3"})").examples.at(0).prompt, without);
  EXPECT_EQ(examples_of("instruction", R"({"instruction": "Add.", "response": "3"})").examples.at(0).prompt, without);
  const Result several =
      examples_of("self_instruct",
                  R"({"instruction": "Add.", "instances": [{"input": "1 2", "output": "3"}, {"input": "", "output": "4"}]})");
  ASSERT_EQ(several.examples.size(), 2u);
  EXPECT_EQ(several.examples[0].prompt, with);
  EXPECT_EQ(several.examples[1].prompt, without);
  EXPECT_EQ(several.examples[1].completion, "4");
  EXPECT_EQ(
      examples_of("self_instruct", R"({"instruction": "Add.", "instances": {"input": "1 2", "output": "3"}})").examples.size(),
      1u);
}

TEST(Example, MessagesAreReadInBothLayouts) {
  const Example roles =
      examples_of("messages", R"({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]})")
          .examples.at(0);
  ASSERT_EQ(roles.messages.size(), 2u);
  EXPECT_EQ(roles.messages[0].content, "hi");
  EXPECT_EQ(roles.reference, "yo");
  const Example speakers =
      examples_of("messages", R"({"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}]})")
          .examples.at(0);
  EXPECT_EQ(speakers.messages[0].role, "user");
  EXPECT_EQ(speakers.messages[1].role, "assistant");
  EXPECT_FAILS(render(roles, nullptr), Code::unsupported, "chat template");
}

TEST(Example, HostileRowsAreSkippedWithAReason) {
  EXPECT_EQ(reason_of("text", R"([1, 2])"), "the row is not an object with fields");
  EXPECT_EQ(reason_of("text", R"({})"), "field 'text' is absent");
  EXPECT_EQ(reason_of("text", R"({"text": null})"), "field 'text' is absent");
  EXPECT_EQ(reason_of("text", R"({"text": " \n\t"})"), "field 'text' is empty");
  EXPECT_EQ(reason_of("text", R"({"text": {"a": 1}})"), "field 'text' is an object, expected a text");
  EXPECT_EQ(reason_of("text", R"({"text": true})"), "field 'text' is a boolean, expected a text");
  EXPECT_EQ(reason_of("text", R"({"text": ["a", 1]})"), "field 'text' is a list that holds other than texts");
  EXPECT_EQ(reason_of("prompt_completion", R"({"prompt": "p", "completion": ""})"), "field 'completion' is empty");
  EXPECT_EQ(reason_of("prompt_completion", R"({"completion": "c"})"), "field 'prompt' is absent");
  EXPECT_EQ(reason_of("instruction", R"({"input": "i", "output": "c"})"), "field 'instruction' is absent");
  EXPECT_EQ(reason_of("casehold", R"({"context": "c", "endings": [], "label": 0})"), "fewer than two options");
  EXPECT_EQ(reason_of("casehold", R"({"context": "c", "endings": "x", "label": 0})"),
            "field 'endings' is a text, expected a list of options");
  EXPECT_EQ(reason_of("casehold", R"({"context": "c", "endings": ["a", null], "label": 0})"),
            "an option is null, expected a text");
  EXPECT_EQ(reason_of("casehold", R"({"context": "c", "endings": ["a", " "], "label": 0})"), "an option is empty");
  EXPECT_EQ(reason_of("casehold", R"({"context": "c", "endings": ["a", "b"], "label": [0]})"),
            "field 'label' is a list, expected an answer");
  EXPECT_EQ(reason_of("casehold", R"({"context": "c", "endings": ["a", "b"], "label": 0.5})"),
            "field 'label' names none of the options");
  EXPECT_EQ(reason_of("casehold", R"({"context": "c", "endings": ["a", "b"], "label": 1e300})"),
            "field 'label' names none of the options");
  EXPECT_EQ(reason_of("casehold", R"({"context": "c", "endings": ["a", "b"], "label": 99999999999})"),
            "field 'label' names none of the options");
  EXPECT_EQ(reason_of("self_instruct", R"({"instruction": "i", "instances": []})"), "field 'instances' is not a list of objects");
  EXPECT_EQ(reason_of("self_instruct", R"({"instruction": "i", "instances": [3]})"),
            "field 'instances' is not a list of objects");
  EXPECT_EQ(reason_of("messages", R"({"messages": []})"), "the messages are not a list, or an empty one");
  EXPECT_EQ(reason_of("messages", R"({"messages": [{"role": "user", "content": "hi"}]})"), "no message of the assistant");
  const std::string bad_message = "a message is not {role, content} with role system, user, assistant or tool";
  EXPECT_EQ(reason_of("messages", R"({"messages": [{"role": "user"}]})"), bad_message);
  EXPECT_EQ(reason_of("messages", R"({"messages": [{"role": "narrator", "content": "x"}]})"), bad_message);
  EXPECT_EQ(reason_of("messages", R"({"messages": ["x"]})"), bad_message);
}

TEST(Example, SkippedRowsAreCountedByReasonWithTheirFirstRow) {
  SkipReport report;
  report.add("empty", 9);
  report.add("empty", 4);
  SkipReport other;
  other.add("empty", 2);
  other.add("absent", 5);
  report.add(other);
  EXPECT_EQ(report.total(), 4);
  EXPECT_EQ(report.reasons().at("empty").count, 3);
  EXPECT_EQ(report.reasons().at("empty").first_row, 2);
  EXPECT_EQ(report.summary(), "1 skipped: absent (first in row 5); 3 skipped: empty (first in row 2)");
}

TEST(Example, ProgramsStandAroundTheAnswer) {
  const auto program = [](const char *schema, const std::string &row) { return examples_of(schema, row).examples.at(0).program; };
  const std::string head = R"({"text": "Add.", "code": "x = 1", "task_id": 3, )";
  const CodeProgram whole = program("mbpp", head + R"("test_setup_code": "import re", "test_list": ["assert x", "assert 1"]})");
  EXPECT_EQ(whole.before, "import re\n");
  EXPECT_EQ(whole.after, "\nassert x\nassert 1\n");
  const Example shown = examples_of("mbpp_tests", head + R"("test_list": ["assert x", "assert 1"]})").examples.at(0);
  EXPECT_EQ(shown.prompt, "You are an expert Python programmer, and here is your task: Add. Your code should pass these tests:\n\nassert x\nassert 1\n[BEGIN]\n");
  EXPECT_EQ(shown.program.after, "\nassert x\nassert 1\n");
  const CodeProgram bare = program("mbpp", head + R"("test_setup_code": "", "test_list": ["assert x"]})");
  EXPECT_EQ(bare.before, "\n");
  const CodeProgram none = program("mbpp", head + R"("test_list": []})");
  EXPECT_EQ(none.before + none.after, "");
  const CodeProgram human = program("humaneval", R"({"prompt": "def f(x):\n", "canonical_solution": "  return x\n", "task_id": "HumanEval/0",
    "test": "def check(c):\n  assert c(1) == 1\n", "entry_point": "f"})");
  EXPECT_EQ(human.before, "def f(x):\n");
  EXPECT_EQ(human.after, "\ndef check(c):\n  assert c(1) == 1\n\ncheck(f)\n");
}

}  // namespace
}  // namespace moe
