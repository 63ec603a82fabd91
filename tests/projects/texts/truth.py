"""A topic for each sentence of one set of texts, a tag for each word of another, padded batch by batch."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.projects.support import Arrays, Project, accuracy, cross_entropy, known


def data(folder: Path) -> None:
    """60 sentences with a topic and 35 with tags, of 3 to 9 words."""
    generator = np.random.default_rng(0)
    for kind, count in (("topics", 60), ("tags", 35)):
        rows: list[dict[str, Any]] = []
        for _ in range(count):
            words = generator.integers(1, 30, generator.integers(3, 10)).tolist()
            tags = [-100 if word % 11 == 0 else word % 4 for word in words]
            rows.append({"words": words, "label": sum(words) % 3 if kind == "topics" else tags})
        (folder / f"{kind}.json").write_text(json.dumps(rows))


def held_out(folder: Path, kind: str, begin: int) -> list[dict[str, Any]]:
    """The sentences that are not for training."""
    rows: list[dict[str, Any]] = json.loads((folder / f"{kind}.json").read_text())
    return rows[begin:]


def inputs(folder: Path) -> dict[str, np.ndarray]:
    """The sentences with a topic, padded; those with tags have predictions as long as their batch."""
    rows = held_out(folder, "topics", 40)
    words = np.zeros((len(rows), 9), dtype=np.int64)
    for row, own in zip(rows, words, strict=True):
        own[: len(row["words"])] = row["words"]
    return {"topic": words}


def expected(folder: Path, predictions: Arrays) -> dict[str, float]:
    """Words without a tag, and padding, count nowhere."""
    assert predictions["loader"].tolist() == ["topic"] * 20 + ["tag"] * 11
    assert predictions["row"].tolist() == [*range(20), *range(11)]
    topics = np.array([row["label"] for row in held_out(folder, "topics", 40)])
    of_topics = predictions["topic"][known(predictions["topic"])]
    scores, tags = [], []
    of_tags = predictions["tag"][known(predictions["tag"])]
    for row, output in zip(held_out(folder, "tags", 24), of_tags, strict=True):
        for word, tag in enumerate(row["label"]):
            if tag != -100:
                scores.append(np.array(output)[:, word])
                tags.append(tag)
    values = {
        "loss/topic": cross_entropy(of_topics, topics),
        "topic/Accuracy": accuracy(of_topics, topics),
        "loss/tag": cross_entropy(np.array(scores), np.array(tags)),
        "tag/Accuracy": accuracy(np.array(scores), np.array(tags)),
    }
    values["loss/total"] = values["loss/topic"] + values["loss/tag"]
    return values


PROJECTS = {
    "config.yaml": Project(
        data,
        expected,
        inputs,
        by_task=True,
        exempt={
            "two_processes_train_as_one": "The two processes sample the same tasks, and torch's loaders "
            "need a distributed sampler for each: their joined batches are those of no single loader.",
        },
    )
}
