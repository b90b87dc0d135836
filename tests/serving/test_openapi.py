"""The OpenAPI document: valid, complete, and kept by the server."""

import json
import os

import hypothesis
import numpy as np
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

from tests.serving.pictures import file_of

PROMISES = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]


EXAMPLES = int(
    os.environ.get("FEWPAIR_EXAMPLES", "0")
)  # more than a few, and others each time, where somebody asks for them


@pytest.fixture(scope="module")
def document(http):
    return http.get("/v1/openapi.json").json()


@pytest.fixture(scope="session")
def api(server):
    refusals = {
        "expected-statuses": [400, 404, 405, 413, 415, 422, 429, 503]
    }  # 413, too much at once, is a refusal too
    config = SchemathesisConfig.from_dict({"checks": {"negative_data_rejection": refusals}})
    return schemathesis.openapi.from_url(f"{server.url}/v1/openapi.json", config=config)


OPERATIONS = [
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{name}"),
    ("GET", "/v1/models/{name}/pairs"),
    ("GET", "/v1/models/{name}/examples/{file}"),
    ("POST", "/v1/segment"),
    ("POST", "/v1/synthesize"),
    ("POST", "/v1/style"),
    ("POST", "/v1/rank"),
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
    ("GET", "/label-studio/health"),
    ("POST", "/label-studio/setup"),
    ("POST", "/label-studio/predict"),
]


def test_these_are_all_the_operations(document):
    assert {(method.upper(), path) for path, methods in document["paths"].items() for method in methods} == set(
        OPERATIONS
    )


def test_the_document_is_valid(api):
    api.validate()


def options_of(document, path):
    return {
        named["name"]: named["schema"]["default"]
        for named in document["paths"][path]["post"]["parameters"]
        if named["schema"].get("default") is not None
    }


@pytest.mark.parametrize("path", ["/v1/segment", "/v1/synthesize"])
def test_a_request_with_every_default_is_answered_as_generated_clients_send_it(http, document, path):
    picture = file_of(np.zeros((2, 2), np.uint8))
    options = options_of(document, path)
    assert len(options) >= 3
    fields = {name: json.dumps(value).strip('"') for name, value in options.items()}
    assert http.post(path, data=fields, files={"image": ("one.png", picture)}).status_code == 200


@pytest.mark.parametrize("job", ["SegmentJob", "SynthesizeJob"])
def test_a_job_with_every_default_is_taken(http, document, job):
    schema = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert {"$ref": f"#/components/schemas/{job}"} in schema["oneOf"]
    fields = document["components"]["schemas"][job]["properties"]
    sent = {name: json.dumps(field["default"]).strip('"') for name, field in fields.items() if field.get("default")}
    picture = file_of(np.zeros((2, 2), np.uint8))
    operation = fields["operation"]["const"]
    taken = http.post("/v1/jobs", data={"operation": operation, **sent}, files={"image": ("one.png", picture)})
    assert taken.status_code == 202, taken.text
    http.delete(f"/v1/jobs/{taken.json()['id']}")


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
        max_examples=EXAMPLES or 25,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    def call(case):
        case.call_and_validate(checks=promises)

    call()
