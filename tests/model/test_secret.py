"""A secret can be used, and cannot be shown by accident."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, ValidationError

from runbooks.model.secret import Secret

WORD = "hunter2-correct-horse"


class Login(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    secret: Secret
    port: int = 5432


def test_only_reveal_gives_the_text_out() -> None:
    secret = Secret(WORD)
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>40}",
        f"{secret:>10}",
        "%s %r" % (secret, secret),  # noqa: UP031
        repr([secret]),
    ]
    assert all(WORD not in text and "***" in text for text in shown)
    assert secret.reveal() == WORD


def test_there_is_no_attribute_dictionary_to_print() -> None:
    with pytest.raises(TypeError):
        vars(Secret(WORD))
    with pytest.raises(AttributeError):
        Secret(WORD).text = "x"  # type: ignore[attr-defined]


def test_it_cannot_be_pickled_or_written_as_json() -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(Secret(WORD), protocol)
    with pytest.raises(TypeError):
        json.dumps(Secret(WORD))


def test_a_copy_is_the_same_object() -> None:
    secret = Secret(WORD)
    assert copy.copy(secret) is secret
    assert copy.deepcopy([secret])[0] is secret


@given(st.text(st.characters()), st.text(st.characters()))
def test_secrets_are_equal_exactly_when_their_texts_are(one: str, other: str) -> None:
    assert (Secret(one) == Secret(other)) == (one == other)
    assert Secret(one) == Secret(one)
    assert hash(Secret(one)) == hash(Secret(one))
    assert Secret(one) != one


def test_as_a_field_it_is_read_from_text_and_written_as_stars() -> None:
    login = Login.model_validate({"secret": WORD})
    assert login.secret.reveal() == WORD
    assert Login.model_validate_json(json.dumps({"secret": WORD})) == login
    assert Login(secret=login.secret).secret is login.secret
    assert login.model_dump() == {"secret": "***", "port": 5432}
    assert login.model_dump_json() == '{"secret":"***","port":5432}'
    assert WORD not in repr(login) + str(login)
    assert Login.model_json_schema()["properties"]["secret"]["type"] == "string"


def test_a_refused_value_is_not_quoted() -> None:
    with pytest.raises(TypeError, match="a secret is a text") as wrong_kind:
        Login.model_validate({"secret": [WORD]})
    assert WORD not in str(wrong_kind.value)
    with pytest.raises(ValidationError) as other_field:
        Login.model_validate({"secret": WORD, "port": "x"})
    assert WORD not in str(other_field.value)
