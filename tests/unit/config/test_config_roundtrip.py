import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polytask.config import Config
from polytask.config._config import merge
from polytask.config._references import escape, unescape

TRICKY = [
    *("1e-3", "1", "0x1f", "1_000", "null", "~", "yes", "on", "True", ".nan", "2024-01-01", "1:30", ".inf"),
    *(
        "@a.b",
        "$@a.b",
        "$x",
        "${a}",
        r"\@a",
        r"\${a}",
        r"\\${a}",
        "+1",
        "0o7",
        "=",
        "<<",
        "!!str",
        "&a",
        "*a",
    ),
    *("a: b", "- a", "#", "a # b", "", " a ", "a\nb", "a\n\n", "\t", "é☃𝄞", "'\"", "%", "?", "|", ">", "{"),
    *("[", "\x85", "\u2028", "\ufeff"),
]
texts = st.sampled_from(TRICKY) | st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"]), max_size=8)
names = st.sampled_from(["a", "b", "a.b", "é", "1", "on", "x y", "1e3"])
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts.map(escape)
nested = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
mappings = st.dictionaries(names, nested, max_size=4)
several_per_folder = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.slow
@several_per_folder
@given(mappings, nested)
def test_a_dumped_config_reads_as_itself(tmp_path, values, other):
    values = {"a": other, **values}
    config = Config.from_plain({"vars": values}, where="x")

    config.dump(tmp_path / "out.yaml")

    assert config.plain["vars"] == values
    assert Config.read([tmp_path / "out.yaml"]).plain == config.plain


@several_per_folder
@given(nested)
def test_a_reference_is_as_good_as_the_value(tmp_path, value):
    config = Config.from_plain({"vars": {"value": value, "refers": "$@vars.value"}}, where="x")

    assert config.plain["vars"] == {"value": value, "refers": value}


@given(texts)
def test_an_escaped_text_means_the_text(text):
    assert unescape(escape(text)) == text


@settings(max_examples=30)
@given(texts)
def test_an_escaped_text_is_built_as_the_text(text):
    assert Config.from_plain({"vars": {"text": escape(text)}}, where="x").build("vars.text") == text


@given(mappings, mappings)
def test_merging_again_changes_nothing(one, two):
    assert merge(merge(one, two), two) == merge(one, two)
    assert merge(one, one) == one
    assert merge({}, one) == one == merge(one, {})
