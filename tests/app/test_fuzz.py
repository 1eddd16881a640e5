"""Whatever is sent, the answer is a refusal or a record, and nothing is left behind."""

from tests.fuzz.driver import fuzz, left_behind


def test_wrong_requests_are_refused_and_leave_nothing(served, settings, caplog):
    client, _ = served
    figures = fuzz(client.base_url.port, number=600)
    assert figures["wrong"] == []
    assert client.get("/healthz").status_code == 200
    assert not [record for record in caplog.records if record.name.startswith("app.")]
    assert left_behind(settings.data_dir) == []
