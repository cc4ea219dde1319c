"""Log-likelihoods of libmoe's choices beside those of lm-evaluation-harness, on the same prompts and weights.

Reads the items and samples that `moe-eval run --log-samples` left. The harness cuts the tokens of prompt and choice where the prompt
alone would end; libmoe scores from the first token whose bytes end after the prompt. Where the two cut at different tokens the
question is another one: such items are listed and left out. Prints one JSON object; exit status 1 when a difference exceeds the
tolerance or nothing could be compared.
"""
import argparse
import json
import sys

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM


def lines_of(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def first_scored(tokenizer, prompt, continuation):
    """Index of the first token of prompt + continuation that ends after the prompt, special tokens in front left out."""
    offsets = tokenizer(prompt + continuation, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return next(i for i, (_, end) in enumerate(offsets) if end > len(prompt))


def cuts_alike(model, prompt, continuation):
    context, scored = model._encode_pair(prompt, continuation)
    whole = model.tok_encode(prompt + continuation)
    special = len(whole) - len(model.tokenizer(prompt + continuation, add_special_tokens=False)["input_ids"])
    return context + scored == whole and len(context) == first_scored(model.tokenizer, prompt, continuation) + special


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="model folder")
    parser.add_argument("--results", required=True, help="folder of moe-eval run --log-samples --compute f32")
    parser.add_argument("--completion", required=True, help="the schema's completion, such as ' {choice}'")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--batch-size", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    items = {item["id"]: item for item in lines_of(arguments.results + "/evaluation_items.jsonl")}
    samples = [sample for sample in lines_of(arguments.results + "/evaluation_samples.jsonl") if "choice_log_likelihood" in sample]
    model = HFLM(pretrained=arguments.model, dtype="float32", device="cpu", batch_size=arguments.batch_size)

    requests, expected, left_out = [], [], []
    for sample in samples:
        item = items[sample["id"]]
        pairs = [(item["prompt"], arguments.completion.format(choice=choice)) for choice in item["choices"]]
        if not all(cuts_alike(model, *pair) for pair in pairs):
            left_out.append(sample["id"])
            continue
        for index, pair in enumerate(pairs):
            requests.append(Instance("loglikelihood", {}, pair, index))
            expected.append((sample["id"], index, sample["choice_log_likelihood"][index]))
    found = [score for score, _ in model.loglikelihood(requests, disable_tqdm=True)] if requests else []

    differences = sorted(((abs(score - value), identity, index) for score, (identity, index, value) in zip(found, expected)), reverse=True)
    largest = differences[0] if differences else (None, None, None)
    print(json.dumps({"items": len(samples), "compared": len(samples) - len(left_out), "choices": len(found),
                      "largest_difference": largest[0], "at": largest[1], "choice": largest[2],
                      "mean_difference": sum(d[0] for d in differences) / len(differences) if differences else None,
                      "tolerance": arguments.tolerance, "left_out": left_out}))
    sys.exit(0 if differences and largest[0] <= arguments.tolerance else 1)


main()
