import json

import pytest

from worker.compression.errors import InvalidRecipe
from worker.compression.recipe import PRESETS, Recipe


def test_nothing_given_is_the_automatic_mode() -> None:
    assert Recipe.parse(None) == Recipe.parse("{}") == PRESETS["auto"]


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_survives_its_own_json(name: str) -> None:
    preset = PRESETS[name]
    assert Recipe.parse(preset.model_dump_json()) == preset
    assert Recipe.parse(name) == preset


def test_passes_keep_their_order_and_their_types() -> None:
    pruning = {"method": "magnitude_pruning", "amount": 0.3}
    recipe = Recipe.parse({"passes": [pruning, {"method": "graph_cleaning"}]})
    assert [pass_.method for pass_ in recipe.passes] == ["magnitude_pruning", "graph_cleaning"]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"passes": []}, "passes.list"),
        ({"passes": "fast"}, "passes.auto"),
        ({"passes": [{"method": "magic"}]}, "passes.list.0"),
        ({"passes": [{"method": "magnitude_pruning", "amount": 1.0}]}, "amount"),
        ({"passes": [{"method": "magnitude_pruning", "amount": 0.2, "typo": 1}]}, "typo"),
        ({"goal": {"max_drop": -1}}, "goal.max_drop"),
        ({"goal": {"max_drop": "NaN"}}, "goal.max_drop"),
        ({"goals": {}}, "goals"),
        ({"seed": -1}, "seed"),
        ({"target": {"threads": 0}}, "target.threads"),
    ],
)
def test_a_wrong_setting_is_named(given: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRecipe) as refused:
        Recipe.parse(json.dumps(given))
    assert refused.value.code == "invalid_recipe"
    assert field in refused.value.errors[0]["field"]


@pytest.mark.parametrize("text", ["fastest", "{", '{"passes": NaN', "[]", "", "null"])
def test_what_is_no_recipe_is_refused_with_the_remedy(text: str) -> None:
    with pytest.raises(InvalidRecipe) as refused:
        Recipe.parse(text)
    assert refused.value.hint


def test_deeply_nested_json_is_refused_like_any_other() -> None:
    with pytest.raises(InvalidRecipe):
        Recipe.parse('{"a":' * 100_000)
