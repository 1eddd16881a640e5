"""The form follows the recipe's schema, and says what it asks for."""

import pytest

from app.forms import CUSTOM, presets, read, recipe_form, recipe_from
from worker.compression import PRESETS, InvalidRecipe, Recipe


@pytest.mark.parametrize("preset", PRESETS)
def test_an_untouched_form_is_the_preset_itself(preset):
    assert recipe_from({"preset": preset, "goal.max_drop": " "}) == PRESETS[preset]


def test_no_preset_at_all_is_the_default_recipe():
    assert recipe_from({}) == Recipe()


def test_filled_in_settings_go_over_the_preset():
    recipe = recipe_from(
        {
            "preset": "smallest",
            "goal.max_bytes": "5000",
            "goal.outputs": '{"y": "value"}',
            "images.mean": "0.485, 0.456, 0.406",
            "target.threads": "2",
            "seed": "7",
        }
    )
    assert recipe.goal == PRESETS["smallest"].goal.model_copy(
        update={"max_bytes": 5000, "outputs": {"y": "value"}}
    )
    assert recipe.images is not None
    assert tuple(recipe.images.mean) == (0.485, 0.456, 0.406)
    assert (recipe.target.threads, recipe.seed) == (2, 7)


def test_ticked_methods_are_applied_in_the_order_of_their_steps():
    recipe = recipe_from(
        {
            "preset": CUSTOM,
            "use.static_quantization": "1",
            "step.static_quantization": "1",
            "pass.static_quantization.per_channel": "false",
            "use.magnitude_pruning": "1",
            "step.magnitude_pruning": "2",
            "pass.magnitude_pruning.amount": "0.3",
            "pass.magnitude_pruning.exclude": "head, *.bias",
        }
    )
    passes = recipe.model_dump()["passes"]
    assert [each["method"] for each in passes] == ["static_quantization", "magnitude_pruning"]
    assert passes[0]["per_channel"] is False
    assert (passes[1]["amount"], list(passes[1]["exclude"])) == (0.3, ["head", "*.bias"])


@pytest.mark.parametrize("method", [method.name for method in recipe_form().methods])
def test_every_method_can_be_chosen_and_shows_each_setting_with_its_meaning(method):
    (group,) = [each for each in recipe_form().methods if each.name == method]
    assert group.description
    assert all(control.description and control.label for control in group.controls)
    schema = Recipe.model_json_schema()["$defs"]
    (settings,) = [
        part["properties"]
        for part in schema.values()
        if part.get("properties", {}).get("method", {}).get("const") == method
    ]
    shown = {control.name.rpartition(".")[2] for control in group.controls}
    assert shown == set(settings) - {"method"}


def test_every_preset_is_offered_with_what_it_does():
    offered = {name: text for name, _, text in presets()}
    assert set(offered) == {*PRESETS, CUSTOM}
    assert all(offered.values())


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"goal.max_drop": "2"}, "goal.max_drop"),
        ({"goal.max_drop": "much"}, "goal.max_drop"),
        ({"goal.objective": "fun"}, "goal.objective"),
        ({"goal.outputs": '{"y":'}, "goal.outputs"),
        ({"preset": CUSTOM}, "preset"),
        (
            {
                "preset": CUSTOM,
                "use.magnitude_pruning": "1",
                "pass.magnitude_pruning.amount": "1.5",
            },
            "pass.magnitude_pruning.amount",
        ),
    ],
)
def test_an_error_names_the_field_of_the_form(fields, wrong):
    with pytest.raises(InvalidRecipe) as caught:
        recipe_from(fields)
    assert wrong in [entry["field"] for entry in caught.value.errors]


def test_an_unknown_preset_is_refused():
    with pytest.raises(InvalidRecipe, match="no recipe named"):
        recipe_from({"preset": "fastest-ever"})


def test_text_that_is_no_value_is_left_to_the_recipe_to_refuse():
    controls = {c.name: c for group in recipe_form().groups for c in group.controls}
    assert read(controls["goal.max_drop"], "0.5") == 0.5
    assert read(controls["goal.max_drop"], "x") == "x"
