import json
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset


class Sentences(Dataset):
    """Sentences of numbered words with a label, or with a tag for each word."""

    def __init__(self, kind, begin, end):
        self.rows = json.loads(Path(f"{kind}.json").read_text())[begin:end]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        row = self.rows[i]
        return torch.tensor(row["words"]), torch.tensor(row["label"])


def padded(rows):
    """A batch is as long as its longest sentence; a tag of -100 is none."""
    words, labels = zip(*rows, strict=True)
    words = pad_sequence(words, batch_first=True)
    if labels[0].ndim:
        return words, pad_sequence(labels, batch_first=True, padding_value=-100)
    return words, torch.stack(labels)


class Tagger(nn.Module):
    """A mean of words for a sentence; words with their sentence's mean for tags."""

    def __init__(self, words=30, width=8):
        super().__init__()
        self.embedding = nn.Embedding(words, width, padding_idx=0)
        self.layer = nn.Linear(width, width)
        self.topic, self.tag = nn.Linear(width, 3), nn.Linear(2 * width, 4)

    def forward(self, words, task_id):
        hidden = torch.tanh(self.layer(self.embedding(words)))
        there = (words != 0)[..., None]
        mean = (hidden * there).sum(dim=1) / there.sum(dim=1)
        if task_id == 0:
            return self.topic(mean)
        both = torch.cat([hidden, mean[:, None].expand_as(hidden)], dim=2)
        # Classes come second, as the loss wants them.
        return self.tag(both).movedim(2, 1)
