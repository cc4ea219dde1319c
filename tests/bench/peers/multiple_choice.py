"""Multiple choice by likelihood with lm-evaluation-harness: the prompts of a libmoe schema, each choice scored after its prompt.

Prints one JSON object. Loading and a first batch are not timed.
"""
import argparse
import json
import time

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM


def choices_of(row, fields):
    options = fields["options"]
    return [row[name] for name in options] if isinstance(options, list) else row[options]


def prompt_of(row, schema, choices):
    values = {name: row[field] for name, field in schema["fields"].items() if isinstance(field, str) and field in row}
    if "option" in schema:
        lines = [schema["option"].format(letter=chr(ord("A") + i), option=choice) for i, choice in enumerate(choices)]
        values["options"] = "\n".join(lines)
    return schema["prompt"].format(**values)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--schema", required=True)
    parser.add_argument("--rows", required=True)
    parser.add_argument("--limit", type=int, required=True)
    parser.add_argument("--batch-size", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    with open(arguments.schema) as file:
        schema = json.load(file)
    requests, golds, counts = [], [], []
    with open(arguments.rows) as lines:
        for line, _ in zip(lines, range(arguments.limit)):
            row = json.loads(line)
            choices = choices_of(row, schema["fields"])
            prompt = prompt_of(row, schema, choices)
            for index, choice in enumerate(choices):
                continuation = schema["completion"].format(choice=choice)
                requests.append(Instance("loglikelihood", {}, (prompt, continuation), index))
            golds.append(row[schema["fields"]["answer"]])
            counts.append(len(choices))

    model = HFLM(pretrained=arguments.model, dtype=arguments.dtype, device="cpu", batch_size=arguments.batch_size)
    model.loglikelihood(requests[:arguments.batch_size], disable_tqdm=True)
    start = time.perf_counter()
    scores = [score for score, _ in model.loglikelihood(requests, disable_tqdm=True)]
    seconds = time.perf_counter() - start
    correct = first = 0
    for gold, count in zip(golds, counts):
        mine = scores[first:first + count]
        correct += mine.index(max(mine)) == int(gold)
        first += count
    print(json.dumps({"model": "smollm2", "work": "choice_" + arguments.task, "value": len(golds) / seconds, "unit": "items/s",
                      "details": {"rows": len(golds), "accuracy": correct / len(golds)}}))


main()
