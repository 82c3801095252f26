"""What is wrong with an endpoint is said without its password, and with answers that cannot be read as well."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mmretrieve.errors import EndpointError
from mmretrieve.language.llm.client import ModelRequestError, yes_logit
from mmretrieve.language.llm.endpoint import ChatEndpoint, ChatRequest, Instructions


def completion(logprobs: Any) -> str:
    choice = {"message": {"content": "yes"}, "logprobs": {"content": [{"top_logprobs": logprobs}]}}
    return json.dumps({"choices": [choice]})


def test_a_password_in_an_address_is_not_shown() -> None:
    endpoint = ChatEndpoint("m", "http://user:s3cret@127.0.0.1:9/v1", retries=0, timeout=2)
    assert "s3cret" not in repr(endpoint)
    assert endpoint.shown_address == "http://127.0.0.1:9/v1"
    with pytest.raises(EndpointError) as caught:
        endpoint.complete(Instructions("task", "Do this."), [ChatRequest({"prompt": "x"})])
    assert "http://127.0.0.1:9/v1 (m)" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_an_impossible_token_counts_little() -> None:
    body = completion([{"token": "yes", "logprob": -0.1}, {"token": "no", "logprob": -9999.0}])
    assert float(yes_logit(body)) == pytest.approx(99.9)


@pytest.mark.parametrize("logprobs", [[{"logprob": -1}], [{"token": "yes"}], [{"token": "yes", "logprob": "x"}], ["yes"], 3])
def test_log_probabilities_that_cannot_be_read_are_one_line(logprobs: Any) -> None:
    with pytest.raises(ModelRequestError, match="log-probabilities that cannot be read"):
        yes_logit(completion(logprobs))
