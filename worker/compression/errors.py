"""Everything that the library refuses or warns about.

CompressionError
├── InvalidModel          the file is not a model that can be read, checked or run
│   └── UnsupportedFormat recognised by name, and refused with the remedy
├── StatefulModule        a second identical call answers differently
├── MissingInputs         input shapes are needed and were not given
├── InvalidRecipe         settings that make no sense for this model
├── InvalidData           calibration or evaluation data that does not fit the model
│   └── LabelsMismatch    labels that fit no output
└── PassFailed            a method could not be carried out on this model
"""

import re
from collections.abc import Sequence

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class CompressionError(Exception):
    """An error that a user can act on: what was wrong, and what to do about it.

    `code` is stable and listed in docs/errors.md; `hint` is the remedy; `errors` names single
    fields where there are several.
    """

    code = "compression_failed"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        code: str | None = None,
        errors: Sequence[dict[str, str]] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code or type(self).code
        self.errors = list(errors)


class InvalidModel(CompressionError):
    code = "invalid_model"


class UnsupportedFormat(InvalidModel):
    code = "unsupported_format"


class StatefulModule(CompressionError):
    code = "stateful_module"


class MissingInputs(CompressionError):
    code = "missing_inputs"


class InvalidRecipe(CompressionError):
    code = "invalid_recipe"


class InvalidData(CompressionError):
    code = "invalid_data"


class LabelsMismatch(InvalidData):
    code = "labels_mismatch"


class PassFailed(CompressionError):
    code = "pass_failed"


class CompressionWarning(UserWarning):
    """Something the user should know: issued with `warnings.warn`, listed by the report.

    The pipeline records the warnings of a pass, so a pass needs no channel of its own.
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


def first_line(error: BaseException, *, limit: int = 300) -> str:
    """The first line of an error of a third party, cut short: enough to act on, no dump."""
    lines = str(error).strip().splitlines()
    # Where an object lies in memory is nobody's business.
    return _ADDRESS.sub("", lines[0])[:limit] if lines else type(error).__name__
