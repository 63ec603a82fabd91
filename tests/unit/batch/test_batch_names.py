from types import SimpleNamespace

from polytask.batch import find


def test_an_accessor_reaches_no_private_attribute():
    batch = SimpleNamespace(image=1, _hidden=2)

    assert find(batch, "image") == (True, 1)
    assert find(batch, "_hidden") == (False, None)
    assert find(batch, "image.__class__") == (False, None)
    assert find({"_id": 3}, "_id") == (True, 3)
