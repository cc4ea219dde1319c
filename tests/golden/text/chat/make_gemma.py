"""Makes gemma2.jsonl and gemma3.jsonl: python3 make_gemma.py TEMPLATE.jinja NAME  (Jinja 3.1, template as published).

Conversations are those of the other files here that have plain contents, and a few about white space. A line has what the
other files have: messages, add_generation_prompt, rendered or error, and assistant_spans found by exchanging the content of
a message for a marker.
"""
import hashlib
import json
import pathlib
import sys

from jinja2.sandbox import ImmutableSandboxedEnvironment

FOLDER = pathlib.Path(__file__).parent
MARK = "\ue123\ue124"
END = "<end_of_turn>"
SPACES = "\u00a0\u2003\u3000\x1c\x85 text\u2028with  inner\u200bspaces\u200b \x1f\u205f\n"


def conversations():
    for line in (FOLDER / "qwen2.jsonl").read_text().splitlines():
        row = json.loads(line)
        plain = all(set(m) == {"role", "content"} and isinstance(m["content"], str) for m in row["messages"])
        if plain and not any(k in row for k in ("tools", "kwargs", "continue_final_message")) and not row["add_generation_prompt"]:
            yield row["conversation"], row["messages"]
    yield "spaces", [{"role": "user", "content": SPACES}, {"role": "assistant", "content": SPACES}]
    yield "system_spaces", [{"role": "system", "content": SPACES}, {"role": "user", "content": " "}, {"role": "assistant", "content": " \n"}]
    yield "system_only", [{"role": "system", "content": "alone"}]
    yield "system_then_assistant", [{"role": "system", "content": "s"}, {"role": "assistant", "content": "a"}]
    yield "other_role", [{"role": "user", "content": "q"}, {"role": "critic", "content": " c "}, {"role": "user", "content": "r"}]


def refuse(message):
    raise ValueError(message)


def main(path, name):
    source = pathlib.Path(path).read_text()
    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(source)

    def render(messages, generate):
        return template.render(messages=messages, add_generation_prompt=generate, bos_token="<bos>", raise_exception=refuse)

    def spans(full, messages):
        for i, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            marked = render(messages[:i] + [{"role": "assistant", "content": MARK}] + messages[i + 1:], False)
            start = next(n for n in range(len(marked)) if full[n:n + 1] != marked[n])
            tail = len(marked) - marked.rindex(MARK) - len(MARK)
            end = len(full) - tail
            assert full[end:] == marked[len(marked) - tail:] and full.startswith(END, end)
            row = {"message": i, "start_byte": start, "end_byte": end, "end_with_eot_byte": end + len(END)}
            yield {k: len(full[:v].encode()) if k.endswith("byte") else v for k, v in row.items()}

    with open(FOLDER / f"{name}.jsonl", "w") as out:
        for conversation, messages in conversations():
            for generate in (False, True):
                row = {"conversation": conversation, "messages": messages, "add_generation_prompt": generate}
                try:
                    row["rendered"] = render(messages, generate)
                    if not generate:
                        row["assistant_spans"] = list(spans(row["rendered"], messages))
                except Exception as error:
                    row["error"] = str(error)
                out.write(json.dumps(row) + "\n")
    print(name, hashlib.sha256(source.rstrip("\n").encode()).hexdigest())


main(*sys.argv[1:])
