// The schemas of the known data sets: the same text as data/schemas/<name>.json (a test compares them).
#include "data/schema.h"

namespace moe {

const std::vector<std::pair<std::string, std::string>> &builtin_schema_texts() {
  static const std::vector<std::pair<std::string, std::string>> texts = {
      {"aqua", R"json({
  "format": "libmoe.schema",
  "format_version": 1,
  "name": "aqua",
  "description": "AQuA-RAT: options carry their letter, 'A)21'; correct is a letter.",
  "kind": "multiple_choice",
  "fields": {"question": "question", "options": "options", "answer": "correct", "rationale": "rationale"},
  "answer": ["letter"],
  "strip_labels": true,
  "prompt": "Question: {question}\n{options}\nAnswer:",
  "option": "{letter}. {option}",
  "completion": " {choice}",
  "metrics": ["multiple_choice"]
}
)json"},
      {"c4", R"json({
  "format": "libmoe.schema",
  "format_version": 1,
  "name": "c4",
  "description": "C4: url, text and timestamp of a page, usually gzip-compressed JSON lines.",
  "kind": "text",
  "fields": {"text": "text"},
  "detect": false,
  "metrics": ["perplexity"]
}
)json"},
      {"casehold", R"json({
  "format": "libmoe.schema",
  "format_version": 1,
  "name": "casehold",
  "description": "CaseHOLD in the layout of LexGLUE case_hold: a citing context with the mark <HOLDING>, five holdings, label from 0.",
  "kind": "multiple_choice",
  "fields": {"context": "context", "options": "endings", "answer": "label"},
  "answer": ["index_from_0"],
  "prompt": "Question: {context}\nAnswer:",
  "completion": " {choice}",
  "metrics": ["multiple_choice", "mutual_information", "macro_f1"]
}
)json"},
      {"casehold_csv", R"json({
  "format": "libmoe.schema",
  "format_version": 1,
  "name": "casehold_csv",
  "description": "CaseHOLD as first released: CSV with the columns 0 to 12; 1 the context, 2 to 6 the holdings, 12 the label from 0.",
  "kind": "multiple_choice",
  "fields": {"context": "1", "options": ["2", "3", "4", "5", "6"], "answer": "12", "id": "0"},
  "answer": ["index_from_0"],
  "prompt": "Question: {context}\nAnswer:",
  "completion": " {choice}",
  "metrics": ["multiple_choice", "mutual_information"]
}
)json"},
      {"concode", R"json({
  "format": "libmoe.schema",
  "format_version": 1,
  "name": "concode",
  "description": "CONCODE (CodeXGLUE text-to-code): a wish with the members of its class, and tokenised Java.",
  "kind": "completion",
  "fields": {"question": "nl", "completion": "code"},
  "prompt": "{question}\n",
  "completion": "{completion}",
  "metrics": ["exact_match", "loss"]
}
)json"},
      {"cybermetric", R"json({
  "format": "libmoe.schema",
  "format_version": 1,
  "name": "cybermetric",
  "description": "CyberMetric: rows under 'questions', answers keyed by letter, solution names the letter.",
  "kind": "multiple_choice",
  "fields": {"question": "question", "options": "answers", "answer": "solution"},
  "answer": ["letter"],
  "prompt": "Question: {question}\n{options}\nAnswer:",
  "option": "{letter}. {option}",
  "completion": " {choice}",
  "metrics": ["multiple_choice"]
}
)json"},
      {"gsm8k", R"json({
  "format": "libmoe.schema",
  "format_version": 1,
  "name": "gsm8k",
  "description": "GSM8K: the answer is worked out and ends in '#### N'.",
  "kind": "completion",
  "fields": {"question": "question", "answer": "answer"},
  "detect": {"field": "answer", "contains": "####"},
  "prompt": "{question}\n",
  "completion": "{answer}",
  "reference_after": "####",
  "metrics": ["exact_match"]
}
)json"},
      {"humaneval", R"json({
  "format": "libmoe.schema",
  "format_version": 1,
  "name": "humaneval",
  "description": "HumanEval: a function head with its docstring, and its body.",
  "kind": "completion",
  "fields": {"prompt": "prompt", "completion": "canonical_solution", "tests": "test", "function": "entry_point", "id": "task_id"},
  "prompt": "{prompt}",
  "completion": "{completion}",
  "program": "{prompt}{generated}\n{tests}\ncheck({function})\n",
  "metrics": ["code_tests", "loss"]
}
)json"},
      {"instruction", R"json({
  "format": "libmoe.schema",
  "format_version": 1,
  "name": "instruction",
  "description": "Instruction, optional input, output (the layout of Alpaca).",
  "kind": "completion",
  "fields": {"instruction": "instruction", "input": "input", "completion": ["output", "response"]},
  "prompt": ["### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n", "### Instruction:\n{instruction}\n\n### Response:\n"],
  "completion": "{completion}",
  "metrics": ["loss"]
}
)json"},
      {"legalbench", R"json({
  "format": "libmoe.schema",
  "format_version": 1,
  "name": "legalbench",
  "description": "LegalBench: one TSV a task, its rows have a text or a question and an answer in words; the wording of a task is for a schema of your own.",
  "kind": "completion",
  "fields": {"text": ["text", "contract"], "question": "question", "id": "index", "completion": "answer"},
  "detect": {"field": "index"},
  "prompt": ["{text}\n\nQuestion: {question}\nAnswer:", "{text}\nAnswer:", "Question: {question}\nAnswer:"],
  "completion": " {completion}",
  "metrics": ["loss"]
}
)json"},
      {"legalbench_yes_no", R"json({
  "format": "libmoe.schema",
  "format_version": 1,
  "name": "legalbench_yes_no",
  "description": "LegalBench, the tasks that are answered with Yes or No.",
  "kind": "multiple_choice",
  "fields": {"text": ["text", "contract"], "question": "question", "id": "index", "answer": "answer"},
  "choices": ["Yes", "No"],
  "answer": ["text"],
  "detect": {"field": "answer", "one_of": ["Yes", "No"]},
  "prompt": ["{text}\n\nQuestion: {question}\nAnswer:", "{text}\nAnswer:", "Question: {question}\nAnswer:"],
  "completion": " {choice}",
  "metrics": ["multiple_choice"]
}
)json"},
      {"mathqa", R"json({
  "format": "libmoe.schema",
  "format_version": 1,
  "name": "mathqa",
  "description": "MathQA: the options are one string, 'a ) 38 , b ) 27.675 , ...'; correct is a letter.",
  "kind": "multiple_choice",
  "fields": {"question": "Problem", "options": "options", "answer": "correct", "rationale": "Rationale"},
  "answer": ["letter"],
  "split_options": true,
  "prompt": "Question: {question}\n{options}\nAnswer:",
  "option": "{letter}. {option}",
  "completion": " {choice}",
  "metrics": ["multiple_choice"]
}
)json"},
      {"mbpp", R"json({
  "format": "libmoe.schema",
  "format_version": 1,
  "name": "mbpp",
  "description": "MBPP, whole or sanitized: a task in words, its Python code.",
  "kind": "completion",
  "fields": {"text": ["text", "prompt"], "completion": "code", "tests": "test_list", "setup": ["test_setup_code", "test_imports"], "id": "task_id"},
  "detect": {"field": "task_id"},
  "prompt": "{text}\n",
  "completion": "{completion}",
  "program": "{setup}\n{generated}\n{tests}\n",
  "metrics": ["exact_match", "code_tests", "loss"]
}
)json"},
      {"mbpp_tests", R"json({
  "format": "libmoe.schema",
  "format_version": 1,
  "name": "mbpp_tests",
  "description": "MBPP with its tests in the prompt, which name the function, as Austin et al. (2021) ask for it.",
  "kind": "completion",
  "fields": {"text": ["text", "prompt"], "completion": "code", "tests": "test_list", "setup": ["test_setup_code", "test_imports"], "id": "task_id"},
  "detect": false,
  "prompt": "You are an expert Python programmer, and here is your task: {text} Your code should pass these tests:\n\n{tests}\n[BEGIN]\n",
  "completion": "{completion}",
  "program": "{setup}\n{generated}\n{tests}\n",
  "metrics": ["exact_match", "code_tests", "loss"]
}
)json"},
      {"medmcqa_from_0", R"json({
  "format": "libmoe.schema",
  "format_version": 1,
  "name": "medmcqa_from_0",
  "group": "medmcqa",
  "description": "MedMCQA as on the hub (Parquet and its copies): cop counts from 0, -1 where the answer is hidden.",
  "kind": "multiple_choice",
  "fields": {"question": "question", "options": ["opa", "opb", "opc", "opd"], "answer": "cop", "rationale": "exp"},
  "answer": ["index_from_0"],
  "prompt": "Question: {question}\n{options}\nAnswer:",
  "option": "{letter}. {option}",
  "completion": " {choice}",
  "metrics": ["multiple_choice"]
}
)json"},
      {"medmcqa_from_1", R"json({
  "format": "libmoe.schema",
  "format_version": 1,
  "name": "medmcqa_from_1",
  "group": "medmcqa",
  "description": "MedMCQA as first released (train.json, dev.json): cop counts from 1.",
  "kind": "multiple_choice",
  "fields": {"question": "question", "options": ["opa", "opb", "opc", "opd"], "answer": "cop", "rationale": "exp"},
  "answer": ["index_from_1"],
  "prompt": "Question: {question}\n{options}\nAnswer:",
  "option": "{letter}. {option}",
  "completion": " {choice}",
  "metrics": ["multiple_choice"]
}
)json"},
      {"medqa", R"json({
  "format": "libmoe.schema",
  "format_version": 1,
  "name": "medqa",
  "description": "MedQA-USMLE: options keyed by letter, answer_idx names the letter.",
  "kind": "multiple_choice",
  "fields": {"question": "question", "options": "options", "answer": "answer_idx"},
  "answer": ["letter"],
  "prompt": "Question: {question}\n{options}\nAnswer:",
  "option": "{letter}. {option}",
  "completion": " {choice}",
  "metrics": ["multiple_choice"]
}
)json"},
      {"messages", R"json({
  "format": "libmoe.schema",
  "format_version": 1,
  "name": "messages",
  "description": "Chats: a list of {role, content}, rendered by the chat template of the model.",
  "kind": "messages",
  "fields": {"messages": ["messages", "conversations"]},
  "metrics": ["loss"]
}
)json"},
      {"multiple_choice", R"json({
  "format": "libmoe.schema",
  "format_version": 1,
  "name": "multiple_choice",
  "description": "Question, choices and answer; the answer is an index from 0, a letter or the text of a choice.",
  "kind": "multiple_choice",
  "fields": {"question": "question", "options": "choices", "answer": "answer"},
  "answer": ["index_from_0", "text", "letter"],
  "strip_labels": true,
  "prompt": "Question: {question}\n{options}\nAnswer:",
  "option": "{letter}. {option}",
  "completion": " {choice}",
  "metrics": ["multiple_choice"]
}
)json"},
      {"openwebtext", R"json({
  "format": "libmoe.schema",
  "format_version": 1,
  "name": "openwebtext",
  "description": "OpenWebText: one text file an article, in folders; or rows with a text.",
  "kind": "text",
  "fields": {"text": "text"},
  "detect": false,
  "metrics": ["perplexity"]
}
)json"},
      {"paragraphs", R"json({
  "format": "libmoe.schema",
  "format_version": 1,
  "name": "paragraphs",
  "description": "Plain text, each paragraph (lines between blank lines) a row of its own; for text files that are too large to be one document.",
  "kind": "text",
  "fields": {"text": "text"},
  "plain_text": "paragraphs",
  "detect": false,
  "metrics": ["perplexity"]
}
)json"},
      {"prompt_completion", R"json({
  "format": "libmoe.schema",
  "format_version": 1,
  "name": "prompt_completion",
  "description": "A prompt and its completion, both used as they are.",
  "kind": "completion",
  "fields": {"prompt": "prompt", "completion": ["completion", "response"]},
  "prompt": "{prompt}",
  "completion": "{completion}",
  "metrics": ["loss"]
}
)json"},
      {"pubmedqa", R"json({
  "format": "libmoe.schema",
  "format_version": 1,
  "name": "pubmedqa",
  "description": "PubMedQA, labelled part: objects keyed by id; a question, the parts of an abstract, and yes, no or maybe.",
  "kind": "multiple_choice",
  "fields": {"question": "QUESTION", "context": "CONTEXTS", "answer": "final_decision", "rationale": "LONG_ANSWER"},
  "choices": ["yes", "no", "maybe"],
  "answer": ["text"],
  "prompt": "Abstract: {context}\nQuestion: {question}\nAnswer:",
  "completion": " {choice}",
  "metrics": ["multiple_choice", "macro_f1"]
}
)json"},
      {"self_instruct", R"json({
  "format": "libmoe.schema",
  "format_version": 1,
  "name": "self_instruct",
  "description": "Instruction with a list of instances, each an optional input and an output (Self-Instruct).",
  "kind": "completion",
  "each": "instances",
  "fields": {"instruction": "instruction", "input": "input", "completion": "output"},
  "prompt": ["### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n", "### Instruction:\n{instruction}\n\n### Response:\n"],
  "completion": "{completion}",
  "metrics": ["loss"]
}
)json"},
      {"text", R"json({
  "format": "libmoe.schema",
  "format_version": 1,
  "name": "text",
  "description": "Plain text, all of it supervised.",
  "kind": "text",
  "fields": {"text": "text"},
  "metrics": ["perplexity"]
}
)json"},
      {"wikitext", R"json({
  "format": "libmoe.schema",
  "format_version": 1,
  "name": "wikitext",
  "description": "WikiText-2 and WikiText-103: the raw text as one document, or a paragraph a row.",
  "kind": "text",
  "fields": {"text": "text"},
  "detect": false,
  "metrics": ["perplexity"]
}
)json"},
  };
  return texts;
}

}  // namespace moe
