"""pyarrow: the texts of a Parquet file on one thread, as an Arrow table (parquet_columns) and as a list of Python objects
(parquet_objects). One JSON object a line: medians over rounds that open the file anew.

--make ROWS.jsonl TARGET.parquet writes such a file from rows, with pyarrow's own defaults, and ends.
"""
import argparse
import json
import os
import statistics
import time

import pyarrow
import pyarrow.parquet


def make(rows, path):
    with open(rows, encoding="utf-8") as lines:
        table = pyarrow.Table.from_pylist([json.loads(line) for line in lines])
    pyarrow.parquet.write_table(table, path + ".part")
    os.replace(path + ".part", path)


def rate(rows, rounds, read):
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        result = read()
        seconds.append(time.perf_counter() - start)
        del result
    return round(rows / statistics.median(seconds))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int)  # as the other scripts; one is used
    parser.add_argument("--file")
    parser.add_argument("--make", nargs=2)
    parser.add_argument("--rounds", type=int, default=21)
    arguments = parser.parse_args()
    if arguments.make:
        return make(*arguments.make)
    pyarrow.set_cpu_count(1)
    pyarrow.set_io_thread_count(1)

    def read():
        return pyarrow.parquet.ParquetFile(arguments.file).read(use_threads=False)

    rows = pyarrow.parquet.ParquetFile(arguments.file).metadata.num_rows
    for work, reader in (("parquet_columns", read), ("parquet_objects", lambda: read().to_pylist())):
        print(json.dumps({"model": "gsm8k", "work": work, "value": rate(rows, arguments.rounds, reader), "unit": "rows/s",
                          "details": {"rows": rows}}))


main()
