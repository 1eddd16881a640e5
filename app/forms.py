"""The recipe's schema as form fields, and what a form brought as a recipe."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from worker.compression import PRESETS, InvalidRecipe, Recipe

CUSTOM = "custom"
ABOUT: dict[str, tuple[str, str]] = {
    "auto": ("Automatic", "Tries what pays on this model; keeps the fastest that stays true."),
    "int8": ("int8", "Static 8-bit quantization of every layer that allows it."),
    "int8-dynamic": ("int8, no data", "8-bit weights; activations are scaled on the fly."),
    "prune-l1": ("Prune weights", "Zeroes the 20 % smallest weights: a smaller download."),
    "prune-channels": (
        "Prune channels",
        "Removes whole channels, so that layers really shrink.",
    ),
    "prune-curve": ("Pruning curve", "Several amounts of channel pruning, side by side."),
    "smallest": ("Smallest file", "Automatic, but for bytes rather than milliseconds."),
    CUSTOM: ("Custom", "Choose the methods and their settings yourself."),
}
_TERMS = {"db": "(dB)", "ms": "(ms)", "s": "(s)", "sqnr": "SQNR", "cpu": "CPU"}


@dataclass(frozen=True)
class Control:
    """One input of the form. `name` is the setting's path; `kind` is how it is shown."""

    name: str
    label: str
    description: str
    kind: str  # select | number | text | json
    placeholder: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True)
class Group:
    """Settings that belong together: a method, or one part of the recipe."""

    name: str
    label: str
    description: str
    controls: tuple[Control, ...]


@dataclass(frozen=True)
class RecipeForm:
    methods: tuple[Group, ...]
    groups: tuple[Group, ...]

    def names(self) -> set[str]:
        """Every field name that the form may bring."""
        settings = {c.name for group in (*self.methods, *self.groups) for c in group.controls}
        chosen = {
            f"{verb}.{method.name}" for method in self.methods for verb in ("use", "step")
        }
        return {"preset", *settings, *chosen}


def presets() -> list[tuple[str, str, str]]:
    """(name, title, description) of each preset that works, then of the custom recipe."""
    return [(name, *ABOUT.get(name, (label(name), ""))) for name in (*PRESETS, CUSTOM)]


@cache
def recipe_form() -> RecipeForm:
    schema = Recipe.model_json_schema()
    definitions: dict[str, Any] = schema["$defs"]
    groups, single = [], []
    for name, given in schema["properties"].items():
        if name == "passes":
            continue
        part = _resolve(given, definitions)
        if "properties" in part:
            groups.append(_group(name, name, part, definitions))
        else:
            single.append(_control(name, part))
    groups.append(Group("run", "Run", "", tuple(single)))
    methods = [
        _group(f"pass.{method}", method, part, definitions)
        for method, part in _methods(definitions)
    ]
    return RecipeForm(tuple(methods), tuple(groups))


def recipe_from(fields: Mapping[str, str]) -> Recipe:
    """The recipe that a form asks for: its preset, with every filled-in setting over it.

    Raises:
        InvalidRecipe: `errors` name the form's fields.
    """
    preset = fields.get("preset") or "auto"
    base = {} if preset == CUSTOM else _preset(preset)
    if preset == CUSTOM:
        base["passes"] = _passes(fields)
    for group in recipe_form().groups:
        for control in group.controls:
            if text := fields.get(control.name, "").strip():
                _set(base, control.name.split("."), read(control, text))
    try:
        return Recipe.parse(base)
    except InvalidRecipe as error:
        raise _in_form_names(error) from None


def read(control: Control, text: str) -> Any:  # noqa: ANN401 - validated by the recipe
    """The value that a field's text stands for; text that is no value is left to the recipe."""
    if control.kind == "select":
        return control.options.get(text, text)
    if control.kind == "number":
        return _number(text)
    if control.kind == "text":
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        if not text.startswith(("[", "{")):
            return [part.strip() for part in text.split(",")]
        raise InvalidRecipe(
            f"{control.label} is not JSON: {error.msg} at column {error.colno}",
            hint="write it as JSON, or as words with commas between them",
            errors=[{"field": control.name, "message": error.msg}],
        ) from None


def label(name: str) -> str:
    """`goal.min_sqnr_db` as `Min SQNR (dB)`."""
    first, *rest = name.rpartition(".")[2].replace("-", "_").split("_")
    return " ".join([_TERMS.get(first, first.capitalize()), *(_TERMS.get(w, w) for w in rest)])


def _preset(name: str) -> dict[str, Any]:
    if name not in PRESETS:
        Recipe.parse(name)  # raises, and lists the names that there are
    return PRESETS[name].model_dump()


def _passes(fields: Mapping[str, str]) -> list[dict[str, Any]]:
    chosen = []
    for index, method in enumerate(recipe_form().methods):
        if f"use.{method.name}" not in fields:
            continue
        settings: dict[str, Any] = {"method": method.name}
        for control in method.controls:
            if text := fields.get(control.name, "").strip():
                settings[control.name.rpartition(".")[2]] = read(control, text)
        step = _number(fields.get(f"step.{method.name}", "").strip() or str(index + 1))
        chosen.append((step if isinstance(step, int | float) else index + 1, index, settings))
    if not chosen:
        raise InvalidRecipe(
            "a custom recipe needs at least one method",
            hint="tick a method, or choose another preset",
            errors=[{"field": "preset", "message": "no method is ticked"}],
        )
    return [settings for _, _, settings in sorted(chosen, key=lambda entry: entry[:2])]


def _in_form_names(error: InvalidRecipe) -> InvalidRecipe:
    errors = [
        entry | {"field": re.sub(r"^passes\.list\.\d+\.(\w+)\.", r"pass.\1.", entry["field"])}
        for entry in error.errors
    ]
    return InvalidRecipe(error.message, hint=error.hint, code=error.code, errors=errors)


def _set(target: dict[str, Any], path: list[str], value: Any) -> None:  # noqa: ANN401 - JSON
    for part in path[:-1]:
        if not isinstance(target.get(part), dict):
            target[part] = {}
        target = target[part]
    target[path[-1]] = value


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _methods(definitions: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    found = [
        (str(part["properties"]["method"]["const"]), part)
        for part in definitions.values()
        if "const" in part.get("properties", {}).get("method", {})
    ]
    order = list(_mapping(Recipe.model_json_schema()))
    return sorted(found, key=lambda entry: order.index(entry[0]))


def _mapping(schema: Any) -> dict[str, Any]:  # noqa: ANN401 - any part of a JSON schema
    """The discriminator's mapping, wherever it stands: it keeps the registry's order."""
    parts = schema.values() if isinstance(schema, dict) else schema
    if isinstance(schema, dict) and "discriminator" in schema:
        return dict(schema["discriminator"]["mapping"])
    for part in parts:
        if isinstance(part, dict | list) and (found := _mapping(part)):
            return found
    return {}


def _group(
    prefix: str, name: str, part: Mapping[str, Any], definitions: Mapping[str, Any]
) -> Group:
    controls = [
        _control(f"{prefix}.{setting}", _resolve(given, definitions))
        for setting, given in part["properties"].items()
        if setting != "method"
    ]
    return Group(name, label(name), part.get("description", ""), tuple(controls))


def _resolve(given: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """A property with its reference followed, and `| null` or a preset's name taken off."""
    part = dict(given)
    options = [option for option in part.get("anyOf", []) if option.get("type") != "null"]
    options = [option for option in options if "$ref" in option] or options
    if len(options) == 1:
        part = options[0] | {key: part[key] for key in part if key != "anyOf"}
    if "$ref" in part:
        part = definitions[part.pop("$ref").rpartition("/")[2]] | part
    return part


def _control(name: str, part: Mapping[str, Any]) -> Control:
    default = part.get("default")
    if isinstance(default, float):
        default = float(f"{default:.4g}")
    shown = default if isinstance(default, str) else json.dumps(default)
    options = _options(part)
    kinds = {"number": "number", "integer": "number", "string": "text"}
    return Control(
        name=name,
        label=label(name),
        description=part.get("description", ""),
        kind="select" if options else kinds.get(part.get("type", ""), "json"),
        placeholder="" if default in (None, [], {}) else shown,
        options=options,
        minimum=part.get("minimum", part.get("exclusiveMinimum")),
        maximum=part.get("maximum", part.get("exclusiveMaximum")),
    )


def _options(part: Mapping[str, Any]) -> dict[str, Any]:
    if part.get("type") == "boolean":
        return {"true": True, "false": False}
    values = part.get("enum", [part["const"]] if "const" in part else [])
    return {str(value): value for value in values}
