"""The OpenAPI document: valid, with an example for every endpoint, and kept by the server when others read it."""

import base64
import json
import os

import hypothesis
import jsonschema
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

PROMISES = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]


EXAMPLES = int(os.environ.get("FEWPAIR_EXAMPLES", "0"))  # more than a few, and others each time, where somebody asks for them
NOT_JSON = {"image/png", "application/zip"}  # which no example shows


@pytest.fixture(scope="session")
def document(http):
    return http.get("/v1/openapi.json").json()


@pytest.fixture(scope="session")
def api(server):
    refusals = {"expected-statuses": [400, 404, 405, 413, 415, 422, 429, 503]}  # 413, too much at once, is a refusal too
    config = SchemathesisConfig.from_dict({"checks": {"negative_data_rejection": refusals}})
    return schemathesis.openapi.from_url(f"{server.url}/v1/openapi.json", config=config)


OPERATIONS = [
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{name}"),
    ("GET", "/v1/models/{name}/legend"),
    ("POST", "/v1/segment"),
    ("POST", "/v1/synthesize"),
    ("GET", "/v1/jobs"),
    ("POST", "/v1/jobs"),
    ("GET", "/v1/jobs/{id}"),
    ("DELETE", "/v1/jobs/{id}"),
    ("GET", "/v1/jobs/{id}/result"),
    ("POST", "/v1/admin/reload"),
    ("GET", "/v2"),
    ("GET", "/v2/health/live"),
    ("GET", "/v2/health/ready"),
    ("GET", "/v2/models/{name}"),
    ("GET", "/v2/models/{name}/ready"),
    ("POST", "/v2/models/{name}/infer"),
]


def test_these_are_all_the_operations(document):
    assert {(method.upper(), path) for path, methods in document["paths"].items() for method in methods} == set(OPERATIONS)


def test_its_curl_lines_are_of_the_address_that_it_was_asked_by(http, server):
    def lines(**headers):
        told = http.get("/v1/openapi.json", headers=headers).json()["info"]["description"]
        return [line.split("http")[-1] for line in told.splitlines() if line.startswith("    curl")]

    assert len(lines()) == 5
    assert all(line.startswith(server.url.removeprefix("http")) for line in lines())
    assert lines(Host="translate.example.org", **{"X-Forwarded-Proto": "https"})[0] == "s://translate.example.org/segment -o label.png"
    assert lines(Host="a.b'$(reboot)")[0] == "://127.0.0.1:3000/segment -o label.png"


def test_what_needs_the_admin_token_says_so(document):
    locked = {(method.upper(), path) for path, methods in document["paths"].items() for method, of in methods.items() if of.get("security")}
    assert locked == {("GET", "/v1/jobs"), ("POST", "/v1/admin/reload")}
    assert "security" not in document


def test_the_document_is_valid(api):
    api.validate()


def test_every_operation_shows_what_comes_back_and_each_refusal_it_knows(document):
    for path, methods in document["paths"].items():
        for operation in methods.values():
            for status, response in operation["responses"].items():
                told = response["content"].get("application/json", {})
                assert status == "default" or "example" in told or "examples" in told or NOT_JSON & set(response["content"]), (path, status)


def test_every_example_keeps_to_its_schema(document):
    count = 0
    for methods in document["paths"].values():
        for operation in methods.values():
            bodies = [*operation["responses"].values(), *([operation["requestBody"]] if "requestBody" in operation else [])]
            for told in (body["content"].get("application/json", {}) for body in bodies):
                examples = [named["value"] for named in told.get("examples", {}).values()]
                examples += [told["example"]] if "example" in told else []
                for example in examples:
                    jsonschema.validate(example, {**told["schema"], "components": document["components"]})
                    count += 1
    assert count > 20


@pytest.mark.parametrize("path", ["/v1/segment", "/v1/synthesize"])
def test_the_examples_of_requests_can_be_sent_as_they_are(http, document, path):
    content = document["paths"][path]["post"]["requestBody"]["content"]
    for example in content["application/json"]["examples"].values():
        assert http.post(path, json=example["value"]).status_code == 200


def options_of(document, path):
    return {
        named["name"]: named["schema"]["default"] for named in document["paths"][path]["post"]["parameters"] if "default" in named["schema"]
    }


@pytest.mark.parametrize("path", ["/v1/segment", "/v1/synthesize"])
def test_a_json_body_is_one_of_two_named_objects_for_generated_clients_to_make_a_type_of_each(document, path):
    schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema.keys() == {"oneOf"}
    for choice, field in zip(schema["oneOf"], ("image", "images"), strict=True):
        named = document["components"]["schemas"][choice["$ref"].removeprefix("#/components/schemas/")]
        assert (named["type"], named["required"], named["additionalProperties"]) == ("object", [field], False)
        assert not named.keys() & {"oneOf", "anyOf", "allOf"}
        assert set(options_of(document, path)) < set(named["properties"])


@pytest.mark.parametrize("path", ["/v1/segment", "/v1/synthesize"])
def test_who_sends_every_default_too_as_generated_clients_do_is_answered(http, document, path):
    picture = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["examples"]["one"]["value"]["image"]
    options = options_of(document, path)
    assert len(options) >= 3
    assert http.post(path, json={"image": picture, **options}).status_code == 200
    file = {"image": ("one.png", base64.b64decode(picture))}
    assert http.post(path, data={name: json.dumps(value).strip('"') for name, value in options.items()}, files=file).status_code == 200


@pytest.mark.parametrize("operation", ["segment", "synthesize"])
def test_who_sends_every_default_of_a_job_s_form_is_answered(http, document, operation):
    fields = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    defaults = {name: json.dumps(schema["default"]).strip('"') for name, schema in fields.items() if "default" in schema}
    picture = document["paths"]["/v1/segment"]["post"]["requestBody"]["content"]["application/json"]["examples"]["one"]["value"]["image"]
    job = http.post("/v1/jobs", data={"operation": operation, **defaults}, files={"image": ("one.png", base64.b64decode(picture))})
    assert job.status_code == 202, job.text
    http.delete(f"/v1/jobs/{job.json()['id']}")


@pytest.mark.parametrize(
    ("path", "statuses"),
    [
        ("/v1/segment", {"400", "404", "408", "413", "415", "503", "504", "507"}),
        ("/v1/synthesize", {"400", "404", "408", "413", "415", "503", "504", "507"}),
        ("/v1/jobs", {"400", "404", "408", "413", "415", "429", "503", "507"}),
        ("/v1/admin/reload", {"401", "404", "409", "503"}),
        ("/v2/models/{name}/infer", {"400", "404", "408", "413", "415", "503", "504", "507"}),
    ],
)
def test_what_can_be_refused_is_listed_and_503_says_when_to_come_back(document, path, statuses):
    responses = document["paths"][path]["post"]["responses"]
    assert statuses <= responses.keys()
    assert "Retry-After" in responses["503"]["headers"]


def test_the_examples_of_tensors_can_be_sent_as_they_are(http, document):
    content = document["paths"]["/v2/models/{name}/infer"]["post"]["requestBody"]["content"]
    for direction, example in content["application/json"]["examples"].items():
        model = f"tiny.to_{'label' if direction == 'photo' else 'photo'}"
        assert http.post(f"/v2/models/{model}/infer", json=example["value"]).status_code == 200


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_what_is_made_up_from_the_document_is_answered_as_the_document_says(api, method, path):
    call_often(api[path][method].as_strategy(), PROMISES)


@pytest.mark.parametrize("path", ["/v1/segment", "/v1/synthesize"])
def test_what_is_made_up_against_the_document_is_refused_as_the_document_says(api, path):
    made_up = api[path]["POST"].as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE)
    call_often(made_up, [*PROMISES, negative_data_rejection])


def call_often(cases, promises):
    @hypothesis.given(case=cases)
    @hypothesis.settings(
        max_examples=EXAMPLES or 40,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    def call(case):
        case.call_and_validate(checks=promises)

    call()
