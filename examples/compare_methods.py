"""Several methods on one benchmark, with the weights that fit each query: `python examples/compare_methods.py`."""

from dataclasses import replace

import mmretrieve as mm
from eval.benchmarks import load_benchmark

benchmark = load_benchmark("wardrobe")  # or load_benchmark("cirr", "FOLDER", split="val"), with a gallery of its images
benchmark = replace(benchmark, queries=benchmark.queries[:50])
retriever = mm.Retriever.open(mm.wardrobe.gallery_folder())


def recall(k: int, **options: object) -> float:
    queries = [
        {"reference_id": query.reference, "prompt": query.prompts[0], "exclude_reference": True, "k": k}
        for query in benchmark.queries
    ]
    rankings = retriever.search_many([query | options for query in queries])
    found = [not set(query.targets).isdisjoint(ranking.ids) for query, ranking in zip(benchmark.queries, rankings, strict=True)]
    return 100 * sum(found) / len(found)


print(f"{'method':<22} R@1  R@10")
for name, options in {
    "image": {"composer": "sum", "weights": {"image": 1}},
    "prompt": {"composer": "sum", "weights": {"prompt": 1}},
    "sum": {"composer": "sum"},
    "captions": {"composer": "captions", "weights": "base"},
    "captions, PDV-F": {"composer": "captions", "beta": 0.75, "alpha_image": 1.4, "alpha_text": 1.2},
    "captions, auto": {"composer": "captions", "weights": "auto"},
}.items():
    print(f"{name:<20} {recall(1, **options):5.1f} {recall(10, **options):5.1f}")

# prints:
# method                 R@1  R@10
# image                  0.0  36.0
# prompt                 6.0  16.0
# sum                   40.0  96.0
# captions              10.0  96.0
# captions, PDV-F       36.0 100.0
# captions, auto        44.0 100.0
