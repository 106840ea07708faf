"""The base of all option sections. A section gives each key's type, default and meaning in one place.

A section is a frozen pydantic model. A key that is left out, or has no value, has its default.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Strict,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema
from typing_extensions import Self

from dfpg_plugin.checks import UserError, check_keys

MOST_SEED = 4_000_000_000  # NumPy takes seeds below 2**32, and each process adds its rank
SECTION = "options as `key: value`"  # a section, in words


@dataclass(frozen=True)
class Expected:
    """The values that a key takes, in words. A whole number may be written like a fraction: ``2.0`` or ``1e3``."""

    text: str

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return pydantic's check of the type, with an error that says :attr:`text`."""

        def check(value: object, of_type: core_schema.ValidatorFunctionWrapHandler) -> object:
            if int in _types_in(source):
                value = as_whole_number(value)
            try:
                return of_type(value)
            except ValidationError as error:
                raise _mistake(self.text) from error

        return core_schema.no_info_wrap_validator_function(check, handler(source))


YesOrNo = Annotated[bool, Strict(), Expected("true or false")]
Text = Annotated[str, Strict(), Expected("text")]
Texts = Annotated[list[str], Strict(), Expected("a list of names")]
Number = Annotated[float, Strict(), Expected("a number")]
Positive = Annotated[float, Strict(), Gt(0), Expected("a number above 0")]
NotNegative = Annotated[float, Strict(), Ge(0), Expected("a number from 0")]
Share = Annotated[float, Strict(), Ge(0), Le(1), Expected("a number from 0 to 1")]
Whole = Annotated[int, Strict(), Expected("a whole number")]
From0 = Annotated[int, Strict(), Ge(0), Expected("a whole number from 0")]
From1 = Annotated[int, Strict(), Ge(1), Expected("a whole number from 1")]
Seed = Annotated[int, Strict(), Ge(0), Le(MOST_SEED), Expected(f"a whole number from 0 to {MOST_SEED}")]
Precision = Annotated[Literal["bfloat16", "float16"], Expected("bfloat16 or float16")]


def as_whole_number(value: object) -> object:
    """Return a float without a fraction as an int, and anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def Key(  # noqa: N802 reads like pydantic's Field
    default: Any,  # noqa: ANN401 as pydantic's
    meaning: str,
    read_by: tuple[str, ...] | None = None,
) -> Any:  # noqa: ANN401
    """Describe a key of a section. A key with ``...`` as its default has to be given.

    ``read_by``: the classes that read the key, by name. Their subclasses read the key, too. None: BasicSR or this
    package reads the key, whatever the component. An empty tuple: only a component's source tells whether it reads the
    key.
    """
    extra: dict[str, Any] = {"read_by": None if read_by is None else list(read_by)}
    return Field(default, description=meaning, json_schema_extra=extra)


class Section(BaseModel):
    """Options as ``key: value``."""

    model_config = ConfigDict(frozen=True, extra="allow")

    # form of keys such as optim_*, where * stands for any text: (type, meaning)
    FORMS: ClassVar[Mapping[str, tuple[Any, str]]] = {}

    @classmethod
    def read(cls, where: str, given: object, only_these: bool = False) -> Self:
        """Return ``given`` as a section. Raises UserError, beginning with ``where``, for the first mistake.

        ``only_these``: whether a key that the section does not define is a mistake.
        """
        if only_these and isinstance(given, Mapping):
            check_keys(where, given, cls.model_fields)
        try:
            return cls.model_validate({} if given is None else given)
        except ValidationError as error:
            raise UserError(f"{where}: {next(mistakes_in(error))}") from error

    @classmethod
    def kind_of(cls, key: str) -> object:
        """Return the type of a key, or None if the section does not define the key."""
        if key in cls.model_fields:
            return cls.model_fields[key].annotation
        return next((kind for form, (kind, _) in cls.FORMS.items() if fnmatchcase(key, form)), None)

    @classmethod
    def known_to(cls, component: type | None) -> set[str]:
        """Return the keys of this section that ``component`` reads, as far as ``read_by`` in :func:`Key` tells.

        ``component``: a class. For None, return the keys that are read whatever the component.
        """
        bases = {base.__name__ for base in getattr(component, "__mro__", ())}
        readers = {key: readers_of(field) for key, field in cls.model_fields.items()}
        return {key for key, classes in readers.items() if classes is None or bases & set(classes)}

    @model_validator(mode="wrap")
    @classmethod
    def _check_all(cls, given: object, of_fields: core_schema.ValidatorFunctionWrapHandler) -> Self:
        """Leave out keys without a value. Check the fields, and the keys that :attr:`FORMS` describe."""
        if isinstance(given, cls):
            return given
        if not isinstance(given, Mapping):
            raise _mistake(SECTION)
        values = {str(key): value for key, value in given.items() if value is not None}
        problems: list[InitErrorDetails] = []
        for key, value in values.items():
            kind = cls.kind_of(key)
            if is_by_name(kind) and isinstance(value, Mapping):
                # as text, since YAML reads a name such as 1 as a number
                values[key] = {str(name): part for name, part in value.items()}
            if key not in cls.model_fields and kind is not None:
                try:
                    values[key] = _adapter(kind).validate_python(values[key])
                except ValidationError as error:
                    problems += _details(error, key)
        try:
            section = of_fields(values)
        except ValidationError as error:
            problems = [*_details(error), *problems]
        if problems:
            raise ValidationError.from_exception_data(cls.__name__, problems)
        return section

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict:
        """Return pydantic's JSON schema with the keys of :attr:`FORMS` as patterns. Every key may have no value."""
        described = handler.resolve_ref_schema(handler(schema))
        keys = described.get("properties", {})
        for name, key in keys.items():
            key.pop("read_by", None)
            keys[name] = _or_null(key)
        for form, (kind, meaning) in cls.FORMS.items():
            key = {**handler(_adapter(kind).core_schema), "description": meaning}
            described.setdefault("patternProperties", {})[f"^{form.replace('*', '.+')}$"] = _or_null(key)
        return described


def _or_null(schema: dict) -> dict:
    """Return a JSON schema that takes the same values, and null."""
    notes = {name: schema[name] for name in ("default", "description", "title") if name in schema}
    rest = {name: part for name, part in schema.items() if name not in notes}
    return {**notes, "anyOf": [rest, {"type": "null"}]}


def mistakes_in(error: ValidationError, *above: str) -> Iterator[str]:
    """Yield a line for each mistake, such as "train:optim_g:lr: expected a number above 0, got -1.".

    ``above``: the key path of the section that was checked, such as ``"train", "optim_g"``.
    """
    for problem in error.errors(include_url=False):
        where = ":".join(map(str, (*above, *problem["loc"])))
        cause = problem.get("ctx", {}).get("error")
        if isinstance(cause, UserError):
            text = str(cause)
        elif problem["type"] == "missing":
            text = "is missing."
        else:
            text = f"expected {_in_words(problem)}, got {problem['input']!r}."
        yield f"{where}: {text}" if where else text


def whole_numbers(section: type[Section], values: Mapping, prefix: str = "") -> Iterator[tuple[str, dict, str, int]]:
    """Yield (key path, options, key, whole number) for each whole number that is written like a fraction.

    ``options`` is the dictionary that holds the key. Example: ("val:val_freq", {"val_freq": 1e3}, "val_freq", 1000).
    """
    for key, value in values.items():
        kind = section.kind_of(str(key))
        inner = inner_section(kind)
        if inner is not None and isinstance(value, dict):
            sections = value if is_by_name(kind) else {"": value}
            for name, options in sections.items():
                if isinstance(options, dict):
                    path = f"{prefix}{key}:{name}:" if name else f"{prefix}{key}:"
                    yield from whole_numbers(inner, options, path)
        elif isinstance(value, float) and value.is_integer() and int in _types_in(kind):
            yield f"{prefix}{key}", values, str(key), int(value)  # type: ignore[misc]


def is_by_name(kind: object) -> bool:
    """Tell whether a key holds a mapping of names to sections or values."""
    return get_origin(kind) is dict or any(get_origin(part) is dict for part in get_args(kind))


def inner_section(kind: object) -> type[Section] | None:
    """Return the class of the section that a key holds, alone or by names, or None if the key holds no section."""
    for part in _types_in(kind):
        if isinstance(part, type) and issubclass(part, Section):
            return part
    return None


def _types_in(kind: object) -> set:
    """Return the innermost parts of a type, such as {int, NoneType} of ``int | None``."""
    parts = get_args(kind)
    return {kind} if not parts else set().union(*map(_types_in, parts))


def readers_of(field: FieldInfo) -> list[str] | None:
    """Return ``read_by`` of a key: see :func:`Key`."""
    extra = field.json_schema_extra
    return extra["read_by"] if isinstance(extra, dict) else None  # type: ignore[return-value]


def _in_words(problem: Mapping) -> str:
    return SECTION if problem["type"] in ("dict_type", "model_type") else str(problem["msg"])


def _mistake(expected: str) -> PydanticCustomError:
    return PydanticCustomError("expected", "{text}", {"text": expected})


def _details(error: ValidationError, *above: str) -> list[InitErrorDetails]:
    """Return the mistakes of a validation, each with the keys ``above`` before its own, to raise them again."""
    details = []
    for problem in error.errors(include_url=False):
        kind: str | PydanticCustomError = problem["type"]
        if kind == "value_error":
            kind = PydanticCustomError("value_error", "{error}", problem["ctx"])
        elif kind != "missing":
            kind = _mistake(_in_words(problem))
        details.append(InitErrorDetails(type=kind, loc=(*above, *problem["loc"]), input=problem["input"]))
    return details


@cache
def _adapter(kind: Any) -> TypeAdapter:  # noqa: ANN401 any type
    return TypeAdapter(kind)
