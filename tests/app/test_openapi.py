"""The OpenAPI document is true: what it allows is accepted, what it forbids is refused."""

from tests.openapi.driver import requests


def test_requests_made_from_the_document_are_answered_as_it_says(served):
    client, services = served
    figures = requests(client, services, examples=5)
    assert (figures["exit"], figures["failures"]) == (0, 0), figures["said"]
    assert figures["cases"] > 300
    assert len(figures["never_2xx"]) <= 1, figures["never_2xx"]
