"""Settings as plain dicts: read and checked, compared, and hashed into a run's id.

Standard library only.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import typing

from core.config.settings import PROTOCOL_VERSION, Bounds, Config, replace

MAX_LIST_LENGTH, MAX_TEXT_LENGTH = 1_000, 200  # of a setting
_type_hints = functools.cache(typing.get_type_hints)  # slow, and asked for with every run


def to_dict(config) -> dict:
    """A config as nested plain dicts and lists, ready for json."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(cls, data: dict, section: str = ""):
    """Dataclass `cls` from nested plain dicts, the inverse of `to_dict`.

    Raises ValueError that names an unknown setting, or a value that its setting does not allow.
    """
    hints, where = _type_hints(cls), section or cls.__name__
    if not isinstance(data, dict):
        raise ValueError(f"{where} must hold settings, not {str(data)[:40]!r}")
    unknown = set(data) - set(hints)
    if unknown:
        raise ValueError(f"{where} has no setting {sorted(unknown)}; it knows {sorted(hints)}")
    bounds = {f.name: f.metadata.get("bounds") for f in dataclasses.fields(cls)}
    names = {k: f"{section}.{k}" if section else k for k in data}
    return cls(**{k: _parse_value(hints[k], v, names[k], bounds[k]) for k, v in data.items()})


def check_settings(config: Config) -> None:
    """Raise ValueError that names a setting whose value is not allowed, such as gan.steps = 0."""
    from_dict(Config, to_dict(config))


def _parse_value(hint, value, where: str, bounds: Bounds | None = None):
    """A setting's value as its type; raises ValueError for another kind or size of value."""
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    shown = str(value)[:40]
    if origin is tuple:
        fixed = None if arguments[-1] is Ellipsis else len(arguments)
        is_list = isinstance(value, list | tuple) and len(value) <= MAX_LIST_LENGTH
        if is_list and fixed in (None, len(value)):
            return tuple(_parse_value(arguments[0], v, where, bounds) for v in value)
    elif origin is typing.Literal:
        if value in arguments:
            return value
        raise ValueError(f"{where} is {shown!r}; it must be one of {arguments}")
    elif hint is bool or hint is str:
        if isinstance(value, hint) and len(str(value)) <= MAX_TEXT_LENGTH:
            return value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        low, high = bounds or (-math.inf, math.inf)
        if not low <= value <= high:  # NaN, too
            raise ValueError(
                f"{where} is {shown}; it must lie between {low:,.10g} and {high:,.10g}"
            )
        if hint is float or int(value) == value:
            return hint(value)
    kinds = {int: "whole number", float: "number", str: "short text", bool: "true or false"}
    raise ValueError(f"{where} is {shown!r}; it must be a {kinds.get(hint, 'short list')}")


def config_hash(config: Config, corpus_digest: str) -> str:
    """8 hex digits of SHA-256 over the config without its name, corpus digest, protocol version.

    Only settings that differ from their defaults are hashed, so that a new setting does not rename
    old runs. In turn, a changed default raises PROTOCOL_VERSION (a test holds the defaults), and a
    change of the code that reaches few settings alone is one of `revisions`.
    """
    settings, defaults = (to_dict(replace(c, name="")) for c in (config, Config()))
    relevant = changed_settings(settings, defaults)
    payload = [relevant, corpus_digest, PROTOCOL_VERSION, *revisions(config)]
    return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()[:8]


def revisions(config: Config) -> list[str]:
    """Networks that this config gives since they were changed; they are part of its run's id."""
    g = config.gan
    changed = {
        "EncDec without source has no encoder": g.generator == "encdec" and not g.use_source,
        "wide classifiers and U-Net": g.width == "paper",
    }
    return [name for name, is_in in changed.items() if is_in]


def changed_settings(a: dict, b: dict) -> dict:
    """Entries of `a` that differ from those of `b`, both nested plain dicts of the same keys."""
    return {
        k: changed_settings(v, b[k]) if isinstance(v, dict) else v
        for k, v in a.items()
        if v != b[k]
    }


def apply_changes(base: Config, start: Config, changed: Config) -> Config:
    """`base` with the settings in which `changed` differs from `start`."""

    def merge(settings: dict, changes: dict) -> dict:
        parts = {k: merge(settings[k], v) if isinstance(v, dict) else v for k, v in changes.items()}
        return settings | parts

    changes = changed_settings(to_dict(changed), to_dict(start))
    return from_dict(Config, merge(to_dict(base), changes))


def family_hash(config: Config) -> str:
    """Hash of all but name and condition; runs that share it are siblings, shown together."""
    neutral = replace(config, name="", gan={"condition": "none"})
    return hashlib.sha256(json.dumps(to_dict(neutral), sort_keys=True).encode()).hexdigest()[:8]


def run_name(config: Config, corpus_digest: str) -> str:
    """Directory name of a run: `<name>-<condition>-<8 hex>`; a listening run says so."""
    is_said = "listening" in config.name or not config.data.listening
    name = config.name if is_said else f"{config.name}-listening"
    return f"{name}-{config.gan.condition}-{config_hash(config, corpus_digest)}"
