import subprocess
import sys

import pytest

from polytask import UserError
from polytask.config import Config, closest


def fails(call, *parts):
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def test_files_merge_from_left_to_right_and_lists_replace(write):
    first = write("vars: {a: 1, list: [1, 2], b: {c: 1}}\nsystem: {}\n", "a.yaml")
    second = write("vars: {list: [3], b: {d: 1e-3}}\n", "b.yaml")

    config = Config.read([first, second])

    assert config.plain["vars"] == {"a": 1, "list": [3], "b": {"c": 1, "d": 0.001}}


@pytest.mark.parametrize(
    ("later", "merged"),
    [
        ("{_target_: torch.optim.Adam}", {"_target_": "torch.optim.Adam"}),
        ("{_target_: torch.optim.Adam, eps: 2}", {"_target_": "torch.optim.Adam", "eps": 2}),
        ("{_target_: torch.optim.SGD, lr: 2}", {"_target_": "torch.optim.SGD", "lr": 2, "momentum": 0.9}),
        ("{lr: 2}", {"_target_": "torch.optim.SGD", "lr": 2, "momentum": 0.9}),
    ],
)
@pytest.mark.parametrize("place", ["optimizer: VALUE", "system: {optimizer: VALUE}", "vars: {a: {b: VALUE}}"])
def test_a_mapping_with_another_target_replaces_the_earlier_one(write, later, merged, place):
    first = write(place.replace("VALUE", "{_target_: torch.optim.SGD, lr: 1, momentum: 0.9}"), "a.yaml")
    second = write(place.replace("VALUE", later), "b.yaml")

    plain = Config.read([first, second]).plain

    found = plain["vars"]["a"]["b"] if "vars" in plain else plain["system"]["optimizer"]
    assert found == merged


def test_a_target_is_added_to_a_mapping_that_has_none(write):
    first = write("trainer: {max_epochs: 3}", "a.yaml")
    second = write("trainer: {_target_: pytorch_lightning.Trainer, devices: 1}", "b.yaml")

    trainer = Config.read([first, second]).plain["trainer"]

    assert trainer == {"_target_": "pytorch_lightning.Trainer", "max_epochs": 3, "devices": 1}


def test_a_mapping_replaces_a_value_and_the_other_way_round(write):
    first = write("vars: {a: {b: 1}, c: 1}", "a.yaml")
    second = write("vars: {a: 2, c: {d: 3}}", "b.yaml")

    assert Config.read([first, second]).plain["vars"] == {"a": 2, "c": {"d": 3}}


@pytest.mark.parametrize(("text", "value"), [("1e-3", 0.001), ("1E3", 1000.0), ("'1e-3'", "1e-3"), ("3", 3)])
def test_numbers_are_numbers_in_files_and_overrides(write, text, value):
    file = write(f"vars: {{a: {text}, b: 0}}")

    values = Config.read([file], [f"vars.b={text}"]).plain["vars"]

    assert values == {"a": value, "b": value}
    assert type(values["a"]) is type(values["b"]) is type(value)


def test_implicit_targets_are_written_out(write):
    plain = Config.read([write("system: {model: 1}")]).plain

    assert plain["trainer"] == {"_target_": "pytorch_lightning.Trainer"}
    assert plain["system"]["_target_"] == "polytask.System"


def test_optimizer_and_scheduler_at_the_top_go_under_system(write):
    plain = Config.read([write("optimizer: {lr: 1}\nscheduler: {T: 2}\nsystem: {model: 1}")]).plain

    assert "optimizer" not in plain
    assert plain["system"]["optimizer"] == {"lr": 1}
    assert plain["system"]["scheduler"] == {"T": 2}


def test_an_optimizer_in_a_later_file_merges_with_one_under_system(write):
    first = write("system: {optimizer: {lr: 1, eps: 2}}", "a.yaml")
    second = write("optimizer: {lr: 3}", "b.yaml")

    assert Config.read([first, second]).plain["system"]["optimizer"] == {"lr": 3, "eps": 2}


def test_an_optimizer_in_both_places_is_an_error(write):
    config = Config.read([write("optimizer: {lr: 1}\nsystem: {optimizer: {lr: 1}}")])

    assert any(
        "must not be both at the top and under system" in str(problem) for problem in config.problems()
    )
    fails(lambda: config.plain, "config.yaml:1 optimizer", "Keep one")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a: 1\nvars: {}\na: 2\n", [":3:", "the key 'a' must be given once"]),
        ("vars: [1, 2\n", ["valid YAML"]),
        ("vars:\n\ta: 1\n", [":2:", "spaces", "tab"]),
        ("vars: @a.b\n", [":1:", "quoted", '"@a.b"']),
        ("vars: `x\n", [":1:", "'`'", "quoted"]),
        ("", ["must contain a mapping", "nothing"]),
        ("# only a comment\n", ["must contain a mapping", "nothing"]),
        ("- 1\n- 2\n", ["must contain a mapping", "a list"]),
        ("word", ["must contain a mapping", "a str"]),
        ("3", ["must contain a mapping", "a int"]),
        ("vars: !!python/object/apply:os.system [ls]\n", [":1:", "without YAML tags"]),
        ("vars: !!python/name:os.system\n", [":1:", "without YAML tags"]),
        ("vars: {a: &x !custom [1]}\n", [":1:", "without YAML tags"]),
        ("vars: {a: [{b: 1, 'b': 2}]}\n", [":1:", "the key 'b' must be given once"]),
        ("vars: %x\n", [":1:", "a string that starts with '%' must be quoted"]),
        ("vars: {a: 1, <<: 3}\n", [":1:", "valid YAML"]),
        ("vars: {a: &x [*x]}\n", ["vars"]),
        # Messages of the parser that repeat what is in the file.
        ("vars: {a: !constructor 1, b: 'duplicate key c'}\n", [":1:", "without YAML tags"]),
        ("vars: {'python/': 1, 'python/': 2}\n", [":1:", "the key 'python/' must be given once"]),
        ("vars: !!binary aGk=\n", ["vars", "a bytes"]),
        ("vars: ${a\n", ["vars", "cannot be read", r"\${"]),
        ("vars: {null: 1}\n", ["vars", "cannot be read"]),
        ("vars: \x00\n", ["valid YAML", "control characters"]),
    ],
)
def test_a_file_that_cannot_be_read_says_where_and_why(write, text, parts):
    file = write(text)

    fails(lambda: Config.read([file]), "config.yaml", *parts)


def test_a_missing_file_names_its_neighbours(write):
    file = write("system: {}")

    fails(lambda: Config.read([file.with_name("confg.yaml")]), "no such file", "'config.yaml'")


def test_a_folder_is_not_a_file(write):
    file = write("system: {}")

    fails(lambda: Config.read([file.parent]), "a folder", "config.yaml")


def test_bytes_that_are_not_utf8(project):
    (project / "x.yaml").write_bytes(b"vars: \xff\xfe")

    fails(lambda: Config.read([project / "x.yaml"]), "UTF-8", "0xff")


def test_no_file_at_all():
    fails(lambda: Config.read([]), "--config")


def test_many_aliases_do_not_fill_the_memory(write):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]

    fails(lambda: Config.read([write("\n".join(lines))]), "config.yaml")


def test_plain_values_from_a_checkpoint_must_be_plain():
    fails(lambda: Config.from_plain({"vars": {"a": object()}}, where="x.ckpt"), "x.ckpt vars.a", "a object")
    fails(lambda: Config.from_plain([1], where="x.ckpt"), "x.ckpt", "mapping")
    fails(lambda: Config.from_plain({"vars": {(1, 2): 3}}, where="x.ckpt"), "x.ckpt vars", "(1, 2)")


def test_changing_plain_does_not_change_the_config(write):
    config = Config.read([write("vars: {a: [1]}")])

    config.plain["vars"]["a"].append(2)

    assert config.plain["vars"]["a"] == [1]


def test_seed_and_contains(write):
    config = Config.read([write("seed: 3\nvars: {a: [{b: 1}]}\noptimizer: {x: 1}\nsystem: {}")])

    assert config.seed == 3
    assert "vars.a.0.b" in config
    assert "system.optimizer" in config
    assert "vars.a.1" not in config


def test_differences_are_dotted_keys():
    one = {"a": 1, "b": {"c": [1, 2], "d": 1}, "n": float("nan"), "t": 1}
    other = {"a": 1, "b": {"c": [1, 3], "e": 1}, "n": float("nan"), "t": True}

    assert closest(one, other) == ["b.c.1", "b.d", "b.e", "t"]
    assert closest(one, one) == []


def test_reading_a_config_imports_no_torch(write):
    file = write("system: {model: {_target_: torch.nn.Linear}}")
    program = (
        "import sys; import polytask.config as c; "
        f"c.Config.read([{str(file)!r}]).plain; "
        "sys.exit(','.join({'torch', 'pytorch_lightning', 'torchmetrics'} & set(sys.modules)) or 0)"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.stderr.strip() == ""
    assert done.returncode == 0
