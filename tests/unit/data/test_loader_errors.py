"""What a data set raises, in the process of the training and in a worker."""

import pytest
from torch.utils.data import DataLoader, Dataset

from polytask import UserError
from polytask.data._loader_errors import data_errors

SAID = "Caught it.\nOriginal Traceback: none\nat the last line"


class Broken(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        raise ValueError(SAID)


@pytest.mark.parametrize(
    ("workers", "found"),
    [(0, f"ValueError: {' '.join(SAID.split())}"), (1, "at the last line")],
)
def test_the_reason_is_the_message_or_the_last_line_of_a_worker(workers, found):
    """A data set may write anything, also what torch writes of its workers."""
    loader = DataLoader(Broken(), num_workers=workers)
    with pytest.raises(UserError) as caught, data_errors({"val": loader}):
        next(iter(loader))
    assert (caught.value.where, caught.value.found) == ("system.dataloaders.val", found)
