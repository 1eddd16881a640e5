"""The arguments of `forward`, and what the user said about them in `inputs`."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from worker.compression import InvalidData, InvalidModel, InvalidRecipe, MissingInputs

DType = Literal[
    "float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool"
]
Value = bool | int | float | str | None | list[bool | int | float | str]
Kind = Literal["tensor", "value", "other"]

_WIDEST_BYTES = 8  # of one value
_WRAP = "wrap the model in a module whose forward takes tensors, and trace or script that"
_SCALARS = ("int", "float", "bool", "str")
_EXAMPLES = {"int": 1, "float": 1.0, "bool": True, "str": "text"}


class Given(BaseModel):
    """What `inputs` may say about one argument."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    shape: list[int] | None = Field(
        default=None, max_length=16, description="Sizes of the axes."
    )
    dtype: DType | None = Field(default=None, description="NumPy type; float32 if absent.")
    value: Value = Field(default=None, description="A constant for this argument.")
    from_output: str | None = Field(default=None, description="The output that feeds it next.")
    initial: str | None = Field(default=None, description="What a sequence begins with.")


@dataclass(frozen=True)
class Argument:
    """One argument of `forward`: its name, its TorchScript type, and how it can be given."""

    name: str
    type: str
    kind: Kind
    has_default: bool

    @property
    def optional(self) -> bool:
        return self.has_default or self.type.startswith("Optional[")


@dataclass(frozen=True)
class Plan:
    """Which arguments become inputs, and with what constants the others are called."""

    arguments: tuple[Argument, ...]
    tensors: tuple[str, ...]
    constants: Mapping[str, Value]
    given: Mapping[str, Given]


def arguments(module: Any) -> tuple[Argument, ...]:  # noqa: ANN401 - torch is not imported here
    """The arguments of a ScriptModule's `forward`, without self.

    Raises:
        InvalidModel: there is no forward, or it takes nothing.
    """
    try:
        listed = module.forward.schema.arguments[1:]
    except (AttributeError, RuntimeError) as error:
        raise InvalidModel(
            "the module has no forward method",
            hint="script or trace the whole model, so that calling it gives the outputs",
            code="no_forward",
        ) from error
    found = tuple(
        Argument(item.name, str(item.type), _kind(str(item.type)), item.has_default_value())
        for item in listed
    )
    if not any(argument.kind == "tensor" for argument in found):
        takes = ", ".join(f"{argument.name}: {argument.type}" for argument in found)
        raise InvalidModel(
            f"forward takes no tensor, but ({takes})",
            hint=_WRAP,
            code="unsupported_input",
        )
    return found


def _kind(type_name: str) -> Kind:
    inner = type_name.removeprefix("Optional[").removesuffix("]")
    if inner == "Tensor":
        return "tensor"
    if inner.startswith("List["):
        inner = type_name.replace("Optional[", "").replace("List[", "").rstrip("]")
    return "value" if inner in _SCALARS or inner == "number" else "other"


def parse(inputs: Mapping[str, Any] | None, names: Sequence[str]) -> dict[str, Given]:
    """Read the `inputs` object.

    Raises:
        InvalidRecipe: `invalid_inputs`, naming the key that is wrong.
    """
    parsed: dict[str, Given] = {}
    for name, entry in (inputs or {}).items():
        if name not in names:
            _refuse(f"forward has no argument {name!r}; its arguments are {', '.join(names)}")
        try:
            parsed[name] = Given.model_validate(entry)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in (name, *first["loc"][:1]))
            _refuse(f"{where}: {first['msg']}")
        if any(size < 1 for size in parsed[name].shape or []):
            _refuse(f"{name}.shape: every size must be 1 or more")
        if math.prod(parsed[name].shape or []) * _WIDEST_BYTES > sys.maxsize:
            _refuse(f"{name}.shape: that is more than can be addressed")
    return parsed


def plan(
    found: tuple[Argument, ...], given: Mapping[str, Given], names: Sequence[str] | None
) -> Plan:
    """Decide for every argument; `names` are those in the data, None where there is no data.

    Raises:
        InvalidData: the data's names and forward's differ.
        InvalidModel: an argument that is neither a tensor nor a plain value.
        InvalidRecipe: a value for a tensor, or a shape for a value.
    """
    _check_names(found, given, names)
    tensors: list[str] = []
    constants: dict[str, Value] = {}
    for argument in found:
        said = given.get(argument.name)
        if argument.kind == "other":
            _check_left_out(argument)
        elif argument.kind == "tensor":
            if said is not None and "value" in said.model_fields_set:
                _refuse(f"{argument.name} is a tensor: give its shape and dtype, not a value")
            if said is not None or not argument.optional or argument.name in (names or ()):
                tensors.append(argument.name)
        elif said is not None:
            _check_value(argument, said)
            constants[argument.name] = said.value
    return Plan(found, tuple(tensors), constants, dict(given))


def _check_names(
    found: tuple[Argument, ...], given: Mapping[str, Given], names: Sequence[str] | None
) -> None:
    if names is None:
        return
    known = {argument.name for argument in found}
    needed = {
        argument.name
        for argument in found
        if argument.kind == "tensor" and not argument.optional and argument.name not in given
    }
    unknown = [name for name in names if name not in known]
    if unknown or needed - set(names):
        takes = ", ".join(f"{argument.name}: {argument.type}" for argument in found)
        raise InvalidData(
            f"the data holds {', '.join(names) or 'nothing'}, but forward takes ({takes})",
            hint="name the arrays in the data as forward's arguments are named",
            code="input_names_differ",
        )


def _check_left_out(argument: Argument) -> None:
    if not argument.optional:
        raise InvalidModel(
            f"forward's argument {argument.name} is a {argument.type}; "
            "only tensors and plain values can become inputs",
            hint=_WRAP,
            code="unsupported_input",
        )


def _check_value(argument: Argument, said: Given) -> None:
    if "value" not in said.model_fields_set:
        _refuse(f'{argument.name} is a {argument.type}: give {{"value": ...}}, not a shape')
    if not _fits(said.value, argument.type):
        _refuse(f"{argument.name} is a {argument.type}; {said.value!r} is not")


def _fits(value: Value, type_name: str) -> bool:
    if type_name.startswith("Optional["):
        return value is None or _fits(value, type_name[len("Optional[") : -1])
    if type_name.startswith("List["):
        inner = type_name[len("List[") : -1]
        return isinstance(value, list) and all(_fits(item, inner) for item in value)
    match type_name:
        case "bool":
            return isinstance(value, bool)
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "float" | "number":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case _:
            return isinstance(value, str) and value.isprintable() and len(value) <= 1_000


def check_known(
    planned: Plan, shapes: Mapping[str, Sequence[int]], *, guess: Mapping[str, Any]
) -> None:
    """Refuse where an input's shape, or a value without default, is not known.

    `guess` is what an example of the inputs may look like.

    Raises:
        MissingInputs: the message shows the JSON to send.
    """
    missing = [name for name in planned.tensors if name not in shapes]
    missing += [
        argument.name
        for argument in planned.arguments
        if argument.kind == "value"
        and not argument.optional
        and argument.name not in planned.constants
    ]
    if not missing:
        return
    example = json.dumps({**_said(planned), **{name: guess[name] for name in missing}})
    data = f"send calibration data, an .npz whose keys are {', '.join(planned.tensors)}: " \
        "shapes are taken from it"  # fmt: skip
    only_values = not set(missing) & set(planned.tensors)
    raise MissingInputs(
        f"TorchScript does not say what {', '.join(missing)} should be; send `inputs` with "
        f"your own sizes and values, such as {example}",
        hint="put the values into `inputs` as shown" if only_values else f"or {data}",
    )


def _said(planned: Plan) -> dict[str, Any]:
    return {name: said.model_dump(exclude_unset=True) for name, said in planned.given.items()}


def example_of(argument: Argument) -> dict[str, Any]:
    """What `inputs` may say of an argument that is a plain value."""
    inner = argument.type.replace("Optional[", "").replace("List[", "").rstrip("]")
    example: Any = _EXAMPLES.get(inner, 1)
    return {"value": [example] if "List[" in argument.type else example}


def _refuse(message: str) -> NoReturn:
    raise InvalidRecipe(
        f"inputs: {message}",
        hint='inputs is like {"x": {"shape": [1, 3, 224, 224], "dtype": "float32"}, '
        '"rate": {"value": 16000}}',
        code="invalid_inputs",
    )
