import pytest
from omegaconf import OmegaConf

from polytask.config import Config
from polytask.config._references import escape, unescape

SYSTEM = {"_target_": "pytorch_lightning.LightningModule"}


def plain_vars(text, monkeypatch=None):
    return Config.from_plain({"vars": text}, where="x").plain["vars"]


def messages(values):
    return [
        str(problem) for problem in Config.from_plain({"vars": values, "system": {}}, where="x")._problems
    ]


@pytest.mark.parametrize("written", ["$@vars.a.b", "@vars.a.b", "${vars.a.b}"])
@pytest.mark.parametrize("value", [3, 0.5, None, True, "text", [1, {"c": 2}], {"c": 1}])
def test_a_reference_to_a_value_becomes_the_value(written, value):
    assert plain_vars({"a": {"b": value}, "r": written})["r"] == value


@pytest.mark.parametrize("written", ["$@vars.a.1.b", "@vars.a.1.b", "${vars.a.1.b}", "${vars.a[1].b}"])
def test_references_index_lists(written):
    assert plain_vars({"a": [0, {"b": 7}], "r": written})["r"] == 7


def test_references_follow_references():
    values = {"a": {"b": 1}, "r": "$@vars.s", "s": "@vars.t.b", "t": "${vars.a}"}

    assert plain_vars(values)["r"] == 1


def test_a_copied_mapping_is_resolved_too():
    assert plain_vars({"a": {"x": "$@vars.b"}, "b": 2, "r": "$@vars.a"})["r"] == {"x": 2}


@pytest.mark.parametrize("written", ["$@vars.m", "@vars.m", "${vars.m}", "$@vars.r2"])
def test_a_reference_to_what_is_built_stays(written):
    values = {"m": {"_target_": "torch.nn.ReLU"}, "r2": "@vars.m", "r": written}

    assert plain_vars(values)["r"] == "$@vars.m"


def test_a_reference_to_a_list_of_targets_stays():
    assert plain_vars({"l": [{"_target_": "torch.nn.ReLU"}], "r": "@vars.l"})["r"] == "$@vars.l"


def test_keys_may_hold_stops():
    assert plain_vars({"a.b": {"c": 1}, "r": "$@vars.a.b.c"})["r"] == 1


def test_text_around_a_reference():
    values = {
        "a": {"b": 3},
        "via": "$@vars.a.b",
        "r": "runs/${vars.a.b}-${vars.via}",
        "same": "${.via}",
    }

    found = plain_vars(values)

    assert found["r"] == "runs/3-3"
    assert found["same"] == 3


@pytest.mark.parametrize(
    ("written", "kept", "built"),
    [
        ("${oc.env:POLYTASK_TEST_WORD}", None, "@se${c}ret"),
        ("$@vars.word", "${oc.env:POLYTASK_TEST_WORD}", "@se${c}ret"),
        ("a ${vars.word} ${vars.n}", "a ${oc.env:POLYTASK_TEST_WORD} 3", "a @se${c}ret 3"),
        ("x/${oc.env:POLYTASK_TEST_WORD}/${vars.n}", "x/${oc.env:POLYTASK_TEST_WORD}/3", "x/@se${c}ret/3"),
        (r"\@a \${b} ${ oc.env: POLYTASK_TEST_WORD }", None, "@a ${b} @se${c}ret"),
        (r"\${oc.env:POLYTASK_TEST_WORD}", None, "${oc.env:POLYTASK_TEST_WORD}"),
        (r"\\${oc.env:POLYTASK_TEST_WORD}", None, r"\@se${c}ret"),
        ("${oc.env:POLYTASK_TEST_ABSENT,'a, b'}", None, "a, b"),
        ("${oc.env:POLYTASK_TEST_ABSENT,null}", None, None),
        ("${oc.env:POLYTASK_TEST_ABSENT,text}", None, "text"),
    ],
)
def test_an_environment_variable_is_saved_by_its_name(write, monkeypatch, tmp_path, written, kept, built):
    monkeypatch.setenv("POLYTASK_TEST_WORD", "@se${c}ret")
    monkeypatch.delenv("POLYTASK_TEST_ABSENT", raising=False)
    values = {"word": "${oc.env:POLYTASK_TEST_WORD}", "n": 3, "r": written}

    config = Config.from_plain({"vars": values, "system": SYSTEM}, where="x")
    config.dump(tmp_path / "saved.yaml")
    saved = Config.read([tmp_path / "saved.yaml"])

    assert config.problems() == []
    assert config.plain["vars"]["r"] == saved.plain["vars"]["r"] == (kept or written)
    assert "ret" not in (tmp_path / "saved.yaml").read_text()
    assert config.build("vars.r") == saved.build("vars.r") == built


def test_an_environment_variable_that_is_not_set_is_a_problem_of_the_build_alone(monkeypatch):
    monkeypatch.delenv("POLYTASK_TEST_ABSENT", raising=False)
    written = "a ${oc.env:POLYTASK_TEST_ABSENT}"

    config = Config.from_plain({"vars": {"r": written}, "system": SYSTEM}, where="x")

    assert config.plain["vars"]["r"] == written
    assert [str(problem) for problem in config.problems()] == [
        "x vars.r: the environment variable POLYTASK_TEST_ABSENT is not set. "
        "Set it, or give a default: ${oc.env:POLYTASK_TEST_ABSENT,value}."
    ]
    with pytest.raises(ValueError, match=r"x vars\.r: the environment variable"):
        config.build("vars")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"\@name", "@name"),
        (r"\$name", "$name"),
        (r"\$@a.b", "$@a.b"),
        (r"\\@name", r"\@name"),
        (r"\${x}", "${x}"),
        (r"a \${x}", "a ${x}"),
        ("mail@example.org", "mail@example.org"),
        ("5$", "5$"),
    ],
)
def test_literals_are_escaped(written, meant):
    config = Config.from_plain({"vars": {"a": written}}, where="x")

    assert config.plain["vars"]["a"] == written
    assert config.build("vars.a") == meant
    assert unescape(escape(meant)) == meant


def test_an_escape_before_a_reference_in_a_text():
    config = Config.from_plain({"vars": {"a": r"\@b \${c} ${vars.d}", "d": 1}}, where="x")

    assert config.build("vars.a") == "@b ${c} 1"


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"ab": 1, "r": "$@vars.abc"}, ["x vars.r", "no key 'vars.abc'", "'vars.ab'"]),
        ({"r": "$@vasr.abc"}, ["no key 'vasr.abc'", "'vars'"]),
        ({"a": 1, "r": "t ${vars.b}"}, ["x vars.r", "no key 'vars.b'"]),
        ({"a": [1], "r": "@vars.a.1"}, ["no key 'vars.a.1'"]),
        ({"r": "$@vars.r"}, ["circle", "vars.r -> vars.r"]),
        ({"a": "$@vars.b", "b": "${vars.a}"}, ["circle", "vars.a", "vars.b"]),
        ({"a": {"b": "$@vars.a"}}, ["circle"]),
        ({"a": {"x": "$@vars.b"}, "b": {"y": "$@vars.a"}}, ["circle"]),
        ({"a": "x${vars.b}", "b": "y${vars.a}"}, ["circle", "vars.a -> vars.b -> vars.a"]),
        ({"a": "x ${.zz}"}, ["'x ${.zz}' cannot be resolved", "'.zz' not found"]),
        ({"a": r"x \@b ${oc.env:N", "N": 1}, ["must not call resolvers"]),
        ({"r": '$__import__("os")'}, ["Python expressions", "__import__"]),
        ({"r": "$1 + 1"}, ["Python expressions"]),
        ({"r": "$@trainer.max_epochs * 2"}, ["Python expressions"]),
        ({"r": "@not a key"}, ["dotted key", r"\@"]),
        ({"r": "${oc.decode:1}"}, ["resolvers", "oc.decode"]),
        ({"r": "a ${oc.create:{a:1}}"}, ["resolvers", "oc.create"]),
        ({"r": "${x:${oc.env:HOME}}"}, ["resolvers", "x"]),
        ({"r": "${${vars.n}:1}", "n": "oc.create"}, ["resolvers"]),
        ({"r": '${${oc.env:N,"}"}:1}'}, ["resolvers"]),
        ({"a": {"b": {"c": "$@vars.a.b"}}, "r": "$@vars.a"}, ["circle", "vars.a.b"]),
        ({"r": "${oc.env:POLYTASK_TEST_ABSENT,${vars.a}}", "a": 1}, ["resolvers"]),
        ({"r": "x ${vars.l}", "l": [1]}, ["single values"]),
        ({"r": "???"}, ["a value is required"]),
        ({"r": "${a"}, ["must not call resolvers", r"\${"]),
    ],
)
def test_what_cannot_be_resolved_is_a_problem(monkeypatch, values, parts):
    monkeypatch.delenv("POLYTASK_TEST_ABSENT", raising=False)

    found = messages(values)

    assert found
    assert all(part in found[0] for part in parts), found


def test_all_bad_references_are_listed_and_plain_raises_the_first():
    config = Config.from_plain({"system": {}, "vars": {"a": "$@x.y", "b": "$f()", "c": "@vars.d"}}, where="x")

    assert len(config._problems) == 3
    with pytest.raises(ValueError, match=r"x vars\.a"):
        _ = config.plain
    with pytest.raises(ValueError, match=r"x vars\.a"):
        config.build("vars")


def test_the_line_of_a_problem_is_that_of_the_last_file_that_sets_the_key(write):
    first = write("system: {}\nvars:\n  a: 1\n  b: 2\n", "a.yaml")
    second = write("vars:\n\n\n  b: $@vars.c\n", "b.yaml")

    config = Config.read([first, second])

    assert f"{second}:4 vars.b:" in str(config._problems[0])


def test_a_resolver_is_not_called_through_another_text():
    called = []
    OmegaConf.register_resolver("polytask_test", called.append)
    try:
        found = messages({"a": "x ${vars.b}", "b": "${polytask_test:1}", "c": "${vars.b}"})
    finally:
        OmegaConf.clear_resolver("polytask_test")

    assert found
    assert called == []
